"""Where sampled responses come from: the policy itself, or a server beside it."""

from typing import TYPE_CHECKING, Any

from lightning_sal.samplers.base import PolicySampler, Sampler

if TYPE_CHECKING:
    from lightning_sal.samplers.vllm import VLLMSampler

__all__ = ["PolicySampler", "Sampler", "VLLMSampler"]


def __getattr__(name: str) -> Any:
    if name == "VLLMSampler":
        from lightning_sal.samplers.vllm import VLLMSampler

        return VLLMSampler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
