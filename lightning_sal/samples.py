"""The data that flows between the parts.

Legend: K images of a group, I ground-truth instances, B groups or responses, T response tokens, H x W pixels.
Masks are boolean and True inside the object; images are uint8 RGB with channels last, in the frame of the original
photograph.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lightning_sal.frames import ORIGINAL, Frame

if TYPE_CHECKING:  # what needs names and numbers alone, as `lightning-sal table`, does not wait for torch
    import torch
    from torch import Tensor


@dataclass(slots=True)  # not frozen: Lightning's precision plugins rebuild what a step is given
class ImageGroup:
    """The K images of one sample: K = 1 for SOD and SIS, K >= 2 for CoSOD.

    Args:
        key: Names the sample in messages and file names; unique within its source.
        task: Name of the task, which `lightning_sal.tasks.get_task` knows.
        images: K tensors of shape (H, W, 3), uint8; sizes may differ within the group.
        masks: K boolean tensors of shape (N, H, W), each as large as its image; N = 1 for a region, N = I >= 0 for
            instances. None where they are unknown.
        response: The annotated response that SFT learns, or None.
        paths: The K files that the images came from; empty where they came from none.
        benchmark: Name of the benchmark that the sample is evaluated under; empty where it is only one of its task.
        reasoning: Whether the response must reason before it answers.
        question: What is asked of these images beside the task's instruction; empty where nothing is.
        reference: The answer that is right, as text, or None.
        boxes: K float tensors of shape (N, 4), N >= 0: x0, y0, x1, y1 in pixels of the original image; or None.
        points: K float tensors of shape (N, 2), N >= 0: x, y in pixels of the original image; or None.
    """

    key: str
    task: str
    images: tuple[Tensor, ...]
    masks: tuple[Tensor, ...] | None = None
    response: str | None = None
    paths: tuple[str, ...] = ()
    benchmark: str = ""
    reasoning: bool = True
    question: str = ""
    reference: str | None = None
    boxes: tuple[Tensor, ...] | None = None
    points: tuple[Tensor, ...] | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ImageGroup:
        """The same group with masks, boxes and points on `device`; images stay where the processor reads them."""

        def moved(tensors: tuple[Tensor, ...] | None) -> tuple[Tensor, ...] | None:
            return tensors and tuple(tensor.to(device, non_blocking=non_blocking) for tensor in tensors)

        return replace(self, masks=moved(self.masks), boxes=moved(self.boxes), points=moved(self.points))


@dataclass(slots=True)
class Batch:
    """B image groups of one step; groups of different tasks may stand side by side.

    Args:
        groups: The groups.
        unreadable: One line (file and reason) for each sample that was skipped while this batch was read.
    """

    groups: tuple[ImageGroup, ...]
    unreadable: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[ImageGroup]:
        return iter(self.groups)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch with masks, boxes and points on `device`."""
        return replace(self, groups=tuple(group.to(device, non_blocking) for group in self.groups))


@dataclass(frozen=True, slots=True)
class Usage:
    """What the response to a sample took; None where it is not known.

    Args:
        seconds: From asking to the whole answer, waiting and retries included.
        input_tokens: Tokens of the question, those of its images included.
        output_tokens: Tokens of the response.
        cost: Dollars.
    """

    seconds: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """Sampled responses with what the update needs.

    Args:
        texts: B decoded responses.
        tokens: (B, T) sampled token ids, padded right.
        mask: (B, T) bool, True on response tokens, the end-of-turn token included.
        logp: (B, T) log-probabilities in nats under the policy that sampled, 0 where `mask` is False.
        truncated: (B,) bool, True where the response hit the token limit before it ended.
        frame: In which units the texts state places.
        look: The tag of the blocks that the reasoning was asked for, in place of that of the task; None for the task's.
    """

    texts: tuple[str, ...]
    tokens: Tensor
    mask: Tensor
    logp: Tensor
    truncated: Tensor
    frame: Frame = ORIGINAL
    look: str | None = None


def join_rollouts(parts: Sequence[Rollout]) -> Rollout:
    """All responses of several rollouts of one policy, padded right to the longest of them."""
    import torch
    import torch.nn.functional as F

    width = max(part.tokens.shape[1] for part in parts)

    def padded(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([F.pad(tensor, (0, width - tensor.shape[1])) for tensor in tensors])

    return Rollout(
        tuple(text for part in parts for text in part.texts),
        padded([part.tokens for part in parts]),
        padded([part.mask for part in parts]),
        padded([part.logp for part in parts]),
        torch.cat([part.truncated for part in parts]),
        parts[0].frame,
        parts[0].look,
    )


class Phased(NamedTuple):
    """A batch drawn for one phase of interleaved training.

    Args:
        phase: "rl" or "sft".
        batch: What the stream of that phase gave.
    """

    phase: str
    batch: Any


@dataclass(frozen=True, slots=True)
class Message:
    """A turn of a conversation with the policy.

    Args:
        role: Who speaks.
        text: What is said.
        images: How many images stand before the text: the next ones of the sample that no turn before has shown.
    """

    role: Literal["system", "user", "assistant"]
    text: str
    images: int = 0


class InstancePhrase(str):
    """A referring expression that means one object; any other means all that it names.

    It is a text like any other. A segmenter that finds several objects for an expression tells by its kind whether the best
    of them or all are meant.
    """

    __slots__ = ()


@dataclass(frozen=True)
class VisualPrompt:
    """Where an object is: in a box, at points, or both. Coordinates are x, y in pixels of the original image.

    Args:
        box: x0, y0, x1, y1.
        points: N >= 0 pairs x, y.
        labels: For each point 1 if it lies on the object, 0 if on the background.

    Raises:
        ValueError: If there is neither box nor point, a label is missing or unknown, or a coordinate is no number.
    """

    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # Lists, as JSON has them, become tuples: prompts that are equal are segmented once, and so must be hashable
        points = tuple((float(x), float(y)) for x, y in self.points)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "labels", tuple(int(label) for label in self.labels))
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            object.__setattr__(self, "box", (float(x0), float(y0), float(x1), float(y1)))
        if not self.corners_and_points:
            raise ValueError("a visual prompt needs a box or a point")
        if len(self.labels) != len(points) or not set(self.labels) <= {0, 1}:
            raise ValueError(
                f"a visual prompt has {len(points)} points and labels {list(self.labels)}: give a 0 or 1 each"
            )
        if not all(math.isfinite(value) for pair in self.corners_and_points for value in pair):
            raise ValueError(
                f"a visual prompt has a coordinate that is no number: box {self.box}, points {list(points)}"
            )

    @property
    def corners_and_points(self) -> list[tuple[float, float]]:
        """The P points that SAM2 sees."""
        corners = [] if self.box is None else [self.box[:2], self.box[2:]]
        return [*corners, *self.points]
