"""The metrics of validation and test, one set a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lightning_sal.metrics import InstanceAlignedStructureMeasure, MeanAbsoluteError, StructureMeasure
from lightning_sal.rewards import RewardBatch
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import TASKS


class Evaluation(nn.Module):
    """Metrics of greedy responses, by task.

    `s_measure` and `mae` of regions (SOD, CoSOD), `iasm` of instances (SIS), and for every task `reward`, `confidence`,
    `malformed` (share of responses that do not keep the format) and `exact`: the share whose expressions are exactly
    those of the annotated response, in any order, over the samples that have one.
    """

    def __init__(self) -> None:
        super().__init__()
        metrics: dict[str, nn.ModuleDict] = {}
        for name, task in TASKS.items():
            shape = {"s_measure": StructureMeasure(), "mae": MeanAbsoluteError()}
            own = {"iasm": InstanceAlignedStructureMeasure()} if task.instances else shape
            means = {mean: MeanMetric() for mean in ("reward", "confidence", "malformed", "exact")}
            metrics[name] = nn.ModuleDict({**own, **means})
        self.metrics = nn.ModuleDict(metrics)

    def update(self, groups: Sequence[ImageGroup], judged: RewardBatch, confidence: Tensor) -> None:
        """Add B responses; `confidence` (B,) in [0, 1]."""
        for row, group in enumerate(groups):
            metrics: Any = self.metrics[group.task]
            answer, masks = judged.answers[row], judged.masks[row]
            truth = group.masks or ()
            for mask, target in zip(masks, truth, strict=True):
                if TASKS[group.task].instances:
                    metrics["iasm"].update(mask, target)
                else:
                    metrics["s_measure"].update(mask.float(), target)
                    metrics["mae"].update(mask.float(), target)
            metrics["reward"].update(judged.total[row])
            metrics["confidence"].update(confidence[row])
            metrics["malformed"].update(float(answer.reason is not None))
            if group.response is not None:
                expected = TASKS[group.task].parse(group.response).expressions
                metrics["exact"].update(float(Counter(answer.expressions) == Counter(expected)))

    def compute(self) -> dict[str, Tensor]:
        """`<task>/<metric>` -> value, without what was never updated on any rank; then start over."""
        values = {}
        by_task: Any = self.metrics
        for task, metrics in by_task.items():
            for name, metric in metrics.items():
                value = metric.compute()
                if not torch.isnan(value):
                    values[f"{task}/{name}"] = value
                metric.reset()
        return values
