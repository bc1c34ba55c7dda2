"""The scalars that tell how a training goes, side by side on one tab of TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_sal.tasks import TASKS, Measure

Charts = Mapping[str, list[str]]


class Category(NamedTuple):
    """Charts that stand together where a run logs what they show.

    TensorBoard puts the layouts of all runs of a folder together, category by category: each is there as a whole or not
    at all, so that runs of different kinds agree about it.

    Args:
        title: Heading on the tab.
        shown: Whether a run logs it: called with the trainer and the module.
        charts: Title -> regular expressions of names, each matched from its beginning. TensorBoard gives all lines of a
            run one colour: see `Curves` for a picture in which they differ.
        margins: Title -> names of a mean, a lower and an upper end.
    """

    title: str
    shown: Callable[[Any, Any], bool]
    charts: Charts
    margins: Charts = MappingProxyType({})


def _samples(trainer: Any, module: Any) -> bool:
    return hasattr(module, "record")


def _by(callback: str) -> Callable[[Any, Any], bool]:
    return lambda trainer, module: any(type(other).__name__ == callback for other in trainer.callbacks)


def _any(wanted: Callable[[Measure], bool]) -> str:
    """The names in validation of those measures that are wanted: each of its own tasks, and without a task."""
    found = [(task, name) for task in TASKS for name, measure in TASKS[task].measures().items() if wanted(measure)]
    names = [f"{task}/{name}" for task, name in found] + list(dict.fromkeys(name for _, name in found))
    return f"val/({'|'.join(names)})$"


ROLLOUTS: Charts = {
    "Reward and its terms": [r"train/reward/(?!std$)\w+$"],
    "Confidence against reward": ["train/confidence$", "train/reward/mean$"],
    "Confidence minus reward, calibration error": ["train/confidence_minus_reward$", "train/ece$"],
    "Malformed and truncated": [r"train/response/(malformed|truncated)$"],
    "Response length": ["train/response/length$"],
    "Entropy, nats a token": ["train/entropy$"],
    "Reward by task": [r"train/\w+/reward/mean$"],
}

# What there is to show of training whatever the tasks, in the order in which it is looked at.
TRAINING = (
    Category("Rollouts", _samples, ROLLOUTS),
    Category(
        "Training",
        _by("RolloutMonitor"),
        {
            "Loss": ["train/loss$"],
            "Gradient norm": ["train/grad_norm$"],
            "Share of SFT steps": ["train/phase/sft$"],
            "Seconds a step": ["train/seconds/step$"],
            "Peak memory, GB": ["train/memory_gb$"],
        },
    ),
    Category("Learning rate", _by("LearningRateMonitor"), {"Learning rate": ["lr-"]}),
    Category("Loss", lambda trainer, module: not _by("RolloutMonitor")(trainer, module), {"Loss": ["train/loss$"]}),
    Category(
        "Policy update",
        _samples,
        {
            "Clipped tokens": [r"train/clip_ratio/(low|high)$"],
            "Advantage": [r"train/advantage/(mean|std)$"],
        },
        {
            "Ratio of new to old policy, from least to largest": [
                f"train/ratio/{part}" for part in ("mean", "min", "max")
            ]
        },
    ),
    Category(
        "Sampling",
        _samples,
        {
            "Seconds a phase": [r"train/seconds/(?!step$)\w+$"],
            "Response tokens a second": ["train/tokens_per_second$"],
        },
        {
            "Ratio of policy to sampler, from least to largest": [
                f"train/sampler_ratio/{part}" for part in ("mean", "min", "max")
            ]
        },
    ),
    Category("Response types", _by("ResponseTypes"), {"Shares": [r"train/type/\w+$"]}),
    Category(
        "Embeddings",
        _by("EmbeddingSpread"),
        {
            "Spread of the responses": ["train/embedding/spread$"],
            "Directions that it fills": ["train/embedding/participation_ratio$"],
        },
    ),
    Category("Reference", lambda trainer, module: getattr(module, "beta", 0) > 0, {"KL divergence": ["train/kl$"]}),
    Category(
        "Dynamic sampling",
        lambda trainer, module: hasattr(module, "prompts_per_step"),
        {"Rounds and groups": [r"train/dynamic_sampling/\w+$"]},
    ),
)


RESPONSES: Charts = {  # of validation
    "Reward and confidence": [r"val/\w+/(reward|confidence)$"],
    "Exact and malformed": [r"val/\w+/(exact|malformed)$"],
    "Calibration error": [r"val/\w+/ece$"],
}


def validation() -> Charts:
    """Charts of how good the masks and answers to held-out samples are, by the measures of the tasks that are known."""
    return {
        "Correctness": [_any(lambda measure: measure.primary)],
        "Overlap": [_any(lambda measure: measure.overlap)],
    }


def categories() -> tuple[Category, ...]:
    """All that there is to show, held-out samples first."""
    return (
        Category("Validation", lambda trainer, module: trainer.enable_validation, validation()),
        Category(
            "Validation, responses",
            lambda trainer, module: trainer.enable_validation and hasattr(module, "evaluate"),
            RESPONSES,
        ),
        *TRAINING,
    )


class Dashboard(L.Callback):
    """Lay out TensorBoard's Custom Scalars tab: the charts that fit the run, in the order in which they are looked at.

    Held-out samples come first, where there is validation. Then reward terms, confidence against reward, malformed
    responses, lengths, clipping, times and memory for a module that samples responses; loss, gradient norm, times and
    memory for any other. Each TensorBoard logger gets the layout once, at the start of a fit. Only the layout is written:
    scalars are logged by those who know them.

    What it asks of others, and nothing more: the names of docs/tensorboard.md for what is logged. It takes a module with
    a `record` for one that samples responses, with a `beta` above 0 for one that logs `train/kl`, with `prompts_per_step`
    for one that samples dynamically, and with `evaluate` for one that evaluates responses; what `RolloutMonitor`,
    `ResponseTypes`, `EmbeddingSpread` and Lightning's `LearningRateMonitor` log is shown where they are among the callbacks.

    Args:
        charts: Category -> chart -> regular expressions of names, to come first, for scalars of your own.
    """

    def __init__(self, charts: dict[str, dict[str, list[str]]] | None = None) -> None:
        self.charts = charts or {}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        own = (Category(title, lambda *_: True, charts) for title, charts in self.charts.items())
        layout = {part.title: _lines(part) for part in (*own, *categories()) if part.shown(trainer, pl_module)}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_custom_scalars(layout)


def _lines(category: Category) -> dict[str, list[Any]]:
    """The charts of a category as `SummaryWriter.add_custom_scalars` takes them."""
    lines: dict[str, list[Any]] = {title: ["Multiline", names] for title, names in category.charts.items()}
    return lines | {title: ["Margin", names] for title, names in category.margins.items()}
