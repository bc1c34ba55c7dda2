"""Where the embedded weights lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_sal.segmenters import EVFSAM2

WEIGHTS = Path(__file__).parent / "weights"
EMBEDDED_POLICIES = {"tiny": WEIGHTS / "policy", "tiny-early": WEIGHTS / "policy_early"}


def embedded_segmenter() -> EVFSAM2:
    """The small EVF-SAM2 that the package carries, in evaluation mode."""
    from lightning_sal.segmenters import EVFSAM2

    return EVFSAM2.from_pretrained(WEIGHTS / "segmenter")
