"""The adapters of each checkpoint beside it, as peft writes them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, Strategy
from torch.distributed.tensor import DTensor

from lightning_sal.files.writing import whole
from lightning_sal.internals.trainer import saves_in_shards


class SaveAdapter(L.Callback):
    """Write the adapters in peft's own format beside every checkpoint of a fit, and remove them with it.

    Beside `<name>.ckpt` stands the folder `<name>.adapter` with `adapter_config.json` and `adapter_model.safetensors`:
    `peft.PeftModel.from_pretrained(base, folder)` loads it, `lightning-sal export FOLDER` merges it into its base model.
    It holds the weights of that very checkpoint, whoever writes it (`ModelCheckpoint`, `trainer.save_checkpoint`); one
    that `save_top_k` drops takes its folder with it, and a link to a checkpoint gets none of its own. The base model in
    `adapter_config.json` is the folder or hub name that the model was loaded from, as it was given; where it is a hub name,
    peft asks the hub at each checkpoint whether the vocabulary has grown, which HF_HUB_OFFLINE=1 spares.

    What it asks of others, and nothing more: a `peft.PeftModel` somewhere in the module once `configure_model` has run,
    and a strategy that leaves the adapters whole and writes checkpoints as one file each: one device, DDP, or
    `ModelParallelStrategy` (FSDP2) with `save_distributed_checkpoint=False` and the adapters in `ignored_params`, as the
    policies here have them. Checkpoints must go to a folder of a file system that all can write to like any other, not to
    a bucket. Rank 0 writes, and the other ranks are not needed for it.

    Args:
        attribute: Where the PeftModel is, as `policy.net`, for a module that has several; null finds the only one.
    """

    def __init__(self, attribute: str | None = None) -> None:
        self.attribute = attribute
        self._beside: _BesideCheckpoints | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if sum(isinstance(callback, SaveAdapter) for callback in trainer.callbacks) > 1:  # type: ignore[attr-defined]
            raise ValueError("SaveAdapter: there are several, which would write to the same folders: keep one")
        model = find_adapter(pl_module, self.attribute)
        refuse_shards(trainer.strategy, model)
        inner = trainer.strategy.checkpoint_io
        inner = inner.inner if isinstance(inner, _BesideCheckpoints) else inner  # of an earlier fit of this trainer
        trainer.strategy.checkpoint_io = self._beside = _BesideCheckpoints(inner, model)

    def outputs(self) -> dict[str, Path]:
        """The adapters of the last checkpoint, once there is one."""
        folder = self._beside.last if self._beside else None
        return {"Adapter": folder} if folder is not None and folder.is_dir() else {}


class _BesideCheckpoints(CheckpointIO):
    """What the strategy writes and removes checkpoints with, on rank 0, and the adapters too.

    Args:
        inner: What it did so with before.
        model: The `peft.PeftModel`.
    """

    def __init__(self, inner: CheckpointIO, model: Any) -> None:
        self.inner, self.model = inner, model
        self.last: Path | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        folder = adapter_folder(path)
        self.inner.save_checkpoint(checkpoint, path, storage_options)
        with whole(folder) as part:  # in place of that of the checkpoint that was just replaced
            self.model.save_pretrained(part)
        self.last = folder

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.inner.load_checkpoint(path, *args, **kwargs)

    def remove_checkpoint(self, path: str | Path) -> None:
        folder = adapter_folder(path)
        if folder.is_dir():  # a checkpoint of an earlier run may have none
            shutil.rmtree(folder)
        self.inner.remove_checkpoint(path)

    def teardown(self) -> None:
        self.inner.teardown()


def adapter_folder(checkpoint: str | Path) -> Path:
    """The folder of the adapters of a checkpoint: `<name>.adapter` beside `<name>.ckpt`.

    Raises:
        ValueError: If the checkpoint is in no local folder.
    """
    if "://" in str(checkpoint):
        raise ValueError(f"SaveAdapter: {checkpoint} is in no local folder: set ModelCheckpoint's dirpath to one")
    path = Path(checkpoint)
    return path.with_name(f"{path.name.removesuffix('.ckpt')}.adapter")


def find_adapter(module: L.LightningModule, attribute: str | None = None) -> Any:
    """The `peft.PeftModel` in a module.

    Args:
        module: Where to look.
        attribute: Its dotted name; None finds the only one.

    Raises:
        ValueError: If there is none, or several and no name.
    """
    from peft import PeftModel

    found = {name: part for name, part in module.named_modules() if isinstance(part, PeftModel)}
    if attribute is not None and attribute in found:
        return found[attribute]
    if attribute is None and len(found) == 1:
        return next(iter(found.values()))
    name = type(module).__name__
    if not found:
        raise ValueError(f"SaveAdapter: {name} has no adapters: set model.policy.lora, or take SaveAdapter out")
    fault = f"nothing at {attribute}" if attribute else "several"
    raise ValueError(f"SaveAdapter: of PeftModels {name} has {fault}: set attribute to one of {', '.join(found)}")


def refuse_shards(strategy: Strategy, model: Any) -> None:
    """Check that rank 0 has the whole adapters when it writes a checkpoint.

    Raises:
        ValueError: If the strategy cuts them up, or writes checkpoints in a way of its own.
    """
    own_way = isinstance(strategy, (DeepSpeedStrategy, FSDPStrategy))
    if own_way or saves_in_shards(strategy):
        raise ValueError(
            f"SaveAdapter: {type(strategy).__name__} writes checkpoints in shards: take ddp, or ModelParallelStrategy "
            "with save_distributed_checkpoint false, as conf/strategy/fsdp.yaml does"
        )
    shards = [name for name, p in model.named_parameters() if p.requires_grad and isinstance(p, DTensor)]
    if shards:
        raise ValueError(
            f"SaveAdapter: {len(shards)} weights that are trained lie in shards, first {shards[0]}: give the adapters to "
            "fully_shard as ignored_params, which keeps them whole"
        )
