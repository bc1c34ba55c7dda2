"""Answers of boxes and points: what is read strictly and leniently, where it stands, and in which units."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_sal.frames import ORIGINAL, Square, from_original, to_original
from lightning_sal.inference.responses import read_answer
from lightning_sal.samples import ImageGroup, VisualPrompt
from lightning_sal.tasks import COSOD, PERCEPTION, SOD, VQA, Objects, get_task, task_of
from lightning_sal.tasks.boxes import BoxTask, true_count

TWO = Objects(boxes=((10, 20, 30, 40), (5.5, 6, 7, 8)), points=((12, 25), (6, 7)))
ONE = '{"bbox_2d": [10, 20, 30, 40], "point_2d": [12, 25]}'


def said(body, reasoning="two of them, <look>on the left</look>"):
    return f"<think>{reasoning}</think><answer>{body}</answer>"


def group_of(height=60, width=80, **fields):
    image = torch.zeros(height, width, 3, dtype=torch.uint8)
    return ImageGroup("sample-1", "perception", (image,), question="The red cup.", **fields)


def test_what_is_written_is_read_again_and_says_where_it_stands():
    text = PERCEPTION.write("a <look>cup</look>", TWO)
    answer = PERCEPTION.parse(text)
    assert (answer.boxes, answer.points) == (TWO.boxes, TWO.points)
    assert answer.reason is None
    assert answer.format_reward == 1
    assert [json.loads(text[start:end])["point_2d"] for start, end in answer.labels_at] == [[12, 25], [6, 7]]
    assert text[slice(*answer.reasoning_at)] == "a <look>cup</look>"
    assert answer.labels_at[0][0] > answer.answer_at[0]
    assert f"<answer>{text[slice(*answer.answer_at)]}</answer>" in text
    assert answer.labels == ("(10, 20, 30, 40) (12, 25)", "(5.5, 6, 7, 8) (6, 7)")


def test_an_empty_list_is_an_answer_and_what_cannot_be_read_is_none():
    empty = PERCEPTION.parse(said("[]"))
    assert empty.readable
    assert empty.reason is None
    assert not empty.labels
    for body in ("", "none", "{}", "[1]", '[{"bbox_2d": [1, 2, 3, 4]}]', "[" * 10**5, f"[{ONE}", "9" * 5000):
        answer = PERCEPTION.parse(said(body))
        assert not answer.readable, body[:40]
        assert not answer.grammar_ok
        assert answer.structure_ok
        assert answer.reason


def test_the_first_answer_block_is_read_wherever_it_stands():
    answer = PERCEPTION.parse(f"Well. <answer> {ONE.join('[]')} </answer> or <answer>[]</answer>")
    assert answer.boxes == ((10, 20, 30, 40),)
    assert not answer.structure_ok
    assert PERCEPTION.parse("<answer>[]").reason.endswith("there is no answer block with an end")


def test_an_entry_without_numbers_is_listed_and_asks_no_segmenter():
    body = json.dumps([json.loads(ONE), {"bbox_2d": [1, 2, "x", 4], "point_2d": [1, None]}])
    answer = PERCEPTION.parse(said(body))
    assert answer.readable
    assert len(answer.boxes) == 2
    assert answer.boxes[1] is None
    assert math.isnan(answer.points[1][1])
    assert not answer.grammar_ok
    assert PERCEPTION.prompts(answer, (60, 80)) == (VisualPrompt((10, 20, 30, 40), ((12, 25),), (1,)),)
    assert len(answer.labels) == len(answer.labels_at) == 1


def test_sides_of_a_box_in_the_wrong_order_are_put_right_for_the_segmenter():
    body = '[{"bbox_2d": [30, 40, 10, 20], "point_2d": [12, 25]}]'
    (prompt,) = PERCEPTION.prompts(PERCEPTION.parse(said(body)), (60, 80))
    assert prompt.box == (10, 20, 30, 40)


def test_reasoning_must_hold_a_look_with_something_in_it():
    for reasoning in ("nothing", "<look></look>", "<look> </look> and <look>\n</look>", "a cup</look>", "<look>a cup"):
        answer = PERCEPTION.parse(said("[]", reasoning))
        assert answer.reason is not None
        assert "no <look>...</look>" in answer.reason
        assert answer.format_reward == 0.5
    assert PERCEPTION.parse(said("[]", "<look></look> then <look>a cup</look>")).reason is None


def test_another_word_or_none_may_stand_for_look_and_any_task_may_ask_for_it():
    group = group_of()
    text = said("[]", "<focus>a cup</focus>")
    assert read_answer(text, group, look="focus").reason is None
    assert read_answer(text, group).reason is not None
    assert read_answer(said("[]", "a cup"), group, look="").reason is None
    for task, body in ((SOD, "<rg>cup</rg>"), (COSOD, "<rg>[semantic] cup</rg>")):
        other = replace(group, task=task.name)
        assert read_answer(said(body, "a cup"), other).reason is None
        assert read_answer(said(body, "a cup"), other, look="look").format_reward == 0.5
        assert read_answer(said(body, "a <look>cup</look>"), other, look="look").format_reward == 1
    assert read_answer("<think>a cup</think>red", replace(group, task=VQA.name), look="look").reason


def test_who_is_asked_for_look_is_told_so():
    group = group_of()
    text = PERCEPTION.messages(group)[-1].text
    assert text.startswith("the red cup\n")
    assert "<look> and </look>" in text
    assert "look" not in task_of(group, "").ask(group).split("\n", 1)[1]
    assert "<focus> and </focus>" in task_of(replace(group, task="sod"), "focus").ask(group)
    assert "look" not in PERCEPTION.without_reasoning().ask(group)
    assert PERCEPTION.ask(group, "Find. Answer.", "Use {tag}.") == "the red cup\nFind. Answer.\nUse look."


def test_places_are_brought_to_the_original_image_and_back():
    group = group_of(480, 640)
    text = said('[{"bbox_2d": [84, 210, 420, 840], "point_2d": [105, 420]}]')
    answer = read_answer(text, group, Square(840))
    assert answer.boxes == ((64, 120, 320, 480),)
    assert answer.points == ((80, 240),)
    in_pixels = said('[{"bbox_2d": [64, 120, 320, 480], "point_2d": [80, 240]}]')
    assert PERCEPTION.spoken(in_pixels, group, Square(840)) == text
    assert PERCEPTION.spoken(in_pixels, group, ORIGINAL) == in_pixels
    assert SOD.spoken("<think>", group, Square(840)) == "<think>"
    with pytest.raises(ValueError, match=r"sample-1: its response states no places that can be read"):
        PERCEPTION.spoken(said("[oops]"), group, Square(840))


@given(st.lists(st.integers(0, 840), max_size=8), st.integers(1, 5000), st.integers(1, 5000))
def test_mapping_there_and_back_keeps_whole_units(values, height, width):
    there = to_original(values, Square(840), (height, width))
    back = from_original(there, Square(840), (height, width))
    assert [round(value, 6) for value in back] == values


def test_other_models_are_read_leniently_where_they_can_mean_one_thing_alone():
    for body in (f"```json\n[{ONE}]\n```", ONE, f"Here it is: [{ONE}] done", ONE.replace("bbox_2d", "BBox")):
        _, answer = PERCEPTION.mend(body)
        assert answer.boxes == ((10, 20, 30, 40),), body
    pieces, answer = PERCEPTION.mend('<Think>so</think>\n<answer>[{"box": [1, 2, 3, 4], "label": "cup"}]</answer>')
    assert "so" in pieces
    assert answer.points == (None,)
    assert PERCEPTION.prompts(answer, (9, 9)) == (VisualPrompt((1, 2, 3, 4)),)
    for body in ("no", "[1]", '[{"label": "cup"}]', '[{"bbox": [1, 2, 3, 4], "box": [1, 2, 3, 4]}]', "[{"):
        with pytest.raises(ValueError, match=r"answer|list of boxes"):
            PERCEPTION.mend(body)


def test_a_response_that_cannot_be_read_is_not_written():
    with pytest.raises(ValueError, match=r"no <look>"):
        PERCEPTION.write("no", TWO)
    with pytest.raises(ValueError, match=r"lacks bbox_2d or point_2d"):
        PERCEPTION.write("<look>a</look>", Objects(boxes=((1, 2, 3, 4),), points=(None,)))


def test_the_true_count_is_the_reference_else_the_boxes_else_the_points():
    boxes, points = (torch.zeros(3, 4),), (torch.zeros(2, 2),)
    assert true_count(group_of(reference="7", boxes=boxes)) == 7
    assert true_count(group_of(boxes=boxes, points=points)) == 3
    assert true_count(group_of(points=points)) == 2
    assert true_count(group_of()) is None
    with pytest.raises(ValueError, match=r"sample-1: the reference 'many' is no number of objects"):
        true_count(group_of(reference="many"))


@given(st.text(), st.sampled_from(["", "[", "[{", '[{"bbox_2d": ', "[]", "[NaN]"]))
def test_nothing_makes_reading_fail(text, body):
    for response in (text, said(body + text), said(text + body)):
        answer = PERCEPTION.parse(response)
        assert len(answer.labels) == len(answer.labels_at) == len(PERCEPTION.prompts(answer, (9, 9)))


def test_every_task_of_boxes_has_a_question():
    tasks = [get_task(name) for name in ("perception", "detection", "counting")]
    assert all(isinstance(task, BoxTask) and task.has_question for task in tasks)
