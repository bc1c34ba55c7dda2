from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_sal.annotation.answers import canonical
from lightning_sal.annotation.wording import Forbidden, Wording
from lightning_sal.tasks import SOD, TASKS, TagRegions, Task

TITLES = ("Scene", "Analysis", "Final Conclusion")
STEPS = "Scene: a field.\nAnalysis: a red barn against green.\nFinal Conclusion: the barn."
ANSWER = "<answer><rg>the red barn</rg></answer>"
WANTED = f"<think>{STEPS}</think>{ANSWER}"


def read(text: str, task: str = "sod", **options) -> str:
    return canonical(text, TASKS[task], **{"titles": TITLES, **options})


@pytest.mark.parametrize(
    "text",
    [
        WANTED,
        f"\n<think>\n{STEPS}\n</think>\n\n<answer>\n  <rg>the  red barn.</rg>\n</answer>\n",
        f"```xml\n{WANTED}\n```",
        f"Sure, here it is:\n\n{WANTED}\n\nDo you want another one?",
        f"{STEPS}\n{ANSWER}",
        f"{STEPS}</think>{ANSWER}",
        f"<think>They want <answer><rg>x</rg></answer>. Scene: green.</think>\n<think>{STEPS}</think>{ANSWER}",
        f"<think>Let me look at it.</think>{STEPS}\n\n{ANSWER}",
        f"<THINK>{STEPS}</THINK>< answer ><RG>the red barn</RG></ Answer>",
        "<think>**Scene:** a field.\n**Analysis**: a red barn against green.\n### 3. Final Conclusion\nthe barn.</think>"
        + ANSWER,
        "<think>Step 1: Scene: a field.\n2. Analysis\na `red` barn\nagainst green.\nfinal conclusion: the **barn**.</think>"
        + ANSWER,
        "<think>Scene: a field. Analysis: a red barn against green. Final Conclusion: the barn.</think>" + ANSWER,
    ],
)
def test_what_can_mean_one_thing_is_mended(text):
    assert read(text) == WANTED
    assert TASKS["sod"].format_reward(WANTED) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no <answer> block"),
        ("I'm sorry, I cannot help with that.", "no <answer> block"),
        ('{"think": "Scene', "no <answer> block"),
        (f"<think>{STEPS} {ANSWER}</think>", "no <answer> block behind the reasoning"),
        (f"<think>{STEPS}</think>{ANSWER}{ANSWER}", "several <answer> blocks"),
        (WANTED.removesuffix("</answer>"), "has no end"),
        (WANTED.replace("rg>", "region>"), "<rg>...</rg> alone"),
        (WANTED.replace("rg>", "ins>"), "<rg>...</rg> alone"),
        (WANTED.replace("<rg>the red barn</rg>", ""), "no expression"),
        (WANTED.replace("the red barn</rg>", "</rg>"), "empty <rg>"),
        (WANTED.replace("the red barn", "barn [semantic]"), "[semantic] must stand once"),
        (WANTED.replace("the red barn", "[semantic] an old red wooden barn"), "more than the name of a category"),
        (WANTED.replace("</rg>", "</rg><rg>The red barn</rg>"), "'the red barn' is there 2 times"),
        (WANTED.replace("</rg>", "</rg>" + "".join(f"<rg>cow {i}</rg>" for i in range(5))), "6 regions"),
        (WANTED.replace("Analysis:", "Then:"), "lacks a step of Scene, Analysis, Final Conclusion"),
        (WANTED.replace("Analysis: a red barn against green.", "Analysis:"), "lacks a step"),
        (WANTED.replace("Scene: a field.\n", "").replace("</think>", "\nScene: a field.</think>"), "lacks a step"),
    ],
)
def test_what_cannot_be_used_has_a_reason(text, reason):
    with pytest.raises(ValueError, match=r"^malformed: ") as caught:
        read(text)
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", ["[semantic] cow", "[Semantic]cow", "cow", "[ semantic ]  cow"])
def test_a_cosod_answer_is_a_bare_category(name):
    text = WANTED.replace("the red barn", name)
    assert read(text, "cosod").endswith("<answer><rg>[semantic] cow</rg></answer>")


