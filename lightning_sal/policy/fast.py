"""The fast path of a policy: Qwen2.5-VL and Qwen3-VL, known from inside.

Legend: P prompts of at most L tokens (padded left), G responses a prompt of T tokens (padded right), V vocabulary, C
hidden size.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from lightning_sal.policy.attention import Alone, SharedPrompt, View
from lightning_sal.policy.attribution import attribute
from lightning_sal.policy.backbone import Backbone
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.decoding.kept import KeptDecoder
from lightning_sal.policy.encoding import PromptEncoder
from lightning_sal.policy.log_probs import Entropy, TokenScores, log_probs_and_entropy, places, reading_rows
from lightning_sal.policy.policy import Policy
from lightning_sal.policy.prompts import FastPrompts
from lightning_sal.policy.sampling import drain, generate
from lightning_sal.policy.selfcheck import check
from lightning_sal.policy.tracing import Convention, Span
from lightning_sal.samples import ImageGroup, Message, Rollout

_MOST_LOGITS = 2**26  # Float32 logits that stand in memory at once: 256 MiB


class FastPolicy(Policy):
    """A Qwen2.5-VL or Qwen3-VL with one path for sampling and one for scoring.

    Both use the same visual features, explicit M-RoPE positions and the same suppressed ids. All reads of the model go
    through its language model directly: the caches that transformers keeps, of keys and values and of positions, are never
    used.

    Args:
        config: What to load and what to train.
        as_stored: Whether weights are still as their file has them: see `load_model`.
    """

    path = "fast"
    owns_weights: ClassVar[bool] = True
    """Whether weights stay where they are put, so that some may be laid side by side; not where they come in shards."""

    def __init__(self, config: PolicyConfig, *, as_stored: bool = False) -> None:
        super().__init__(config, as_stored=as_stored)
        self._encoder = PromptEncoder(self.backbone, self.processor, config)
        self._decoding = KeptDecoder(self.backbone, own=self.owns_weights, graphs=config.cuda_graphs)

    def _prepare(self, model: Any) -> None:
        check(model.config.model_type)
        self.backbone = Backbone(model, self.config.attention)

    def encode(self, groups: Sequence[ImageGroup]) -> FastPrompts:
        """See `Policy.encode`."""
        return cast(FastPrompts, super().encode(groups))

    def encode_chats(
        self, images: Sequence[Sequence[Tensor]], chats: Sequence[Sequence[Message]], names: Sequence[str]
    ) -> FastPrompts:
        """See `Policy.encode_chats`. An image that comes several times goes through the vision tower once, and not at all
        where the cache has it."""
        return self._encoder.encode(images, chats, names, self.device)

    def logits(self, hidden: Tensor, temperature: float = 1.0) -> Tensor:
        """(..., V) logits, -inf at the suppressed ids, at a temperature > 0, in float32 at least."""
        return self.predicted(self.backbone.head(hidden), temperature)

    def score_tokens(
        self,
        prompts: FastPrompts,
        tokens: Tensor,
        mask: Tensor,
        temperature: float = 1.0,
        *,
        entropy: Entropy | None = None,
        lengths: Sequence[int] | None = None,
    ) -> TokenScores:
        """See `Policy.score_tokens`.

        Where several responses answer a prompt and the attention back end takes any mask (sdpa), the prompt is read once
        and they stand behind it in one sequence, each seeing the prompt and itself.
        """
        if len(tokens) > len(prompts) and not self.backbone.shares_prompts:
            responses = len(tokens) // len(prompts)
            prompts = prompts.select([row for row in range(len(prompts)) for _ in range(responses)])
        responses, steps = len(tokens) // len(prompts), tokens.shape[1]
        last = 1 + responses * steps  # from the end of the prompt on
        flat = self.backbone.read(**self._behind(prompts, tokens, mask), last=last).flatten(0, 1)
        rows = reading_rows(len(prompts), responses, steps, flat.device)
        at = places(mask, lengths)
        size = max(1, _MOST_LOGITS // self.suppressed.numel())
        found = log_probs_and_entropy(
            lambda states: self.logits(states, temperature),
            flat.index_select(0, rows[:, :-1].flatten()[at]),
            tokens.flatten()[at],
            size,
            entropy,
        )

        def spread(values: Tensor) -> Tensor:
            return values.new_zeros(mask.numel()).index_copy(0, at, values).view(mask.shape)

        logp, entropies = spread(found[0]), None if found[1] is None else spread(found[1])
        ends = rows.gather(1, mask.sum(1, keepdim=True))[:, 0]
        return TokenScores(logp, entropies, flat.detach()[ends])

    def _behind(self, prompts: FastPrompts, tokens: Tensor, mask: Tensor) -> dict[str, Any]:
        """What the backbone reads: P prompts, each with its responses (P G, T) behind it."""
        (count, width), steps = prompts.ids.shape, tokens.shape[1]
        responses = len(tokens) // count
        embeds = self.backbone.embed(tokens).view(count, responses * steps, -1)
        sees: View | Tensor
        if responses > 1:
            sees = SharedPrompt.of(prompts.lengths, width, responses)
        elif self.backbone.attends_by_views:
            sees = Alone.of(prompts.lengths, width)
        else:
            sees = torch.cat([prompts.mask, mask], dim=1)
        at = (prompts.following[:, None] + torch.arange(steps, device=tokens.device)).repeat(1, responses)
        return {
            "embeds": torch.cat([self.backbone.prompt_embeds(prompts), embeds], dim=1),
            "positions": torch.cat([prompts.positions, at.expand(3, -1, -1)], dim=2),
            "sees": sees,
            **self.backbone.deep_features(prompts, responses * steps),
        }

    @contextmanager
    def reading(self, prompts: FastPrompts, tokens: Tensor, mask: Tensor) -> Iterator[dict[str, Any]]:
        """Inside, the policy is as it samples; gives what `Backbone.read` gets to read responses as `score` does.

        Args:
            prompts: P prompts.
            tokens: (P G, T) response tokens, the G responses to a prompt side by side.
            mask: (P G, T) bool, True on response tokens.
        """
        with self._sampling_mode():
            yield self._behind(prompts, tokens, mask)

    @torch.no_grad()
    def attribute(
        self,
        prompts: FastPrompts,
        tokens: Tensor,
        mask: Tensor,
        spans: Sequence[Sequence[Span]],
        reasoning: Sequence[Span | None],
        *,
        convention: Convention = "key",
        attention_only: bool = False,
    ) -> list[list[tuple[Tensor, ...]]]:
        """See `Policy.attribute`. One pass over the sequences of `score`."""
        how: dict[str, Any] = {"convention": convention, "attention_only": attention_only}
        with self.reading(prompts, tokens, mask) as read:
            return attribute(self.backbone, prompts, tokens, read, spans, reasoning, **how)

    def require_attribution(self) -> None:
        """See `Policy.require_attribution`."""
        self.backbone.require_attention_rows()

    @torch.no_grad()
    def sample(
        self,
        prompts: FastPrompts,
        max_new_tokens: int,
        *,
        responses: int = 1,
        temperature: float = 1.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> Rollout:
        """See `Policy.sample`."""
        draws = self.draws(len(prompts), responses, max_new_tokens, temperature, generator)
        with self._sampling_mode():
            return drain(self._sampling(self._decoding, prompts, max_new_tokens, responses, temperature, draws))

    def stream(self, prompts: FastPrompts, max_new_tokens: int) -> Generator[str, None, Rollout]:
        """See `Policy.stream`. Between two steps the policy is as it was before, so that other work may go on with it."""
        steps = self._sampling(
            KeptDecoder(self.backbone, own=self.owns_weights, graphs=self.config.cuda_graphs),
            prompts,
            max_new_tokens,
            1,
            0.0,
            None,
        )
        tokens: list[int] = []
        before = ""
        while True:
            with torch.no_grad(), self._sampling_mode():
                try:
                    token = int(next(steps))
                except StopIteration as end:
                    return end.value
            if tokens and tokens[-1] in self.eos_ids:
                continue
            tokens.append(token)
            text = self._text(tokens).rstrip("\N{REPLACEMENT CHARACTER}")
            if len(text) > len(before):
                yield text
                before = text

    def _sampling(
        self,
        decoding: KeptDecoder,
        prompts: FastPrompts,
        max_new_tokens: int,
        responses: int,
        temperature: float,
        draws: Tensor | None,
    ) -> Generator[Tensor, None, Rollout]:
        """The steps of `sample`: (P, G) tokens after each, and the responses at the end."""
        decoder, stepper = decoding.get(self.suppressed)
        sampled = yield from generate(
            self.backbone,
            decoder,
            prompts,
            stepper,
            responses=responses,
            max_new_tokens=max_new_tokens,
            temperature=temperature or None,
            stop=self.eos_ids,
            pad=self.pad_id,
            draws=draws,
        )
        texts = self.decode(sampled.tokens, sampled.mask)
        return self.rollout(texts, sampled.tokens, sampled.mask, sampled.logp, sampled.truncated)

    @contextmanager
    def _sampling_mode(self) -> Iterator[None]:
        """Evaluation mode, in which nothing is checkpointed either, and attention that takes any mask; both come back."""
        training = self.training
        self.eval()
        self.backbone.sampling_attention(on=True)
        try:
            yield
        finally:
            self.train(training)
            self.backbone.sampling_attention(on=False)
