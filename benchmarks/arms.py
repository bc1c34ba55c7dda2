"""An arm of the ablation in this process: module and data, made of its config files, and a fit that leaves no file."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from torch.utils.data import DataLoader

from lightning_sal.commands.replay import build_module
from lightning_sal.configs.reading import datamodule_of, read_config
from lightning_sal.samples import Batch

ROOT = Path(__file__).resolve().parent.parent
FIT = "conf/ablation/fit.yaml"


def config_of(arm: str, *options: str) -> dict[str, Any]:
    """The values of the config that all arms share, of `conf/rl/<arm>.yaml`, and of options of `lightning fit`."""
    return read_config(["--config", str(ROOT / FIT), "--config", str(ROOT / f"conf/rl/{arm}.yaml"), *options])


def seeded(seed: int) -> list[str]:
    """The options that give adapters, sampling and data a seed."""
    return [f"--{key}={seed}" for key in ("seed_everything", "data.init_args.seed", "model.init_args.seed")]


def module_of(config: dict[str, Any]) -> Any:
    """The module of a config with its policy, adapters drawn by the config's seed."""
    L.seed_everything(config["seed_everything"], verbose=False)
    module = build_module(yaml.safe_dump({"model": config["model"]}), FIT)
    module.configure_model()
    return module


def data_of(config: dict[str, Any], **arguments: Any) -> Any:
    """The datamodule of a config, with other arguments where they are given, ready to fit."""
    data = config["data"]
    module = datamodule_of({"data": data | {"init_args": data["init_args"] | arguments}})
    module.setup("fit")
    return module


def fresh_prompts(config: dict[str, Any], size: int, batches: int) -> list[Batch]:
    """Scenes that the config trains nothing on, each with its right response, by which answers are told right from wrong."""
    data = data_of(config, streams=["sft"], annotated=None, mistakes=0, batch_size=size)
    stream = iter(data.train_dataloader())
    return [next(stream) for _ in range(batches)]


def fit(module: Any, batches: Sequence[Any], clip: float | None, callbacks: Sequence[L.Callback] = ()) -> None:
    """A step on each batch.

    Args:
        module: Trained in place.
        batches: As its `training_step` takes them.
        clip: Largest gradient norm, or None.
        callbacks: Of the trainer.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        trainer = L.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=-1,
            max_epochs=1,
            gradient_clip_val=clip,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, Lightning does not say which devices there are."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
