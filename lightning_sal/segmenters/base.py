"""What a segmenter offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Segmenter(Protocol):
    """Turns referring expressions into masks.

    Any class with this method is one, and YAML names it by its class_path; there the method has these very parameters and
    annotations. One that is a `torch.nn.Module` is frozen and moved to the device of the policy.
    """

    def segment(self, images: Sequence[Tensor], expressions: Sequence[Sequence[str]]) -> list[Tensor]:
        """One mask an expression, in the frame of its image.

        Args:
            images: B tensors of shape (H, W, 3), uint8 RGB; sizes may differ.
            expressions: For each image its E >= 0 expressions, tags removed, `[semantic]` kept.

        Returns:
            B boolean tensors of shape (E, H, W), True inside the object.
        """
        ...
