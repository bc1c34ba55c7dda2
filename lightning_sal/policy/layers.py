"""Parts of decoder layers that keep less for the gradient than those of transformers, and do it in fewer passes.

Weights are theirs, under the same names; numbers differ by rounding alone. Gradients of gradients there are none.

Legend: P prompts, S tokens of a sequence, C hidden size, I intermediate size, H heads, K key heads, D their width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

_LEAST = 2**20  # Bytes of a gated product: to compute a smaller one again takes longer than it is worth


class RMSNorm(nn.RMSNorm):
    """y = w x / sqrt(mean x^2 + eps) over the last dimension; keeps x.

    torch has one kernel for it on a GPU. On the CPU it computes it in steps, and keeps what each of them returns.

    Args:
        weight: (C,).
        eps: Added to the mean.
    """

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__(weight.shape[0], eps, device="meta")
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        by_steps = x.device.type == "cpu" and x.dtype == self.weight.dtype and x.dtype.itemsize >= 4
        return _RMSNorm.apply(x, self.weight, self.eps) if by_steps else super().forward(x)  # type: ignore[return-value]


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        of_x, of_weight, _ = ctx.needs_input_grad
        # The kernel of layer norm, told that the mean is 0, takes w g off its own mean as well, which is given back.
        dx, dw, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, weight.shape, torch.zeros_like(scale), scale, weight, None, [of_x, of_weight, False]
        )
        if of_x:
            dx.add_((grad @ weight)[..., None].mul_(scale).div_(x.shape[-1]))
        return dx if of_x else None, dw if of_weight else None, None


class GatedProduct(nn.Module):
    """silu(gate) x up, which keeps its two factors and nothing between."""

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        """Twice (..., I) -> (..., I)."""
        return _GatedProduct.apply(gate, up)  # type: ignore[return-value]


class _GatedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        slope = grad * up
        return torch.ops.aten.silu_backward.grad_input(slope, gate, grad_input=slope), F.silu(gate).mul_(grad)


class GatedMLP(nn.Module):
    """The MLP of a decoder layer; the gated product, as large as either factor, is computed again for the gradient.

    Args:
        mlp: That of transformers.
    """

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        if mlp.config.hidden_act != "silu":
            raise ValueError(f"the model's hidden_act is {mlp.config.hidden_act}: use a model with silu")
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj
        self.product = GatedProduct()
        self.train(mlp.training)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        if not torch.is_grad_enabled() or gate.nbytes < _LEAST:
            return self._down(gate, up)
        # It stops computing again once it has the product: no matrix is multiplied twice.
        return checkpoint(self._down, gate, up, use_reentrant=False)  # type: ignore[return-value]

    def _down(self, gate: Tensor, up: Tensor) -> Tensor:
        return self.down_proj(self.product(gate, up))


class Attention(nn.Module):
    """The attention of a decoder layer; queries and keys are turned in place of being copied five times for it.

    Args:
        attention: That of transformers.
        attend: An attention function as transformers has them.
    """

    def __init__(self, attention: Any, attend: Callable[..., tuple[Tensor, None]]) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = attention.q_proj, attention.k_proj, attention.v_proj
        self.o_proj = attention.o_proj
        self.q_norm, self.k_norm = (getattr(attention, name, nn.Identity()) for name in ("q_norm", "k_norm"))
        self.layer_idx, self.head_dim, self.scaling = attention.layer_idx, attention.head_dim, attention.scaling
        self.num_key_value_groups, self.is_causal = attention.num_key_value_groups, attention.is_causal
        self.attend = attend
        self.train(attention.training)

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        earlier: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        """(P, N, C) -> (P, N, C); cosines and sines of the angles are (P, S, D), `earlier` tokens (P, S - N, C)."""
        everything = hidden_states if earlier is None else torch.cat([earlier, hidden_states], dim=1)
        heads, asked = (-1, self.head_dim), hidden_states.shape[1]
        query = self.q_norm(self.q_proj(hidden_states).unflatten(2, heads)).transpose(1, 2)
        key = self.k_norm(self.k_proj(everything).unflatten(2, heads)).transpose(1, 2)
        value = self.v_proj(everything).unflatten(2, heads).transpose(1, 2)
        query = _Turned.apply(query, *(part[:, -asked:] for part in position_embeddings))
        key = _Turned.apply(key, *position_embeddings)
        seen, _ = self.attend(self, query, key, value, attention_mask, scaling=self.scaling, **options)
        return self.o_proj(seen.flatten(2)), None


def last_tokens_alone(layer: Any, given: tuple[Tensor], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A hook before the last decoder layer, which computes as many of the last tokens as the option `last` says.

    No one reads what it would make of those before them: of these it needs keys and values.
    """
    last = options.pop("last", None)
    if last is None:
        return given, options
    states = given[0]
    earlier = layer.input_layernorm(states[:, :-last])
    return (states[:, -last:],), {**options, "earlier": earlier}


class _Turned(torch.autograd.Function):
    """Rotary embedding (Su et al. 2021, arXiv:2104.09864) of (P, H, S, D)."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(states, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, sin, -1), None, None  # back, by the same angle


def _turned(states: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    turned = states * cos[:, None]
    first, second = states.chunk(2, dim=-1)
    to_first, to_second = turned.chunk(2, dim=-1)
    sin = sin[:, None, :, : first.shape[-1]]  # both halves are alike
    to_first.addcmul_(second, sin, value=-sign)
    to_second.addcmul_(first, sin, value=sign)
    return turned
