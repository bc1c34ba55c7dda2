"""Attention rollout: attention multiplied through the layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sal.explanations.cases import Case
from lightning_sal.explanations.method import Method
from lightning_sal.inference.maps import LabelMaps
from lightning_sal.policy.attention import View

LONGEST = 4096  # tokens: each layer makes some (S, S) matrices, 64 MiB each in float32


@dataclass(frozen=True)
class AttentionRollout(Method):
    """Attention rollout: R = product over layers of (A + I) / 2, the last layer leftmost, A averaged over heads.

    The map of a label is the sum of the rows of R that predict its tokens, at the visual tokens. Abnar and Zuidema 2020
    (arXiv:2005.00928).
    """

    @torch.no_grad()
    def maps(self, case: Case) -> LabelMaps:
        """See `Method.maps`.

        Raises:
            ValueError: If prompt and response have more than 4096 tokens together.
        """
        size = case.length + case.tokens.shape[1]
        if size > LONGEST:
            raise ValueError(
                f"{self.name}: {case.group.key} has {size} tokens, more than {LONGEST}, and whole attention matrices are "
                "needed: set --max-pixels lower, or leave this method out"
            )
        rolled: list[Rolled] = []

        def view(sees: View) -> Rolled:
            rolled.append(Rolled(sees))
            return rolled[0]

        case.read(view=view)
        product = rolled[0].product
        assert product is not None
        visual = case.visual
        return tuple(case.on_images(product[case.queries(span)][:, visual].sum(0)) for span in case.labels)


@dataclass(slots=True)
class Rolled:
    """A view through which a forward pass of one sequence without padding multiplies attention up.

    Args:
        sees: What tokens see.
        product: (S, S) after the layers so far.
    """

    sees: View
    product: Tensor | None = None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """See `View.attend`."""
        mean = _mean_attention(query[0], key[0], query.shape[-1] ** -0.5 if scale is None else scale)
        before = torch.eye(len(mean), dtype=mean.dtype, device=mean.device) if self.product is None else self.product
        self.product = (mean @ before + before) / 2
        return self.sees.attend(layer, query, key, value, scale)


def _mean_attention(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """(S, S) causal attention averaged over heads, of queries (H, S, D) and keys (K, S, D)."""
    (heads, size, _), wide = query.shape, torch.promote_types(query.dtype, torch.float32)
    later = torch.ones(size, size, dtype=torch.bool, device=query.device).triu(1)
    total = torch.zeros(size, size, dtype=wide, device=query.device)
    for head in range(heads):
        scores = query[head].to(wide) @ key[head * len(key) // heads].to(wide).T * scale
        total += scores.masked_fill_(later, float("-inf")).softmax(1)
    return total / heads
