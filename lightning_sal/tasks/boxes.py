"""Boxes and points in JSON: the answer block holds a list with an entry for each object, and is empty where nothing fits.

    <think>reasoning</think><answer>[{"bbox_2d": [x0, y0, x1, y1], "point_2d": [x, y]}]</answer>

This is the form of VisionReasoner (arXiv 2505.12081) and Dr. Seg, whose reading is kept: the first answer block counts, also
where the structure is broken; an entry needs both keys; numbers may be written as texts. What cannot be read is no object,
and not the answer "nothing fits".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from lightning_sal.frames import Frame, from_original, to_original
from lightning_sal.samples import ImageGroup, VisualPrompt
from lightning_sal.tasks.base import Answer, Task
from lightning_sal.tasks.blocks import mend_blocks, quoted, read_blocks, stripped, tags_of, write_blocks
from lightning_sal.tasks.lenient import answer_places, unfenced
from lightning_sal.tasks.lenient_boxes import find_objects

BOX, POINT = "bbox_2d", "point_2d"
LENGTHS = {BOX: 4, POINT: 2}  # key of an entry -> how many numbers it holds
_OPENS, _CLOSES = tags_of("answer")
_SPELLINGS = {  # of other models, where one thing alone can be meant
    **dict.fromkeys((BOX, "bbox", "box", "bounding_box", "boundingbox", "box_2d"), BOX),
    **dict.fromkeys((POINT, "point", "points", "center", "centre", "points_1"), POINT),
}

Box = tuple[float, ...]  # x0, y0, x1, y1
Point = tuple[float, ...]  # x, y


@dataclass(frozen=True, slots=True)
class Objects(Answer):
    """Objects by their boxes and points, in the units that the response states them in until `Task.locate` changes that.

    Args:
        boxes: x0, y0, x1, y1 of each object that is listed; None where they are no four numbers.
        points: x, y of each object that is listed; None where they are no two numbers.
        readable: Whether the answer is a list in JSON whose entries have both keys, be it empty.
        complete: How much of the entries is there, in [0, 1]: the share of boxes of four and of points of two values. It is
            0 for an empty list.
        **kwargs: As for `Answer`. A number may be NaN or infinite, as JSON of Python may say.
    """

    boxes: tuple[Box | None, ...] = ()
    points: tuple[Point | None, ...] = ()
    readable: bool = True
    complete: float = 0.0

    @property
    def usable(self) -> tuple[tuple[Box | None, Point | None], ...]:
        """Box and point of each object that has one at least, without what is not finite."""
        pairs = ((_finite(box), _finite(point)) for box, point in zip(self.boxes, self.points, strict=True))
        return tuple(pair for pair in pairs if any(pair))

    def moved(self, move: Callable[[Sequence[float]], tuple[float, ...]]) -> Self:
        """The same with every box and point moved."""
        boxes, points = ([part and move(part) for part in parts] for parts in (self.boxes, self.points))
        return replace(self, boxes=tuple(boxes), points=tuple(points))

    @property
    def labels(self) -> tuple[str, ...]:
        """The numbers of each usable object."""
        return tuple(" ".join(_said(part) for part in pair if part) for pair in self.usable)

    def fields(self) -> dict[str, Any]:
        """`boxes` and `points`, lists of numbers for each object that is listed, null where they are none that are finite.
        `boxes` is null where the answer cannot be read."""
        boxes, points = ([list(_finite(part) or ()) or None for part in parts] for parts in (self.boxes, self.points))
        return {"boxes": boxes if self.readable else None, "points": points}


@dataclass(frozen=True, slots=True)
class Listed:
    """What the text of an answer block lists; arguments as of `Objects`, and where each usable object stands in it."""

    boxes: tuple[Box | None, ...] = ()
    points: tuple[Point | None, ...] = ()
    readable: bool = False
    complete: float = 0.0
    fault: str | None = None
    places: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class BoxTask(Task):
    """A task about one image that is answered by boxes and points in JSON."""

    has_question = True

    def ask(self, group: ImageGroup, instruction: str | None = None, look: str | None = None) -> str:
        """See `Task.ask`; the question in lower case, without the mark at its end."""
        question = group.question.strip().rstrip('."?! ').lower()
        return super().ask(replace(group, question=question), instruction, look)

    def parse(self, text: str) -> Objects:
        """See `Task.parse`."""
        blocks, body = read_blocks(text, self.reasoning), first_answer(text)
        listed = read_list(text[slice(*body)]) if body else Listed(fault="there is no answer block with an end")
        start = body[0] if body else 0
        answer = Objects(
            listed.boxes,
            listed.points,
            listed.readable,
            listed.complete,
            reasoning=blocks.reasoning,
            structure_ok=blocks.fault is None,
            grammar_ok=listed.fault is None,
            reason="; ".join(fault for fault in (blocks.fault, listed.fault) if fault) or None,
            reasoning_at=blocks.reasoning_at,
            labels_at=tuple((start + first, start + last) for first, last in listed.places),
            answer_at=stripped(text, *body) if body else None,
        )
        return self.looked(answer)

    def read_leniently(self, text: str) -> Objects:
        """See `Task.read_leniently`; a list as it is asked for, wherever it stands, else what `find_objects` finds."""
        strict = self.parse(text)
        for place, whole in answer_places(text):
            listed = _lenient_list(text, *unfenced(text, place)) if whole else Listed()
            if listed.readable:
                return replace(strict, boxes=listed.boxes, points=listed.points, readable=True, labels_at=listed.places)
        return strict

    def mend(self, text: str) -> tuple[tuple[str, ...], Objects]:
        """See `Task.mend`: Markdown, other spellings of the keys, a missing point, one object without a list around it."""
        try:
            pieces, body = mend_blocks(text)
        except ValueError:
            pieces, body = ("",), text
        return pieces, Objects(*mended(body))

    def write(self, reasoning: str, answer: Objects) -> str:
        """See `Task.write`."""
        text = write_blocks(reasoning, write_list(answer), self.reasoning)
        read = self.parse(text)
        if read.reason is not None:
            raise ValueError(f"no {self.name} response from these parts: {read.reason}")
        if (read.boxes, read.points) != (answer.boxes, answer.points):
            raise ValueError(f"no {self.name} response from these parts: they are read otherwise")
        return text

    def prompts(self, answer: Objects, size: tuple[int, int]) -> tuple[VisualPrompt, ...]:
        """A prompt for each usable object: its box, sides in order, and its point as one on the object."""
        return tuple(
            VisualPrompt(box and _ordered(box), (point,) if point else (), (1,) if point else ())  # type: ignore[arg-type]
            for box, point in answer.usable
        )

    def locate(self, answer: Objects, group: ImageGroup, frame: Frame) -> Objects:
        """See `Task.locate`."""
        return answer.moved(lambda values: to_original(values, frame, _size(group)))

    def spoken(self, response: str, group: ImageGroup, frame: Frame) -> str:
        """See `Task.spoken`; numbers become whole ones, as the models write them.

        Raises:
            ValueError: If the answer of the response cannot be read.
        """
        size, answer, body = _size(group), self.parse(response), first_answer(response)
        if body is None or not answer.readable or None in (*answer.boxes, *answer.points):
            raise ValueError(f"{group.key}: its response states no places that can be read: {answer.reason}")
        if frame.extent(size) == size:
            return response
        moved = answer.moved(lambda values: tuple(map(round, from_original(values, frame, size))))
        return response[: body[0]] + write_list(moved) + response[body[1] :]


def true_count(group: ImageGroup) -> int | None:
    """How many objects are asked for: the reference as a whole number, else the number of boxes, else of points.

    Raises:
        ValueError: If the reference is no whole number >= 0, and there are no boxes or points.
    """
    if group.reference is not None and group.reference.strip().isdecimal():
        return int(group.reference)
    for places in (group.boxes, group.points):
        if places is not None:
            return sum(map(len, places))
    if group.reference is not None:
        raise ValueError(f"{group.key}: the reference {quoted(group.reference)} is no number of objects; give one >= 0")
    return None


def first_answer(text: str) -> tuple[int, int] | None:
    """Where what the first answer block holds begins and ends, without white space at its ends; None where there is none."""
    start = text.find(_OPENS)
    end = text.find(_CLOSES, start)
    if start < 0 or end < 0:
        return None
    body = text[start + len(_OPENS) : end]
    start = end - len(body.lstrip())
    return start, start + len(body.strip())


def read_list(text: str) -> Listed:
    """What the text of an answer block lists; never raises, and takes time linear in its length.

    Args:
        text: Of any content.
    """
    try:
        items = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Listed(fault=f"the answer is no JSON that can be read, {quoted(text)}: {_cause(error)}")
    if not isinstance(items, list):
        return Listed(fault=f"the answer is no list in JSON but {quoted(text)}")
    complete = _complete(items)
    if not all(isinstance(item, dict) and item.keys() >= LENGTHS.keys() for item in items):
        return Listed(complete=complete, fault=f"an entry of the answer lacks {BOX} or {POINT}")
    boxes = tuple(numbers(item[BOX], 4) for item in items)
    points = tuple(numbers(item[POINT], 2) for item in items)
    sound = all(part and _finite(part) for part in (*boxes, *points))
    fault = None if sound else f"an entry of the answer has no 4 numbers as {BOX} or no 2 as {POINT}"
    pairs = zip(boxes, points, _item_places(text), strict=True)
    places = tuple(place for box, point, place in pairs if _finite(box) or _finite(point))
    return Listed(boxes, points, True, complete, fault, places)


def _lenient_list(text: str, start: int, end: int) -> Listed:
    """What a part of a text lists, its places those of the whole text."""
    first, last = text.find("[", start, end), text.rfind("]", start, end)
    listed = read_list(text[first : last + 1]) if first >= 0 else Listed()
    if listed.readable:
        return replace(listed, places=tuple((first + begins, first + ends) for begins, ends in listed.places))
    found = find_objects(text, start, end)
    boxes, points, places = (tuple(part) for part in zip(*found, strict=True)) if found else ((), (), ())
    return Listed(boxes, points, bool(found), places=places)


def write_list(answer: Objects) -> str:
    """The JSON of an answer; whole numbers without a decimal point."""
    keyed = [
        {key: [_plain(value) for value in part] for key, part in ((BOX, box), (POINT, point)) if part is not None}
        for box, point in zip(answer.boxes, answer.points, strict=True)
    ]
    return json.dumps(keyed)


def mended(text: str) -> tuple[tuple[Box | None, ...], tuple[Point | None, ...]]:
    """Boxes and points in a text in which other models may have written them.

    Raises:
        ValueError: It lists none that can be understood in one way alone.
    """
    starts = [at for mark in "[{" if (at := text.find(mark)) >= 0]
    if not starts:
        raise ValueError(f"there is no list of boxes in {quoted(text)}")
    try:
        value, _ = json.JSONDecoder().raw_decode(text, min(starts))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the answer is no JSON that can be read: {_cause(error)}") from None
    boxes, points = [], []
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, dict):
            raise ValueError(f"an entry of the answer is {quoted(str(item))}, and no object with a {BOX}")
        known = [(_SPELLINGS[key.lower()], values) for key, values in item.items() if key.lower() in _SPELLINGS]
        parts = dict(known)
        if len(parts) != len(known) or not parts:
            raise ValueError(f"an entry of the answer has the keys {', '.join(item)}: which is its box?")
        box, point = (numbers(parts.get(key), length) for key, length in LENGTHS.items())
        if box is None and point is None:
            raise ValueError(
                f"an entry of the answer has neither 4 numbers of a box nor 2 of a point: {quoted(str(item))}"
            )
        boxes.append(box)
        points.append(point)
    return tuple(boxes), tuple(points)


def numbers(value: Any, length: int) -> tuple[float, ...] | None:
    """A list of so many values as floats, NaN for null; None where it is none, or one of them is no number."""
    if not isinstance(value, list) or len(value) != length:
        return None
    try:
        return tuple(math.nan if each is None else float(each) for each in value)
    except (TypeError, ValueError, OverflowError):
        return None


def _complete(items: Sequence[Any]) -> float:
    """See `Objects.complete`; what stands behind an entry without keys does not count."""
    parts = 0
    try:
        for item in items:
            parts += sum(_is_part(item, key, length) for key, length in LENGTHS.items())
    except TypeError:
        pass
    return parts / (len(LENGTHS) * len(items)) if items else 0.0


def _is_part(item: Any, key: str, length: int) -> bool:
    return key in item and isinstance(item[key], list) and len(item[key]) == length


def _item_places(text: str) -> Iterator[tuple[int, int]]:
    """Where each entry of a list in JSON begins and ends."""
    decode, at = json.JSONDecoder().raw_decode, _behind_blanks(text, text.index("[") + 1)
    while text[at] != "]":
        _, end = decode(text, at)
        yield at, end
        at = _behind_blanks(text, end)
        at = _behind_blanks(text, at + (text[at] == ","))


def _behind_blanks(text: str, at: int) -> int:
    """The first place from `at` on without white space."""
    while text[at] in " \t\r\n":
        at += 1
    return at


def _size(group: ImageGroup) -> tuple[int, int]:
    height, width = group.images[0].shape[:2]
    return height, width


def _finite(part: tuple[float, ...] | None) -> tuple[float, ...] | None:
    return part if part is not None and all(map(math.isfinite, part)) else None


def _ordered(box: Box) -> Box:
    x0, y0, x1, y1 = box
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _plain(value: float) -> float:
    return int(value) if float(value).is_integer() else value


def _said(part: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:g}' for value in part)})"


def _cause(error: Exception) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply or a number too long"
