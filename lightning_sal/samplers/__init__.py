"""Where sampled responses come from: the policy itself, or a server beside it."""

from lightning_sal.samplers.base import PolicySampler, Sampler
from lightning_sal.samplers.vllm import VLLMSampler

__all__ = ["PolicySampler", "Sampler", "VLLMSampler"]
