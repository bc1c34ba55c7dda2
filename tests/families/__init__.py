"""Folders of tiny random models, one module a family of multimodal LLMs: as on a hub, but built here in a second."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from lightning_sal.tiny.weights import EMBEDDED_POLICIES

QWEN = EMBEDDED_POLICIES["tiny"]  # the embedded Qwen2.5-VL, which both paths of the policy take


def _built(family: str, folder: Path) -> Path:
    """The folder, with the model of a family in it. Its module is imported now: transformers' classes take seconds."""
    import_module(f"{__name__}.{family}").build(folder)
    return folder


FAMILIES: dict[str, Callable[[Path], Path]] = {
    module.name: partial(_built, module.name) for module in iter_modules(__path__) if module.name != "base"
}
"""Name of a family (transformers' `model_type`) -> what writes a tiny model of it into a folder, which it returns."""
