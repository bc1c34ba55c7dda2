"""Visual saliency with multimodal LLMs, on Lightning: SFT, CGPO and the GRPO family for SOD, SIS and CoSOD."""

__version__ = "0.1.0"
