"""A response that is explained: its tokens behind its prompt, and which of them hold its labels and its reasoning.

Legend: L tokens of the prompt, T of the response, S = L + T, N visual tokens of the prompt, K images, C hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lightning_sal.inference.maps import parts_of, response_spans
from lightning_sal.policy.attention import View
from lightning_sal.policy.attribution import image_places
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.policy.prompts import FastPrompts
from lightning_sal.policy.tracing import Span
from lightning_sal.samples import ImageGroup, Rollout
from lightning_sal.tasks import Answer


@dataclass(frozen=True, slots=True)
class Case:
    """A response, as every method of explanation gets it.

    Args:
        policy: Whose response it is.
        prompts: One prompt.
        tokens: (1, T) tokens of the response, the end of turn included.
        group: The image group that it answers.
        text: The response.
        labels: The tokens of each label; none where the reasoning that the task asks for is missing, or the answer.
        reasoning: The tokens of the reasoning; None where the task asks for none.
        seed: Of what a method draws at random.
    """

    policy: FastPolicy
    prompts: FastPrompts
    tokens: Tensor
    group: ImageGroup
    text: str
    labels: tuple[Span, ...]
    reasoning: Span | None
    seed: int = 0

    @property
    def mask(self) -> Tensor:
        """(1, T) bool, all True."""
        return torch.ones_like(self.tokens, dtype=torch.bool)

    @property
    def length(self) -> int:
        """L."""
        return self.prompts.ids.shape[1]

    @property
    def visual(self) -> Tensor:
        """(N,) where the visual tokens of all images stand."""
        return self.policy.backbone.is_image(self.prompts.ids[0]).nonzero()[:, 0]

    def queries(self, span: Span) -> slice:
        """Which of the S tokens predict those of a span: each the one before it."""
        first, last = span
        return slice(self.length - 1 + first, self.length + last)

    def ids(self, span: Span) -> Tensor:
        """The ids of the tokens of a span."""
        return self.tokens[0, span[0] : span[1] + 1]

    def logit(self, hidden: Tensor, span: Span) -> Tensor:
        """The logits of the tokens of a span, summed, of hidden states (1, S, C) behind the last norm."""
        wide = torch.promote_types(hidden.dtype, torch.float32)
        rows = self.policy.backbone.rows(self.ids(span)).to(wide)
        return (hidden[0, self.queries(span)].to(wide) * rows).sum()

    def on_images(self, values: Tensor) -> tuple[Tensor, ...]:
        """(N,) values of visual tokens as the maps of the K images, (rows, columns) float32 on the CPU."""
        places = image_places(self.policy.backbone, self.prompts)[0]
        parts = values.detach().float().cpu().split([len(at) for at, _ in places])
        return tuple(part.view(rows, -1) for part, (_, rows) in zip(parts, places, strict=True))

    def read(self, prompts: FastPrompts | None = None, view: Callable[[View], View] | None = None) -> Tensor:
        """Hidden states (1, S, C) behind the last norm.

        Args:
            prompts: In place of its own, with other features of the same images.
            view: Makes of what tokens see what they see instead.
        """
        with self.policy.reading(prompts or self.prompts, self.tokens, self.mask) as reading:
            sees = reading["sees"] if view is None else view(reading["sees"])
            return self.policy.backbone.read(**{**reading, "sees": sees})

    def with_features(self) -> tuple[FastPrompts, Tensor]:
        """The prompt with visual features of which gradients are taken; and these, (N, C) or wider."""
        features = self.prompts.visual[0].detach().clone().requires_grad_()
        return replace(self.prompts, visual=(features,)), features


def cases_of(
    policy: FastPolicy,
    prompts: FastPrompts,
    rollout: Rollout,
    groups: Sequence[ImageGroup],
    answers: Sequence[Answer],
    seed: int = 0,
) -> list[Case]:
    """The cases of B responses.

    Args:
        policy: Whose responses they are.
        prompts: P prompts, their responses side by side.
        rollout: B responses.
        groups: B image groups.
        answers: What was read from the responses.
        seed: Of what methods draw at random.

    Raises:
        ValueError: If the text of a response is not that of its tokens.
    """
    cases, responses = [], len(groups) // max(len(prompts), 1)
    for row, (group, answer) in enumerate(zip(groups, answers, strict=True)):
        labels, thought = parts_of(answer, group)
        spans = response_spans(policy, rollout, row, [*labels, *([thought] if thought else [])])
        own = prompts.select([row // responses])
        tokens = rollout.tokens[row][rollout.mask[row]][None]
        found = tuple(spans[: len(labels)])
        cases.append(Case(policy, own, tokens, group, rollout.texts[row], found, spans[-1] if thought else None, seed))
    return cases