def test_a_cosod_answer_has_one_category_alone():
    with pytest.raises(ValueError, match="2 expressions where exactly one"):
        read(WANTED.replace("<rg>the red barn</rg>", "<rg>[semantic] cow</rg><rg>[semantic] dog</rg>"), "cosod")


def test_instances_must_agree_in_number():
    text = f"<think>{STEPS}</think><answer><ins>left cow</ins><ins>right cow</ins></answer>"
    assert read(text, "sis", instances=2) == text
    with pytest.raises(ValueError, match=r"^instances: 2 phrases for 3 objects$"):
        read(text, "sis", instances=3)
    with pytest.raises(ValueError, match=r"no \[semantic\]"):
        read(text.replace("left cow", "[semantic] cow"), "sis")


class Strict(TagRegions):
    """A task whose answers are not mended."""

    mend = Task.mend


def test_a_task_that_mends_nothing_is_read_strictly():
    task = Strict(name="strict", title="t", instruction="i", brief="b", tag="rg", semantic=SOD.semantic)
    assert canonical(WANTED, task, titles=TITLES) == WANTED
    for text in (f"Sure: {WANTED}", WANTED.replace("rg>", "RG>"), f"{STEPS}\n{ANSWER}"):
        assert read(text) == WANTED
        with pytest.raises(ValueError, match=r"^malformed: "):
            canonical(text, task, titles=TITLES)
    with pytest.raises(ValueError, match="lacks a step"):
        canonical(WANTED.replace("Analysis:", "Then:"), task, titles=TITLES)


FORBIDDEN = Wording.read("sod").forbidden


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The ground truth shows a dog.", "ground truth"),
        ("As the Ground-Truth says", "Ground-Truth"),
        ("The mask covers the dog.", "mask"),
        ("The white mask covers a face.", "mask"),
        ("the masked region is a dog", "masked region"),
        ("A man wears a hat; the mask shows where.", "mask"),
        ("the dog, tinted in pink", "tinted in"),
        ("annotated objects", "annotated"),
        ("the red overlay", "overlay"),
        ("the highlighted area", "highlighted area"),
        ("outlined in magenta", "outlined in"),
        ("the hint is clear", "the hint"),
        ("A masked man in a black cape.", None),
        ("A woman wearing a face mask crosses the road.", None),
        ("The gas mask on the table is what stands out.", None),
        ("Masks are worn by all dancers", None),
        ("A sign outlined in neon lights", None),
        ("Fog is unmasking the hills, with the hint of a smile", None),
        ("the maskless crowd underlays no overlaying", None),
    ],
)
def test_what_gives_the_ground_truth_away(text, said):
    assert FORBIDDEN.find(text) == said


def test_forbidden_words_are_looked_for_in_reasoning_and_expressions():
    for text in (WANTED.replace("a field", "a mask"), WANTED.replace("the red barn", "the mask")):
        with pytest.raises(ValueError, match=r"^gives the ground truth away: it says 'mask'$"):
            read(text, forbidden=FORBIDDEN)


def test_forbidden_words_can_be_others():
    forbidden = Forbidden.parse("# none of these\n\nred barn | old red barn, painting\nfield\n")
    assert forbidden.find("the Red  barn") == "Red  barn"
    assert forbidden.find("the old red barn. a redbarn") is None
    assert forbidden.find("A painting of a red barn.\nIn a field") == "field"


PIECES = st.sampled_from(
    [*"<>/ \n", "<think>", "</think>", "<answer>", "</answer>", "<rg>", "</rg>", "[semantic]", "a cow", STEPS, "```\n"]
)


@given(st.one_of(st.text(), st.lists(PIECES, max_size=14).map("".join)), st.sampled_from(sorted(TASKS)))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_perfect_response_or_a_reason(text, task):
    response = None
    with suppress(ValueError):
        response = read(text, task)
    assert response is None or TASKS[task].format_reward(response) == 1
    assert response is None or TASKS[task].parse(response).reasoning.count("\n") == 2
