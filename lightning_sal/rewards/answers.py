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
    """The answers of B responses, and the masks that a segmenter finds for them in one call.

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
    tasks = [task_of(group) for group in groups]
    answers = tuple(task.parse(text) for task, text in zip(tasks, texts, strict=True))
    images = [image for group in groups for image in group.images]
    expressions = [answer.expressions for group, answer in zip(groups, answers, strict=True) for _ in group.images]
    found = segmenter.segment(images, expressions) if images else []
    if len(found) != len(images):
        raise ValueError(f"the segmenter gave masks for {len(found)} images and was asked about {len(images)}")
    following = iter(found)
    masks = tuple(
        tuple(task.compose(_checked(next(following), group, image, answer)) for image in group.images)
        for task, group, answer in zip(tasks, groups, answers, strict=True)
    )
    return answers, masks


def _checked(mask: Tensor, group: ImageGroup, image: Tensor, answer: Answer) -> Tensor:
    wanted = (len(answer.expressions), *image.shape[:2])
    if mask.dtype != torch.bool or mask.shape != wanted:
        raise ValueError(
            f"{group.key}: the segmenter gave {mask.dtype} masks of shape {tuple(mask.shape)}; "
            f"torch.bool of shape {wanted} was expected, one mask an expression as large as the image"
        )
    return mask
