"""Answers of models that never saw the form: what a person would take for the answer, and no more."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_sal.inference.responses import read_answer
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import COSOD, DETECTION, PERCEPTION, SIS, SOD, VQA, Objects

TAGS = {"sod": SOD, "sis": SIS, "cosod": COSOD}
TEXT = "A dog runs over the lawn, in front of trees. It is sharp and bright while everything else is blurred and dark."

# What models that were asked for salient instances may say, and the phrases that answer
INSTANCES = [
    # the form, nearly
    ("<answer><ins>the dog</ins><ins>a cat</ins></answer>", ["the dog", "a cat"]),
    (f"<think>{TEXT}\n<answer><ins>the dog</ins></answer>", ["the dog"]),
    (f"{TEXT}</think>\n\n<ins>the dog</ins>\n<ins>a cat</ins>", ["the dog", "a cat"]),
    (f"<thinking>{TEXT} <ins>no</ins></thinking><ins>the dog</ins>", ["the dog"]),
    ("<think>a</think><answer><ins>a</ins></answer> or better <answer><ins>the dog</ins></answer>", ["the dog"]),
    ("<answer><ins>a</ins></answer><think>no, again</think><answer><ins>the dog</ins></answer>", ["the dog"]),
    ("<think>I answer in <answer> tags</think>\n<Answer>\n< INS >the dog</ ins >\n</ANSWER>", ["the dog"]),
    ("<think>a</think><answer><rg>the dog</rg><rg>a cat</rg></answer>", ["the dog", "a cat"]),
    ("<think>a</think><answer><ins>the dog<ins>a cat</answer>", ["the dog", "a cat"]),
    ("<think>a</think><answer><ins>the dog</rg>, <ins>a cat</answer>", ["the dog", "a cat"]),
    ("<think>a</think><answer><ins>the <b>brown</b> dog</ins></answer>", ["the <b>brown</b> dog"]),
    ("<think>a</think><answer><ins></ins><ins> the\n dog </ins></answer>", ["the dog"]),
    ("```xml\n<think>a</think>\n<answer>\n<ins>the dog</ins>\n</answer>\n```", ["the dog"]),
    ("<think>a</think><answer><|begin_of_box|>the dog<|end_of_box|></answer>", ["the dog"]),
    ("<think>a</think><answer></answer><ins>the dog</ins>", ["the dog"]),
    # no tags around the phrases
    ("<think>a</think><answer>the dog</answer>", ["the dog"]),
    ("<think>a</think><answer>\n1. the dog\n2. a cat\n</answer>", ["the dog", "a cat"]),
    ("<think>a</think>\n- the dog\n- a cat", ["the dog", "a cat"]),
    ("<think>a</think>The dog.", ["The dog"]),
    ("The dog<|im_end|>", ["The dog"]),
    ("“the brown dog”", ["the brown dog"]),
    ("a dog, a cat and the ball", ["a dog", "a cat", "the ball"]),
    ("a man and the dog on his lap", ["a man and the dog on his lap"]),
    ("brown dog; black cat", ["brown dog", "black cat"]),
    ("brown dog\nblack cat\n", ["brown dog", "black cat"]),
    # sentences and headings that announce a phrase
    (f"{TEXT}\n\nAnswer: the dog", ["the dog"]),
    (f"{TEXT}\n\n**Final Answer:** the dog\n\nIt is the brightest thing, which is why I chose it.", ["the dog"]),
    (f"### Analysis\n{TEXT}\n\n### Answer\n- the dog\n- a cat", ["the dog", "a cat"]),
    ("Answer: a\nAnswer: the dog\n", ["the dog"]),
    ("The most salient object in this image is the brown dog.", ["the brown dog"]),
    ("In this image, the most visually striking object is the brown dog.", ["the brown dog"]),
    ("<think>a</think><answer>\n**Salient region:** the dog\n</answer>", ["the dog"]),
    ("> the dog", ["the dog"]),
    ("The brown dog is the most salient instance in this image.", ["The brown dog"]),
    ("The most salient instance is **the brown dog**, because it is in sharp focus.", ["the brown dog"]),
    ("What stands out: **the brown dog**", ["the brown dog"]),
    (f"**Scene:** {TEXT}\n\n**Analysis:** {TEXT}\n\n**Conclusion:** the dog", ["the dog"]),
    ("<answer>[ins]the dog[/ins]</answer>", ["the dog"]),
    ("<ref>the dog</ref>", ["the dog"]),
    ("Salient instances:\nthe dog\na cat", ["the dog", "a cat"]),
    ("Sure!\nthe dog", ["the dog"]),
    (f"**Scene:** {TEXT}\n\nThe most salient object is the brown dog.", ["the brown dog"]),
    (f"{TEXT} The main objects are: a dog and a cat. {TEXT}", ["a dog and a cat"]),
    ("It is a lawn at noon. In this image, the most salient object is the dog. It is sharp.", ["the dog"]),
    (f"{TEXT} The most salient object is not clear.", []),
    # Markdown
    (f"Here are the salient instances:\n\n1. **The dog** – {TEXT}\n2. **A cat**\n\n{TEXT}", ["The dog", "A cat"]),
    ("1. **The dog**: it is bright.\n   - Colour: brown\n   - Place: centre\n2. **A cat**", ["The dog", "A cat"]),
    ("* **Instance 1:** the dog\n* **Instance 2**: a cat (left)", ["the dog", "a cat (left)"]),
    ("- Instance 1: the dog\n- Instance 2: a cat", ["the dog", "a cat"]),
    ("**1. The dog**: bright\n**2. A cat**: dark", ["The dog", "A cat"]),
    ("• `the dog`\n• *a cat*", ["the dog", "a cat"]),
    ("1) the dog - in the centre\n2) a cat: to its left", ["the dog", "a cat"]),
    # JSON, or nearly
    ('["the dog", "a cat"]', ["the dog", "a cat"]),
    ("<think>a</think><answer>['the dog', 'the man\\'s cat',]</answer>", ["the dog", "the man's cat"]),
    ("['the dog's ball']", ["the dog's ball"]),
    ('Sure, here it is:\n```json\n[\n  "the dog",\n  "a cat"\n]\n```\nAnything else?', ["the dog", "a cat"]),
    ('[{"label": "the dog", "reason": "bright"}, {"reason": "dark", "label": "a cat"}]', ["the dog", "a cat"]),
    ('{"instances": ["the dog", "a cat"], "scene": "a lawn"}', ["the dog", "a cat"]),
    ('{"salient_instances": [{"id": 1, "description": "the dog"}]}', ["the dog"]),
    ('{"region1": "the dog", "region2": "a cat"}', ["the dog", "a cat"]),
    ('{"1": "the dog", "2": "a cat"}', ["the dog", "a cat"]),
    ('[{"ins": "the dog"}, {"ins": "le chien \\u00e0 gauche"}]', ["the dog", "le chien à gauche"]),
    ('["the dog", "a ca', ["the dog", "a ca"]),
    # no answer
    ("", []),
    (" \n", []),
    ("I'm sorry, I can't help with that.", []),
    ("Sorry, but I cannot see any image.", []),
    ("<think>a</think><answer>None</answer>", []),
    ('{"answer": "I am unable to do this"}', []),
    ("抱歉，我无法处理这张图片。", []),
    ("There are no salient objects here.", []),
    ("No salient instance.", []),
    (f"<think>{TEXT}", []),
    (f"<think>{TEXT}</think>", []),
    (f"<think>{TEXT}</think><answer>", []),
    (TEXT, []),
    (f"{TEXT}\n\n{TEXT}", []),
    ("The dog. The cat.", []),
    ("The image does not show anything salient.", []),
    ("- Image 1: a dog\n- Image 2: a dog on a lawn", []),
    ("Yes.", []),
    ("What would you like to know?", []),
    ("...", []),
    ("[]", []),
    ("{}", []),
    ("```json\n[]\n```", []),
    (f"1. **Scene**: {TEXT}\n2. **Analysis**: {TEXT}\n3. **Conclusion**: {TEXT}", []),
    (f"Scene: {TEXT}\nAnalysis: {TEXT}", []),
    (f"- {TEXT}\n- {TEXT}", []),
    ('{"mood": "calm", "style": "photograph"}', []),
]

OF_CATEGORIES = [
    ("sod", "<answer><rg>[Semantic]dog</rg></answer>", ["[semantic] dog"]),
    ("sod", "[ semantic ] dog", ["[semantic] dog"]),
    ("sod", "- [semantic] dog\n- the red car", ["[semantic] dog", "the red car"]),
    ("sod", "<answer><rg>dog [semantic]</rg></answer>", ["[semantic] dog"]),
    ("sod", "<answer><rg>[semantic]</rg></answer>", []),
    ("sis", "<answer><ins>[semantic] dog</ins></answer>", ["dog"]),
    ("cosod", "<think>a</think>\nThe common category is dog.", ["[semantic] dog"]),
    ("cosod", "<think>a</think><answer><rg>dog</rg></answer>", ["[semantic] dog"]),
    ("cosod", "<answer><rg>[semantic]</rg><rg>[SEMANTIC] dog</rg><rg>cat</rg></answer>", ["[semantic] dog"]),
    ("cosod", "- dog\n- cat", ["[semantic] dog"]),
    ("cosod", "<answer><rg>[semantic]: dog</rg></answer>", ["[semantic] dog"]),
    ("cosod", 'The common category across all the images is "dog".', ["[semantic] dog"]),
    ("cosod", '{"category": "[semantic] dog", "images": ["a dog on a lawn", "a dog"]}', ["[semantic] dog"]),
]


def group_of(task):
    return ImageGroup("a", task, (torch.zeros(60, 80, 3, dtype=torch.uint8),), question="The cup?")


@pytest.mark.parametrize(("text", "phrases"), INSTANCES)
def test_phrases(text, phrases):
    answer = SIS.read_leniently(text)
    assert list(answer.expressions) == phrases
    assert len(answer.labels_at) == len(phrases)
    # What the form is worth is said by the strict reading alone
    assert replace(answer, expressions=(), labels_at=()) == replace(SIS.parse(text), expressions=(), labels_at=())


@pytest.mark.parametrize(("task", "text", "phrases"), OF_CATEGORIES)
def test_the_mark_of_a_category_stands_where_the_task_has_it(task, text, phrases):
    assert list(TAGS[task].read_leniently(text).expressions) == phrases


def test_a_phrase_says_where_it_stands():
    text = "Here they are:\n1. **The dog**: bright\n2. [Semantic]\tcat."
    assert [text[slice(*place)] for place in SOD.read_leniently(text).labels_at] == ["The dog", "[Semantic]\tcat"]


def test_what_can_be_read_strictly_is_read_strictly():
    faulty = "Sure! <think>a</think><answer>It is <rg>the dog</rg></answer>"
    assert read_answer(faulty, group_of("sod"), reading="lenient") == SOD.parse(faulty)
    assert read_answer("the dog", group_of("sod")).expressions == ()
    answer = read_answer("the dog", group_of("sod"), reading="lenient")
    assert answer.expressions == ("the dog",)
    assert answer.format_reward == 0
    assert answer.reason == SOD.parse("the dog").reason


words = st.text(st.characters(exclude_characters="<>[", exclude_categories=["Cs"]), min_size=1).filter(str.strip)
plain = st.text(st.characters(exclude_characters="<>"))


@given(st.data())
def test_a_faultless_answer_is_read_alike(data):
    task = data.draw(st.sampled_from(list(TAGS.values())))
    marks = {"optional": ["", "[semantic] "], "required": ["[semantic] "], "forbidden": [""]}[task.semantic]
    phrases = st.tuples(st.sampled_from(marks), words).map("".join)
    said = data.draw(st.lists(phrases, min_size=1, max_size=1 if task.single else 6))
    text = task.response(data.draw(plain), said)
    strict, lenient = task.parse(text), task.read_leniently(text)
    assert strict.reason is None
    assert lenient == strict
    assert lenient.labels_at == strict.labels_at


coordinates = st.one_of(st.integers(0, 10**6), st.floats(0, 1e6))


@given(st.lists(st.tuples(*[coordinates] * 6), max_size=5))
def test_a_faultless_list_is_read_alike(numbers):
    objects = Objects(tuple(each[:4] for each in numbers), tuple(each[4:] for each in numbers))
    for task in (PERCEPTION, DETECTION.without_reasoning()):
        text = task.write("a <look>cup</look>" if task.reasoning else "", objects)
        strict, lenient = task.parse(text), task.read_leniently(text)
        assert strict.reason is None
        assert lenient == strict
        assert lenient.labels_at == strict.labels_at


ONE = '{"bbox_2d": [10, 20, 30, 40], "point_2d": [12, 25]}'
BOX, POINT = (10, 20, 30, 40), (12, 25)
OBJECTS = [
    (f"[{ONE}]", [(BOX, POINT)]),
    (f"```json\n[{ONE},]\n```", [(BOX, POINT)]),
    (f"<think>a</think><answer>[]</answer> no: <answer>[{ONE}]</answer>", [(BOX, POINT)]),
    (f"<think>{TEXT}</think>\nThe cup is here: [{ONE}]. Anything else?", [(BOX, POINT)]),
    (ONE, [(BOX, POINT)]),
    (ONE.replace('"', "'"), [(BOX, POINT)]),
    ('[{"bbox_2d": [10, 20, 30, 40], "label": "cup"}]', [(BOX, None)]),
    ('[{"label": "cup", "box": ["10", "20", "30", "40"], "center": [12, 25]}]', [(BOX, POINT)]),
    ('{"objects": [{"bbox": [10, 20, 30, 40], "points": [[12, 25], [13, 26]]}]}', [(BOX, POINT)]),
    ('[{"bounding_box": {"x1": 10, "y1": 20, "x2": 30, "y2": 40}}]', [(BOX, None)]),
    ('{"x_min": 10, "y_min": 20, "x_max": 30, "y_max": 40}', [(BOX, None)]),
    ('[{"left": 10, "upper": 20, "right": 30, "lower": 40, "x": 12, "y": 25}]', [(BOX, POINT)]),
    ('[{"point_2d": [12, 25], "size": [3, 4]}]', [(None, POINT)]),
    ('[{"bbox": [10, 20, 30, 40], "size": [3, 4]}]', [(BOX, None)]),
    (f'[{ONE}, {{"bbox_2d": [5, 6', [(BOX, POINT)]),
    ("<ref>cup</ref><box>[[10, 20, 30, 40]]</box>", [(BOX, None)]),
    ("<|box_start|>(10,20),(30,40)<|box_end|>", [(BOX, None)]),
    ("The cup is at [10, 20, 30, 40].", [(BOX, None)]),
    ("[[10, 20, 30, 40], [1.5, 2, 3, 4e0]]", [(BOX, None), ((1.5, 2, 3, 4), None)]),
    ("(12, 25)", [(None, POINT)]),
    ("[]", []),
    ("There is none: []", []),
    ("<think>a</think><answer>```json\n[]\n```</answer>", []),
]


@pytest.mark.parametrize(("text", "objects"), OBJECTS)
def test_objects(text, objects):
    answer = PERCEPTION.read_leniently(text)
    assert answer.readable
    assert list(zip(answer.boxes, answer.points, strict=True)) == objects
    assert len(answer.labels) == len(answer.labels_at) == len(PERCEPTION.prompts(answer, (60, 80)))
    assert answer.format_reward == PERCEPTION.parse(text).format_reward < 1


@pytest.mark.parametrize(
    "text",
    ["", "none", "I'm sorry.", f"<think>[{ONE}]", '[{"label": "cup"}]', "[1, 2, 3]", "[a, b]", '{"size": [3, 4]}'],
)
def test_what_lists_no_objects_stays_unreadable(text):
    assert not PERCEPTION.read_leniently(text).readable
    assert read_answer(text, group_of("perception"), reading="lenient") == PERCEPTION.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>a</think> red ", "red"),
        ("red", "red"),
        (f"{TEXT}</think>red", "red"),
        ("<think></think>red", "red"),
        ("<think>a</think><answer>red</answer>", "red"),
        (f"{TEXT}\n\nAnswer: red", "red"),
        ("<think>a</think><think>b</think>red", "red"),
        (f"<think>{TEXT}", ""),
        ("", ""),
    ],
)
def test_an_answer_in_free_words_stands_behind_the_reasoning(text, said):
    assert VQA.read_leniently(text).text == said
    assert VQA.read_leniently(text).reason == VQA.parse(text).reason


FRAGMENTS = (
    "<think>", "</think>", "<answer>", "</answer>", "<rg>", "</rg>", "<ins>", "[semantic]", "**", "- ", "1. ", "\n", '"',
    "'", "[", "]", "{", "}", ":", ", ", "the dog", "label", "12", "```", "\\", "Answer:", "\ud800",
)  # fmt: skip
hostile = st.one_of(st.text(st.characters()), st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join))


@given(st.sampled_from([*TAGS.values(), PERCEPTION, VQA]), hostile)
def test_any_text_is_read(task, text):
    strict, lenient = task.parse(text), task.read_leniently(text)
    assert (lenient.format_reward, lenient.reason) == (strict.format_reward, strict.reason)
    assert len(lenient.labels_at) == len(lenient.labels)
    for expression in lenient.labels if task.name in TAGS else ():
        assert expression == " ".join(expression.split()) != ""
    json.dumps(lenient.fields(), allow_nan=False)


MANY = 100_000
REPEATED = [
    "[", "{", "[1,", "[1, 2, 3, 4], ", "(1 ", "x1: 1 ", '"', "'a ", '\\"', "```", "Answer:\n", "**", "<rg>", "<ins>a", "<",
    "1. ", "<think>", "<answer>a", "\n", "a, the ", ": ", " - ", "[semantic] ", '[{"', "the most ", " ", "a", "<a", "- a\n",
    "'", "_",
]  # fmt: skip


@pytest.mark.parametrize("before", ["", "<answer>", '["', "- ", "<think></think>Answer: "])
@pytest.mark.parametrize("repeated", REPEATED)
def test_long_hostile_text_is_read_in_linear_time(before, repeated):
    # A quadratic reader would need minutes for these.
    text = before + repeated * (MANY // len(repeated))
    for task in (SOD, PERCEPTION, VQA):
        answer = task.read_leniently(text)
        assert len(answer.labels_at) == len(answer.labels)
