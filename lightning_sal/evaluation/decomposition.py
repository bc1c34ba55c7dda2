"""Did the words change, or where the policy looks? Each policy's responses read by each policy.

The alignment of a response rests on its words and on the attention of whoever reads them. With the words of policy a under
the attention of policy b, `alignment[a, b]`, a change from a to b splits into

    alignment[b, b] - alignment[a, a] = words + attention,
    words = ((alignment[b, a] - alignment[a, a]) + (alignment[b, b] - alignment[a, b])) / 2,

and attention likewise with the places of a and b exchanged (the Shapley values of the two).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_sal.evaluation.comparison import paired_difference
from lightning_sal.inference.responses import MASKS, Response, gather, with_maps
from lightning_sal.policy.policy import Policy
from lightning_sal.policy.prompts import Prompts
from lightning_sal.rewards import Alignment, Regions
from lightning_sal.samples import ImageGroup, Rollout
from lightning_sal.segmenters.base import Segmenter


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Alignments of the responses of each policy under the attention of each.

    Args:
        names: Of the A policies.
        values: (A, A, N) float64: whose words, whose attention, sample; NaN where a sample has no region.
    """

    names: tuple[str, ...]
    values: Tensor

    def means(self) -> Tensor:
        """(A, A) over the samples that have a region."""
        return self.values.nanmean(-1)

    def parts(self, start: int, end: int) -> dict[str, tuple[float, float]]:
        """What words and attention add from one policy to another, and their sum: mean and standard error over samples."""
        known = ~self.values.isnan().any(0).any(0)
        a, b = self.values[start][:, known], self.values[end][:, known]
        added = {
            "words": ((b[start] - a[start]) + (b[end] - a[end])) / 2,
            "attention": ((a[end] - a[start]) + (b[end] - b[start])) / 2,
            "both": b[end] - a[start],
        }
        zeros = [0.0] * int(known.sum())
        return {name: paired_difference(values.tolist(), zeros) for name, values in added.items()}


@torch.no_grad()
def decompose(
    policies: Mapping[str, Policy],
    batches: Iterable[Sequence[ImageGroup]],
    segmenter: Segmenter,
    *,
    max_new_tokens: int,
    regions: Regions | None = None,
) -> Decomposition:
    """Let each policy answer, and each read the answers of all.

    Args:
        policies: Name -> policy; all have one tokenizer.
        batches: Groups that are answered together, with their boxes or masks.
        segmenter: Of instances, which tells which expression means which.
        max_new_tokens: Limit of response tokens.
        regions: As for `Alignment`.

    Raises:
        ValueError: If the policies' tokenizers differ.
    """
    names = tuple(policies)
    vocabularies = [policy.processor.tokenizer.get_vocab() for policy in policies.values()]
    if any(each != vocabularies[0] for each in vocabularies):
        raise ValueError(
            f"policies {', '.join(names)} must have one tokenizer, since each reads the words of the others"
        )
    term = Alignment(regions)
    columns = []
    for groups in batches:
        prompts = [policy.encode(groups) for policy in policies.values()]
        answered = [
            policy.sample(own, max_new_tokens, temperature=0)
            for policy, own in zip(policies.values(), prompts, strict=True)
        ]
        rows = []
        for rollout in answered:
            responses = gather(groups, rollout, segmenter, {MASKS})
            rows.append(
                torch.stack(
                    [
                        _alignments(responses, rollout, policy, own, term)
                        for policy, own in zip(policies.values(), prompts, strict=True)
                    ]
                )
            )
        columns.append(torch.stack(rows))
    return Decomposition(names, torch.cat(columns, dim=2))


def _alignments(
    responses: Sequence[Response], rollout: Rollout, policy: Policy, prompts: Prompts, term: Alignment
) -> Tensor:
    scores = term(with_maps(responses, rollout, policy, prompts))
    assert scores.known is not None
    return scores.values.double().where(scores.known, torch.nan)
