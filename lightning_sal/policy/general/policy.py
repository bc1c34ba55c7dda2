"""A policy of any family: its processor, `generate`, and one forward pass.

Legend: P prompts of at most L tokens (padded left), G responses a prompt of T tokens (padded right), V vocabulary, C
hidden size.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor

from lightning_sal.policy.chat import chat, chat_text
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.frames import at_most, squashed
from lightning_sal.policy.general.choosing import Choosing
from lightning_sal.policy.general.prompts import GeneralPrompts, can_stand_side_by_side, made_apart
from lightning_sal.policy.loading import limits_pixels
from lightning_sal.policy.log_probs import Entropy, TokenScores, log_probs_and_entropy, places
from lightning_sal.policy.parts import language_path, seeing
from lightning_sal.policy.policy import Policy
from lightning_sal.policy.tracing import Convention, Span
from lightning_sal.samples import ImageGroup, Message, Rollout

_MOST_LOGITS = 2**26  # Float32 logits that stand in memory at once: 256 MiB
NO_ATTRIBUTION = (
    "policy model '{model}' is a {kind} on the general path, which cannot be looked into: attribution needs a Qwen2.5-VL or "
    "Qwen3-VL on the fast path"
)
_OPENED = re.compile(r"<think>\s*(</think>\s*)?$")  # by templates of models that reason


class GeneralPolicy(Policy):
    """An image-text-to-text model of transformers.

    Responses are sampled by `generate`, each behind a copy of its prompt, and scored by one teacher-forced pass through the
    same inputs of the processor. That takes more time and memory than the fast path, and no family is left out.

    Args:
        config: What to load and what to train.
        as_stored: Whether weights are still as their file has them: see `load_model`.

    Raises:
        ValueError: If the model's language part cannot be told from the rest, or a feature cache is asked for.
    """

    path = "general"

    def __init__(self, config: PolicyConfig, *, as_stored: bool = False) -> None:
        if config.feature_cache is not None:
            raise ValueError(
                f"policy.feature_cache {config.feature_cache}: only the fast path keeps features: set it null"
            )
        super().__init__(config, as_stored=as_stored)
        if config.min_pixels is not None and not limits_pixels(self.processor):
            raise ValueError(
                f"policy.min_pixels {config.min_pixels}: {type(self.processor).__name__} resizes images in its own way; "
                "leave it out, or give policy.processor its settings"
            )
        self.eos_ids = end_of_turn_first(self.processor, self.eos_ids)
        self._apart = can_stand_side_by_side(self.processor, prompt_text(self.processor, [Message("user", "a b", 1)]))

    def _prepare(self, model: Any) -> None:
        language_path(model)
        tokenizer = self.processor.tokenizer
        if tokenizer.pad_token is None:  # some families never pad
            tokenizer.pad_token = tokenizer.eos_token
        taken = inspect.signature(model.forward).parameters
        self._keeps = "logits_to_keep" in taken
        # Families with positions of several axes compute them from where images stand
        several_axes = any(hasattr(part, "rope_deltas") for part in model.modules())
        self._positions = "position_ids" in taken and not several_axes

    def train(self, mode: bool = True) -> GeneralPolicy:
        """Training mode; a frozen vision tower stays as it samples, so that what it sees is the same."""
        super().train(mode)
        if not self.config.train_vision:
            for part in seeing(self.model):
                part.eval()
        return self

    def shown(self, group: ImageGroup) -> list[Tensor]:
        """See `Policy.shown`. Where the processor limits no pixels, images are made smaller before."""
        return [fitted(image, self.processor, self.config) for image in super().shown(group)]

    def encode_chats(
        self, images: Sequence[Sequence[Tensor]], chats: Sequence[Sequence[Message]], names: Sequence[str]
    ) -> GeneralPrompts:
        """See `Policy.encode_chats`."""
        texts = [prompt_text(self.processor, messages) for messages in chats]
        prompts = named_prompts(self.processor, texts, images, names, self.device, apart=self._apart)
        for name, length in zip(names, prompts.lengths, strict=True):
            if length > self.config.max_prompt_tokens:
                raise ValueError(
                    f"{name}: the prompt has {length} tokens, more than max_prompt_tokens "
                    f"{self.config.max_prompt_tokens}: lower max_pixels or the group size, or raise the limit"
                )
        return prompts

    def score_tokens(
        self,
        prompts: GeneralPrompts,
        tokens: Tensor,
        mask: Tensor,
        temperature: float = 1.0,
        *,
        entropy: Entropy | None = None,
        lengths: Sequence[int] | None = None,
    ) -> TokenScores:
        """See `Policy.score_tokens`. Each response is read behind a copy of its prompt."""
        prompts = repeated(prompts, len(tokens) // len(prompts))
        logits, states = self._read(prompts, tokens, mask)
        at = places(mask, lengths)
        found = log_probs_and_entropy(
            lambda part: self.predicted(part.clone(), temperature),
            logits[:, :-1].flatten(0, 1).index_select(0, at),
            tokens.flatten()[at],
            max(1, _MOST_LOGITS // logits.shape[-1]),
            entropy,
        )

        def spread(values: Tensor) -> Tensor:
            return values.new_zeros(mask.numel()).index_copy(0, at, values).view(mask.shape)

        ends = mask.sum(1)[:, None, None].expand(-1, 1, states.shape[2])
        return TokenScores(
            spread(found[0]), None if found[1] is None else spread(found[1]), states.gather(1, ends)[:, 0]
        )

    def _read(self, prompts: GeneralPrompts, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (P, T + 1, V) and hidden states (P, T + 1, C), these without gradient, at the prompts' ends and tokens."""
        inputs, keep = prompts.followed(tokens, mask), tokens.shape[1] + 1
        if self._positions:
            seen = inputs["attention_mask"].long()
            inputs["position_ids"] = (seen.cumsum(1) - 1).masked_fill(seen == 0, 0)
        if self._keeps:
            inputs["logits_to_keep"] = keep
        states: list[Tensor] = []
        head = self.model.get_output_embeddings()
        hook = head.register_forward_pre_hook(lambda _, given: states.append(given[0].detach()))
        try:
            logits = self.model(**inputs, use_cache=False).logits
        finally:
            hook.remove()
        return logits[:, -keep:], states[0][:, -keep:]

    def attribute(
        self,
        prompts: GeneralPrompts,
        tokens: Tensor,
        mask: Tensor,
        spans: Sequence[Sequence[Span]],
        reasoning: Sequence[Span | None],
        *,
        convention: Convention = "key",
        attention_only: bool = False,
    ) -> list[list[tuple[Tensor, ...]]]:
        """Refused: see `require_attribution`."""
        self.require_attribution()
        return []

    def require_attribution(self) -> None:
        """See `Policy.require_attribution`."""
        raise ValueError(NO_ATTRIBUTION.format(model=self.config.model, kind=self.model.config.model_type))

    @torch.no_grad()
    def sample(
        self,
        prompts: GeneralPrompts,
        max_new_tokens: int,
        *,
        responses: int = 1,
        temperature: float = 1.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> Rollout:
        """See `Policy.sample`."""
        draws = self.draws(len(prompts), responses, max_new_tokens, temperature, generator)
        choosing = Choosing(lambda logits: self.predicted(logits, temperature or 1.0), draws)
        return self._generated(repeated(prompts, responses), max_new_tokens, choosing)

    def _generated(self, prompts: GeneralPrompts, max_new_tokens: int, choosing: Choosing) -> Rollout:
        """A response to each prompt, whose tokens are chosen as `choosing` says."""
        from transformers import GenerationConfig

        how = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=list(self.eos_ids),
            pad_token_id=self.pad_id,
        )
        with self._sampling_mode(how):
            ids = self.model.generate(
                **prompts.inputs, logits_processor=[choosing], stopping_criteria=[choosing.unwanted]
            )
        tokens = ids[:, prompts.ids.shape[1] :][:, :max_new_tokens]
        ends = torch.isin(tokens, torch.tensor(self.eos_ids, device=tokens.device))
        mask = (ends.cumsum(1) - ends.long()) == 0
        length = int(mask.sum(1).max())
        tokens, mask, ends = tokens[:, :length], mask[:, :length], ends[:, :length]
        tokens, logp = tokens.masked_fill(~mask, self.pad_id), choosing.log_probs(length).masked_fill(~mask, 0.0)
        return self.rollout(self.decode(tokens, mask), tokens, mask, logp, ~(ends & mask).any(1))

    def stream(self, prompts: GeneralPrompts, max_new_tokens: int) -> Generator[str, None, Rollout]:
        """See `Policy.stream`. Until it ends or is left the policy is busy: `generate` goes on beside it, on a thread."""
        said: SimpleQueue[int | Future[Rollout]] = SimpleQueue()
        choosing = Choosing(self.predicted, None, told=lambda token: said.put(int(token[0])))
        with ThreadPoolExecutor(1) as beside:
            # The mode without gradients is that of a thread
            response = beside.submit(torch.no_grad()(self._generated), prompts, max_new_tokens, choosing)
            response.add_done_callback(said.put)
            try:
                yield from self._texts(iter(said.get, response))
            finally:
                choosing.wanted = False
        return response.result()

    def _texts(self, said: Iterator[Any]) -> Iterator[str]:
        """The text so far, whenever it has grown by one of the tokens."""
        tokens, before = list[int](), ""
        for token in said:
            tokens.append(token)
            text = self._text(tokens).rstrip("\N{REPLACEMENT CHARACTER}")
            if len(text) > len(before) and token not in self.eos_ids:
                yield text
                before = text

    @contextmanager
    def _sampling_mode(self, how: Any) -> Iterator[None]:
        """Evaluation mode, and nothing of the model's own settings of sampling, such as a repetition penalty."""
        training, own = self.training, self.model.generation_config
        self.eval()
        self.model.generation_config = how
        try:
            yield
        finally:
            self.model.generation_config = own
            for part in self.model.modules():  # positions that are left would be those of the next batch
                if getattr(part, "rope_deltas", None) is not None:
                    part.rope_deltas = None
            self.train(training)


