"""Where the answer of a response stands that does not keep the form: in a block of its own, behind "Answer:", or in all.

Models that never saw a format write Markdown, lists, JSON, other tags, or a plain phrase. What they answer by is read as a
person would read it, and no more: by `find_phrases` (`lenient_phrases`) and `find_objects` (`lenient_boxes`). Everything
takes time linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# A closing or opening mark of the reasoning, and of the answer; GLM-4.1V has marks of its own around the latter
_THINK = re.compile(r"<\s?(/?)\s?think(?:ing)?\s?>", re.IGNORECASE)
_ANSWER = re.compile(r"<\s?(/?)\s?answer\s?>|<\|(?:begin|(end))_of_box\|>", re.IGNORECASE)
_ANSWER_LINE = re.compile(
    r"^[ \t>#*_]{0,20}(?:final )?(?:answers?|conclusion)[ \t*_]{0,20}(?:[:：][ \t*_]{0,20}|\r?$)",
    re.IGNORECASE | re.MULTILINE,
)
_FENCE = re.compile(r"```\w*")

Place = tuple[int, int]  # the first character and the one behind the last


def answer_places(text: str) -> Iterator[tuple[Place, bool]]:
    """Where in a response the answer may stand, the likeliest place first.

    Yields:
        The place, and whether all that stands there may be the answer, rather than only what is marked as such.
    """
    thoughts = list(_THINK.finditer(text))
    behind = max((mark.end() for mark in thoughts if mark[1]), default=0)
    unfinished = any(not mark[1] and mark.start() >= behind for mark in thoughts)
    marks = list(_ANSWER.finditer(text, behind))
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    blocks = [(mark.end(), end) for mark, end in zip(marks, ends, strict=False) if not (mark[1] or mark[2])]
    lines = [] if blocks or unfinished else list(_ANSWER_LINE.finditer(text, behind))
    if filled := [block for block in blocks if text[slice(*block)].strip()]:
        yield filled[-1], True
    if lines:
        start = lines[-1].end()
        rest = text[start:].partition("\n")[0]
        yield (start, start + len(rest) if rest.strip() else len(text)), True
    yield (behind, len(text)), not (blocks or lines or unfinished)


def unfenced(text: str, place: Place) -> Place:
    """Where the last fenced block of Markdown stands within a place; the place itself where there is none."""
    fences = list(_FENCE.finditer(text, *place))
    if not fences:
        return place
    if len(fences) % 2:  # it has no end
        return fences[-1].end(), place[1]
    return fences[-2].end(), fences[-1].start()
