"""Tasks: the grammar by hand-written cases and by properties over any text."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_sal.samples import InstancePhrase
from lightning_sal.tasks import COSOD, SIS, SOD, VQA, TagRegions, get_task, instructions, register

TASKS = {task.name: task for task in (SOD, SIS, COSOD)}
THINK = "<think>a dog; it is vivid; the dog</think>"
DOG = "<rg>the dog</rg>"
NAME = "<rg>[semantic] dog</rg>"
INS = "<ins>the dog</ins>"


def answer(body: str) -> str:
    return f"{THINK}<answer>{body}</answer>"


WELL_FORMED = [
    ("sod", answer(DOG), ("the dog",)),
    ("sod", answer(NAME), ("[semantic] dog",)),
    ("sod", answer(DOG + NAME), ("the dog", "[semantic] dog")),
    ("sis", answer(INS), ("the dog",)),
    ("sis", answer(INS + "<ins>a cat</ins>"), ("the dog", "a cat")),
    ("sis", answer(INS + INS), ("the dog", "the dog")),
    ("cosod", answer(NAME), ("[semantic] dog",)),
    # white space around, between and within
    ("sod", f" \n{THINK}\n\n<answer>\n {DOG}\t{DOG} </answer>\n", ("the dog", "the dog")),
    ("sod", answer("<rg>  the\n  dog </rg>"), ("the dog",)),
    ("cosod", answer("<rg> [semantic]\n dog </rg>"), ("[semantic] dog",)),
    # what is text, not grammar
    ("sod", "<think></think>" + f"<answer>{DOG}</answer>", ("the dog",)),
    ("sod", "<think>1 < 2, so <rg>x</rg> and <b></think>" + f"<answer>{DOG}</answer>", ("the dog",)),
    ("sod", answer("<rg>le chien à gauche, 狗 🐕 & [x]</rg>"), ("le chien à gauche, 狗 🐕 & [x]",)),
]

# task, text, format reward, expressions, a part of the reason
MALFORMED = [
    # nothing, and truncation at each place
    ("sod", "", 0.0, (), "<think>"),
    ("sod", " \n ", 0.0, (), "<answer>"),
    ("sod", "the dog", 0.0, (), "<answer>"),
    ("sod", "<think>a dog", 0.0, (), "</think>"),
    ("sod", THINK, 0.0, (), "<answer>"),
    ("sod", f"{THINK}<answer>", 0.0, (), "</answer>"),
    ("sod", f"{THINK}<answer>{DOG}", 0.0, (), "</answer>"),
    ("sod", f"{THINK}<answer>{DOG}</answ", 0.0, (), "</answer>"),
    # the think block is missing, doubled, open, closed only, nested, late, misspelt: the answer still counts
    ("sod", f"<answer>{DOG}</answer>", 0.5, ("the dog",), "0 <think>"),
    ("sod", f"{THINK}{answer(DOG)}", 0.5, ("the dog",), "2 <think>"),
    ("sod", f"<think>a<answer>{DOG}</answer>", 0.5, ("the dog",), "0 </think>"),
    ("sod", f"a</think><answer>{DOG}</answer>", 0.5, ("the dog",), "0 <think>"),
    ("sod", f"<think><think>a</think></think><answer>{DOG}</answer>", 0.5, ("the dog",), "2 <think>"),
    ("sod", f"<think>a<answer>{DOG}</answer></think>", 0.5, ("the dog",), "order"),
    ("sod", f"<answer>{DOG}</answer>{THINK}", 0.5, ("the dog",), "order"),
    ("sod", f"</think>a<think><answer>{DOG}</answer>", 0.5, ("the dog",), "order"),
    ("sod", f"<Think>a</Think><answer>{DOG}</answer>", 0.5, ("the dog",), "0 <think>"),
    # text outside the blocks
    ("sod", f"Sure! {answer(DOG)}", 0.5, ("the dog",), "Sure!"),
    ("sod", f"{THINK} so <answer>{DOG}</answer>", 0.5, ("the dog",), "'so'"),
    ("sod", f"{answer(DOG)} Done.", 0.5, ("the dog",), "Done."),
    # any number of answer blocks but one costs the tag half, and everything else is lost with it
    ("sod", f"{answer(DOG)}<answer>{DOG}</answer>", 0.0, (), "2 <answer>"),
    ("sod", answer(DOG) + "</answer>", 0.0, (), "2 </answer>"),
    ("sod", f"{THINK}<answer><answer>{DOG}</answer></answer>", 0.0, (), "2 <answer>"),
    ("sod", f"<think><answer>{DOG}</answer></think><answer>{DOG}</answer>", 0.0, (), "2 <answer>"),
    ("sod", f"{THINK}</answer>{DOG}<answer>", 0.0, (), "order"),
    ("sod", f"{THINK}<answer >{DOG}</answer >", 0.0, (), "0 <answer>"),
    ("sod", f"{THINK}{DOG}", 0.0, (), "0 <answer>"),
    # blocks that cross
    ("sod", f"<think>a<answer></think>{DOG}</answer>", 0.0, ("the dog",), "order"),
    # the answer's grammar: nothing, text, other tags
    ("sod", answer(""), 0.5, (), "no expression"),
    ("sod", answer(" \n"), 0.5, (), "no expression"),
    ("sod", answer("the dog"), 0.5, (), "'the dog'"),
    ("sod", answer(f"It is {DOG}"), 0.5, ("the dog",), "It is"),
    ("sod", answer(f"{DOG}, {NAME}"), 0.5, ("the dog", "[semantic] dog"), "','"),
    ("sod", answer(f"{DOG}."), 0.5, ("the dog",), "'.'"),
    ("sod", answer(INS), 0.5, (), "<ins>"),
    ("sod", answer(DOG + INS), 0.5, ("the dog",), "<ins>"),
    ("sod", answer(f"<box>{DOG}</box>"), 0.5, ("the dog",), "<box>"),
    ("sod", answer("<RG>the dog</RG>"), 0.5, (), "<RG>"),
    ("sis", answer(DOG), 0.5, (), "<rg>"),
    ("sis", answer(INS + DOG), 0.5, ("the dog",), "<rg>"),
    # unclosed, unopened, nested, crossing, empty
    ("sod", answer("<rg>the dog"), 0.5, (), "<rg>the dog"),
    ("sod", answer("the dog</rg>"), 0.5, (), "</rg>"),
    ("sod", answer("<rg>the dog<rg>"), 0.5, (), "<rg>the dog<rg>"),
    ("sod", answer("<rg>a cat" + DOG), 0.5, ("the dog",), "<rg>a cat"),
    ("sod", answer(f"<rg>{DOG}</rg>"), 0.5, ("the dog",), "<rg></rg>"),
    ("sod", answer("<rg>the dog</ins>"), 0.5, (), "</ins>"),
    ("sod", answer("<rg>the <b>dog</b></rg>"), 0.5, (), "<b>"),
    ("sod", answer("<rg>a < b</rg>"), 0.5, (), "a < b"),
    ("sod", answer("<rg></rg>"), 0.5, (), "empty"),
    ("sod", answer(f"<rg> \n</rg>{DOG}"), 0.5, ("the dog",), "empty"),
    # [semantic] out of place
    ("sod", answer("<rg>[semantic]</rg>"), 0.5, (), "[semantic]"),
    ("sod", answer("<rg>[semantic]dog</rg>"), 0.5, (), "[semantic]"),
    ("sod", answer("<rg>dog [semantic]</rg>"), 0.5, (), "[semantic]"),
    ("sod", answer(f"<rg>the [semantic] dog</rg>{DOG}"), 0.5, ("the dog",), "[semantic]"),
    ("sod", answer("<rg>[semantic] [semantic] dog</rg>"), 0.5, (), "[semantic]"),
    ("sod", answer("[semantic] <rg>dog</rg>"), 0.5, ("dog",), "[semantic]"),
    ("sis", answer("<ins>[semantic] dog</ins>"), 0.5, (), "[semantic]"),
    ("cosod", answer(DOG), 0.5, (), "lacks [semantic]"),
    # CoSOD takes one
    ("cosod", answer(NAME + NAME), 0.5, (), "2 expressions"),
    ("cosod", answer(NAME + "<rg>[semantic] cat</rg>"), 0.5, (), "2 expressions"),
    ("cosod", answer(NAME + DOG), 0.5, ("[semantic] dog",), "lacks [semantic]"),
    ("cosod", answer(NAME + "<rg></rg>"), 0.5, ("[semantic] dog",), "empty"),
    # both halves at once
    ("sod", f"Sure! {answer(INS)}", 0.0, (), "Sure!"),
    ("sod", f"{THINK}{answer(DOG + '.')}", 0.0, ("the dog",), "'.'"),
]


@pytest.mark.parametrize(("task", "text", "expressions"), WELL_FORMED)
def test_well_formed(task, text, expressions):
    parsed = TASKS[task].parse(text)
    assert parsed.expressions == expressions
    assert parsed.reason is None
    assert TASKS[task].format_reward(text) == 1.0


@pytest.mark.parametrize(("task", "text", "reward", "expressions", "reason"), MALFORMED)
def test_malformed(task, text, reward, expressions, reason):
    parsed = TASKS[task].parse(text)
    assert TASKS[task].format_reward(text) == reward
    assert parsed.expressions == expressions
    assert parsed.reason is not None
    assert reason in parsed.reason
    assert len(parsed.reason.splitlines()) == 1


def test_reasoning_comes_back():
    assert TASKS["sod"].parse("<think> first\nsecond </think><answer></answer>").reasoning == "first\nsecond"
    assert TASKS["sod"].parse(f"<answer>{DOG}</answer>").reasoning == ""
    assert TASKS["sod"].parse(f"{THINK}{THINK}").reasoning == ""


# Texts of grammar fragments reach the branches that random characters never would.
FRAGMENTS = ("<think>", "</think>", "<answer>", "</answer>", "<rg>", "</rg>", "<ins>", "</ins>", "[semantic]")
fragments = st.lists(st.sampled_from([*FRAGMENTS, " ", "dog", "<", ">", "\n", "\ud800", "é"]), max_size=30).map("".join)
any_text = st.one_of(st.text(st.characters()), fragments)
tasks = st.sampled_from(list(TASKS.values()))


@given(tasks, any_text)
def test_any_text_is_read(task, text):
    parsed = task.parse(text)
    assert task.format_reward(text) in (0.0, 0.5, 1.0)
    assert (parsed.reason is None) == (task.format_reward(text) == 1.0)
    assert parsed.reason is None or len(parsed.reason.splitlines()) == 1
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        assert parsed.expressions == ()
    for expression in parsed.expressions:
        assert expression == " ".join(expression.split()) != ""
        assert f"<{task.tag}>" not in expression
        assert "[semantic]" not in expression.removeprefix("[semantic] ")
        # Each is sound by itself: written alone, it makes a well-formed response.
        assert task.format_reward(task.response("", [expression])) == 1.0


words = st.text(st.characters(exclude_characters="<>["), min_size=1).filter(str.strip)
think_texts = st.text(st.characters(exclude_characters="<>"))


@st.composite
def responses(draw):
    """A task, with reasoning and expressions that fit it."""
    task = draw(tasks)
    prefixes = {"optional": ["", "[semantic] "], "required": ["[semantic] "], "forbidden": [""]}[task.semantic]
    phrase = st.tuples(st.sampled_from(prefixes), words).map("".join)
    return task, draw(think_texts), draw(st.lists(phrase, min_size=1, max_size=1 if task.single else 6))


@given(responses())
def test_written_responses_are_well_formed(parts):
    task, think, expressions = parts
    text = task.response(think, expressions)
    assert task.format_reward(text) == 1.0
    assert task.parse(text).expressions == tuple(" ".join(expression.split()) for expression in expressions)
    assert task.parse(text).reasoning == think.strip()


@given(responses(), st.data())
def test_one_tag_less_or_one_more_is_noticed(parts, data):
    task, _, expressions = parts
    text = task.response("a dog", expressions)
    tag = data.draw(
        st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", f"<{task.tag}>", f"</{task.tag}>"])
    )
    assert task.format_reward(text.replace(tag, "", 1)) <= 0.5
    assert task.format_reward(text.replace(tag, tag + tag, 1)) <= 0.5


@given(responses(), st.data())
def test_a_cut_response_loses_the_whole_format(parts, data):
    task, _, expressions = parts
    text = task.response("a dog", expressions)
    parsed = task.parse(text[: data.draw(st.integers(0, len(text) - 1))])
    assert (parsed.format_reward, parsed.expressions) == (0.0, ())


@given(responses(), words)
def test_text_outside_costs_one_half(parts, word):
    task, _, expressions = parts
    text = task.response("a dog", expressions)
    for spoilt in (word + text, text + word, text.replace("</think>", "</think>" + word)):
        assert task.format_reward(spoilt) == 0.5
        assert task.parse(spoilt).expressions == task.parse(text).expressions


@pytest.mark.parametrize(
    ("task", "think", "expressions"),
    [
        ("sod", "", []),
        ("sod", "", [""]),
        ("sod", "", ["  "]),
        ("sod", "", ["the dog", " "]),
        ("sod", "", ["a</rg><rg>b"]),
        ("sod", "", ["<ins>dog</ins>"]),
        ("sod", "", ["dog</rg></answer>"]),
        ("sod", "</think>", ["dog"]),
        ("sod", "</think><think>", ["dog"]),
        ("sod", "", ["the [semantic] dog"]),
        ("sod", "", ["[semantic]"]),
        ("sis", "", ["[semantic] dog"]),
        ("cosod", "", ["dog"]),
        ("cosod", "", ["[semantic] dog", "[semantic] cat"]),
    ],
)
def test_parts_that_do_not_fit_are_refused(task, think, expressions):
    with pytest.raises(ValueError, match=f"no {task} response") as error:
        TASKS[task].response(think, expressions)
    assert len(str(error.value).splitlines()) == 1


MANY = 1_000_000
ADVERSARIAL = {
    "open think": "<think>" * (MANY // 7),
    "open region": "<rg>" * (MANY // 4),
    "answer and region": "<answer><rg>" * (MANY // 12),
    "regions in an answer": answer("<rg>" * (MANY // 4)),
    "closing regions in an answer": answer("</rg>" * (MANY // 5)),
    "regions of text, unclosed": answer("<rg>ab" * (MANY // 6)),
    "brackets in an answer": answer("<" * MANY),
    "brackets in a region": answer(f"<rg>{'<' * MANY}</rg>"),
    "half a tag": answer("<rg" * (MANY // 3)),
    "one endless region": answer(f"<rg>{'a' * MANY}"),
    "semantic": answer(f"<rg>{'[semantic] ' * (MANY // 11)}</rg>"),
    "white space": answer(f"<rg>{' ' * MANY}</rg>"),
    "white space outside": " " * MANY + "x",
    "empty regions": answer("<rg></rg>" * (MANY // 9)),
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("text", ADVERSARIAL.values(), ids=ADVERSARIAL.keys())
def test_long_hostile_text_is_read_in_linear_time(task, text):
    # A quadratic reader would need hours for these; this one needs a fraction of a second.
    parsed = TASKS[task].parse(text)
    assert parsed.format_reward <= 0.5
    assert 0 < len(parsed.reason or "") < 300


def test_many_expressions_are_all_read():
    assert len(TASKS["sis"].parse(answer(INS * 50_000)).expressions) == 50_000


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_the_form_that_an_instruction_shows_is_well_formed(task):
    assert task.format_reward(task.instruction.splitlines()[-1]) == 1.0


def test_masks_are_composed_by_task():
    left, right = torch.tensor([[True, False, False]]), torch.tensor([[False, False, True]])
    both = torch.stack([left, right])
    for task in ("sod", "cosod"):
        assert TASKS[task].compose(both).tolist() == [[[True, False, True]]]
        assert TASKS[task].compose(both[:0]).tolist() == [[[False, False, False]]]
    assert TASKS["sis"].compose(both).equal(both)
    assert TASKS["sis"].compose(both[:0]).shape == (0, 1, 3)


def test_unknown_task_names_the_known_ones():
    assert get_task("sis") is TASKS["sis"]
    with pytest.raises(ValueError, match=r"unknown task 'edges': use one of "):
        get_task("edges")


def test_tasks_load_without_torch():
    code = "import sys, lightning_sal.tasks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", TASKS)
def test_without_reasoning_the_answer_block_alone_is_right(name):
    task = TASKS[name].without_reasoning()
    expressions = ("[semantic] ring",) if name == "cosod" else ("the red ring",)
    text = task.response("", expressions)
    assert text.startswith("<answer>")
    assert task.parse(text).expressions == expressions
    assert task.format_reward(text) == 1.0
    assert TASKS[name].format_reward(text) == 0.5
    assert task.format_reward(f"<think>first</think>{text}") == 0.5
    assert task.format_reward(f"well, {text}") == 0.5
    assert "<think>" not in task.instruction
    assert task.format_reward(task.instruction.splitlines()[-1]) == 1.0
    with pytest.raises(ValueError, match="<think>"):
        task.response("because", expressions)


@pytest.fixture
def cod(monkeypatch):
    """A task of one's own, known for one test."""
    monkeypatch.setattr("lightning_sal.tasks.registry.TASKS", dict(TASKS))
    return TagRegions(name="cod", title="camouflage", instruction="What hides?", tag="rg", brief="Name it.")


