"""The policy: a multimodal LLM that is shown image groups, samples responses and scores them.

Legend: P prompts of at most L tokens (padded left), G responses a prompt of T tokens (padded right), V vocabulary, C
hidden size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_sal import tasks
from lightning_sal.frames import Square
from lightning_sal.internals.devices import leave_out_cudnn_attention
from lightning_sal.policy.adapters import add_lora
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.frames import frame_of, squashed
from lightning_sal.policy.loading import freeze, load_model
from lightning_sal.policy.log_probs import Entropy, TokenScores
from lightning_sal.policy.prompts import Prompts
from lightning_sal.policy.spans import token_bytes
from lightning_sal.policy.suppressed import suppressed_ids
from lightning_sal.policy.tracing import Convention, Span
from lightning_sal.samples import ImageGroup, Message, Rollout
from lightning_sal.transfer import indices, moved


class Policy(nn.Module):
    """A multimodal LLM of transformers with one path for sampling and one for scoring.

    `make_policy` picks the subclass: `FastPolicy` for the families that it knows from inside, `GeneralPolicy` for all
    others. Both suppress the same ids in sampling and in scoring, so that the log-probability of a token is the same number
    wherever it is computed.

    Args:
        config: What to load and what to train.
        as_stored: Whether weights are still as their file has them: see `load_model`.
    """

    path: ClassVar[str]
    """How it reads its model, in a word."""

    def __init__(self, config: PolicyConfig, *, as_stored: bool = False) -> None:
        super().__init__()
        leave_out_cudnn_attention()
        self.config = config
        model, self.processor, self.stated = load_model(config, as_stored=as_stored)
        self._prepare(model)
        freeze(model, train_vision=config.train_vision)
        self.net = model if config.lora is None else add_lora(model, config.lora)
        if config.gradient_checkpointing:
            checkpoint_activations(model)
        tokenizer = self.processor.tokenizer
        eos = model.generation_config.eos_token_id
        eos = tokenizer.eos_token_id if eos is None else eos
        of_family = frame_of(model.config.model_type, self.processor.image_processor, config.square)
        self.frame = Square(config.frame) if config.frame else of_family
        self.eos_ids = tuple(eos) if isinstance(eos, (list, tuple)) else (int(eos),)
        self.pad_id = int(self.eos_ids[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
        self.suppressed: Tensor
        self.register_buffer("suppressed", suppressed_ids(self.processor, model.config, self.eos_ids), persistent=False)
        self.train()

    @abstractmethod
    def _prepare(self, model: Any) -> None:
        """Make the loaded model ready, before anything is frozen or adapted."""

    @property
    def model(self) -> Any:
        """The transformers model itself, its adapters in place."""
        return self.net if self.config.lora is None else self.net.get_base_model()

    @property
    def width(self) -> int:
        """C."""
        return self.model.config.get_text_config().hidden_size

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

    @abstractmethod
    def encode_chats(
        self, images: Sequence[Sequence[Tensor]], chats: Sequence[Sequence[Message]], names: Sequence[str]
    ) -> Prompts:
        """Prompts of P conversations.

        Args:
            images: For each conversation its images, none or more, (H, W, 3) uint8, in the order in which they are shown.
            chats: The conversations.
            names: What messages name each by.

        Raises:
            ValueError: If a prompt is longer than `max_prompt_tokens`; it is named, not cut, since cutting would
                separate image placeholders from their features. Or if its text holds such a placeholder.
        """

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

    def predicted(self, logits: Tensor, temperature: float = 1.0) -> Tensor:
        """(..., V) logits as they are sampled from: -inf at the suppressed ids, at a temperature > 0, in float32 at least.

        Args:
            logits: (..., V) as the model gives them; may be changed.
            temperature: They are divided by it.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).masked_fill_(
            self.suppressed, float("-inf")
        )
        return logits if temperature == 1 else logits.div_(temperature)

    def score(self, prompts: Any, tokens: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-probabilities of response tokens: the one path for current, old and reference policy and for SFT.

        Args:
            prompts: P prompts, as `encode` gives them.
            tokens: (P G, T) response tokens, the G responses to a prompt side by side, G >= 1.
            mask: (P G, T) bool, True on response tokens.
            temperature: The one that the tokens were sampled at.

        Returns:
            (P G, T) float32 log-probabilities in nats, exactly 0 where `mask` is False.
        """
        return self.score_tokens(prompts, tokens, mask, temperature).logp

    @abstractmethod
    def score_tokens(
        self,
        prompts: Any,
        tokens: Tensor,
        mask: Tensor,
        temperature: float = 1.0,
        *,
        entropy: Entropy | None = None,
        lengths: Sequence[int] | None = None,
    ) -> TokenScores:
        """`score`, and what else the same pass can say of the responses.

        Args:
            prompts: P prompts, as `encode` gives them.
            tokens: (P G, T) response tokens, the G responses to a prompt side by side, G >= 1.
            mask: (P G, T) bool, True on response tokens.
            temperature: The one that the tokens were sampled at.
            entropy: "value" for the entropy of what each token was drawn from, at that temperature, without gradient;
                "gradient" with it.
            lengths: How many tokens of each response the mask holds, where that is known on the host; else the device is
                waited for.
        """

    @abstractmethod
    def attribute(
        self,
        prompts: Any,
        tokens: Tensor,
        mask: Tensor,
        spans: Sequence[Sequence[Span]],
        reasoning: Sequence[Span | None],
        *,
        convention: Convention = "key",
        attention_only: bool = False,
    ) -> list[list[tuple[Tensor, ...]]]:
        """Attribution maps of responses: see `lightning_sal.policy.attribution`.

        Args:
            prompts: P prompts, as `encode` gives them.
            tokens: (P G, T) response tokens, the G responses to a prompt side by side.
            mask: (P G, T) bool, True on response tokens.
            spans: For each response the spans of tokens whose logits are explained, each by maps of its own; may be none.
            reasoning: For each response the span of its reasoning; None for direct contributions.
            convention: See `lightning_sal.policy.tracing.Asked`.
            attention_only: Whether attention weights are summed, without values.

        Returns:
            Of each response and span the maps of the prompt's images, (rows, columns) float32 on the CPU, before the ReLU.

        Raises:
            ValueError: If the path cannot; the line names the model.
        """

    def require_attribution(self) -> None:
        """Check that `attribute` can be asked.

        Raises:
            ValueError: It can't; the line names the model.
        """

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

    @abstractmethod
    def sample(
        self,
        prompts: Any,
        max_new_tokens: int,
        *,
        responses: int = 1,
        temperature: float = 1.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> Rollout:
        """Responses to each prompt, in evaluation mode.

        Args:
            prompts: P prompts, as `encode` gives them.
            max_new_tokens: Limit of response tokens; a response that reaches it without ending is truncated.
            responses: G, responses to each prompt; they stand side by side in the result.
            temperature: > 0 samples; 0 takes the likeliest token.
            generator: Source of randomness on the policy's device, or one for each prompt.
        """

    @abstractmethod
    def stream(self, prompts: Any, max_new_tokens: int) -> Generator[str, None, Rollout]:
        """The likeliest response to one prompt, as it grows; `sample` at temperature 0 gives the same at once.

        Args:
            prompts: One prompt, as `encode` gives it.
            max_new_tokens: Limit of response tokens.

        Yields:
            The text so far, whenever it has grown. A character of several tokens comes when it is whole.

        Returns:
            The response.
        """

    def draws(
        self,
        prompts: int,
        responses: int,
        max_new_tokens: int,
        temperature: float,
        generator: torch.Generator | Sequence[torch.Generator] | None,
    ) -> Tensor | None:
        """(P G, max_new_tokens) uniform on [0, 1), one a token, by which it is drawn; None where the likeliest is taken."""
        if temperature <= 0:
            return None
        sources = generator if isinstance(generator, Sequence) else [generator]
        shape = (prompts * responses // len(sources), max_new_tokens)
        return torch.cat([torch.rand(shape, generator=source, device=self.device) for source in sources])

    def rollout(self, texts: tuple[str, ...], tokens: Tensor, mask: Tensor, logp: Tensor, truncated: Tensor) -> Rollout:
        """Responses of this policy, whoever sampled them; arguments as of `Rollout`."""
        return Rollout(texts, tokens, mask, logp, truncated, self.frame, self.config.look)


def in_one_piece(policy: Policy, prompts: Any, max_new_tokens: int) -> Generator[str, None, Rollout]:
    """`Policy.stream` of a policy that cannot be left between two tokens."""
    rollout = policy.sample(prompts, max_new_tokens, temperature=0.0)
    yield from filter(None, rollout.texts)
    return rollout


def checkpoint_activations(model: Any) -> None:
    """Recompute activations of a model of transformers in the backward pass, while it is in training mode."""
    # The name from 5.24 on; the older one warns there.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    model.enable_input_require_grads()


def pad_right(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, T) ids of rows of unequal length and their bool mask, built from the lengths."""
    width = max(map(len, rows), default=0)
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows]).view(len(rows), width)
    lengths = indices([len(row) for row in rows], device)
    return moved(ids, device), torch.arange(width, device=device) < lengths[:, None]
