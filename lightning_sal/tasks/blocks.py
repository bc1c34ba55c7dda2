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

_STRUCTURE = ("<think>", "</think>", "<answer>", "</answer>")
_MARK = re.compile("|".join(_STRUCTURE))


@dataclass(frozen=True, slots=True)
class Blocks:
    """What a response holds.

    Args:
        reasoning: What the one think block holds; empty where there is not exactly one.
        body: What the one answer block holds, or None.
        fault: Why the structure is not as asked, on one line, or None.
    """

    reasoning: str
    body: str | None
    fault: str | None


def read_blocks(text: str, reasoning: bool = True) -> Blocks:
    """Find the blocks of a response, in time linear in its length.

    Args:
        text: Of any content.
        reasoning: Whether a think block is asked for.
    """
    marks = list(_MARK.finditer(text))
    fault = _structure_fault(text, marks, _STRUCTURE if reasoning else _STRUCTURE[2:])
    return Blocks((_block(text, marks, "think") or "").strip(), _block(text, marks, "answer"), fault)


def write_blocks(reasoning: str, body: str, think: bool = True) -> str:
    """A response of these blocks.

    Args:
        reasoning: For the think block.
        body: For the answer block.
        think: Whether there is a think block even for empty reasoning.
    """
    block = f"<think>{reasoning.strip()}</think>" if think or reasoning else ""
    return f"{block}<answer>{body}</answer>"


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
    return f"text outside {' '.join(wanted)}: {quoted(outside)}" if outside.strip() else None


def _block(text: str, marks: list[re.Match[str]], name: str) -> str | None:
    """What the block of that name holds, or None where there is not exactly one."""
    edges = [mark for mark in marks if mark.group() in (f"<{name}>", f"</{name}>")]
    if [edge.group() for edge in edges] != [f"<{name}>", f"</{name}>"]:
        return None
    return text[edges[0].end() : edges[1].start()]


def normalised(text: str) -> str:
    """A text with each run of white space as one space, and none at its ends."""
    return " ".join(text.split())


def quoted(text: str, length: int = 40) -> str:
    """The beginning of a text on one line."""
    stripped = text.strip()
    return repr(stripped if len(stripped) <= length else f"{stripped[:length]}...")
