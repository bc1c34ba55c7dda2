"""Procedural scenes: vivid shapes that stand out among pale ones, with masks and three-step responses.

A scene is a pure function of (seed, task, index). All arithmetic is on integers that come from the raw output of PCG64,
which NumPy keeps stable across versions, so the same seed gives the same pixels on every machine.

What the scenes are built to show: each object is named by colour and shape, a pair that is unique within its image, and
each pale distractor shares one of the two words with a salient object. One wrong word in an answer therefore points at
another object, or at none, and costs a large part of the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import SEMANTIC, TASKS
from lightning_sal.tiny.wording import WORDINGS

SIZE = 112  # pixels of a side: 8 x 8 patches of 14, 4 x 4 visual tokens
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "cross", "ring")
COLOURS = {
    "red": (215, 35, 40),
    "green": (35, 165, 60),
    "blue": (45, 75, 220),
    "yellow": (235, 210, 45),
    "purple": (155, 50, 190),
    "orange": (240, 130, 25),
}
T = TypeVar("T")
_MIN_VISIBLE = 60  # per cent of an object that must stay uncovered
_PALE = 32  # per cent of a distractor's colour that is not background
_STREAMS = {"sod": 1, "sis": 2, "cosod": 3}
_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.int64)


class Draw:
    """Integers from the raw 64-bit output of PCG64."""

    def __init__(self, *entropy: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(entropy))

    def below(self, n: int) -> int:
        """One integer in [0, n)."""
        return int(self._bits.random_raw() % n)

    def between(self, low: int, high: int) -> int:
        """One integer in [low, high], both included."""
        return low + self.below(high - low + 1)

    def chance(self, per_cent: int) -> bool:
        """True in `per_cent` of a hundred draws."""
        return self.below(100) < per_cent

    def choice(self, items: Sequence[T]) -> T:
        """One of `items`."""
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """`items` in a drawn order."""
        order = np.argsort(self._bits.random_raw(len(items)), kind="stable")
        return [items[i] for i in order]

    def noise(self, amplitude: int) -> np.ndarray:
        """(SIZE, SIZE, 3) integers in [-amplitude, amplitude]."""
        raw = self._bits.random_raw(SIZE * SIZE * 3 // 8 + 1).view(np.uint8)[: SIZE * SIZE * 3]
        return (raw.reshape(SIZE, SIZE, 3).astype(np.int64) * (2 * amplitude + 1) >> 8) - amplitude


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object of a scene.

    Args:
        colour: A key of `COLOURS`.
        shape: One of `SHAPES`.
        salient: True for vivid objects, False for pale distractors.
        mask: (SIZE, SIZE) bool, its visible pixels.
        x: Horizontal centre in pixels; objects are named from left to right.
    """

    colour: str
    shape: str
    salient: bool
    mask: np.ndarray
    x: int

    @property
    def phrase(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, slots=True)
class Scene:
    """An image with its objects, from left to right.

    Args:
        image: (SIZE, SIZE, 3) uint8.
        objects: All objects, distractors included.
    """

    image: np.ndarray
    objects: tuple[SceneObject, ...]

    @property
    def salient(self) -> tuple[SceneObject, ...]:
        return tuple(o for o in self.objects if o.salient)


