"""Instances as COCO json: polygons and run-length encodings into masks.

An annotation's `segmentation` is a list of polygons [x1, y1, x2, y2, ...] whose union is the instance, or a run-length
encoding {"size": [h, w], "counts": ...} with counts as a list, or as COCO's string of 5-bit groups.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lightning_sal.datasets.images import UnreadableSample, fit_masks
from lightning_sal.datasets.records import Photograph, Record

Drawing = tuple[str, Any]  # (name for messages, segmentation)


def coco_records(path: Path, folders: Sequence[Path]) -> list[Record]:
    """The photographs of a COCO json with their instances; annotations with `iscrowd` = 1 are left out.

    Args:
        path: The json. An image without annotations is an empty ground truth; a photograph that it does not list is no
            sample.
        folders: Where the photographs may lie; the folder with most of them is taken.

    Raises:
        ValueError: The json is malformed; the message names the place.
    """
    try:
        content = json.loads(path.read_bytes())
        images = {image["id"]: image for image in content["images"]}
        names = {key: Path(image["file_name"]) for key, image in images.items()}
        frames = {key: _frame(image) for key, image in images.items()}
        drawings: dict[Any, list[Drawing]] = {key: [] for key in images}
        for annotation in content["annotations"]:
            if not annotation.get("iscrowd", 0):
                drawing = (f"{path}: annotation {annotation['id']}", annotation["segmentation"])
                drawings.setdefault(annotation["image_id"], []).append(drawing)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not COCO json: {type(error).__name__} {error}") from error
    if len(images) < len(content["images"]):
        raise ValueError(f"{path}: {len(content['images']) - len(images)} images share their id with another")
    folder = max(folders, key=lambda place: sum((place / name).is_file() for name in names.values()))
    records = []
    for key, found in drawings.items():
        if key not in images:
            photo = Photograph(path, fault=f"{found[0][0]}: belongs to image {key}, which the file does not list")
            records.append(Record(f"missing-{key}", "sis", (photo,)))
            continue
        photo = Photograph(folder / names[key], Segmentations(found, frames[key]))
        records.append(Record(names[key].with_suffix("").as_posix(), "sis", (photo,)))
    return records


@dataclass(frozen=True, slots=True)
class Segmentations:
    """Segmentations of one photograph, read as (I, H, W); see `draw_instances`."""

    drawings: Sequence[Drawing]
    frame: tuple[int, int] | None = None

    def __call__(self, size: tuple[int, int] | None, orientation: int) -> Tensor:
        return draw_instances(self.drawings, self.frame, size, orientation)


def draw_instances(
    drawings: Sequence[Drawing], frame: tuple[int, int] | None, size: tuple[int, int] | None, orientation: int
) -> Tensor:
    """The masks of some segmentations.

    Args:
        drawings: I pairs (name for messages, segmentation).
        frame: (h, w) in which the segmentations are drawn; None for the frame of the photograph.
        size: (H, W) of the displayed photograph; None leaves the masks in their frame.
        orientation: EXIF orientation of the photograph.

    Returns:
        (I, H, W) bool.

    Raises:
        UnreadableSample: A segmentation is malformed, covers no pixel, or does not fit the photograph.
    """
    frame = frame or size
    if frame is None:
        raise UnreadableSample("the size of the photograph is unknown, so its segmentations cannot be drawn")
    masks = np.zeros((len(drawings), *frame), dtype=bool)
    for mask, (name, segmentation) in zip(masks, drawings, strict=True):
        try:
            mask |= draw(segmentation, frame)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError) as error:
            raise UnreadableSample(f"{name}: malformed segmentation: {error}") from error
        if size is not None and not mask.any():
            raise UnreadableSample(f"{name}: covers no pixel")
    return fit_masks(masks, size, orientation, drawings[0][0] if drawings else "empty ground truth")


def draw(segmentation: Any, frame: tuple[int, int]) -> np.ndarray:
    """One segmentation as a mask.

    A pixel is inside a polygon where its centre (x + 0.5, y + 0.5) is.

    Args:
        segmentation: Polygons or run-length encoding, see the head of this file.
        frame: (h, w).

    Returns:
        (h, w) bool.
    """
    from skimage.draw import polygon

    if isinstance(segmentation, dict):
        return _run_lengths(segmentation, frame)
    mask = np.zeros(frame, dtype=bool)
    for flat in segmentation:
        x, y = np.asarray(flat, dtype=float).reshape(-1, 2).T
        if len(x) < 3 or not np.isfinite([x, y]).all():
            raise ValueError(f"a polygon of {len(x)} points")
        mask[polygon(y - 0.5, x - 0.5, frame)] = True
    return mask


def _frame(image: dict[str, Any]) -> tuple[int, int] | None:
    return (int(image["height"]), int(image["width"])) if {"height", "width"} <= set(image) else None


def _run_lengths(encoding: dict[str, Any], frame: tuple[int, int]) -> np.ndarray:
    counts, size = encoding["counts"], tuple(encoding["size"])
    runs = _decode_string(counts) if isinstance(counts, str) else [int(count) for count in counts]
    if size != frame or min(runs, default=0) < 0 or sum(runs) != size[0] * size[1]:
        raise ValueError(f"{sum(runs)} pixels in runs for a mask of {size} on an image of {frame}")
    values = np.arange(len(runs)) % 2 == 1  # runs of background and object by turns, down the columns
    return np.repeat(values, runs).reshape(size[::-1]).T


def _decode_string(text: str) -> list[int]:
    """COCO's string: little-endian 5-bit groups from chr(48), bit 6 for "more follows"; from the fourth on, differences
    to the run before the last."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise ValueError(f"character {character!r} in the run lengths")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
