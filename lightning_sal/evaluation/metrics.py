"""The metrics of validation and test, one set a task or benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from lightning_sal.metrics import (
    ConfidenceCalibration,
    InstanceAlignedStructureMeasure,
    InstanceAveragePrecision,
    MaskIoU,
    SaliencySuite,
)
from lightning_sal.rewards import RewardBatch
from lightning_sal.samples import Prediction
from lightning_sal.tasks import TASKS


def mask_metrics(task: str, normalize: bool = False, weighted_f: bool = False) -> dict[str, Metric]:
    """The metrics of a task's masks: S, E, F, MAE, gIoU and cIoU of regions (SOD, CoSOD); IASM and AP of instances (SIS).

    Args:
        task: sod, sis or cosod.
        normalize: Whether each saliency map is stretched to [0, 1] first.
        weighted_f: Whether the weighted F-measure of regions is wanted too, which takes several times as long.
    """
    if TASKS[task].instances:
        return {"iasm": InstanceAlignedStructureMeasure(), "ap": InstanceAveragePrecision()}
    return {"maps": SaliencySuite(weighted_f, normalize), "iou": MaskIoU(normalize=normalize)}


def score_image(metrics: Any, masks: Tensor, truth: Tensor, scores: Tensor | None = None) -> dict[str, float]:
    """Add one image to `mask_metrics`; returns its own values.

    Args:
        metrics: Name -> metric.
        masks: (1, H, W) map or mask of a region, or (M, H, W) instances.
        truth: (1, H, W), or (I, H, W).
        scores: (M,) scores of the instances in [0, 1], where they have some.
    """
    values: dict[str, float] = {}
    for name, metric in metrics.items():
        value = metric(masks, truth, scores) if name == "ap" else metric(masks, truth)
        values |= {part: v.item() for part, v in (value if isinstance(value, dict) else {name: value}).items()}
    return values


class Evaluation(nn.Module):
    """Metrics of greedy responses, by benchmark, or by task where samples belong to none.

    `mask_metrics`, and for every task `reward`, `confidence`, the two of `ConfidenceCalibration` (with the reward clamped
    to [0, 1]), `malformed` (share of responses that do not keep the format; what cannot be read counts as empty masks) and
    `exact`: the share whose expressions are exactly those of the annotated response, in any order, over the samples that
    have one.

    Args:
        benchmarks: Name of a benchmark -> its task; null for none.
    """

    def __init__(self, benchmarks: Mapping[str, str] | None = None) -> None:
        super().__init__()
        names = {task: task for task in TASKS} | dict(benchmarks or {})
        self.masks = nn.ModuleDict({name: nn.ModuleDict(mask_metrics(task)) for name, task in names.items()})
        self.answers = nn.ModuleDict({name: nn.ModuleDict(_answer_metrics()) for name in names})

    def update(self, judged: RewardBatch, predictions: Sequence[Prediction]) -> list[dict[str, Any]]:
        """Add B responses.

        Args:
            judged: What they are worth.
            predictions: What was said of B groups, with confidence in [0, 1].

        Returns:
            One row an image: what it is, how its masks did, and what was said of its group.
        """
        rows = []
        for reward, prediction in zip(judged.total, predictions, strict=True):
            group, malformed = prediction.group, prediction.reason is not None
            name, sure = group.benchmark or group.task, torch.tensor([prediction.confidence])
            said = {"reward": reward.item(), "confidence": prediction.confidence}
            said |= {"expressions": "; ".join(prediction.expressions), "malformed": prediction.reason or ""}
            known = zip(prediction.masks, group.masks, strict=True) if group.masks else ()
            for number, (mask, truth) in enumerate(known):
                about = {"benchmark": name, "key": group.key, "image": group.paths[number] if group.paths else ""}
                rows.append({**about, **score_image(self.masks[name], mask, truth), **said})
            metrics: Any = self.answers[name]
            metrics["reward"].update(reward)
            metrics["confidence"].update(prediction.confidence)
            metrics["calibration"].update(sure, reward[None].clamp(0, 1))
            metrics["malformed"].update(float(malformed))
            if group.response is not None:
                exact = TASKS[group.task].is_exact(prediction.expressions, group.response)
                metrics["exact"].update(float(exact))
        return rows

    def compute(self) -> dict[str, Tensor]:
        """`<benchmark or task>/<metric>` -> value, without what was never updated on any rank; then start over."""
        values: dict[str, Tensor] = {}
        for sets in (self.masks, self.answers):
            for name, metrics in sets.items():
                values |= {f"{name}/{metric}": value for metric, value in compute_all(metrics).items()}
        return values


def compute_all(metrics: Any) -> dict[str, Tensor]:
    """What metrics compute, by name, without what was never updated on any rank; then they start over."""
    values: dict[str, Tensor] = {}
    for name, metric in metrics.items():
        value = metric.compute()
        values |= value if isinstance(value, dict) else {name: value}
        metric.reset()
    return {name: value for name, value in values.items() if not torch.isnan(value)}


def _answer_metrics() -> dict[str, Metric]:
    means = {name: MeanMetric() for name in ("reward", "confidence", "malformed", "exact")}
    return {**means, "calibration": ConfidenceCalibration()}
