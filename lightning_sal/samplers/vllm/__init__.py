"""Responses from vLLM servers that are told the policy's adapters whenever they change."""

from lightning_sal.samplers.vllm.sampler import VLLMSampler

__all__ = ["VLLMSampler"]
