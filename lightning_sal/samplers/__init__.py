"""Where sampled responses come from: the policy itself, or a server beside it."""

from lightning_sal.samplers.base import PolicySampler, Sampler

__all__ = ["PolicySampler", "Sampler"]
