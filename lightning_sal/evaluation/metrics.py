"""The metrics of validation and test, one set a task or benchmark."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from lightning_sal.inference.responses import Prediction, Response, prediction_of
from lightning_sal.metrics import ConfidenceCalibration
from lightning_sal.rewards import RewardBatch
from lightning_sal.tasks import TASKS, get_task
from lightning_sal.tasks.measures import term_measure


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one image of a test, or of one sample of a task without masks.

    Args:
        fields: What it is, how its masks did, and what was answered about its group; `benchmark` is among them.
        prediction: Of its group.
        image: Number of the image in its group; None where the row is of the whole sample.
    """

    fields: dict[str, Any]
    prediction: Prediction
    image: int | None


class Evaluation(nn.Module):
    """Metrics of responses, by benchmark, or by task where samples belong to none.

    What each task is measured by, and for every task `reward`, `confidence`, `malformed` (share of responses that do not
    keep the format; what cannot be read counts as empty masks), `exact`: the share of answers that are exactly the annotated
    one, over the samples that have one; those of `ConfidenceCalibration`, where the reward lies in [0, 1]; and
    `reward_<term>`, the mean of each term of the reward over the samples for which it has a value.

    Args:
        benchmarks: Name of a benchmark -> its task; null for none.
        calibration: Whether rewards lie in [0, 1], so that confidence can be compared with them.
        terms: Names of the terms of the reward.
    """

    def __init__(
        self, benchmarks: Mapping[str, str] | None = None, calibration: bool = True, terms: Iterable[str] = ()
    ) -> None:
        super().__init__()
        self.tasks = {task: task for task in TASKS} | dict(benchmarks or {})
        self.measured = nn.ModuleDict(
            {name: nn.ModuleDict(get_task(task).metrics()) for name, task in self.tasks.items()}
        )
        self.term_names = tuple(terms)
        self.answers = nn.ModuleDict({name: nn.ModuleDict(_answer_metrics(calibration)) for name in self.tasks})
        self.terms = nn.ModuleDict(
            {name: nn.ModuleDict({term_measure(term): MeanMetric() for term in self.term_names}) for name in self.tasks}
        )

    def measure(self, responses: Sequence[Response]) -> list[Response]:
        """Add B responses to what their tasks are measured by; gives them with their own values.

        Args:
            responses: With masks, where the task has some.
        """
        measured = []
        for response in responses:
            group = response.group
            metrics: Any = self.measured[_name(response)]
            task = get_task(group.task)
            has_truth = all(getattr(group, name) is not None for name in task.needs)
            values = task.update(metrics, group, response.answer, response.masks or ()) if has_truth else []
            measured.append(replace(response, values=tuple(values)))
        return measured

    def update(self, responses: Sequence[Response], rewards: RewardBatch) -> list[Row]:
        """Add B responses to what every task is measured by.

        Args:
            responses: With what `measure` gave, and confidence in [0, 1] where it is known.
            rewards: What they are worth.

        Returns:
            A row an image, or a sample of a task without masks.
        """
        rows: list[Row] = []
        for row, (reward, response) in enumerate(zip(rewards.total, responses, strict=True)):
            group, confidence = response.group, response.confidence
            name, prediction = _name(response), prediction_of(response)
            about = {"reward": reward.item(), "confidence": _text(confidence) if confidence is None else confidence}
            about |= {key: _text(value) for key, value in response.answer.fields().items()}
            about["malformed"] = response.answer.reason or ""
            for number, values in enumerate(response.values or ()):
                image = number if response.masks else None
                path = group.paths[number] if group.paths else ""
                fields = {"benchmark": name, "key": group.key, "image": path}
                fields |= {"question": group.question} if get_task(group.task).has_question else {}
                rows.append(Row(fields | row_values(group.task, values) | about, prediction, image))
            own: Any = self.terms[name]
            for term, value in rewards.of(row).items():
                own[term_measure(term)].update(value)
            metrics: Any = self.answers[name]
            metrics["reward"].update(reward)
            if confidence is not None:
                metrics["confidence"].update(confidence)
            if confidence is not None and "calibration" in metrics:
                metrics["calibration"].update(torch.tensor([confidence]), reward[None])
            metrics["malformed"].update(float(response.answer.reason is not None))
            if (exact := get_task(group.task).agrees(response.answer, group)) is not None:
                metrics["exact"].update(float(exact))
        return rows

    def compute(self) -> dict[str, Tensor]:
        """`<benchmark or task>/<measure>` -> value, without what was never updated on any rank; then start over."""
        values: dict[str, Tensor] = {}
        for sets in (self.measured, self.answers, self.terms):
            for name, metrics in sets.items():
                values |= {f"{name}/{measure}": value for measure, value in compute_all(metrics).items()}
        return values


def row_values(task: str, values: Mapping[str, float]) -> dict[str, Any]:
    """What an image was measured by, for its row; empty for what its task measures of some images and not of this one."""
    measures = get_task(task).measures().items()
    known = (name for name, measure in measures if measure.per_image and not measure.extra)
    return {**dict.fromkeys(known, ""), **values}


def compute_all(metrics: Any) -> dict[str, Tensor]:
    """What metrics compute, by name, without what was never updated on any rank; then they start over."""
    values: dict[str, Tensor] = {}
    for name, metric in metrics.items():
        with warnings.catch_warnings():  # of what was never updated, which is left out below
            warnings.filterwarnings("ignore", "The ``compute`` method")
            value = metric.compute()
        values |= value if isinstance(value, dict) else {name: value}
        metric.reset()
    return {name: value for name, value in values.items() if not torch.isnan(value)}


def _answer_metrics(calibration: bool) -> dict[str, Metric]:
    means = {name: MeanMetric() for name in ("reward", "confidence", "malformed", "exact")}
    return {**means, **({"calibration": ConfidenceCalibration()} if calibration else {})}


def _name(response: Response) -> str:
    return response.group.benchmark or response.group.task


def _text(value: Any) -> str:
    if value is None:
        return ""
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
