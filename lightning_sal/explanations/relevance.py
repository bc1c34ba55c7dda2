"""Layer-wise relevance propagation for transformers: gradient x input by backward rules of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_sal.explanations.cases import Case
from lightning_sal.explanations.gradients import GradientTimesInput
from lightning_sal.inference.maps import LabelMaps
from lightning_sal.policy.attention import View
from lightning_sal.policy.backbone import Backbone


@dataclass(frozen=True)
class AttnLRP(GradientTimesInput):
    """AttnLRP: the relevance of visual features for the logits of a label, by one backward pass with rules of its own.

    | part | rule | backwards |
    |---|---|---|
    | linear maps, sums | epsilon, with epsilon 0 | the gradient |
    | RMS norm | identity | its scale is held as it is |
    | SiLU | identity | y / x in place of the derivative |
    | gated product, attention's two products | uniform: half to each factor | half the gradient |
    | softmax | Taylor at its input | the gradient |

    Gradient x input is then the relevance. It is conserved but for what biases and softmax take up. Achtibat et al. 2024
    (arXiv:2402.05602); the rules as gradients, Arras et al. 2025 (arXiv:2502.15886). The vision tower is not gone through:
    relevance ends at the features that the language model is given.
    """

    def maps(self, case: Case) -> LabelMaps:
        with relevance_rules(case.policy.backbone):
            return self._maps(case, Halved)


@dataclass(frozen=True, slots=True)
class Halved:
    """A view whose two products pass half of the gradient on to each factor.

    Args:
        sees: What tokens see.
    """

    sees: View

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """See `View.attend`."""
        return halved(self.sees.attend(layer, halved(query), halved(key), value, scale))


@contextmanager
def relevance_rules(backbone: Backbone) -> Iterator[None]:
    """Inside, gradients through norms and MLPs of the language model are those of the rules; values stay as they are."""
    with ExitStack() as hooks:
        for norm in backbone.norms:
            hooks.callback(norm.register_forward_hook(_held_scale).remove)
        for product in backbone.products:
            hooks.callback(product.register_forward_hook(_halved_product).remove)
        yield


def halved(values: Tensor) -> Tensor:
    """The same values, and half the gradient."""
    return values / 2 + values.detach() / 2


def _held_scale(norm: Any, given: tuple[Tensor], normed: Tensor) -> Tensor:
    wide = given[0].to(torch.promote_types(given[0].dtype, torch.float32))
    scale = (wide.square().mean(-1, keepdim=True) + norm.eps).rsqrt().detach()
    return (wide * scale).to(normed.dtype) * norm.weight


def _halved_product(_: Any, given: tuple[Tensor, Tensor], __: Tensor) -> Tensor:
    gate, up = given
    return halved(gate * gate.sigmoid().detach() * up)  # silu(x) / x = sigmoid(x)
