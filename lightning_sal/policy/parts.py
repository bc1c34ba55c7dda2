"""Which part of a model of transformers writes, and which part sees: what is trained, and what gets adapters."""

from __future__ import annotations

from typing import Any

from torch import nn


def language_path(model: Any) -> str:
    """The path of the decoder (embeddings, layers, last norm) in a multimodal model, as `model.language_model`.

    Raises:
        ValueError: If the model does not tell its decoder from what sees.
    """
    decoder = model.get_decoder()
    path = next((name for name, module in model.named_modules() if module is decoder), "")
    if not path or path == "model":
        raise ValueError(
            f"{model.config.model_type}: its language part cannot be told from its vision part, so neither can be frozen "
            "nor adapted alone: take another family"
        )
    return path


def linear_layers(model: Any) -> tuple[str, ...]:
    """Names of the linear layers of its decoder layers, as `q_proj`."""
    layers = model.get_decoder().layers
    found = (name.rpartition(".")[2] for name, part in layers.named_modules() if isinstance(part, nn.Linear))
    return tuple(dict.fromkeys(found))


def language_parameters(model: Any) -> set[nn.Parameter]:
    """The parameters of its decoder and of its output layer, adapters included."""
    return {p for part in (model.get_decoder(), model.get_output_embeddings()) for p in part.parameters()}


def seeing(model: Any) -> list[nn.Module]:
    """The outermost modules that are no part of its decoder and of its output layer: vision tower and projection."""
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    found, within = [], [model]
    while within:
        for part in within.pop().children():
            inside = list(part.modules())
            if part is decoder or part is head:
                continue
            if any(module is decoder or module is head for module in inside):
                within.append(part)
            else:
                found.append(part)
    return found
