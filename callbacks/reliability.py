"""Whether the policy is as confident of its responses as they are good, as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning as L

from lightning_sal.metrics import ConfidenceCalibration
from lightning_sal.metrics.functional.calibration import expected_calibration_error
from lightning_sal.pages.loggers import add_figure


class Reliability(L.Callback):
    """Draw reward over confidence, with the gap and the number of responses by bin: of rollouts, and of validation.

    | name | what |
    |---|---|
    | `rollouts/reliability` | of the responses since the last figure |
    | `train/ece` | their expected calibration error |
    | `val/<name>/reliability` | of the greedy responses of a validation |

    Figures go to loggers of TensorBoard, W&B and MLflow. All numbers are those of `ConfidenceCalibration`, over the
    responses of all processes; rewards must lie in [0, 1].
    A figure of rollouts is due every `every_n_steps`; one that no response came before is left out. What is counted since
    the last one is saved in checkpoints.

    What it asks of others, and nothing more: after a step the module's `record`, where it has one, is None or has
    `rewards.total` and `confidence`, both (B,). In validation, `evaluation.answers`, where the module has it, maps a name
    to a mapping whose `calibration` is a `ConfidenceCalibration` that is not reset before callbacks have seen the end of
    the epoch.

    Args:
        every_n_steps: Optimisation steps from one figure of rollouts to the next, >= 1.
        bins: Confidence bins of it, > 0.
    """

    def __init__(self, every_n_steps: int = 50, bins: int = 10) -> None:
        if every_n_steps < 1:
            raise ValueError("Reliability: every_n_steps must be at least 1")
        self.every_n_steps = every_n_steps
        self.rollouts = ConfidenceCalibration(bins=bins)
        self.rollouts.persistent(True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.rollouts.to(pl_module.device)
        self._figures = trainer.global_step // self.every_n_steps
        if not trainer.is_global_zero:  # a checkpoint has the counts of all ranks, which count once
            self.rollouts.reset()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        record: Any = getattr(pl_module, "record", None)
        if record is not None:
            confidence = record.confidence.detach().to(pl_module.device).clamp(0, 1)  # what rounding may have added
            self.rollouts.update(confidence, record.rewards.total.detach().to(pl_module.device))
        number = trainer.global_step // self.every_n_steps
        if number == self._figures:
            return
        self._figures = number
        with self.rollouts.sync_context():  # by every process, whether or not it has any
            curve = self.rollouts.curve()
            if curve.count.sum() and trainer.is_global_zero:
                step = trainer.global_step - 1  # as the scalars of this step are counted
                for logger in trainer.loggers:
                    logger.log_metrics({"train/ece": expected_calibration_error(curve).item()}, step=step)
                _draw(trainer, "rollouts/reliability", self.rollouts, step)
        self.rollouts.reset()

    def state_dict(self) -> dict[str, Any]:
        with self.rollouts.sync_context():
            return {"rollouts": self.rollouts.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rollouts.load_state_dict(state_dict["rollouts"])

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        answers: Mapping[str, Any] = getattr(getattr(pl_module, "evaluation", None), "answers", {})
        for name, metrics in answers.items():
            metric = metrics["calibration"]
            with metric.sync_context():
                if metric.response_counts.sum() and trainer.is_global_zero:
                    _draw(trainer, f"val/{name}/reliability", metric, trainer.global_step)


def _draw(trainer: L.Trainer, name: str, metric: ConfidenceCalibration, step: int) -> None:
    from matplotlib.figure import Figure

    def draw() -> Figure:
        figure = Figure(figsize=(5, 5), layout="constrained")
        metric.plot(ax=figure.subplots())
        return figure

    add_figure(trainer, name, draw, step)
