"""Predictions as files: masks and overlays as PNG, and a JSONL that says what belongs together.

A line of `predictions.jsonl`, one a group, with files relative to its folder:

    {"task", "benchmark", "key", "images", "response", "labels", "reason", "confidence", "masks", "overlays"}, and what is
    answered: {"expressions"} where it is referring expressions

`images` are paths as they were given; `labels` is what the answer says, one text a prompt of the segmenter, however it was
read; `confidence` is null where it is not known; `masks` is a list an image, of one file for a region or one an instance.
Where the segmenter gives presence scores there is `presence`, a list an image with a number in [0, 1], or null, a label.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from lightning_sal.files.writing import appending, whole
from lightning_sal.inference.responses import Prediction
from lightning_sal.pages.outlines import overlay
from lightning_sal.predictions.readers import parse_prediction
from lightning_sal.tasks import get_task

LONGEST_STEM = 200  # bytes; file systems allow 255 for the whole name

# (stem, endings of the masks) -> a file for each mask, and one for the overlay
Claim = Callable[[str, Sequence[str]], tuple[list[Path], Path]]


def write(folder: Path, prediction: Prediction, claim: Claim) -> dict[str, Any]:
    """Write the masks (0 and 255) and overlays of one prediction, each as large as its image.

    Args:
        folder: To which the line is relative.
        prediction: What to write; the overlay shows each expression in its colour where their masks were kept.
        claim: Finds free files; a name is that of the photograph without its suffix, or the group's key.

    Returns:
        Its line of the JSONL.
    """
    group = prediction.group
    masks, overlays = [], []
    if not prediction.masks:  # of a task without masks
        masks = [[] for _ in group.images]
    claimed: list[Path] = []
    pictures = zip(group.images if prediction.masks else (), prediction.masks, prediction.drawn, strict=True)
    try:
        for number, (image, found, drawn) in enumerate(pictures):
            single = get_task(group.task).masks_per_image == 1
            endings = [".png"] if single else [f"_{i}.png" for i in range(len(found))]
            mask_files, overlay_file = claim(_stem(prediction, number), endings)
            claimed += [*mask_files, overlay_file]
            for file, mask in zip(mask_files, found, strict=True):
                _save(mask.byte() * 255, file)
            _save(overlay(image, drawn), overlay_file)
            masks.append([file.relative_to(folder).as_posix() for file in mask_files])
            overlays.append(overlay_file.relative_to(folder).as_posix())
    except BaseException:  # no line will list what there is of it
        for file in claimed:
            file.unlink(missing_ok=True)
        raise
    return {
        "task": group.task,
        "benchmark": group.benchmark,
        "key": group.key,
        "images": list(group.paths),
        "response": prediction.text,
        "labels": list(prediction.expressions),
        **prediction.answer.fields(),
        "reason": prediction.reason,
        "confidence": prediction.confidence,
        **({"presence": [_numbers(scores) for scores in prediction.presence]} if prediction.presence else {}),
        "masks": masks,
        "overlays": overlays,
    }


def append(path: Path, line: str) -> None:
    """Add a line to a file in one piece; where that was cut off, it has no end."""
    with appending(path) as file:
        file.write(line + "\n")


def pictures(fields: Mapping[str, Any]) -> list[str]:
    """The masks and overlays that a line of `predictions.jsonl` lists."""
    return [*chain.from_iterable(fields["masks"]), *fields["overlays"]]


def delete_listed(path: Path) -> None:
    """Delete a JSONL of predictions and the pictures in its folder that it lists."""
    folder = path.parent.resolve()
    for line in path.read_bytes().split(b"\n"):
        try:
            names = pictures(parse_prediction(line.decode()))
        except ValueError:  # the last line of a run that was killed, or none of ours
            continue
        for name in names:
            file = (folder / name).resolve()
            if file.suffix == ".png" and file.is_relative_to(folder):  # whatever a list says, its folder is not left
                file.unlink(missing_ok=True)
    path.unlink()


def _stem(prediction: Prediction, number: int) -> str:
    group = prediction.group
    if group.paths:
        stem = Path(group.paths[number]).stem
    else:
        key = re.sub(r"[^\w.-]+", "_", group.key)
        stem = f"{key}_image{number}" if len(group.images) > 1 else key
    return stem.encode(errors="surrogateescape")[:LONGEST_STEM].decode(errors="ignore")


def _numbers(scores: Tensor) -> list[float | None]:
    """Scores as JSON has them, which knows no NaN."""
    return [None if math.isnan(score) else score for score in scores.tolist()]


def _save(pixels: Tensor, path: Path) -> None:
    with whole(path) as part:
        Image.fromarray(pixels.cpu().numpy()).save(part, "PNG")
