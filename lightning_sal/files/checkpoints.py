"""Checkpoints on the disk: written whole or not at all, and which of a folder is whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from lightning_sal.files.loading import is_whole, read_tensors
from lightning_sal.files.writing import whole


def newest_whole(folder: Path) -> Path | None:
    """The checkpoint of a folder that was written last, of those that are whole."""
    files = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return next((path for path in files if path.is_file() and is_whole(path)), None)


def require_whole(path: Path) -> None:
    """Check a checkpoint before anything is built for it.

    Raises:
        ValueError: It is damaged, and the line names the newest one beside it that is not; or it holds other things than
            tensors and plain values, or not what Lightning puts into one.
    """
    if path.is_file() and not is_whole(path):
        other = newest_whole(path.parent)
        advice = "no other one beside it is whole"
        if other:
            advice = f"the newest whole one beside it is {other}, which --ckpt_path last-good takes in a fit by itself"
        raise ValueError(f"{path} is not a checkpoint, or only the beginning of one, or damaged; {advice}")
    if path.is_file():
        content = read_tensors(path, mmap=True, checked=True)
        for part in ("state_dict", "pytorch-lightning_version"):
            if not isinstance(content, dict) or not isinstance(content.get(part), (dict, str)):
                raise ValueError(f"{path} is not a Lightning checkpoint: it holds no {part}")


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints beside their name first, where Lightning's own copies them to it from the system's folder."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if "://" in str(path):  # a bucket, whose objects are whole or not there
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part, part.open("wb") as file:  # given a path, torch would not say why it cannot write
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())  # else, after a loss of power, the name might stand for nothing
