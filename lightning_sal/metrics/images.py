"""Scores of images that come as one batch, or one by one in sizes of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def map_scores(
    score: Callable[[Tensor, Tensor], Tensor],
    preds: Tensor | Sequence[Tensor],
    target: Tensor | Sequence[Tensor],
) -> Tensor:
    """Scores (B,) of a batch (B, H, W), or of B images (H, W) of their own sizes.

    Args:
        score: Gives (B,) for maps (B, H, W) and ground truths (B, H, W).
        preds: The maps.
        target: The ground truths.

    Raises:
        ValueError: What `score` raises, with the number of the image; or if there is not one target for each map.
    """
    if isinstance(preds, Tensor) and isinstance(target, Tensor):
        return score(preds, target)
    return one_by_one(lambda pred, truth: score(pred[None], truth[None]).squeeze(0), preds, target)


def one_by_one(
    score: Callable[[Tensor, Tensor], Tensor], preds: Sequence[Tensor] | Tensor, target: Sequence[Tensor] | Tensor
) -> Tensor:
    """Scores (N,) of N images, each a scalar by `score`.

    Raises:
        ValueError: What `score` raises, with the number of the image; or if there is not one target for each image.
    """
    if len(preds) != len(target):
        raise ValueError(f"{len(preds)} preds and {len(target)} targets: there must be one target for each")
    scores = []
    for index, (pred, truth) in enumerate(zip(preds, target, strict=True)):
        try:
            scores.append(score(pred, truth))
        except ValueError as error:
            raise ValueError(f"image {index}: {error}") from None
    return torch.stack(scores) if scores else torch.zeros(0, dtype=torch.float64)
