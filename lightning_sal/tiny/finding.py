"""Things to find in procedural scenes: one object by its words, all of a shape, how many there are, or none at all.

A scene has three to five vivid or pale objects; no two share both colour and shape, while shapes come again in other
colours. What is asked for is told by its visible pixels: box, point and mask. As in `lightning_sal.tiny.scenes`, a sample
is a pure function of (seed, task, index).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from lightning_sal.samples import ImageGroup
from lightning_sal.tasks.blocks import tags_of, write_blocks
from lightning_sal.tiny.draw import Draw
from lightning_sal.tiny.scenes import COLOURS, SHAPES, SIZE, Scene, SceneObject, render

FINDING = {"perception": 5, "detection": 6, "counting": 7}  # stream of each task, beside those of the others
_MOST = 3  # objects of a shape in a scene, so that no answer is long
_NONE, _ALL = 18, 22  # per cent of the perception questions without a target, and of those about all of a shape
_NONE_COUNTED = 15  # per cent of the counting questions whose right answer is 0
_PALE = 30  # per cent of the objects
_LOOKS = 80  # per cent of the responses that look
_JITTER = (5, 12)  # pixels by which a mistaken corner is off, at least and at most
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")

Box = tuple[int, int, int, int]
Point = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Find:
    """A question about a scene.

    Args:
        scene: Its objects differ in colour or in shape.
        text: What is asked for, as "the red circle", "all squares", "how many rings".
        targets: The objects that fit, from left to right; none where nothing does.
    """

    scene: Scene
    text: str
    targets: tuple[SceneObject, ...]

    @property
    def mask(self) -> np.ndarray:
        """(SIZE, SIZE) bool, the visible pixels of all targets."""
        return np.logical_or.reduce([o.mask for o in self.targets], initial=False, axis=0) & np.ones((SIZE, SIZE), bool)


def box_of(mask: np.ndarray) -> Box:
    """x0, y0, x1, y1 of the True pixels of an (H, W) mask, the last ones included."""
    ys, xs = np.nonzero(mask)
    return int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())


def point_of(mask: np.ndarray) -> Point:
    """x, y of a pixel well inside an (H, W) mask: of those at least half as deep as the deepest, the one nearest to the
    middle of its box; of several the first, row by row."""
    x0, y0, x1, y1 = box_of(mask)
    inside = np.pad(mask[y0 : y1 + 1, x0 : x1 + 1], 1)
    depth = np.zeros((y1 - y0 + 1, x1 - x0 + 1), np.int64)
    while inside.any():
        depth += inside[1:-1, 1:-1]
        core = inside[1:-1, 1:-1].copy()
        for side in (inside[:-2, 1:-1], inside[2:, 1:-1], inside[1:-1, :-2], inside[1:-1, 2:]):
            core &= side
        inside = np.pad(core, 1)
    ys, xs = np.nonzero(2 * depth >= depth.max())
    nearest = np.argmin((2 * xs - x1 + x0) ** 2 + (2 * ys - y1 + y0) ** 2)
    return x0 + int(xs[nearest]), y0 + int(ys[nearest])


@lru_cache(maxsize=256)  # a batch is drawn for its samples, and again for its auxiliary labels
def find_of(seed: int, task: str, index: int) -> Find:
    """Question number `index` of the endless stream of a task.

    Args:
        seed: Seed of the stream, >= 0.
        task: A key of `FINDING`.
        index: Number of the sample, >= 0.
    """
    draw = Draw(seed, FINDING[task], index)
    scene = render(draw, _objects(draw))
    if task == "counting":
        return _shape_question(draw, scene, "how many", absent=draw.chance(_NONE_COUNTED))
    if task == "detection":
        return _shape_question(draw, scene, "all", absent=False)
    kind = draw.below(100)
    if kind < _NONE:
        return Find(scene, f"the {draw.choice(_near_misses(scene))}", ())
    if kind < _NONE + _ALL:
        return _shape_question(draw, scene, "all", absent=False)
    target = draw.choice(scene.objects)
    return Find(scene, f"the {target.phrase}", (target,))


def _objects(draw: Draw) -> list[tuple[str, str, bool]]:
    """Three to five (colour, shape, salient), no pair of colour and shape twice, a shape likely again."""
    count, pairs = draw.between(3, 5), []
    shape = draw.choice(SHAPES)
    for again in [True] * (draw.choice((1, 2, 2, 3)) - 1) + [False] * count:
        if len(pairs) == count:
            break
        while True:
            pair = (draw.choice(list(COLOURS)), shape if again or not pairs else draw.choice(SHAPES))
            if pair not in pairs and sum(s == pair[1] for _, s in pairs) < _MOST:
                break
        pairs.append(pair)
    return [(*pair, not draw.chance(_PALE)) for pair in draw.shuffled(pairs)]


def _shape_question(draw: Draw, scene: Scene, words: str, *, absent: bool) -> Find:
    shapes = [o.shape for o in scene.objects]  # one that comes again is likelier
    shape = draw.choice([s for s in SHAPES if s not in shapes] if absent and len({*shapes}) < len(SHAPES) else shapes)
    plural = f"{shape}es" if shape.endswith("s") else f"{shape}s"
    return Find(scene, f"{words} {plural}", tuple(o for o in scene.objects if o.shape == shape))


def _near_misses(scene: Scene) -> list[str]:
    """Phrases of a colour and a shape that are both in the scene, on no one object."""
    phrases = {o.phrase for o in scene.objects}
    pairs = {f"{a.colour} {b.shape}" for a in scene.objects for b in scene.objects}
    fallback = {f"{colour} {scene.objects[0].shape}" for colour in COLOURS}  # of scenes in which every pair is there
    return sorted(pairs - phrases) or sorted(fallback - phrases)


def place_of(point: Point) -> str:
    """Where a point lies, in thirds of the scene, in words: "top left", "bottom", "middle"."""
    x, y = point
    return " ".join(word for word in (_ROWS[3 * y // SIZE], _COLUMNS[3 * x // SIZE]) if word) or "middle"


def response_to(find: Find, draw: Draw, mistakes: int = 0) -> str:
    """An annotated response: none, some or all of the other objects, mostly where the targets are, then their number.

    Args:
        find: What is answered.
        draw: Draws the style of the reasoning and the mistake.
        mistakes: Per cent of the responses with a wrong, a missing or a misplaced object, in [0, 100].
    """
    seen, boxes = list(find.targets), {}
    if draw.chance(mistakes):
        seen, boxes = _mistaken(draw, find)
    others = draw.shuffled([o for o in find.scene.objects if o not in seen])
    told = others[: draw.choice((0, 0, 1, len(others)))]
    scene = " and ".join(o.phrase for o in find.scene.objects if o in told)  # from left to right
    places = " and ".join(f"{o.phrase} {place_of(point_of(o.mask))}" for o in seen) or "nothing"
    opens, closes = tags_of("look")
    looked = f"{opens}{places}{closes} " if draw.chance(_LOOKS) else ""
    reasoning = f"{f'Scene: {scene}. ' if scene else ''}{looked}Conclusion: {len(seen)}."
    answer = [{"bbox_2d": boxes.get(o.phrase, box_of(o.mask)), "point_2d": point_of(o.mask)} for o in seen]
    return write_blocks(reasoning, json.dumps(answer))


def _mistaken(draw: Draw, find: Find) -> tuple[list[SceneObject], dict[str, Box]]:
    """Objects and boxes by phrase of a wrong answer: another object, one less, one more, or a box that is off."""
    seen = list(find.targets)
    others = [o for o in find.scene.objects if o not in seen]
    kind = draw.choice(("other", "fewer", "more", "off", "off")) if seen else "more"
    if kind in ("other", "fewer"):
        seen.remove(draw.choice(seen))
    if kind in ("other", "more") and others:
        seen.append(draw.choice(others))
    if kind == "off":
        target = draw.choice(seen)
        return seen, {target.phrase: _off(draw, box_of(target.mask))}
    return sorted(seen, key=lambda o: o.x), {}


def _off(draw: Draw, box: Box) -> Box:
    """A box whose corners are each some pixels off, and still in the scene and in order."""

    def moved(value: int) -> int:
        return min(max(value + draw.choice((-1, 1)) * draw.between(*_JITTER), 0), SIZE - 1)

    x0, y0, x1, y1 = (moved(value) for value in box)
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def unlooked(response: str) -> str:
    """An annotated response without its `<look>` block."""
    opens, closes = tags_of("look")
    before, _, rest = response.partition(opens)
    return before + rest.partition(f"{closes} ")[2] if rest else response


def find_group(seed: int, task: str, index: int, *, annotated: bool = True, mistakes: int = 0) -> ImageGroup:
    """The image group number `index` of the endless stream of a task.

    Args:
        seed: Seed of the stream, >= 0.
        task: "perception", "detection" or "counting".
        index: Number of the sample, >= 0.
        annotated: Whether the group carries its response.
        mistakes: Per cent of the responses with a wrong answer, in [0, 100].

    Returns:
        The group, with boxes and points of all targets; for perception the mask of their union, (1, H, W), for counting
        their number.
    """
    find = find_of(seed, task, index)
    return ImageGroup(
        f"{task}-{seed}-{index}",
        task,
        images=(torch.from_numpy(find.scene.image),),
        masks=(torch.from_numpy(find.mask)[None],) if task == "perception" else None,
        response=response_to(find, Draw(seed, FINDING[task], index, 1), mistakes) if annotated else None,
        question=find.text,
        reference=str(len(find.targets)) if task == "counting" else None,
        boxes=(_rows([box_of(o.mask) for o in find.targets], 4),),
        points=(_rows([point_of(o.mask) for o in find.targets], 2),),
    )


def _rows(values: Sequence[tuple[int, ...]], columns: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(-1, columns)
