"""LoRA by peft: the one file that touches what peft does not promise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sal.files.loading import built_from
from lightning_sal.policy.backbone import LANGUAGE_LAYERS
from lightning_sal.policy.config import LoRA


def add_lora(model: Any, lora: LoRA) -> Any:
    """`model` with adapters in float32 on its language model; everything else is frozen.

    Returns:
        The `peft.PeftModel`; the layers of `model` itself are replaced in place.
    """
    from peft import LoraConfig, get_peft_model

    targets = "|".join(lora.targets)
    with built_from(f"policy.lora, {lora},"):
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]  any number scales
            lora_dropout=lora.dropout,
            target_modules=rf"{LANGUAGE_LAYERS}\.({targets})",
        )
        adapted = get_peft_model(model, config)
    for layer in _adapted_layers(adapted):
        layer._cast_input_dtype = partial(_cast_unless_autocast, layer._cast_input_dtype)
    return adapted


def merged_weight(linear: Any) -> Tensor:
    """A linear layer's weight with its adapters added, where it has some."""
    if not hasattr(linear, "get_delta_weight"):
        return linear.weight
    return linear.base_layer.weight + sum(linear.get_delta_weight(name) for name in linear.active_adapters)


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Inside, adapters do nothing; unlike `PeftModel.disable_adapter` it reads no weight, which ZeRO would gather."""
    layers = _adapted_layers(model)
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _adapted_layers(model: nn.Module) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def _cast_unless_autocast(
    cast: Callable[[Tensor | None, torch.dtype], Any], x: Tensor | None, dtype: torch.dtype
) -> Any:
    """peft's cast of an adapter's input to its weights' dtype, which autocast would only cast back, bit for bit the same."""
    return x if x is not None and torch.is_autocast_enabled(x.device.type) else cast(x, dtype)