def fitted(image: Tensor, processor: Any, config: PolicyConfig) -> Tensor:
    """An image (H, W, 3) as a processor gets it: squashed where that is asked for, and with `max_pixels` at most."""
    return at_most(squashed(image, config.square), None if limits_pixels(processor) else config.max_pixels)


def repeated(prompts: GeneralPrompts, responses: int) -> GeneralPrompts:
    """Each prompt so many times, side by side."""
    return prompts.select([row for row in range(len(prompts)) for _ in range(responses)])


def prompt_text(processor: Any, messages: Sequence[Message]) -> str:
    """A conversation as the text that the model goes on with.

    A system turn goes before the first question where the family has none. Reasoning that the template opens is left to the
    response, which has to hold the whole of it.
    """
    from jinja2 import TemplateError

    try:
        text = chat_text(processor, messages)
    except TemplateError:
        first, second, *rest = messages
        if first.role != "system":
            raise
        text = chat_text(processor, [replace(second, text=f"{first.text}\n\n{second.text}"), *rest])
    return _OPENED.sub("", text)


def named_prompts(
    processor: Any,
    texts: Sequence[str],
    images: Sequence[Sequence[Tensor]],
    names: Sequence[str],
    device: torch.device,
    *,
    apart: bool = False,
) -> GeneralPrompts:
    """Prompts of a processor; `apart` says that it may take each alone.

    Raises:
        ValueError: If it does not take one of them; the line names it.
    """
    pictures = [tuple(shown) for shown in images]
    try:
        made = made_apart(processor, texts, pictures, device) if apart else None
        return GeneralPrompts(processor, tuple(texts), tuple(pictures), device, made)
    except ValueError:
        for name, text, shown in zip(names, texts, pictures, strict=True):
            try:
                GeneralPrompts(processor, (text,), (shown,), device)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        raise


def end_of_turn_first(processor: Any, eos: Sequence[int]) -> tuple[int, ...]:
    """The ids that end a response, first the one that the chat template writes behind an answer."""
    turns = chat([Message("user", "Hello"), Message("assistant", "Hello")])
    text = processor.apply_chat_template(turns, tokenize=False)
    behind = processor.tokenizer(text.rpartition("Hello")[2], add_special_tokens=False)["input_ids"]
    written = [token for token in behind if token in eos][:1]
    return tuple(dict.fromkeys([*written, *eos]))
