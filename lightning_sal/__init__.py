"""Visual saliency with multimodal LLMs, on Lightning: SFT, CGPO and the GRPO family for SOD, SIS and CoSOD."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_sal.inference.predictor import Predictor

__all__ = ["Predictor"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name != "Predictor":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from lightning_sal.inference.predictor import Predictor  # torch loads now, and not with the package

    return Predictor
