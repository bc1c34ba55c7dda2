"""What a run was started with beside what it came to, on the HParams tab of TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto import summary_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

from lightning_sal.internals.trainer import event_file
from lightning_sal.tasks import SOD, TASKS
from lightning_sal.tasks.measures import primary

# Protobuf makes the names in these modules as they load, which type checkers do not see.
api: Any = api_pb2
plugin: Any = plugin_data_pb2
Summary: Any = summary_pb2.Summary  # type: ignore[attr-defined]

NUMBERS = {
    "lr": "defaults.lr",
    "batch_size": "data.batch_size",
    "responses_per_prompt": "module.responses_per_prompt",
    "updates_per_rollout": "module.updates_per_rollout",
    "beta": "module.beta",
    "temperature": "module.temperature",
    "max_new_tokens": "module.max_new_tokens",
    "lora_rank": "module.policy_config.lora.rank",
    "rl_steps": "InterleavedSFT.rl_steps",
    "sft_steps": "InterleavedSFT.sft_steps",
    "warmup_sft": "InterleavedSFT.warmup_sft",
    "max_steps": "trainer.max_steps",
    "seed": "module.seed",
}
WORDS = {
    "algorithm": "module.__class__.__name__",
    "model": "module.policy_config.model",
    "data": "data.__class__.__name__",
    "optimizer": "optimizer.__class__.__name__",
    "clip": "module.clip",
}
# TensorBoard shows five columns until others are ticked, first those that are said to differ between runs.
FIRST = ("algorithm", "lr", "responses_per_prompt", "batch_size", "seed")
METRICS = (
    "train/reward/mean",
    "before_after/exact",
    "before_after/correctness",
    "train/response/malformed",
    "train/confidence_minus_reward",
    *(f"val/{name}/{primary(task.measures())}" for name, task in TASKS.items()),
    f"val/{primary(SOD.measures())}",  # of a segmenter's fine-tuning
    "train/seconds/step",
    "train/loss",
)


class HyperParameters(L.Callback):
    """Write hyper-parameters and final metrics of a fit for TensorBoard's HParams tab, as a row in a table of all runs.

    A metric is the last value of its scalar in the same run, so that it is on the tab while the run goes on, and is final
    once it has ended. A run that an exception ended, Ctrl-C among them, is marked as failed; one that was killed stays
    without a mark. Columns are the same in every run, since TensorBoard takes them from one run for all: what a run has
    not is an empty cell. Other loggers get the hyper-parameters alone, by `log_hyperparams`.

    What it asks of others, and nothing more: values where the paths say. A path begins with `module`, `data` (the
    datamodule), `trainer`, `optimizer` (the first one), `defaults` (what that one was made with) or the class name of a
    callback; a path that leads nowhere, or to None, leaves its cell empty. Metrics are logged by those who know them.

    Args:
        numbers: Column -> path of a number.
        words: Column -> path of anything else, which is shown as text.
        metrics: Names of logged scalars.
    """

    def __init__(
        self,
        numbers: Mapping[str, str] = NUMBERS,
        words: Mapping[str, str] = WORDS,
        metrics: Sequence[str] = METRICS,
    ) -> None:
        self.numbers, self.words, self.metrics = numbers, words, metrics
        self._started = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        roots = _roots(trainer, pl_module)
        values = {name: str(value) for name, path in self.words.items() if (value := _at(roots, path)) is not None}
        values |= {name: float(value) for name, path in self.numbers.items() if (value := _at(roots, path)) is not None}
        for logger in trainer.loggers:
            # TensorBoard's own would take the columns of this run for those of all.
            logger.log_hyperparams(values, **({"metrics": {}} if isinstance(logger, TensorBoardLogger) else {}))
        _write(trainer, _experiment(self.numbers, self.words, self.metrics))
        _write(trainer, _session_start(values))
        self._started = True

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end(trainer, "STATUS_SUCCESS")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._end(trainer, "STATUS_FAILURE")

    def _end(self, trainer: L.Trainer, status: str) -> None:
        if self._started:
            _write(trainer, _session_end(status))
        self._started = False


def _roots(trainer: L.Trainer, module: L.LightningModule) -> SimpleNamespace:
    """What the first word of a path may be."""
    callbacks = {type(callback).__name__: callback for callback in trainer.callbacks}  # type: ignore[attr-defined]
    optimizer = next(iter(trainer.optimizers), None)
    return SimpleNamespace(
        **callbacks,
        module=module,
        data=trainer.datamodule,  # type: ignore[attr-defined]
        trainer=trainer,
        optimizer=optimizer,
        defaults=SimpleNamespace(**getattr(optimizer, "defaults", {})),
    )


def _at(value: Any, path: str) -> Any:
    """The attribute at a dotted path, or None where there is none."""
    for name in path.split("."):
        if value is None:
            return None
        value = getattr(value, name, None)
    return value


def _experiment(numbers: Mapping[str, str], words: Mapping[str, str], metrics: Sequence[str]) -> Any:
    """The columns of the table."""
    kinds = dict.fromkeys(words, api.DATA_TYPE_STRING) | dict.fromkeys(numbers, api.DATA_TYPE_FLOAT64)
    columns = [api.HParamInfo(name=name, type=kind, differs=name in FIRST) for name, kind in kinds.items()]
    results = [api.MetricInfo(name=api.MetricName(tag=name)) for name in metrics]
    experiment = api.Experiment(hparam_infos=columns, metric_infos=results)
    return _summary(metadata.EXPERIMENT_TAG, experiment=experiment)


def _session_start(values: Mapping[str, str | float]) -> Any:
    """The hyper-parameters of this run."""
    start = plugin.SessionStartInfo(start_time_secs=time.time())
    for name, value in values.items():
        setattr(start.hparams[name], "string_value" if isinstance(value, str) else "number_value", value)
    return _summary(metadata.SESSION_START_INFO_TAG, session_start_info=start)


def _session_end(status: str) -> Any:
    """That this run has ended, and how."""
    end = plugin.SessionEndInfo(status=api.Status.Value(status), end_time_secs=time.time())
    return _summary(metadata.SESSION_END_INFO_TAG, session_end_info=end)


def _summary(tag: str, **content: Any) -> Any:
    """An event of the HParams plugin, in the form in which `SummaryWriter.add_hparams` writes one."""
    about = metadata.create_summary_metadata(plugin.HParamsPluginData(**content))
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=metadata.NULL_TENSOR)])


def _write(trainer: L.Trainer, event: Any) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            # Not by `add_hparams`, which would make a run of its own below this one.
            event_file(logger).add_summary(event)
