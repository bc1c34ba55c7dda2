"""Expression, box or points -> mask. The classes load torch and sam2 only when they are first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_sal.samples import VisualPrompt
    from lightning_sal.segmenters.base import Segmenter
    from lightning_sal.segmenters.by_prompt import SegmenterByPrompt
    from lightning_sal.segmenters.evf_sam2 import EVFSAM2
    from lightning_sal.segmenters.sam2_prompt import SAM2Prompt
    from lightning_sal.segmenters.sam3 import SAM3

__all__ = ["EVFSAM2", "SAM3", "SAM2Prompt", "Segmenter", "SegmenterByPrompt", "VisualPrompt"]
_HOME = {
    "EVFSAM2": "segmenters.evf_sam2",
    "SAM2Prompt": "segmenters.sam2_prompt",
    "SAM3": "segmenters.sam3",
    "Segmenter": "segmenters.base",
    "SegmenterByPrompt": "segmenters.by_prompt",
    "VisualPrompt": "samples",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"lightning_sal.{_HOME[name]}"), name)