def outline(shape: str, x: int, y: int, r: int) -> np.ndarray:
    """(SIZE, SIZE) bool pixels of a shape of half-width `r` about (x, y)."""
    dx, dy = _X - x, _Y - y
    if shape == "circle":
        return dx * dx + dy * dy <= r * r
    if shape == "square":
        return np.maximum(abs(dx), abs(dy)) * 8 <= r * 7
    if shape == "triangle":
        return (dy <= r * 3 // 4) & (2 * abs(dx) <= dy + r)
    if shape == "cross":
        return (np.minimum(abs(dx), abs(dy)) * 3 <= r) & (np.maximum(abs(dx), abs(dy)) <= r)
    if shape == "ring":
        d = dx * dx + dy * dy
        return (d <= r * r) & (4 * d >= r * r)
    raise ValueError(f"unknown shape '{shape}': use one of {', '.join(SHAPES)}")


def _place(draw: Draw, count: int) -> list[tuple[int, int, int]]:
    """Centres and half-widths (x, y, r) on a jittered 2 x 3 or 3 x 2 grid; overlaps are allowed."""
    wide = draw.chance(50)
    cells = [(i, j) for i in range(3 if wide else 2) for j in range(2 if wide else 3)]
    places = []
    for i, j in draw.shuffled(cells)[:count]:
        r = draw.between(17, 23)
        x = (21 + 35 * i if wide else 30 + 52 * i) + draw.between(-8, 8)
        y = (30 + 52 * j if wide else 21 + 35 * j) + draw.between(-8, 8)
        x, y = (min(max(v, r), SIZE - 1 - r) for v in (x, y))
        places.append((x, y, r))
    return places


def render(draw: Draw, named: list[tuple[str, str, bool]]) -> Scene:
    """A scene of the (colour, shape, salient) in `named`; later ones lie in front."""
    while True:
        places = _place(draw, len(named))
        outlines = [outline(shape, x, y, r) for (_, shape, _), (x, y, r) in zip(named, places, strict=True)]
        covered = np.zeros((SIZE, SIZE), bool)
        visible = []
        for mask in reversed(outlines):
            visible.append(mask & ~covered)
            covered |= mask
        visible.reverse()
        if all(100 * v.sum() >= _MIN_VISIBLE * m.sum() for v, m in zip(visible, outlines, strict=True)):
            break
    level = draw.between(75, 165)
    base = np.array([level + draw.between(-14, 14) for _ in range(3)], np.int64)
    slope_x, slope_y = draw.between(-20, 20), draw.between(-20, 20)
    ramp = (slope_x * (_X - SIZE // 2) + slope_y * (_Y - SIZE // 2)) // SIZE
    canvas = base + ramp[..., None] + np.zeros((1, 1, 3), np.int64)
    ground = canvas.copy()
    objects = []
    for (colour, shape, salient), mask, place in zip(named, visible, places, strict=True):
        paint = np.array(COLOURS[colour], np.int64) + np.array([draw.between(-14, 14) for _ in range(3)])
        canvas[mask] = paint if salient else (ground[mask] * (100 - _PALE) + paint * _PALE) // 100
        objects.append(SceneObject(colour, shape, salient, mask, place[0]))
    image = np.clip(canvas + draw.noise(7), 0, 255).astype(np.uint8)
    return Scene(image, tuple(sorted(objects, key=lambda o: o.x)))


def _distractors(draw: Draw, salient: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """Pale objects that share colour or shape with a salient one, never both."""
    taken, found = set(salient), []
    while len(found) < count:
        colour, shape = draw.choice(salient)
        if draw.chance(60):
            shape = draw.choice([s for s in SHAPES if s != shape])
        else:
            colour = draw.choice([c for c in COLOURS if c != colour])
        if (colour, shape) not in taken:
            taken.add((colour, shape))
            found.append((colour, shape))
    return found


def _compose(draw: Draw, salient: list[tuple[str, str]], distractors: list[tuple[str, str]]) -> Scene:
    named = [(c, s, False) for c, s in distractors] + [(c, s, True) for c, s in salient]
    return render(draw, named)


def _pairs(draw: Draw, count: int) -> list[tuple[str, str]]:
    """`count` different (colour, shape)."""
    pairs: list[tuple[str, str]] = []
    while len(pairs) < count:
        pair = (draw.choice(list(COLOURS)), draw.choice(SHAPES))
        if pair not in pairs:
            pairs.append(pair)
    return pairs


def sod_scene(draw: Draw) -> tuple[list[Scene], list[str]]:
    """One or two salient regions."""
    return _salient_scene(draw, draw.between(1, 2))


def sis_scene(draw: Draw) -> tuple[list[Scene], list[str]]:
    """One to three salient instances, which may overlap."""
    return _salient_scene(draw, draw.choice((1, 2, 2, 3)))


def _salient_scene(draw: Draw, count: int) -> tuple[list[Scene], list[str]]:
    salient = _pairs(draw, count)
    scene = _compose(draw, salient, _distractors(draw, salient, draw.between(1, 2)))
    return [scene], [o.phrase for o in scene.salient]


def cosod_scene(draw: Draw, group_size: int) -> tuple[list[Scene], list[str]]:
    """A group whose images share exactly one shape, in different colours, beside other vivid and pale shapes."""
    common = draw.choice(SHAPES)
    rest = [s for s in SHAPES if s != common]
    while True:
        others = [draw.shuffled(rest)[:2] for _ in range(group_size)]
        if not set.intersection(*map(set, others)):
            break
    scenes = []
    for vivid, pale in others:
        colours = draw.shuffled(list(COLOURS))[:3]
        scenes.append(_compose(draw, [(colours[0], common), (colours[1], vivid)], [(colours[2], pale)]))
    return scenes, [f"{SEMANTIC} {common}"]


def _mistaken(draw: Draw, expression: str) -> str:
    """`expression` with its last word, the shape, exchanged."""
    *head, shape = expression.split()
    return " ".join([*head, draw.choice([s for s in SHAPES if s != shape])])


def scenes_of(seed: int, task: str, index: int, group_size: int = 3) -> tuple[list[Scene], list[str]]:
    """The scenes of sample `index` of a task's stream, and the right expressions for them.

    Args:
        seed: Seed of the stream, >= 0.
        task: "sod", "sis" or "cosod".
        index: Number of the sample, >= 0.
        group_size: K, the images of a CoSOD group, >= 2.
    """
    draw = Draw(seed, _STREAMS[task], index)
    if task == "cosod":
        return cosod_scene(draw, group_size)
    return sod_scene(draw) if task == "sod" else sis_scene(draw)


def scene_masks(task: str, scene: Scene, expressions: list[str]) -> np.ndarray:
    """The ground truth of one scene: (1, SIZE, SIZE) bool for SOD and CoSOD, (I, SIZE, SIZE) for SIS."""
    if task == "sis":
        return np.stack([o.mask for o in scene.salient])
    shared = expressions[0].split()[-1]
    masks = [o.mask for o in scene.salient if task == "sod" or o.shape == shared]
    return np.logical_or.reduce(masks)[None]


def response_of(
    task: str,
    scenes: list[Scene],
    expressions: list[str],
    mistake: Draw | None = None,
    wording: str = "plain",
    words: Draw | None = None,
) -> str:
    """The annotated response of a sample; with `mistake`, one shape in it is named wrongly.

    Args:
        task: "sod", "sis" or "cosod".
        scenes: Of the sample.
        expressions: Its right answer.
        mistake: Draws the shape that is wrong; None for none.
        wording: Key of `WORDINGS`.
        words: Draws the words, where these differ from response to response.
    """
    written, wrong = list(expressions), {}
    if mistake is not None:
        at = mistake.below(len(written))
        written[at] = _mistaken(mistake, written[at])
        wrong = {expressions[at]: written[at]}
    named = [[wrong.get(o.phrase, o.phrase) for o in scene.salient] for scene in scenes]
    return TASKS[task].response(WORDINGS[wording](task, named, written, words or Draw(0)), written)


def scene_group(
    seed: int,
    task: str,
    index: int,
    *,
    group_size: int = 3,
    annotated: bool = True,
    mistakes: int = 0,
    wording: str = "plain",
    telling: int = 0,
) -> ImageGroup:
    """The image group number `index` of the endless stream of a task.

    Args:
        seed: Seed of the stream, >= 0.
        task: "sod", "sis" or "cosod".
        index: Number of the sample, >= 0.
        group_size: K, the images of a CoSOD group, >= 2.
        annotated: Whether the group carries its response.
        mistakes: Per cent of the responses in which one shape is named wrongly, in [0, 100].
        wording: Key of `WORDINGS`, how the response is worded.
        telling: Which of the wordings of the same content it is, >= 0.

    Returns:
        The group, with masks (1, H, W) an image for SOD and CoSOD and (I, H, W) for SIS.
    """
    scenes, expressions = scenes_of(seed, task, index, group_size)
    masks = tuple(torch.from_numpy(scene_masks(task, scene, expressions)) for scene in scenes)
    images = tuple(torch.from_numpy(scene.image) for scene in scenes)
    response = None
    if annotated:
        errs = Draw(seed, _STREAMS[task], index, 1)
        words = Draw(seed, _STREAMS[task], index, 2, telling)
        response = response_of(task, scenes, expressions, errs if errs.chance(mistakes) else None, wording, words)
    return ImageGroup(f"{task}-{seed}-{index}", task, images, masks, response)
