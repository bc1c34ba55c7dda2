"""Questions about procedural scenes: vivid objects, of which one is asked about by its colour and the others distract.

All objects of a scene differ in colour and in shape. The annotated reasoning ends with the object that is asked about; what
it lists before, and whether it gives the answer away already, differs from response to response: so where the reasoning
looks can be changed by what is rewarded, and the answer need not. As in `lightning_sal.tiny.scenes`, a sample is a pure
function of (seed, index).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import VQA, Text
from lightning_sal.tiny.draw import Draw
from lightning_sal.tiny.scenes import COLOURS, SHAPES, Scene, SceneObject, render

_STREAM = 4  # beside those of the other tasks


@dataclass(frozen=True, slots=True)
class Question:
    """A question about one object of a scene.

    Args:
        scene: Its objects differ in colour and in shape.
        target: The object that is asked about.
    """

    scene: Scene
    target: SceneObject

    @property
    def text(self) -> str:
        return f"What is {self.target.colour}?"

    @property
    def reference(self) -> str:
        return self.target.phrase

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 of the visible pixels, the last ones included."""
        ys, xs = np.nonzero(self.target.mask)
        return int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())


def question_of(seed: int, index: int) -> Question:
    """Question number `index` of an endless stream: three to five vivid objects, and what is asked of one.

    Args:
        seed: Seed of the stream, >= 0.
        index: Number of the sample, >= 0.
    """
    draw = Draw(seed, _STREAM, index)
    count = draw.between(3, 5)
    pairs = zip(draw.shuffled(list(COLOURS))[:count], draw.shuffled(SHAPES)[:count], strict=True)
    scene = render(draw, [(colour, shape, True) for colour, shape in pairs])
    return Question(scene, draw.choice(scene.objects))


def response_to(question: Question, draw: Draw, mistakes: int = 0) -> str:
    """An annotated response: none, some or all of the other objects, then the one that is asked about.

    Args:
        question: What is answered.
        draw: Draws the style of the reasoning and the mistake.
        mistakes: Per cent of the responses with a wrong answer, which the reasoning then has as well, in [0, 100].
    """
    seen = question.target
    if draw.chance(mistakes):
        seen = replace(seen, shape=draw.choice([shape for shape in SHAPES if shape != seen.shape]))
    others = draw.shuffled([o for o in question.scene.objects if o is not question.target])
    told = others[: draw.choice((0, 1, 2, len(others)))]
    before = " and ".join(o.phrase for o in question.scene.objects if o in told)  # from left to right
    scene = f"Scene: {before}. " if before else ""
    concluded = seen.phrase if draw.chance(50) else seen.colour
    return VQA.write(f"{scene}Conclusion: {concluded}.", Text(text=seen.phrase))


def question_group(seed: int, index: int, *, annotated: bool = True, mistakes: int = 0) -> ImageGroup:
    """The image group number `index` of the endless stream of questions.

    Args:
        seed: Seed of the stream, >= 0.
        index: Number of the sample, >= 0.
        annotated: Whether the group carries its response.
        mistakes: Per cent of the responses with a wrong answer, in [0, 100].

    Returns:
        The group, with the box and the mask of the object that is asked about.
    """
    question = question_of(seed, index)
    return ImageGroup(
        f"{VQA.name}-{seed}-{index}",
        VQA.name,
        images=(torch.from_numpy(question.scene.image),),
        masks=(torch.from_numpy(question.target.mask)[None],),
        response=response_to(question, Draw(seed, _STREAM, index, 1), mistakes) if annotated else None,
        question=question.text,
        reference=question.reference,
        boxes=(torch.tensor([question.box], dtype=torch.float32),),
    )
