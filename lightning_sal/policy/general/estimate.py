"""What can be said of memory on the general path before anything is loaded: what the shapes of any model state.

What a decoder keeps for its backward pass, and what a vision tower takes, differs from family to family and is left out.

Legend: V vocabulary; P prompts of L tokens, G responses of T tokens to each; s bytes of a number in activations.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning_sal.policy.estimate import MOST_LOGITS, Estimate, Step


def estimate_known(model: Any, step: Step, number: int) -> Estimate:
    """The parts of a step's memory that follow from shapes alone.

    Args:
        model: As `load_shape` returns it.
        step: The step.
        number: s.
    """
    bytes_of = {name: p.numel() * p.element_size() for name, p in model.named_parameters()}
    adapters = sum(size for name, size in bytes_of.items() if ".lora_" in name)
    trained = sum(bytes_of[name] for name, p in model.named_parameters() if p.requires_grad)
    held = {
        "weights": sum(bytes_of.values()) - adapters,
        "adapters": adapters,
        "gradients": trained,
        "AdamW states": 2 * trained,
    }
    vocabulary = model.get_output_embeddings().weight.shape[0]
    sampled, scored = step.prompts * step.responses, step.together[0] * step.together[1]
    cache = key_value_numbers(model) * number * sampled * (step.prompt_tokens + step.response_tokens)
    chunk = min(scored * step.response_tokens, max(1, MOST_LOGITS // vocabulary))
    whole = scored * (step.response_tokens + 1) * number  # as the model gives them, and their gradient
    phases = {
        **({"write responses": {"KV cache": cache, "logits": 3 * 4 * vocabulary * sampled}} if step.sampled else {}),
        "score": {"logits": vocabulary * (2 * whole + 3 * 4 * chunk)},
        "optimiser": {"AdamW's square roots": trained},
    }
    return Estimate(held, phases)


def key_value_numbers(model: Any) -> int:
    """Numbers that the attention layers of a decoder keep of a token: outputs of their key and value products."""
    layers: Iterable[tuple[str, Any]] = model.get_decoder().layers.named_modules()
    return sum(part.out_features for name, part in layers if name.endswith(("k_proj", "v_proj")))
