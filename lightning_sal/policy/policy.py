"""The policy: a multimodal LLM that is shown image groups, samples responses and scores them.

Legend: P prompts of at most L tokens (padded left), G responses a prompt of T tokens (padded right), V vocabulary, C
hidden size.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_sal import tasks
from lightning_sal.internals.devices import leave_out_cudnn_attention
from lightning_sal.policy.adapters import add_lora
from lightning_sal.policy.attention import Alone, SharedPrompt, View
from lightning_sal.policy.attribution import attribute
from lightning_sal.policy.backbone import Backbone
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.decoding.kept import KeptDecoder
from lightning_sal.policy.encoding import PromptEncoder
from lightning_sal.policy.frames import frame_of, squashed
from lightning_sal.policy.loading import freeze, load_model
from lightning_sal.policy.log_probs import Entropy, TokenScores, log_probs_and_entropy, places, reading_rows
from lightning_sal.policy.prompts import Prompts
from lightning_sal.policy.sampling import drain, generate
from lightning_sal.policy.selfcheck import check
from lightning_sal.policy.spans import token_bytes
from lightning_sal.policy.suppressed import suppressed_ids
from lightning_sal.policy.tracing import Convention, Span
from lightning_sal.samples import ImageGroup, Message, Rollout
from lightning_sal.transfer import indices, moved

_MOST_LOGITS = 2**26  # Float32 logits that stand in memory at once: 256 MiB


class Policy(nn.Module):
    """A Qwen2.5-VL or Qwen3-VL with one path for sampling and one for scoring.

    Both use the same visual features, explicit M-RoPE positions and the same suppressed ids, so that the log-probability of
    a token is the same number wherever it is computed. All reads of the model go through its language model directly:
    the caches that transformers keeps, of keys and values and of positions, are never used.

    Args:
        config: What to load and what to train.
        as_stored: Whether weights are still as their file has them: see `load_model`.
    """

    owns_weights: ClassVar[bool] = True
    """Whether weights stay where they are put, so that some may be laid side by side; not where they come in shards."""

    def __init__(self, config: PolicyConfig, *, as_stored: bool = False) -> None:
        super().__init__()
        leave_out_cudnn_attention()
        self.config = config
        model, self.processor, self.stated = load_model(config, as_stored=as_stored)
        check(model.config.model_type)
        self.backbone = Backbone(model, config.attention)
        freeze(model, train_vision=config.train_vision)
        self.net = model if config.lora is None else add_lora(model, config.lora)
        if config.gradient_checkpointing:
            self.backbone.checkpoint_activations()
        tokenizer = self.processor.tokenizer
        eos = model.generation_config.eos_token_id
        self._encoder = PromptEncoder(self.backbone, self.processor, config)
        self._decoding = KeptDecoder(self.backbone, own=self.owns_weights, graphs=self.config.cuda_graphs)
        self.frame = frame_of(model.config.model_type, self.processor.image_processor, config.square)
        self.eos_ids = tuple(eos) if isinstance(eos, (list, tuple)) else (int(eos),)
        self.pad_id = int(tokenizer.pad_token_id)
        self.suppressed: Tensor
        self.register_buffer("suppressed", suppressed_ids(tokenizer, model.config, self.eos_ids), persistent=False)
        self.train()

    @property
    def qwen(self) -> Any:
        """The transformers model itself, its adapters in place."""
        return self.net if self.config.lora is None else self.net.get_base_model()

    @property
    def device(self) -> torch.device:
        return self.suppressed.device

    @property
    def instructions(self) -> dict[str, str]:
        """What each known task asks, by its label: as the model's folder states it, else as the task does."""
        return tasks.instructions() | self.stated

    def messages(self, group: ImageGroup) -> tuple[Message, ...]:
        """The conversation that the policy goes on with: that of the group's task, in the words of the model's folder."""
        task = tasks.task_of(group, self.config.look)
        return task.messages(group, self.stated.get(task.label), self.stated.get("look"))

    def shown(self, group: ImageGroup) -> list[Tensor]:
        """What the policy is shown of the images of a group, (H, W, 3) uint8, before its processor resizes it.

        Where they are squashed to a square, that is done on the policy's device.
        """
        seen, side = [tasks.get_task(group.task).view(image) for image in group.images], self.config.square
        return seen if side is None else [squashed(moved(image, self.device), side) for image in seen]

    def encode(self, groups: Sequence[ImageGroup]) -> Prompts:
        """Prompts of image groups: what their tasks show of the images, and what they ask.

        Raises:
            ValueError: See `encode_chats`.
        """
        views: dict[tuple[str, int], Tensor] = {}  # once for each distinct image, so that it stays one
        for group in groups:
            keys = [(group.task, id(image)) for image in group.images]
            if not views.keys() >= set(keys):
                views |= zip(keys, self.shown(group), strict=True)
        return self.encode_chats(
            [[views[group.task, id(image)] for image in group.images] for group in groups],
            [self.messages(group) for group in groups],
            [", ".join(group.paths) or group.key for group in groups],
        )

    def encode_chats(
        self, images: Sequence[Sequence[Tensor]], chats: Sequence[Sequence[Message]], names: Sequence[str]
    ) -> Prompts:
        """Prompts of P conversations.

        An image that comes several times goes through the vision tower once, and not at all where the cache has it.

        Args:
            images: For each conversation its images, none or more, (H, W, 3) uint8, in the order in which they are shown.
            chats: The conversations.
            names: What messages name each by.

        Raises:
            ValueError: If a prompt is longer than `max_prompt_tokens`; it is named, not cut, since cutting would
                separate image placeholders from their features. Or if its text holds such a placeholder.
        """
        return self._encoder.encode(images, chats, names, self.device)

    def annotated(self, groups: Sequence[ImageGroup]) -> list[str]:
        """The annotated responses of groups as the policy is to write them: places in the units of its frame.

        Raises:
            ValueError: If one states places that cannot be read.
        """
        return [
            tasks.task_of(group, self.config.look).spoken(group.response or "", group, self.frame) for group in groups
        ]

    def encode_responses(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(B, T) token ids of B responses, each ended, and their bool mask."""
        tokenizer = self.processor.tokenizer
        rows = [[*tokenizer(text, add_special_tokens=False)["input_ids"], self.eos_ids[0]] for text in texts]
        return pad_right(rows, self.pad_id, self.device)

    def decode(self, tokens: Tensor, mask: Tensor) -> tuple[str, ...]:
        """The texts of (B, T) response tokens; the end-of-turn token is left out."""
        return tuple(self._text(row[keep].tolist()) for row, keep in zip(tokens.cpu(), mask.cpu(), strict=True))

    def _text(self, tokens: Sequence[int]) -> str:
        return self.processor.tokenizer.decode([token for token in tokens if token not in self.eos_ids])

    def logits(self, hidden: Tensor, temperature: float = 1.0) -> Tensor:
        """(..., V) logits, -inf at the suppressed ids, at a temperature > 0, in float32 at least."""
        logits = self.backbone.head(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).masked_fill_(
            self.suppressed, float("-inf")
        )
        return logits if temperature == 1 else logits.div_(temperature)

    def score(self, prompts: Prompts, tokens: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-probabilities of response tokens: the one path for current, old and reference policy and for SFT.

        Where several responses answer a prompt and the attention back end takes any mask (sdpa), the prompt is read once
        and they stand behind it in one sequence, each seeing the prompt and itself.

        Args:
            prompts: P prompts.
            tokens: (P G, T) response tokens, the G responses to a prompt side by side, G >= 1.
            mask: (P G, T) bool, True on response tokens.
            temperature: The one that the tokens were sampled at.

        Returns:
            (P G, T) float32 log-probabilities in nats, exactly 0 where `mask` is False.
        """
        return self.score_tokens(prompts, tokens, mask, temperature).logp

    def score_tokens(
        self,
        prompts: Prompts,
        tokens: Tensor,
        mask: Tensor,
        temperature: float = 1.0,
        *,
        entropy: Entropy | None = None,
        lengths: Sequence[int] | None = None,
    ) -> TokenScores:
        """`score`, and what else the same pass can say of the responses.

        Args:
            prompts: P prompts.
            tokens: (P G, T) response tokens, the G responses to a prompt side by side, G >= 1.
            mask: (P G, T) bool, True on response tokens.
            temperature: The one that the tokens were sampled at.
            entropy: "value" for the entropy of what each token was drawn from, at that temperature, without gradient;
                "gradient" with it.
            lengths: How many tokens of each response the mask holds, where that is known on the host; else the device is
                waited for.
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

    def _behind(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> dict[str, Any]:
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
    def reading(self, prompts: Prompts, tokens: Tensor, mask: Tensor) -> Iterator[dict[str, Any]]:
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
        prompts: Prompts,
        tokens: Tensor,
        mask: Tensor,
        spans: Sequence[Sequence[Span]],
        reasoning: Sequence[Span | None],
        *,
        convention: Convention = "key",
        attention_only: bool = False,
    ) -> list[list[tuple[Tensor, ...]]]:
        """Attribution maps of responses: see `lightning_sal.policy.attribution`. One pass over the sequences of `score`.

        Args:
            prompts: P prompts.
            tokens: (P G, T) response tokens, the G responses to a prompt side by side.
            mask: (P G, T) bool, True on response tokens.
            spans: For each response the spans of tokens whose logits are explained, each by maps of its own; may be none.
            reasoning: For each response the span of its reasoning; None for direct contributions.
            convention: See `lightning_sal.policy.tracing.Asked`.
            attention_only: Whether attention weights are summed, without values.

        Returns:
            Of each response and span the maps of the prompt's images, (rows, columns) float32 on the CPU, before the ReLU.
        """
        how: dict[str, Any] = {"convention": convention, "attention_only": attention_only}
        with self.reading(prompts, tokens, mask) as read:
            return attribute(self.backbone, prompts, tokens, read, spans, reasoning, **how)

    def pieces(self, tokens: Sequence[int]) -> list[bytes]:
        """The bytes that each token of a response leaves in its text; none for the end of turn."""
        found = token_bytes(self.processor.tokenizer, tokens)
        return [b"" if token in self.eos_ids else piece for token, piece in zip(tokens, found, strict=True)]

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the policy is the one that LoRA started from: its adapters are off, and no second model is needed.

        Raises:
            ValueError: If there is no LoRA, since the starting weights are then gone.
        """
        if self.config.lora is None:
            raise ValueError("the reference policy is the one without adapters: give model.policy.lora, or beta 0")
        with self.net.disable_adapter():
            yield

    @torch.no_grad()
    def sample(
        self,
        prompts: Prompts,
        max_new_tokens: int,
        *,
        responses: int = 1,
        temperature: float = 1.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> Rollout:
        """Responses to each prompt, in evaluation mode.

        Args:
            prompts: P prompts.
            max_new_tokens: Limit of response tokens; a response that reaches it without ending is truncated.
            responses: G, responses to each prompt; they stand side by side in the result.
            temperature: > 0 samples; 0 takes the likeliest token.
            generator: Source of randomness on the policy's device, or one for each prompt.
        """
        draws = None
        if temperature > 0:
            sources = generator if isinstance(generator, Sequence) else [generator]
            shape = (len(prompts) * responses // len(sources), max_new_tokens)
            draws = torch.cat([torch.rand(shape, generator=source, device=self.device) for source in sources])
        with self._sampling_mode():
            return drain(self._sampling(self._decoding, prompts, max_new_tokens, responses, temperature, draws))

    def stream(self, prompts: Prompts, max_new_tokens: int) -> Generator[str, None, Rollout]:
        """The likeliest response to one prompt, as it grows; `sample` at temperature 0 gives the same at once.

        Between two steps the policy is as it was before, so that other work may go on with it.

        Args:
            prompts: One prompt.
            max_new_tokens: Limit of response tokens.

        Yields:
            The text so far, whenever it has grown. A character of several tokens comes when it is whole.

        Returns:
            The response.
        """
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
        prompts: Prompts,
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

    def rollout(self, texts: tuple[str, ...], tokens: Tensor, mask: Tensor, logp: Tensor, truncated: Tensor) -> Rollout:
        """Responses of this policy, whoever sampled them; arguments as of `Rollout`."""
        return Rollout(texts, tokens, mask, logp, truncated, self.frame, self.config.look)

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


def pad_right(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, T) ids of rows of unequal length and their bool mask, built from the lengths."""
    width = max(map(len, rows), default=0)
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows]).view(len(rows), width)
    lengths = indices([len(row) for row in rows], device)
    return moved(ids, device), torch.arange(width, device=device) < lengths[:, None]
