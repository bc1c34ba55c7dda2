"""Explanations by attribution, see `lightning_sal.policy.tracing`, and its variants; by raw attention; and by chance."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from lightning_sal.explanations.cases import Case
from lightning_sal.explanations.method import Method
from lightning_sal.inference.maps import LabelMaps
from lightning_sal.policy.tracing import Convention, Span


@dataclass(frozen=True)
class Attribution(Method):
    """What visual tokens add to the logits of each label, summed over layers and heads: `Policy.attribute`.

    Args:
        direct: Whether contributions are direct, without a way through the reasoning.
        convention: See `lightning_sal.policy.tracing.Asked`.
        attention_only: Whether attention weights are summed, without values. If `direct` too, that is raw attention: the
            mean over all layers and heads of the rows that predict the label, times their number.
    """

    direct: bool = False
    convention: Convention = "key"
    attention_only: bool = False

    def maps(self, case: Case) -> LabelMaps:
        return self._found(case, case.labels, None if self.direct else case.reasoning)

    def _found(self, case: Case, spans: tuple[Span, ...], reasoning: Span | None) -> LabelMaps:
        (found,) = case.policy.attribute(
            case.prompts, case.tokens, case.mask, [spans], [reasoning],
            convention=self.convention, attention_only=self.attention_only,
        )  # fmt: skip
        return tuple(found)


@dataclass(frozen=True)
class ReasoningAlone(Attribution):
    """The direct contributions to the logits of the reasoning's tokens: one map for all labels."""

    def maps(self, case: Case) -> LabelMaps:
        """See `Method.maps`.

        Raises:
            ValueError: If the task asks for no reasoning.
        """
        if case.reasoning is None:
            raise ValueError(f"{self.name}: {case.group.key} is answered without reasoning: leave this method out")
        return self._found(case, (case.reasoning,), None) * len(case.labels)


@dataclass(frozen=True)
class Random(Method):
    """Chance: values drawn uniformly from [0, 1), the same for the same seed, sample and response."""

    def maps(self, case: Case) -> LabelMaps:
        digest = hashlib.sha256(f"{case.seed}\n{case.group.key}\n{case.text}".encode(errors="surrogateescape")).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))
        count = len(case.visual)
        return tuple(case.on_images(torch.rand(count, generator=generator)) for _ in case.labels)
