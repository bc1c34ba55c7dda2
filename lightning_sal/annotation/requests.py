"""What a model is asked about a sample: photographs, ground truth and text, as plain values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_sal.annotation.samples import Sample
from lightning_sal.annotation.wording import Wording
from lightning_sal.clients.pictures import as_jpeg, shrunk
from lightning_sal.clients.requests import Request
from lightning_sal.pages.outlines import overlay
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import Task, get_task


def shown_images(task: Task, photographs: int) -> int:
    """How many images a request for so many photographs shows: they, and a single one with its masks beside it."""
    return photographs + _draws_masks(task)


def _draws_masks(task: Task) -> bool:
    return not task.several and "masks" in task.needs


def text_of(sample: Sample, wording: Wording, values: Mapping[str, object]) -> str:
    """The question about a sample; $ signs of the file that name nothing stay."""
    record = sample.record
    known = {"images": len(record.photographs), "category": sample.category.replace("_", " ")}
    known |= {"question": record.question, "reference": record.reference or ""}
    known |= {name: sample.fields.get(name, []) for name in ("boxes", "points")}
    return wording.question.safe_substitute(known | dict(values))


def build(sample: Sample, group: ImageGroup, wording: Wording, side: int) -> Request:
    """The first request about a sample.

    A single photograph of a task with masks is followed by itself with the masks drawn over it, each in a colour of its own;
    of the photographs of a group the text names the category, and those that do not show it.

    Args:
        sample: The sample.
        group: Its images and masks.
        wording: What is asked.
        side: Longest side of an image in pixels; larger ones are scaled down.

    Raises:
        ValueError: There is nothing to explain, since the ground truth is unknown or empty, or a group has one image.
    """
    task, masks = get_task(group.task), group.masks or ()
    if "masks" in task.needs and not any(mask.any() for mask in masks):
        raise ValueError("no ground truth: there is no salient pixel to explain")
    try:
        task.require(group)
    except ValueError as error:
        raise ValueError(f"no ground truth: {error}") from None
    if task.several and len(group.images) < 2:
        raise ValueError("no group: a single photograph shares nothing")
    empty = [f"image{i}" for i, mask in enumerate(masks, 1) if not mask.any()]
    noise = f" It does not occur in {', '.join(empty)}." if empty else ""
    text = text_of(sample, wording, {"instances": len(masks[0]) if masks else 0, "noise": noise})
    images = [picture(image, side) for image in group.images]
    if masks and _draws_masks(task):
        images.append(picture(group.images[0], side, masks[0]))
    return Request(tuple(images), (text,))


def picture(image: Tensor, side: int, masks: Tensor | None = None) -> bytes:
    """An image as JPEG, scaled down to a longest side, with masks drawn over it.

    Args:
        image: (H, W, 3) uint8.
        side: Pixels.
        masks: (N, H, W) bool, or None.
    """
    shown = shrunk(image, side)
    if masks is not None:
        pixels = torch.from_numpy(np.array(shown))
        fitted = interpolate(masks[None].float(), pixels.shape[:2], mode="nearest-exact")[0] > 0
        shown = Image.fromarray(overlay(pixels, fitted).numpy())
    return as_jpeg(shown)
