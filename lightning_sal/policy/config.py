"""What a policy is made of, as plain values that YAML can name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Linear layers of a decoder layer of Qwen2.5-VL and Qwen3-VL."""
Path = Literal["auto", "fast", "general"]


@dataclass(frozen=True)
class LoRA:
    """Low-rank adapters on the language model (Hu et al. 2021, arXiv:2106.09685); the vision tower gets none.

    Args:
        rank: Rank of the update, >= 1.
        alpha: Scale; the update is multiplied by alpha / rank.
        dropout: Dropout on the adapter's input, in [0, 1). RL needs 0: with dropout, sampling and scoring differ.
        targets: Names of the linear layers of each decoder layer that get an adapter; null takes all of them.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None

    @property
    def names(self) -> frozenset[str]:
        """The layers of a Qwen2.5-VL or Qwen3-VL that get an adapter."""
        return frozenset(self.targets or LINEAR_LAYERS)


@dataclass(frozen=True)
class PolicyConfig:
    """The multimodal LLM that is trained.

    Args:
        model: Folder or hub name of an image-text-to-text model of transformers, or one of the embedded ones: `tiny` (well
            trained), `tiny-early` (format right, content mediocre), `tiny-varied` (the same, in many words), `tiny-vqa` (for
            questions), `tiny-perception` (for boxes and points), `tiny-scratch` (random weights).
        path: How it is read. `fast` knows Qwen2.5-VL and Qwen3-VL from inside: a prompt is read once for all its responses,
            and attribution looks into it. `general` takes any family by what transformers promises of all: its processor,
            `generate`, and one forward pass. `auto` takes the fast one where it can.
        lora: Adapters on the language model, whose own weights are then frozen; null trains the language model itself.
        train_vision: Whether the vision tower is trained too; the recipe keeps it frozen.
        dtype: Of the frozen weights: float32, bfloat16 or float16. Adapters stay in float32.
        load_in_4bit: Keep the frozen weights of the language model in 4 bits (NF4, Dettmers et al. 2023, arXiv:2305.14314)
            and compute in `dtype`; needs `lora`, and the extra `quantization`.
        min_pixels: Least number of pixels that an image is resized to; null keeps the processor's own.
        max_pixels: Most pixels that an image is resized to; null keeps the processor's own.
        processor: Settings of the model's processor, as `{max_patches: 4}` of an InternVL, which cuts images into crops;
            null keeps its own.
        square: Side in pixels of a square that every image is squashed to before it is shown, 840 in Dr. Seg's recipe; null
            shows images in their own shape.
        frame: Side of the square in whose units the model states places, whatever the image, as 1000; null for those of its
            family: pixels of the image as it is shown for Qwen2.5-VL, 0 to 1000 for all others.
        look: Tag of blocks that the reasoning must hold, whatever the task: `look` asks for `<look>...</look>` around what
            is looked at. Null asks for what the task asks for, an empty text for none.
        max_prompt_tokens: Longest prompt in tokens, visual ones included. A longer one is refused, never cut.
        gradient_checkpointing: Recompute activations in the backward pass; off while sampling.
        attention: Attention back end of transformers: sdpa, eager or flash_attention_2.
        feature_cache: Folder in which features of images are kept across epochs and runs; null computes them anew in each
            step. An image takes tokens x hidden size x bytes of a number, where tokens = pixels after resizing / 784:
            at 7B size (3584) in bfloat16 9.1 MB a megapixel. Needs a frozen vision tower.
        cuda_graphs: Capture the steps of sampling on a GPU, and keep their buffers from rollout to rollout: keys and values
            of the two shapes that were sampled last. False starts kernel by kernel, slower, and keeps nothing.
    """

    model: str = "tiny"
    path: Path = "auto"
    lora: LoRA | None = None
    train_vision: bool = False
    dtype: str = "float32"
    load_in_4bit: bool = False
    min_pixels: int | None = None
    max_pixels: int | None = None
    processor: dict[str, Any] | None = None
    square: int | None = None
    frame: int | None = None
    look: str | None = None
    max_prompt_tokens: int = 8192
    gradient_checkpointing: bool = False
    attention: str = "sdpa"
    feature_cache: str | None = None
    cuda_graphs: bool = True

    def __post_init__(self) -> None:
        if self.load_in_4bit and self.lora is None:
            raise ValueError(
                "policy.load_in_4bit freezes the language model: give policy.lora, which is what is trained"
            )
        if not 0 < (self.min_pixels or 1) <= (self.max_pixels or self.min_pixels or 1):
            raise ValueError(
                f"policy.min_pixels {self.min_pixels} and max_pixels {self.max_pixels} must be above 0, the first not above "
                "the second"
            )
        if self.square is not None and self.square < 1:
            raise ValueError(f"policy.square {self.square} must be at least 1 pixel, or null")
        if self.frame is not None and self.frame < 1:
            raise ValueError(f"policy.frame {self.frame} must be at least 1, as 1000, or null")
        if not re.fullmatch(r"[A-Za-z]\w*|", self.look or ""):
            raise ValueError(f"policy.look {self.look!r} is no name of a tag: give letters, as look, or an empty text")
        if self.train_vision and self.feature_cache is not None:
            raise ValueError(
                f"policy.feature_cache {self.feature_cache} keeps features of a vision tower that stays as it is: drop it, "
                "or drop train_vision"
            )


def parse_policy(values: Any, source: str) -> PolicyConfig:
    """A policy's settings from plain values.

    Args:
        values: As YAML or a checkpoint holds them.
        source: Where they are from, for the error.

    Raises:
        ValueError: If there is an unknown one, or one of another type.
    """
    from jsonargparse import ArgumentError, ArgumentParser

    if not isinstance(values, dict) or values.get("model", "") is None:
        raise ValueError(f"{source}: {values!r} are no settings of a policy, which names its model")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--policy", type=PolicyConfig)
    try:
        return parser.instantiate(parser.parse_object({"policy": values})).policy
    except (ArgumentError, TypeError, ValueError) as error:
        raise ValueError(f"{source}: {' '.join(str(error).split())}") from error
