"""Which checkpoint a fit of the command line goes on from, and in which folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_sal.files.checkpoints import newest_whole, require_whole
from lightning_sal.files.writing import numbered

NAMES = ("last", "last-good")


def resume_from(config: Any) -> str:
    """Put the checkpoint that is meant into the config of a fit, and a TensorBoardLogger without a version into its folder.

    Scalars and checkpoints of a run that goes on are then where those before them are, and `last` finds them again.

    Args:
        config: Of the command, as it was parsed.

    Returns:
        A name for the file of the config that no file of that folder has.

    Raises:
        ValueError: There is no such checkpoint, or it is damaged; the line names what there is instead.
    """
    if config.ckpt_path in NAMES and (folders := _folders(config.trainer)) is not None:
        config.ckpt_path = str(_find(config.ckpt_path, folders))
    checkpoint = Path(config.ckpt_path)
    require_file(config.ckpt_path)
    for logger in _settings(config.trainer.logger, "TensorBoardLogger"):
        for folder in _versions(_base(logger)):
            if logger.version is None and folder.resolve() in checkpoint.resolve().parents:
                logger.version = int(folder.name.removeprefix("version_"))
        if (folder := _version(logger)) is not None:
            return next(name for stem in numbered("config") if not (folder / (name := f"{stem}.yaml")).exists())
    return "config.yaml"


def require_file(name: str) -> None:
    """Check what `--ckpt_path` names before anything is built for it.

    Raises:
        ValueError: If it is a word for a checkpoint that only a run which has gone on in this process knows, or a file
            that is no whole checkpoint.
    """
    if name in ("best", *NAMES) and not Path(name).exists():
        raise ValueError(
            f"--ckpt_path {name}: a command that starts knows of no checkpoint by this name: give its file, as "
            "runs/NAME/version_0/checkpoints/last.ckpt"
        )
    require_whole(Path(name))


def _find(name: str, folders: list[Path]) -> Path:
    """The checkpoint of a name in the first folder that has one."""
    for folder in folders:
        if name == "last-good":
            found = newest_whole(folder)
        else:
            lasts = [path for path in folder.glob("last*.ckpt") if path.is_file()]
            found = max(lasts, key=lambda path: path.stat().st_mtime_ns, default=None)
        if found is not None:
            return found
    looked = ", ".join(map(str, folders)) or "the folder of the logger"
    raise ValueError(f"--ckpt_path {name}: there is no such checkpoint in {looked}; leave it out to start anew")


def _folders(trainer: Any) -> list[Path] | None:
    """Where checkpoints of a run with these settings are, the newest version first; None if Lightning knows alone."""
    stated = [saver.dirpath for saver in _settings(trainer.callbacks, "ModelCheckpoint") if saver.dirpath]
    if stated:
        return [Path(folder) for folder in stated]
    if trainer.logger is False:
        return [Path(trainer.default_root_dir or ".") / "checkpoints"]
    if trainer.logger in (None, True):
        versions = _versions(Path(trainer.default_root_dir or ".") / "lightning_logs")
    elif loggers := list(_settings(trainer.logger, "TensorBoardLogger", "CSVLogger")):
        stated_version = _version(loggers[0])
        versions = _versions(_base(loggers[0])) if stated_version is None else [stated_version]
    else:
        return None
    return [version / "checkpoints" for version in versions]


def _settings(parts: Any, *classes: str) -> Iterator[Any]:
    """The arguments of those of the configured parts that are of one of the classes."""
    for part in parts if isinstance(parts, list) else [parts]:
        if getattr(part, "class_path", "").rpartition(".")[2] in classes:
            yield part.init_args


def _base(logger: Any) -> Path:
    return Path(logger.save_dir) / (logger.name or "")


def _version(logger: Any) -> Path | None:
    """The folder of the run of a logger whose version is stated."""
    if logger.version is None:
        return None
    return _base(logger) / (logger.version if isinstance(logger.version, str) else f"version_{logger.version}")


def _versions(base: Path) -> list[Path]:
    """The folders of the runs below one, the newest first."""
    found = [path for path in base.glob("version_*") if re.fullmatch(r"version_\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("version_")), reverse=True)
