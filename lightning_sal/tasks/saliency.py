"""What SOD, SIS and CoSOD are: what the policy is asked, how it must answer, and how its answer becomes masks.

A response is `<think>reasoning</think><answer>expressions</answer>`. Half of the format is its structure: one think
block, then one answer block, nothing but white space around them. The other half is the grammar of the answer. What
can be read is read even where the format is broken, so that a wrong form and a wrong content cost apart:

- Without exactly one answer block (none, two, a stray `<answer>` or `</answer>`) the grammar half is lost and there are
  no expressions. A fault of the think block, or text outside the blocks, costs the structure half alone.
- In the answer block a fault (another tag, text between, an expression that is empty, unclosed, or with `[semantic]`
  misplaced) costs the grammar half; the expressions without a fault of their own remain.
- More such expressions than the task allows leave none, because which one is meant is unknown.

Where a group asks for no reasoning, the structure is one answer block alone, and a think block is a fault like any other
text outside.

Tags are exact: lower case, no attributes. Reasoning may be empty and may quote the tags of expressions; an expression
holds no angle bracket.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_sal.samples import ImageGroup

SEMANTIC = "[semantic]"
WITHOUT_REASONING = " without reasoning"  # behind the name of a task, where instructions are listed
_STRUCTURE = ("<think>", "</think>", "<answer>", "</answer>")
_MARK = re.compile("|".join(_STRUCTURE))


@dataclass(frozen=True, slots=True)
class Answer:
    """What was read from a response.

    Args:
        expressions: The referring expressions without their tags, white space normalised, `[semantic] ` kept in front.
        think: The reasoning; empty where there is not exactly one think block.
        structure_ok: Whether the response is exactly one think block followed by exactly one answer block; or the answer
            block alone, where no reasoning is asked for.
        grammar_ok: Whether there is exactly one answer block and it keeps the task's grammar.
        reason: One line that says why the response is malformed, or None where it is well formed.
    """

    expressions: tuple[str, ...]
    think: str
    structure_ok: bool
    grammar_ok: bool
    reason: str | None

    @property
    def format_reward(self) -> float:
        """0.5 for the structure + 0.5 for the grammar of the answer."""
        return 0.5 * self.structure_ok + 0.5 * self.grammar_ok


@dataclass(frozen=True, slots=True)
class Task:
    """A saliency task: a new one is one more object, which `register` makes known.

    Args:
        name: Key of the task in data and configs.
        title: The task in words.
        instruction: User text that follows the images of a group.
        tag: "rg" where an expression names a region, "ins" where it names an instance.
        semantic: Whether an expression may, must or must not be a bare category name marked by `[semantic]`.
        brief: The instruction where no reasoning is asked for.
        single: Whether exactly one expression answers the task, instead of one or more.
        reasoning: Whether a think block comes before the answer block.
    """

    name: str
    title: str
    instruction: str
    tag: Literal["rg", "ins"]
    semantic: Literal["optional", "required", "forbidden"]
    brief: str
    single: bool = False
    reasoning: bool = True

    @property
    def instances(self) -> bool:
        """Whether each expression is an instance of its own, instead of a part of one salient region."""
        return self.tag == "ins"

    def without_reasoning(self) -> Task:
        """The same task, answered at once."""
        return replace(self, instruction=self.brief, reasoning=False)

    def is_exact(self, expressions: Sequence[str], response: str) -> bool:
        """Whether expressions are those of an annotated response, in any order."""
        return sorted(expressions) == sorted(self.parse(response).expressions)

    def parse(self, text: str) -> Answer:
        """Read a response; never raises, and takes time linear in the length of `text`."""
        marks = list(_MARK.finditer(text))
        structure = _structure_fault(text, marks, _STRUCTURE if self.reasoning else _STRUCTURE[2:])
        body = _block(text, marks, "answer")
        # Where the answer block is not exactly one, `structure` already says so.
        expressions, grammar = ((), None) if body is None else self._read(body)
        return Answer(
            expressions=expressions,
            think=(_block(text, marks, "think") or "").strip(),
            structure_ok=structure is None,
            grammar_ok=body is not None and grammar is None,
            reason="; ".join(fault for fault in (structure, grammar) if fault) or None,
        )

    def format_reward(self, text: str) -> float:
        """How far a response keeps the format: 0.5 for the two blocks + 0.5 for the grammar of the answer.

        Args:
            text: A whole response, of any content.

        Returns:
            0, 0.5 or 1.
        """
        return self.parse(text).format_reward

    def compose(self, masks: Tensor) -> Tensor:
        """The masks of one image from those of its expressions: their union, or each as it is for instances.

        Args:
            masks: (E, H, W) bool, one an expression, E >= 0.

        Returns:
            (1, H, W) bool for regions (empty where E = 0), (E, H, W) for instances.
        """
        return masks if self.instances else masks.any(dim=0, keepdim=True)

    def response(self, think: str, expressions: Sequence[str]) -> str:
        """Write a response, one whose format reward is 1 and that parses into these very expressions.

        Args:
            think: The reasoning; empty where the task asks for none.
            expressions: The expressions without tags, `[semantic] ` in front where the task has it.

        Raises:
            ValueError: If reasoning or expressions do not fit the task's format.
        """
        said = [_normalised(expression) for expression in expressions]
        body = "".join(f"<{self.tag}>{expression}</{self.tag}>" for expression in said)
        reasoning = f"<think>{think.strip()}</think>" if self.reasoning or think else ""
        text = f"{reasoning}<answer>{body}</answer>"
        answer = self.parse(text)
        if answer.reason or answer.expressions != tuple(said):
            raise ValueError(f"no {self.name} response from these parts: {answer.reason or 'an expression holds tags'}")
        return text

    def _read(self, body: str) -> tuple[tuple[str, ...], str | None]:
        """Expressions of an answer block without a fault of their own, and the first fault of the block."""
        # Linear: what is between two tags holds no "<", so no character is visited from two starting points.
        pieces = re.split(rf"<{self.tag}>([^<>]*)</{self.tag}>", body)
        stray, found = "".join(pieces[::2]), [_normalised(piece) for piece in pieces[1::2]]
        faults = [self._fault(expression) for expression in found]
        sound = tuple(expression for expression, fault in zip(found, faults, strict=True) if fault is None)
        surplus = self.single and len(sound) > 1
        if stray.strip():
            faults.insert(0, f"the answer may hold <{self.tag}>...</{self.tag}> alone, not {_quoted(stray)}")
        if surplus:
            faults.append(f"{len(sound)} expressions where exactly one is asked for")
        if not found:
            faults.append("the answer holds no expression")
        return () if surplus else sound, next((fault for fault in faults if fault), None)

    def _fault(self, expression: str) -> str | None:
        """Why an expression, white space normalised, does not fit the task, or None where it does."""
        if not expression:
            return f"empty <{self.tag}></{self.tag}>"
        before, mark, name = expression.partition(SEMANTIC)
        if not mark:
            return f"{_quoted(expression)} lacks {SEMANTIC} in front" if self.semantic == "required" else None
        if self.semantic == "forbidden":
            return f"{_quoted(expression)}: this task has no {SEMANTIC}"
        if before or SEMANTIC in name or not name.startswith(" "):
            return f"{_quoted(expression)}: {SEMANTIC} must stand once, in front of a name"
        return None


def _structure_fault(text: str, marks: list[re.Match[str]], wanted: tuple[str, ...]) -> str | None:
    """Why a text is not the blocks of these marks, one after the other, or None where it is."""
    found = [mark.group() for mark in marks]
    off = [f"{count} {tag}" for tag in _STRUCTURE if (count := found.count(tag)) != wanted.count(tag)]
    if off:
        return f"found {', '.join(off)} where one each of {' '.join(wanted)} must stand"
    if tuple(found) != wanted:
        return f"tags in the order {''.join(found)}"
    ends = [0, *(mark.end() for mark in marks[1::2])]
    starts = [*(mark.start() for mark in marks[::2]), len(text)]
    outside = "".join(text[end:start] for end, start in zip(ends, starts, strict=True))
    return f"text outside {' '.join(wanted)}: {_quoted(outside)}" if outside.strip() else None


def _block(text: str, marks: list[re.Match[str]], name: str) -> str | None:
    """What the block of that name holds, or None where there is not exactly one."""
    edges = [mark for mark in marks if mark.group() in (f"<{name}>", f"</{name}>")]
    if [edge.group() for edge in edges] != [f"<{name}>", f"</{name}>"]:
        return None
    return text[edges[0].end() : edges[1].start()]


def _normalised(text: str) -> str:
    return " ".join(text.split())


def _quoted(text: str, length: int = 40) -> str:
    """The beginning of a text on one line."""
    stripped = text.strip()
    return repr(stripped if len(stripped) <= length else f"{stripped[:length]}...")


_SOD = """\
What in this image catches the eye before everything else? Name the salient region, or regions, in words from which a \
segmentation model that sees the image can find it.
First reason between <think> and </think>, in three steps. Scene: what the image shows, and where. Analysis: which \
objects stand out from their surroundings by colour, contrast, size, sharpness, position or meaning, and which are \
background. Conclusion: what is salient.
Then answer between <answer> and </answer>, with <rg> and </rg> around each region. Describe a region by a short \
phrase that fits nothing else in the image; or, where everything of one category is salient, write [semantic] and the \
name of the category. Add nothing before, between or after. The form is:
<think>scene, analysis, conclusion</think><answer><rg>phrase</rg><rg>[semantic] name</rg></answer>"""

_SIS = """\
Which single objects in this image catch the eye before everything else? Tell them apart: describe every salient \
instance in words from which a segmentation model that sees the image can find this one and no other.
First reason between <think> and </think>, in three steps. Scene: what the image shows, and where. Analysis: which \
objects stand out from their surroundings, how many there are, and what tells each from its neighbours, such as place, \
colour, size, pose or action. Conclusion: which instances are salient.
Then answer between <answer> and </answer>, with <ins> and </ins> around a short phrase for each instance, one phrase \
an instance. Add nothing before, between or after. The form is:
<think>scene, analysis, conclusion</think><answer><ins>phrase</ins><ins>phrase</ins></answer>"""

_COSOD = """\
These images belong together: salient objects of one category occur in all of them. Name it, so that a segmentation \
model can find its objects in every image.
First reason between <think> and </think>, in three steps. Objects: what stands out in each image. Analysis: compare \
the images, and drop what is not in every one, however striking it may be. Conclusion: the category that all share.
Then answer between <answer> and </answer> with exactly one <rg> and </rg>, which holds [semantic] and the name of the \
category, as specific as fits all images. Add nothing before or after. The form is:
<think>objects, analysis, conclusion</think><answer><rg>[semantic] name</rg></answer>"""

_SOD_BRIEF = """\
What in this image catches the eye before everything else? Name the salient region, or regions, in words from which a \
segmentation model that sees the image can find it.
Answer at once between <answer> and </answer>, with <rg> and </rg> around each region. Describe a region by a short \
phrase that fits nothing else in the image; or, where everything of one category is salient, write [semantic] and the \
name of the category. Add nothing before, between or after. The form is:
<answer><rg>phrase</rg><rg>[semantic] name</rg></answer>"""

_SIS_BRIEF = """\
Which single objects in this image catch the eye before everything else? Tell them apart: describe every salient \
instance in words from which a segmentation model that sees the image can find this one and no other.
Answer at once between <answer> and </answer>, with <ins> and </ins> around a short phrase for each instance, one phrase \
an instance. Add nothing before, between or after. The form is:
<answer><ins>phrase</ins><ins>phrase</ins></answer>"""

_COSOD_BRIEF = """\
These images belong together: salient objects of one category occur in all of them. Name it, so that a segmentation \
model can find its objects in every image.
Answer at once between <answer> and </answer> with exactly one <rg> and </rg>, which holds [semantic] and the name of the \
category, as specific as fits all images. Add nothing before or after. The form is:
<answer><rg>[semantic] name</rg></answer>"""

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("sod", "salient object detection", _SOD, tag="rg", semantic="optional", brief=_SOD_BRIEF),
        Task("sis", "salient instance segmentation", _SIS, tag="ins", semantic="forbidden", brief=_SIS_BRIEF),
        Task(
            "cosod",
            "co-salient object detection",
            _COSOD,
            tag="rg",
            semantic="required",
            brief=_COSOD_BRIEF,
            single=True,
        ),
    )
}


def register(task: Task) -> Task:
    """Make a task of your own known by its name; call it where the task is defined, beside its datamodule.

    A config that names anything of that file by a class_path then imports the file, and so knows the task.

    Returns:
        The task.

    Raises:
        ValueError: If another task has that name, or the name is not of letters, digits and _.
    """
    if not re.fullmatch(r"\w+", task.name):  # it becomes part of the names of metrics and files
        raise ValueError(f"task {task.name!r}: a name is of letters, digits and _ alone")
    if TASKS.setdefault(task.name, task) != task:
        raise ValueError(f"task {task.name!r}: there is another one of that name; take a name of your own")
    return task


def task_of(group: ImageGroup) -> Task:
    """The task that an image group asks for, with or without reasoning."""
    task = get_task(group.task)
    return task if group.reasoning else task.without_reasoning()


def get_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in TASKS:
        raise ValueError(f"unknown task {name!r}: use one of {', '.join(TASKS)}, or register your own")
    return TASKS[name]


def instructions() -> dict[str, str]:
    """What each task asks, by its name; and where no reasoning is asked for, by its name and `WITHOUT_REASONING`."""
    brief = {f"{name}{WITHOUT_REASONING}": task.brief for name, task in TASKS.items()}
    return {name: task.instruction for name, task in TASKS.items()} | brief
