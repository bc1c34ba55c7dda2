"""The MLLM: load, freeze, LoRA, encode, sample, score. Its classes load transformers and peft when they are built."""

from lightning_sal.policy.config import LoRA, PolicyConfig

__all__ = ["LoRA", "PolicyConfig"]
