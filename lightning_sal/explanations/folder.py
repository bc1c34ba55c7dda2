"""Explanations on disk: the maps of every method, pictures of them, and tables of what they are measured by.

summary.json          settings, how many responses were explained, and per method each mean
table.md, table.csv   a row a method, the best of each column in bold; a line a value
curves.csv            method, share of pixels, deletion, insertion: the mean curves
measures.csv          response, method, and its own values
responses.jsonl       a line a response: number, task, key, images, question, response, labels
maps/0001.npz         of response 1: arrays <method>.<label>.<image>, (rows, columns), before the ReLU
overlays/0001.png     of response 1: the map of the whole answer by each method over each image
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lightning_sal.evaluation.results import Results
from lightning_sal.evaluation.tables import comma_separated, markdown
from lightning_sal.explanations.cases import Case
from lightning_sal.explanations.measuring import Measures, columns
from lightning_sal.files.writing import appending, whole
from lightning_sal.inference.maps import LabelMaps
from lightning_sal.pages.overlay import PAPER, Scale, overlay

SIDE, GAP, ACROSS = 224, 8, 5  # of a sheet: pixels of the longer side of a picture and between them, pictures a row


class ExplanationFolder:
    """Where explanations are written to, response by response.

    Args:
        folder: It must not be there, or be empty.
        settings: What the summary says of how they were made.

    Raises:
        FileExistsError: The folder holds something.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder}: is there already; name another folder by --out")
        self.folder, self.settings, self.count = folder, dict(settings), 0

    def add(self, case: Case, maps: Mapping[str, LabelMaps], values: Mapping[str, Mapping[str, float]]) -> None:
        """Write a response, and its maps and own values by method."""
        self.count += 1
        name, group = f"{self.count:04}", case.group
        for part in ("maps", "overlays"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        arrays = {
            f"{method}.{label}.{image}": values.numpy()
            for method, labels in maps.items()
            for label, images in enumerate(labels)
            for image, values in enumerate(images)
        }
        with whole(self.folder / "maps" / f"{name}.npz") as part, part.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        with whole(self.folder / "overlays" / f"{name}.png") as part:
            sheet(group.images, maps).save(part, "PNG")
        pieces = case.policy.pieces(case.tokens[0].tolist())
        labels = [b"".join(pieces[first : last + 1]).decode(errors="replace").strip() for first, last in case.labels]
        line = {
            "number": self.count,
            "task": group.task,
            "key": group.key,
            "images": list(group.paths),
            "question": group.question,
            "response": case.text,
            "labels": labels,
        }
        with appending(self.folder / "measures.csv") as file:
            writer = csv.DictWriter(file, ["response", "method", *columns()], lineterminator="\n")
            if self.count == 1:
                writer.writeheader()
            writer.writerows({"response": self.count, "method": method, **found} for method, found in values.items())
        with appending(self.folder / "responses.jsonl") as file:
            file.write(json.dumps(line) + "\n")

    def finish(self, measures: Mapping[str, Measures], left_out: Sequence[str], share: float | None) -> str:
        """Write tables, curves and the summary.

        Args:
            measures: By method.
            left_out: A line for each sample that is not explained.
            share: Of the pictures that the regions cover; None where none are known.

        Returns:
            The table in Markdown.
        """
        values = {method: each.values() for method, each in measures.items()}
        task = str(self.settings["task"])
        known = columns()
        results = [Results(method, {task: task}, {task: found}, known) for method, found in values.items()]
        table = markdown(results)
        curves = self.folder / "curves.csv"
        with whole(curves) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["method", "share", "deletion", "insertion"])
            for method, each in measures.items():
                found = each.curves()
                rows = zip(found.shares, found.deletion.tolist(), found.insertion.tolist(), strict=True)
                writer.writerows([method, *row] for row in rows)
        summary = {
            "settings": self.settings,
            "responses": self.count,
            "left_out": list(left_out),
            "regions_cover": share,
            "methods": values,
        }
        written = {
            "table.md": table,
            "table.csv": comma_separated(results),
            "summary.json": json.dumps(summary, indent=2, allow_nan=False) + "\n",
        }
        for name, text in written.items():
            with whole(self.folder / name) as part:
                part.write_text(text, encoding="utf-8")
        return table


def sheet(images: Sequence[Tensor], maps: Mapping[str, LabelMaps]) -> Image.Image:
    """Each image under the map of the whole answer by each method, each on a scale of its own with its name.

    Args:
        images: K images (H, W, 3) uint8.
        maps: Of each label and image, by method.
    """
    tiles = []
    for number, image in enumerate(images):
        picture = Image.fromarray(image.numpy())
        ratio = SIDE / max(picture.size)
        size = (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio)))
        pixels = torch.from_numpy(np.array(picture.resize(size, Image.Resampling.LANCZOS)))
        for method, labels in maps.items():
            values = torch.stack([each[number] for each in labels]).sum(0)
            tiles.append(overlay(pixels, values, replace(Scale.of([values], method), unit="")))
    width, height = max(tile.width for tile in tiles) + GAP, max(tile.height for tile in tiles) + GAP
    page = Image.new("RGB", (GAP + min(ACROSS, len(tiles)) * width, GAP + -(-len(tiles) // ACROSS) * height), PAPER)
    for number, tile in enumerate(tiles):
        page.paste(tile, (GAP + number % ACROSS * width, GAP + number // ACROSS * height))
    return page
