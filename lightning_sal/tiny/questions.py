"""Questions about procedural scenes: vivid objects of which one holds the answer and the others distract.

All objects of a scene differ in colour and in shape, so that a colour or a shape names one of them. The annotated reasoning
may speak of that object, of others too, or of others alone, though the answer is right all the same: so what is learnt from
it can be changed by what is rewarded. As in `lightning_sal.tiny.scenes`, a sample is a pure function of (seed, index).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import VQA
from lightning_sal.tasks.blocks import think_block
from lightning_sal.tiny.scenes import COLOURS, SHAPES, Draw, Scene, SceneObject, render

WORDS: dict[str, tuple[str, ...]] = {"colour": tuple(COLOURS), "shape": SHAPES}
"""What is asked for -> the answers that there are."""
_ASKED = ("colour", "colour", "shape")  # to find an object by its shape is learnt later than by its colour
_STREAM = 4  # beside those of the other tasks


@dataclass(frozen=True, slots=True)
class Question:
    """A question about one object of a scene.

    Args:
        scene: Its objects differ in colour and in shape.
        target: The object that is asked about.
        asked: What of it is asked for, a key of `WORDS`.
    """

    scene: Scene
    target: SceneObject
    asked: str

    @property
    def text(self) -> str:
        if self.asked == "colour":
            return f"What colour is the {self.target.shape}?"
        return f"What shape is {self.target.colour}?"

    @property
    def reference(self) -> str:
        return getattr(self.target, self.asked)

    def answered(self, word: str) -> str:
        """The sentence that answers it by a word, which comes last: what is known of the object leads to what is not."""
        if self.asked == "colour":
            return f"The {self.target.shape} is {word}."
        return f"The {self.target.colour} one is a {word}."

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
    return Question(scene, draw.choice(scene.objects), draw.choice(_ASKED))


def _told(draw: Draw, question: Question) -> tuple[list[SceneObject], bool]:
    """The objects that the reasoning lists, from left to right, and whether it then speaks of the one asked about.

    One in three reasons beside the question: it lists one or two others, and nothing else.
    """
    objects = question.scene.objects
    others = draw.shuffled([o for o in objects if o is not question.target])[: draw.between(1, 2)]
    some = [o for o in objects if o in others]
    return draw.choice((([], True), (some, True), (list(objects), True), (some, False), ([], True), (some, False)))


def response_to(question: Question, draw: Draw, mistakes: int = 0) -> str:
    """An annotated response.

    Args:
        question: What is answered.
        draw: Draws the style of the reasoning and the mistake.
        mistakes: Per cent of the responses with a wrong answer, which the reasoning then has as well, in [0, 100].
    """
    said, seen = question.reference, question.target
    if draw.chance(mistakes):
        said = draw.choice([word for word in WORDS[question.asked] if word != said])
        seen = replace(seen, **{question.asked: said})
    listed, spoken_of = _told(draw, question)
    scene = "; ".join((seen if o is question.target else o).phrase for o in listed)
    parts = [f"Scene: {scene}." if scene else "", question.answered(said) if spoken_of else ""]
    # A space before the answer: words are the same tokens then in the reasoning and in the answer
    return f"{think_block(' '.join(part for part in parts if part))} {said}"


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