def test_a_registered_task_is_known(cod):
    assert register(cod) is cod
    register(replace(cod))  # as of a file that is imported twice
    assert get_task("cod") == cod
    assert instructions()["cod"] == "What hides?"
    assert instructions()["cod without reasoning"] == "Name it."


@pytest.mark.parametrize("changes", [dict(name="sod"), dict(title="another"), dict(name="c.o.d"), dict(name="")])
def test_a_name_that_is_taken_or_cannot_be_is_refused(cod, changes):
    register(cod)
    with pytest.raises(ValueError, match="task '"):
        register(replace(cod, **changes))


@pytest.mark.parametrize(
    ("task", "body", "instance"), [("sod", DOG, False), ("sis", INS, True), ("cosod", NAME, False)]
)
def test_what_a_segmenter_is_asked(task, body, instance):
    """The words, whose kind tells whether one object is meant: a text like any other for who does not care."""
    found = TASKS[task]
    (prompt,) = prompts = found.prompts(found.parse(answer(body)), (4, 4))
    assert prompts == found.parse(answer(body)).expressions
    assert isinstance(prompt, InstancePhrase) is instance
    assert issubclass(type(prompt), found.prompt_type)


@pytest.mark.parametrize(
    ("task", "text", "said"),
    [
        (SOD, answer(f"\n {DOG} {DOG}\t"), f"{DOG} {DOG}"),
        (SOD, answer("the dog"), "the dog"),  # it breaks the grammar, and can be read
        (SOD, f"<answer>{DOG}</answer> and more", DOG),
        (SIS, answer(" "), None),
        (SIS, f"{THINK}<answer>{INS}", None),
        (COSOD, answer(NAME) + answer(NAME), None),
        (VQA, "<think>a dog</think> the dog\n", "the dog"),
        (VQA, "the dog", None),
    ],
)
def test_an_answer_says_where_it_stands(task, text, said):
    place = task.parse(text).answer_at
    assert (text[slice(*place)] if place else None) == said
