import time

import pytest
import torch

from lightning_sal.rewards import AnswerMatch, Response
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import TASKS
from lightning_sal.tasks.matching import matches

LINES = "What is it?\nA. a cat\nB. a dog\nC. the red bus\nAnswer with the option's letter."
INLINE = "What is it? (A) a cat, (B) a dog or (C) the red bus?"


@pytest.mark.parametrize(
    ("answer", "reference", "question", "right"),
    [
        # words: case, articles, punctuation, white space
        ("A Cup.", "the cup", "", True),
        ("  on \n the\ttable ", "On the table!", "", True),
        ("t-shirt", "T shirt", "", True),
        ("The answer is: a cup.", "cup", "", True),
        ("dog's bowl", "dogs bowl", "", True),
        ("caf\u00e9", "cafe\u0301", "", True),
        ("a blue cup", "a cup", "", False),
        ("cups", "cup", "", False),
        ("not a cup", "a cup", "", False),
        ("C++", "C", "", False),
        ("a", "the", "", False),
        ("A", "A", "", True),
        ("yes", "no", "", False),
        ("answer", "answer", "", True),
        ("the answer is", "answer", "", False),
        # numbers
        ("3", "three", "", True),
        ("Three.", "3", "", True),
        ("3.0", "3", "", True),
        ("1,000", "1000", "", True),
        ("$5", "5", "", True),
        ("50%", "50", "", True),
        ("two dogs", "2 dogs", "", True),
        ("-3", "3", "", False),
        ("\u22123", "-3", "", True),
        (".5", "0.5", "", True),
        ("1e3", "1000", "", True),
        ("3.14", "314", "", False),
        ("1.5", "15", "", False),
        ("1.5 cm", "15 cm", "", False),
        ("10", "100", "", False),
        ("1,2", "12", "", False),
        ("3 or 4", "3", "", False),
        ("nan", "nan", "", True),
        ("inf", "1e999", "", False),
        ("1e999", "1e999", "", True),
        # multiple choice
        ("B", "B", LINES, True),
        ("b", "B", LINES, True),
        ("(B)", "B. a dog", LINES, True),
        ("B. a dog", "(B)", LINES, True),
        ("B) the dog", "B", LINES, True),
        ("a dog", "B", LINES, True),
        ("The correct answer is B.", "B", LINES, True),
        ("Option B", "B", LINES, True),
        ("C", "the red bus", LINES, True),
        ("red bus", "C", LINES, True),
        ("a dog", "B", INLINE, True),
        ("red bus", "C", INLINE, True),
        ("A", "B", LINES, False),
        ("a cat", "B", LINES, False),
        ("B. a cat", "B", LINES, False),
        ("A. a dog", "B", LINES, False),
        ("A or B", "B", LINES, False),
        ("D", "B", LINES, False),
        ("a bus", "C", LINES, False),
        ("a dog", "B. a dog", "What is it?", True),
        ("B", "B. a dog", "What is it?", True),
        ("B. a cat", "B. a dog", "What is it?", False),
        ("B. a dog", "B", "What is it?", True),
        ("a dog", "B", "What is it?", False),
        ("I", "I", "Which letter is on the sign?", True),
        ("a", "B", "Which letter is on the sign?", False),
        # hostile
        ("", "", "", True),
        ("", "a cup", "", False),
        ("?", "!", "", False),
        ("\ud800", "\ud800", "", True),
        ("\x00cup\x00", "cup", "", False),
        ("9" * 5000, "9" * 4999, "", False),
        ("(" * 9, "B", LINES, False),
    ],
)
def test_answers_by_hand(answer, reference, question, right):
    assert matches(answer, reference, question) is right


@pytest.mark.parametrize(
    ("answer", "reference", "tolerance", "right"),
    [
        ("95", "100", 0.05, True),
        ("94.9", "100", 0.05, False),
        ("105", "100", 0.05, True),
        ("-95", "-100", 0.05, True),
        ("0.01", "0", 0.05, False),
        ("0", "0", 0.05, True),
        ("1,050", "1000", 0.05, True),
        ("2 dogs", "3 dogs", 0.5, False),
    ],
)
def test_numbers_may_be_off_by_a_part_of_the_reference(answer, reference, tolerance, right):
    assert matches(answer, reference, tolerance=tolerance) is right


@pytest.mark.parametrize("piece", ["a ", "(A) ", "A. ", "1,", "9", ".", "\n", "the answer is ", "'", "\u0301", " or"])
def test_time_is_linear_in_the_texts(piece):
    def seconds(count: int) -> float:
        start, text = time.perf_counter(), piece * count
        matches(text, "B", text)
        matches("B", text, text)
        return time.perf_counter() - start

    short, long = min(seconds(500) for _ in range(3)), min(seconds(5_000) for _ in range(3))
    assert long < 60 * short + 0.05  # 10 times as long: quadratic time would take 100 times


def response(text: str, reference: str | None = "a cup", task: str = "vqa", question: str = "What?") -> Response:
    group = ImageGroup("s-1", task, (torch.zeros(2, 2, 3, dtype=torch.uint8),), question=question, reference=reference)
    return Response(group, text, TASKS[task].parse(text))


def test_the_term_gives_1_or_0_and_says_why():
    term = AnswerMatch()
    scores = term([response("<think>t</think>The cup."), response("<think>t</think>a bowl"), response("a cup")])
    assert scores.values.tolist() == [1, 0, 0]
    assert scores.reasons[0] is None
    assert scores.reasons[1] == "'a bowl' is not 'a cup'"
    assert scores.reasons[2] == TASKS["vqa"].parse("a cup").reason
    assert (term.name, term.bounds) == ("answer", (0, 1))
    near = [response("<think>t</think>98", "100")]
    assert (AnswerMatch()(near).values.tolist(), AnswerMatch(tolerance=0.05)(near).values.tolist()) == ([0], [1])


def test_the_term_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="s-1: vqa needs reference"):
        AnswerMatch()([response("<think>t</think>a cup", reference=None)])
    with pytest.raises(ValueError, match="compares answers in free words, and sod has none"):
        AnswerMatch()([response("<think>t</think>a cup", task="sod")])
    with pytest.raises(ValueError, match="tolerance -1"):
        AnswerMatch(tolerance=-1)
