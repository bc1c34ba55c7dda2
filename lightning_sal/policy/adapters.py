"""LoRA by peft: the one file that touches what peft does not promise."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_sal.files.loading import built_from
from lightning_sal.policy.config import LoRA
from lightning_sal.policy.parts import language_path, linear_layers


def add_lora(model: Any, lora: LoRA) -> Any:
    """`model` with adapters in float32 on its language model; everything else is frozen.

    Returns:
        The `peft.PeftModel`; the layers of `model` itself are replaced in place.
    """
    from peft import LoraConfig, get_peft_model

    present = linear_layers(model)
    if absent := sorted(set(lora.targets or ()) - set(present)):
        raise ValueError(
            f"policy.lora.targets: {model.config.model_type} has no layer {absent[0]}; it has {', '.join(present)}"
        )
    path, targets = re.escape(language_path(model)), "|".join(lora.targets or present)
    with built_from(f"policy.lora, {lora},"):
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]  any number scales
            lora_dropout=lora.dropout,
            target_modules=rf"{path}\.layers\..*\.({targets})",
        )
        adapted = get_peft_model(model, config)
    for layer in _adapted_layers(adapted):
        layer._cast_input_dtype = partial(_cast_unless_autocast, layer._cast_input_dtype)
    return adapted


class LowRank(NamedTuple):
    """A linear layer y = x W^T + b + sum of scale (x A^T) B^T.

    Args:
        weight: (out, in) W.
        bias: (out,) b, or None.
        adapters: Of each adapter that is on A (rank, in), B (out, rank) and the scale.
    """

    weight: Tensor
    bias: Tensor | None
    adapters: tuple[tuple[Tensor, Tensor, float], ...]


def low_rank(linear: Any) -> LowRank | None:
    """A linear layer taken apart; None where it is none of plain weights with plain LoRA or without."""
    base = getattr(linear, "base_layer", linear)
    if type(base) is not nn.Linear:
        return None
    if base is linear:
        return LowRank(base.weight, base.bias, ())
    from peft.tuners.lora.layer import Linear

    if type(linear) is not Linear or linear.lora_variant or any(linear.lora_bias.values()):
        return None
    on = () if linear.disable_adapters or linear.merged else linear.active_adapters
    layer: Any = linear
    adapters = [(layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]) for name in on]
    return LowRank(base.weight, base.bias, tuple(adapters))


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
