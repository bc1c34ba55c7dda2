"""Expression -> mask. The classes load torch and sam2 only when they are first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_sal.segmenters.base import Segmenter
    from lightning_sal.segmenters.evf_sam2 import EVFSAM2

__all__ = ["EVFSAM2", "Segmenter"]
_HOME = {"EVFSAM2": "evf_sam2", "Segmenter": "base"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
