"""From responses to masks: parse, segment all expressions at once, compose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_sal.samples import ImageGroup
from lightning_sal.segmenters.base import Segmenter
from lightning_sal.tasks import Answer, task_of


def compose_answers(
    groups: Sequence[ImageGroup], texts: Sequence[str], segmenter: Segmenter
) -> tuple[tuple[Answer, ...], tuple[tuple[Tensor, ...], ...]]:
    """The answers of B responses, and the masks of their tasks that a segmenter finds for them in one call.

    Args:
        groups: B image groups, one a response; a group may come several times.
        texts: B responses.
        segmenter: Gets every image of every group with the expressions of its response, which may be none.

    Returns:
        B answers, and for each the K masks (N, H, W) bool of its images: N = 1 for regions (empty where there is no
        expression), one an expression for instances.

    Raises:
        ValueError: If a task is unknown, or the segmenter does not give one boolean mask an expression.
    """
    answers, found = segment_answers(groups, texts, segmenter)
    return answers, tuple(compose(group, masks) for group, masks in zip(groups, found, strict=True))


def segment_answers(
    groups: Sequence[ImageGroup], texts: Sequence[str], segmenter: Segmenter
) -> tuple[tuple[Answer, ...], tuple[tuple[Tensor, ...], ...]]:
    """As `compose_answers`, with one mask an expression whatever the task: K tensors (E, H, W) bool a response."""
    answers = tuple(task_of(group).parse(text) for group, text in zip(groups, texts, strict=True))
    images = [image for group in groups for image in group.images]
    expressions = [answer.expressions for group, answer in zip(groups, answers, strict=True) for _ in group.images]
    found = segmenter.segment(images, expressions) if images else []
    if len(found) != len(images):
        raise ValueError(f"the segmenter gave masks for {len(found)} images and was asked about {len(images)}")
    following = iter(found)
    masks = tuple(
        tuple(_checked(next(following), group, image, answer) for image in group.images)
        for group, answer in zip(groups, answers, strict=True)
    )
    return answers, masks


def compose(group: ImageGroup, found: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The masks of a group's task, (N, H, W) an image, from those of the expressions, (E, H, W) an image."""
    task = task_of(group)
    return tuple(task.compose(masks) for masks in found)


def _checked(mask: Tensor, group: ImageGroup, image: Tensor, answer: Answer) -> Tensor:
    wanted = (len(answer.expressions), *image.shape[:2])
    if mask.dtype != torch.bool or mask.shape != wanted:
        raise ValueError(
            f"{group.key}: the segmenter gave {mask.dtype} masks of shape {tuple(mask.shape)}; "
            f"torch.bool of shape {wanted} was expected, one mask an expression as large as the image"
        )
    return mask
