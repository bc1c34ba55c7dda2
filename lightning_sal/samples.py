"""The data that flows between the parts.

Legend: K images of a group, I ground-truth instances, B groups or responses, T response tokens, H x W pixels.
Masks are boolean and True inside the object; images are uint8 RGB with channels last, in the frame of the original
photograph.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(slots=True)  # not frozen: Lightning's precision plugins rebuild what a step is given
class ImageGroup:
    """The K images of one sample: K = 1 for SOD and SIS, K >= 2 for CoSOD.

    Args:
        key: Names the sample in messages and file names; unique within its source.
        task: Name of the task, a key of `lightning_sal.tasks.TASKS`.
        images: K tensors of shape (H, W, 3), uint8; sizes may differ within the group.
        masks: K boolean tensors of shape (N, H, W), each as large as its image; N = 1 for SOD and CoSOD, N = I >= 0
            instances for SIS. None where the ground truth is unknown.
        response: The annotated response that SFT learns, or None.
        paths: The K files that the images came from; empty where they came from none.
        benchmark: Name of the benchmark that the sample is evaluated under; empty where it is only one of its task.
        reasoning: Whether the response must reason before it answers.
    """

    key: str
    task: str
    images: tuple[Tensor, ...]
    masks: tuple[Tensor, ...] | None = None
    response: str | None = None
    paths: tuple[str, ...] = ()
    benchmark: str = ""
    reasoning: bool = True

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ImageGroup:
        """The same group with its masks on `device`; images stay where the processor reads them."""
        if self.masks is None:
            return self
        return replace(self, masks=tuple(mask.to(device, non_blocking=non_blocking) for mask in self.masks))


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
        """The same batch with its masks on `device`."""
        return replace(self, groups=tuple(group.to(device, non_blocking) for group in self.groups))


@dataclass(frozen=True, slots=True)
class Rollout:
    """Sampled responses with what the update needs.

    Args:
        texts: B decoded responses.
        tokens: (B, T) sampled token ids, padded right.
        mask: (B, T) bool, True on response tokens, the end-of-turn token included.
        logp: (B, T) log-probabilities in nats under the policy that sampled, 0 where `mask` is False.
        truncated: (B,) bool, True where the response hit the token limit before it ended.
    """

    texts: tuple[str, ...]
    tokens: Tensor
    mask: Tensor
    logp: Tensor
    truncated: Tensor


def join_rollouts(parts: Sequence[Rollout]) -> Rollout:
    """All responses of several rollouts, padded right to the longest of them."""
    width = max(part.tokens.shape[1] for part in parts)

    def padded(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([F.pad(tensor, (0, width - tensor.shape[1])) for tensor in tensors])

    return Rollout(
        tuple(text for part in parts for text in part.texts),
        padded([part.tokens for part in parts]),
        padded([part.mask for part in parts]),
        padded([part.logp for part in parts]),
        torch.cat([part.truncated for part in parts]),
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
class Prediction:
    """The policy's response to one group, and the segmenter's masks for it.

    Args:
        group: The image group.
        text: The whole response.
        expressions: The referring expressions that were found in it.
        reason: Why the response is malformed, or None.
        masks: K boolean tensors of shape (N, H, W), each as large as its image: N = 1 for SOD and CoSOD, one an
            expression for SIS.
        confidence: Mean probability of the response's tokens, in [0, 1].
        expression_masks: K boolean tensors of shape (E, H, W), one mask an expression, of which `masks` is composed; None
            where they were not kept.

    Raises:
        ValueError: If the confidence is NaN.
    """

    group: ImageGroup
    text: str
    expressions: tuple[str, ...]
    reason: str | None
    masks: tuple[Tensor, ...]
    confidence: float
    expression_masks: tuple[Tensor, ...] | None = None

    def __post_init__(self) -> None:
        if math.isnan(self.confidence):
            raise ValueError(
                f"{', '.join(self.group.paths) or self.group.key}: the policy computes NaN and answers nothing: take "
                "bfloat16 or float32 for float16, or weights of before that"
            )

    @property
    def drawn(self) -> tuple[Tensor, ...]:
        """What a picture shows: the mask of each expression, or the task's masks where those were not kept."""
        return self.masks if self.expression_masks is None else self.expression_masks

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Prediction:
        """The same prediction with its masks, and those of its group, on `device`."""

        def moved(masks: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(mask.to(device, non_blocking=non_blocking) for mask in masks)

        parts = None if self.expression_masks is None else moved(self.expression_masks)
        return replace(self, group=self.group.to(device, non_blocking), masks=moved(self.masks), expression_masks=parts)
