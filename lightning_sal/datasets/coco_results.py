"""Predicted instances as a COCO json, with run lengths that pycocotools reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from lightning_sal import run_lengths
from lightning_sal.files.writing import whole


@dataclass(frozen=True, slots=True)
class Instances:
    """The instances that were found on one image.

    Args:
        file_name: Of the image.
        size: (H, W) of it.
        masks: I arrays (H, W) bool.
        expressions: One an instance.
        score: Of all of them, in [0, 1]; None where it is not known, for which 1 is written: COCO results have one each.
    """

    file_name: str
    size: tuple[int, int]
    masks: list[np.ndarray]
    expressions: list[str]
    score: float | None


def write_instances(path: Path, images: Iterable[Instances]) -> None:
    """Write a COCO json whose `annotations` are COCO results at the same time: each has a `score`.

    Only the masks of one image are in memory at a time; the file stands under its name once it is whole.

    Args:
        path: Where to write.
        images: Drawn one by one; image ids count them from 1.
    """
    annotations = path.with_suffix(".annotations")
    numbers, listed = count(1), []
    with whole(annotations) as part, part.open("w", encoding="utf-8") as file:
        for image_id, image in enumerate(images, 1):
            height, width = image.size
            listed.append({"id": image_id, "file_name": image.file_name, "height": height, "width": width})
            for mask, words in zip(image.masks, image.expressions, strict=True):
                number = next(numbers)
                about = {
                    "id": number,
                    "image_id": image_id,
                    "category_id": 1,
                    "score": 1.0 if image.score is None else image.score,
                    "expression": words,
                }
                file.write((",\n" if number > 1 else "") + json.dumps(about | instance(mask), allow_nan=False))
    head = {"categories": [{"id": 1, "name": "salient instance"}], "images": listed}
    try:
        with whole(path) as part, part.open("w", encoding="utf-8") as file, annotations.open(encoding="utf-8") as lines:
            file.write(json.dumps(head)[:-1] + ', "annotations": [\n')
            file.writelines(lines)
            file.write("\n]}\n")
    finally:
        annotations.unlink()


def instance(mask: np.ndarray) -> dict[str, Any]:
    """The fields of an annotation that say where an (H, W) bool mask is; `bbox` is x, y, width, height in pixels."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = [0, 0, 0, 0]
    if len(rows):
        x, y = int(columns[0]), int(rows[0])
        box = [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]
    segmentation = {"size": list(mask.shape), "counts": run_lengths.to_string(run_lengths.of_mask(mask))}
    return {"segmentation": segmentation, "area": int(mask.sum()), "bbox": box, "iscrowd": 0}
