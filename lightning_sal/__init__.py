"""Visual saliency with multimodal LLMs, on Lightning: SFT, CGPO and the GRPO family for SOD, SIS and CoSOD."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_sal.inference.predictor import Predictor, load_predictor

__all__ = ["Predictor", "load_predictor"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from lightning_sal.inference import predictor  # torch loads now, and not with the package

    return getattr(predictor, name)
