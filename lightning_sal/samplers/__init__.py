"""Where responses come from: the policy itself, a server beside it, or the annotation."""

from lightning_sal.samplers.annotated import Annotated
from lightning_sal.samplers.base import PolicySampler, Sampler
from lightning_sal.samplers.vllm import VLLMSampler

__all__ = ["Annotated", "PolicySampler", "Sampler", "VLLMSampler"]
