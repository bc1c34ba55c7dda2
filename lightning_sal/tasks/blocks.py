"""The blocks of a response: `<think>reasoning</think><answer>...</answer>`, whatever the answer's grammar.

Tags are exact: lower case, no attributes. Half of the format is this structure: one think block, then one answer block,
nothing but white space around them. What can be read is read even where the structure is broken:

- without exactly one answer block (none, two, a stray `<answer>` or `</answer>`) there is no body to read;
- a fault of the think block, or text outside the blocks, costs the structure alone.

Where no reasoning is asked for, the structure is one answer block alone, and a think block is a fault like any other text
outside.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


def tags_of(*names: str) -> tuple[str, ...]:
    """The opening and the closing tag of each name."""
    return tuple(tag for name in names for tag in (f"<{name}>", f"</{name}>"))


BLOCKS = ("think", "answer")
TAGS = tags_of(*BLOCKS)
_OPENS, _CLOSES, _ANSWERS, _ANSWERED = TAGS
_MARK = re.compile("|".join(TAGS))
_FENCE = re.compile(r"^[ \t]*```\w*[ \t]*$", re.MULTILINE)  # of Markdown


@dataclass(frozen=True, slots=True)
class Blocks:
    """What a response holds.

    Args:
        reasoning: What the one think block holds; empty where there is not exactly one.
        body: What the one answer block holds, or None.
        fault: Why the structure is not as asked, on one line, or None.
        reasoning_at: The first character of the reasoning and the one behind its last; None where it is empty.
        body_at: The character of the text with which the body begins.
        answer_at: Where the body stands without the white space at its ends, likewise; None where nothing is left.
    """

    reasoning: str
    body: str | None
    fault: str | None
    reasoning_at: tuple[int, int] | None = None
    body_at: int = 0
    answer_at: tuple[int, int] | None = None


def read_blocks(text: str, reasoning: bool = True) -> Blocks:
    """Find the blocks of a response, in time linear in its length.

    Args:
        text: Of any content.
        reasoning: Whether a think block is asked for.
    """
    marks = list(_MARK.finditer(text))
    fault = _structure_fault(text, marks, TAGS if reasoning else TAGS[2:])
    think, body = (_block(text, marks, name) for name in BLOCKS)
    reasoning_at = stripped(text, *think) if think else None
    return Blocks(
        text[slice(*reasoning_at)] if reasoning_at else "",
        text[slice(*body)] if body else None,
        fault,
        reasoning_at,
        body[0] if body else 0,
        stripped(text, *body) if body else None,
    )


def stripped(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Where text[start:end] stands without the white space at its ends; None where nothing is left."""
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    end -= len(part) - len(part.rstrip())
    return (start, end) if start < end else None


def write_blocks(reasoning: str, body: str, think: bool = True) -> str:
    """A response of these blocks.

    Args:
        reasoning: For the think block.
        body: For the answer block.
        think: Whether there is a think block even for empty reasoning.
    """
    block = think_block(reasoning.strip()) if think or reasoning else ""
    return f"{block}{_ANSWERS}{body}{_ANSWERED}"


def think_block(text: str) -> str:
    """A think block that holds a text."""
    return f"{_OPENS}{text}{_CLOSES}"


def looks(text: str, tag: str) -> bool:
    """Whether a text holds `<tag>...</tag>` with something between, tags and white space aside, in linear time."""
    opens, closes = tags_of(tag)
    start = text.find(opens)
    while start >= 0 and (end := text.find(closes, start)) >= 0:
        if text[start:end].replace(opens, "").strip():
            return True
        start = text.find(opens, end)
    return False


def mend_blocks(text: str) -> tuple[tuple[str, ...], str]:
    """Read a response of a model that was not trained on the format.

    Markdown around the blocks, the case and spacing of their tags, text around them, and a missing or doubled think block
    (some models put thoughts of their own in front) do not matter.

    Returns:
        The pieces of what stands before the answer block, of which the last ones are likeliest the reasoning; and what the
        answer block holds.

    Raises:
        ValueError: Without exactly one answer block behind the reasoning; the message says so.
    """
    plain = respelled(_FENCE.sub("", text), *BLOCKS)
    before, opened, behind = plain.rpartition(_ANSWERS)
    body, closed, after = behind.partition(_ANSWERED)
    if not opened or _CLOSES in after:
        raise ValueError(f"there is no {_ANSWERS} block behind the reasoning")
    if _ANSWERS in before.rpartition(_CLOSES)[2]:
        raise ValueError(f"there are several {_ANSWERS} blocks")
    if not closed:
        raise ValueError(f"the {_ANSWERS} block has no end")
    return tuple(re.split(f"{_OPENS}|{_CLOSES}", before)), body


def respelled(text: str, *names: str) -> str:
    """A text with tags of these names, in whatever case and spacing, as they are to be written."""
    loose = re.compile(rf"<[ \t]*(/?)[ \t]*({'|'.join(map(re.escape, names))})[ \t]*>", re.IGNORECASE)
    spelling = {name.lower(): name for name in names}
    return loose.sub(lambda tag: f"<{tag[1]}{spelling[tag[2].lower()]}>", text)


def answer_on_a_line(text: str) -> str:
    """A response for people to read, whose answer block begins a line where it followed the reasoning without a break."""
    return text.replace(f"{_CLOSES}{_ANSWERS}", f"{_CLOSES}\n{_ANSWERS}")


def _structure_fault(text: str, marks: list[re.Match[str]], wanted: tuple[str, ...]) -> str | None:
    """Why a text is not the blocks of these marks, one after the other, or None where it is."""
    found = [mark.group() for mark in marks]
    off = [f"{count} {tag}" for tag in TAGS if (count := found.count(tag)) != wanted.count(tag)]
    if off:
        return f"found {', '.join(off)} where one each of {' '.join(wanted)} must stand"
    if tuple(found) != wanted:
        return f"tags in the order {''.join(found)}"
    ends = [0, *(mark.end() for mark in marks[1::2])]
    starts = [*(mark.start() for mark in marks[::2]), len(text)]
    outside = "".join(text[end:start] for end, start in zip(ends, starts, strict=True))
    return f"text outside {' '.join(wanted)}: {quoted(outside)}" if outside.strip() else None


def _block(text: str, marks: list[re.Match[str]], name: str) -> tuple[int, int] | None:
    """Where what the block of that name holds begins and ends, or None where there is not exactly one."""
    edges = [mark for mark in marks if mark.group() in tags_of(name)]
    if tuple(edge.group() for edge in edges) != tags_of(name):
        return None
    return edges[0].end(), edges[1].start()


def normalised(text: str) -> str:
    """A text with each run of white space as one space, and none at its ends."""
    return " ".join(text.split())


def quoted(text: str, length: int = 40) -> str:
    """The beginning of a text on one line."""
    stripped = text.strip()
    return repr(stripped if len(stripped) <= length else f"{stripped[:length]}...")
