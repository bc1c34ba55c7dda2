"""Scoring instances of any method against annotated ones, both as files, by functions of tensors.

Torchmetrics and Lightning, whose imports take longer than most benchmarks, are not waited for.
"""

from __future__ import annotations

import math
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_sal.evaluation.jobs import Job, Options, Outcome, Show, one_thread
from lightning_sal.evaluation.results import ResultsWriter
from lightning_sal.metrics.functional import instance_aligned_structure_measure, matched_structure_measure
from lightning_sal.metrics.functional.average_precision import average_precisions, match_ranked, rank, with_coco
from lightning_sal.metrics.functional.mask_iou import instance_iou
from lightning_sal.metrics.functional.panoptic import f1_of, panoptic_counts, qualities
from lightning_sal.pages.pictures import of_masks, small_masks
from lightning_sal.predictions.pairing import Pairing, pair_up
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import InstanceTask, Task
from lightning_sal.tasks.masks import MaskTask

ASKED = (0.5, 0.7)  # IoU of AP50 and AP70, and of F1
MOST = 100  # predictions of an image that count for AP, as COCO has it


def prepare(preds: Path, truth: Path, task: Task, benchmark: str, options: Options) -> Job:
    """See `jobs.prepare`. A task of instances with metrics of its own is scored by these."""
    if type(task).metrics is not InstanceTask.metrics:
        return import_module(MaskTask.scoring).prepare(preds, truth, task, benchmark, options)
    options.refuse_those_of_maps(task)
    found = pair_up(preds, truth, task, benchmark, skip_missing=options.skip_missing)
    run = partial(_run, found, task.name, benchmark, options.metrics == "all")
    return Job(len(found.truths), "images", run, tuple(found.notes))


def _run(found: Pairing, task: str, benchmark: str, everything: bool, writer: ResultsWriter, show: Show) -> Outcome:
    rows: list[dict[str, float]] = []
    precision, panoptic = _Precision(), torch.zeros(3, dtype=torch.float64)
    with one_thread():
        for name in show(found.truths):
            photograph = found.truths[name].image
            image, truth = photograph.read()
            assert truth is not None  # by `find_truths`
            masks, scores = found.readers[name]((image.shape[0], image.shape[1]))
            iou = instance_iou(masks, truth)
            values = {
                "iasm": instance_aligned_structure_measure(masks.double(), truth).item(),
                "matched_s": matched_structure_measure(masks.double(), truth).item(),
            }
            if everything:
                values |= {f"f1_{100 * least:g}": f1_of(iou, least).item() for least in ASKED}
                panoptic += panoptic_counts(iou)
            row: dict[str, Any] = {"benchmark": benchmark, "key": name, "image": str(photograph.path)} | values
            row |= {each: value if math.isfinite(value) else "" for each, value in precision.add(iou, scores).items()}
            group = ImageGroup(name, task, (image,), (truth,))
            writer.add(row, partial(of_masks, group, [masks > 0.5]), small_masks(group, [masks > 0.5], 0))
            rows.append(values)
        means = {name: math.fsum(row[name] for row in rows) / len(rows) for name in rows[0]}
        whole = {name: value.item() for name, value in qualities(*panoptic)._asdict().items()} if everything else {}
        settings = {"images": len(rows), "missing": len(found.missing), "extra": len(found.extra)}
        return Outcome(_known(means | precision.results() | whole), settings)


class _Precision:
    """Average precision over images, of which each has its own beside."""

    def __init__(self) -> None:
        self.thresholds = np.array(with_coco(ASKED))
        self.scores: list[Tensor] = []
        self.outcomes: list[Tensor] = []
        self.instances = 0

    def add(self, iou: Tensor, scores: Tensor | None) -> dict[str, float]:
        """Add an image by the IoU (M, I) of its instances; gives its own values."""
        best, ranked = rank(MOST, iou, scores)
        (outcomes,) = match_ranked([ranked], [np.zeros(iou.shape[1], dtype=bool)], self.thresholds)
        self.scores.append(torch.from_numpy(best))
        self.outcomes.append(torch.from_numpy(outcomes))
        self.instances += iou.shape[1]
        return self._values(self.scores[-1:], self.outcomes[-1:], iou.shape[1])

    def results(self) -> dict[str, float]:
        """Over all images."""
        return self._values(self.scores, self.outcomes, self.instances)

    @staticmethod
    def _values(scores: list[Tensor], outcomes: list[Tensor], instances: int) -> dict[str, float]:
        found = average_precisions(torch.cat(scores), torch.cat(outcomes, 1), torch.tensor(instances), ASKED)
        return {name: value.item() for name, value in found.items()}


def _known(values: dict[str, float]) -> dict[str, float]:
    """Those that are numbers: there may be nothing to find in a whole benchmark."""
    return {name: value for name, value in values.items() if math.isfinite(value)}
