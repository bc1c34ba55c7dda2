"""The policy: a multimodal LLM that is shown image groups, samples responses and scores them.

Legend: B prompts, P prompt tokens (padded left), T response tokens (padded right), V vocabulary, C hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.loading import add_lora, freeze, load_model
from lightning_sal.samples import ImageGroup, Rollout
from lightning_sal.tasks import TASKS


@dataclass(frozen=True, slots=True)
class Prompts:
    """Encoded prompts; masks are True on real tokens.

    Args:
        ids: (B, P) token ids.
        mask: (B, P) bool.
        positions: (3, B, P) M-RoPE positions: time, height, width.
        following: (B,) position of the first response token.
        visual: B tensors (visual tokens of the prompt, C), features of its images in the order of their placeholders.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    following: Tensor
    visual: tuple[Tensor, ...]

    def rows(self, part: slice) -> Prompts:
        """The prompts of a micro-batch; the padding stays as it is."""
        return Prompts(
            self.ids[part], self.mask[part], self.positions[:, part], self.following[part], self.visual[part]
        )


class Policy(nn.Module):
    """A Qwen2.5-VL with one path for sampling and one for scoring.

    Both use the same visual features, explicit M-RoPE positions and the same banned ids, so that the log-probability of
    a token is the same number wherever it is computed. All reads of the model go through its language model directly:
    the position cache that transformers keeps in `rope_deltas` is never used.

    Args:
        config: What to load and what to train.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        model, self.processor, instructions = load_model(config)
        freeze(model, train_vision=config.train_vision)
        self.net = model if config.lora is None else add_lora(model, config.lora)
        self.instructions = {name: instructions.get(name, task.instruction) for name, task in TASKS.items()}
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        tokenizer = self.processor.tokenizer
        eos = model.generation_config.eos_token_id
        self.eos_ids = tuple(eos) if isinstance(eos, (list, tuple)) else (int(eos),)
        self.pad_id = int(tokenizer.pad_token_id)
        vocabulary = model.config.text_config.vocab_size
        banned = torch.zeros(vocabulary, dtype=torch.bool)
        banned[[i for i in tokenizer.all_special_ids if i not in self.eos_ids]] = True
        banned[[i for i in _vision_ids(model.config) if i is not None]] = True
        banned[len(tokenizer) :] = True
        self.banned: Tensor
        self.register_buffer("banned", banned, persistent=False)
        self.train()

    @property
    def qwen(self) -> Any:
        """The transformers model itself, its adapters in place."""
        return self.net if self.config.lora is None else self.net.get_base_model()

    @property
    def device(self) -> torch.device:
        return self.banned.device

    def encode(self, groups: Sequence[ImageGroup]) -> Prompts:
        """Prompts of image groups: the K images, then the task's instruction.

        Raises:
            ValueError: If a prompt is longer than `max_prompt_tokens`; it is named, not cut, since cutting would
                separate image placeholders from their features.
        """
        texts = [self._prompt_text(group.task, len(group.images)) for group in groups]
        images = [image.permute(2, 0, 1) for group in groups for image in group.images]
        inputs = self.processor(
            text=texts,
            images=images,
            padding=True,
            padding_side="left",
            return_tensors="pt",
            return_mm_token_type_ids=True,
        )
        mask = inputs["attention_mask"].bool()
        for group, length in zip(groups, mask.sum(1).tolist(), strict=True):
            if length > self.config.max_prompt_tokens:
                raise ValueError(
                    f"{', '.join(group.paths) or group.key}: the prompt has {length} tokens, more than max_prompt_tokens "
                    f"{self.config.max_prompt_tokens}: lower max_pixels or the group size, or raise the limit"
                )
        core = self.qwen.model
        grid = inputs["image_grid_thw"]
        positions, _ = core.get_rope_index(
            inputs["input_ids"],
            inputs["mm_token_type_ids"],
            image_grid_thw=grid,
            attention_mask=inputs["attention_mask"],
        )
        following = positions.amax(dim=(0, 2)) + 1
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.train_vision):
            features = core.get_image_features(inputs["pixel_values"].to(self.device), grid.to(self.device))
        per_image, on = iter(features.pooler_output), self.device
        visual = tuple(torch.cat([next(per_image) for _ in group.images]) for group in groups)
        return Prompts(inputs["input_ids"].to(on), mask.to(on), positions.to(on), following.to(on), visual)

    def encode_responses(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(B, T) token ids of responses, each ended, and their bool mask."""
        tokenizer = self.processor.tokenizer
        rows = [[*tokenizer(text, add_special_tokens=False)["input_ids"], self.eos_ids[0]] for text in texts]
        return pad_right(rows, self.pad_id, self.device)

    def decode(self, tokens: Tensor, mask: Tensor) -> tuple[str, ...]:
        """The texts of (B, T) response tokens; the end-of-turn token is left out."""
        tokenizer = self.processor.tokenizer
        rows = [row[keep].tolist() for row, keep in zip(tokens.cpu(), mask.cpu(), strict=True)]
        return tuple(tokenizer.decode([t for t in row if t not in self.eos_ids]) for row in rows)

    def logits(self, hidden: Tensor, temperature: float) -> Tensor:
        """(..., V) float32 logits over what may be said, at a temperature > 0."""
        logits = self.qwen.lm_head(hidden).float()
        return logits.masked_fill(self.banned, float("-inf")) / temperature

    def score(self, prompts: Prompts, tokens: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
        """Log-probabilities of response tokens: the one path for current, old and reference policy and for SFT.

        Args:
            prompts: B prompts.
            tokens: (B, T) response tokens.
            mask: (B, T) bool, True on response tokens.
            temperature: The one that the tokens were sampled at.

        Returns:
            (B, T) float32 log-probabilities in nats, exactly 0 where `mask` is False.
        """
        embeds = torch.cat([self._prompt_embeds(prompts), self._embed(tokens)], dim=1)
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        response_positions = (prompts.following[:, None] + steps).expand(3, -1, -1)
        hidden = self._language_model(
            inputs_embeds=embeds,
            attention_mask=torch.cat([prompts.mask, mask], dim=1),
            position_ids=torch.cat([prompts.positions, response_positions], dim=2),
            use_cache=False,
        ).last_hidden_state[:, prompts.ids.shape[1] - 1 : -1]
        logp = torch.log_softmax(self.logits(hidden, temperature), dim=-1)
        # An id outside the mask may be banned: its -inf would turn into NaN in the backward pass.
        chosen = logp.gather(2, torch.where(mask, tokens, self.eos_ids[0])[..., None])[..., 0]
        return torch.where(mask, chosen, 0.0)

    @torch.no_grad()
    def sample(
        self,
        prompts: Prompts,
        max_new_tokens: int,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Rollout:
        """One response a prompt, in evaluation mode.

        Args:
            prompts: B prompts.
            max_new_tokens: Limit of response tokens; a response that reaches it without ending is truncated.
            temperature: > 0 samples; 0 takes the likeliest token.
            generator: Source of randomness on the policy's device.
        """
        from transformers import DynamicCache

        rows = len(prompts.ids)
        embeds, attention, positions = self._prompt_embeds(prompts), prompts.mask, prompts.positions
        cache = DynamicCache(config=self.qwen.config.text_config)
        alive = torch.ones(rows, dtype=torch.bool, device=self.device)
        stop = torch.tensor(self.eos_ids, device=self.device)
        tokens, masks, logps = [], [], []
        with self._sampling_mode():
            for step in range(max_new_tokens):
                out = self._language_model(
                    inputs_embeds=embeds,
                    attention_mask=attention,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=True,
                )
                logp = torch.log_softmax(self.logits(out.last_hidden_state[:, -1], temperature or 1.0), dim=-1)
                if temperature > 0:
                    token = torch.multinomial(logp.exp(), 1, generator=generator)[:, 0]
                else:
                    token = logp.argmax(dim=-1)
                tokens.append(torch.where(alive, token, self.pad_id))
                masks.append(alive)
                logps.append(torch.where(alive, logp.gather(1, token[:, None])[:, 0], 0.0))
                alive = alive & ~torch.isin(token, stop)
                if not alive.any():
                    break
                embeds = self._embed(tokens[-1][:, None])
                attention = torch.cat([attention, masks[-1][:, None]], dim=1)
                positions = (prompts.following[:, None] + step).expand(3, -1, -1)
        sampled, mask = torch.stack(tokens, 1), torch.stack(masks, 1)
        return Rollout(self.decode(sampled, mask), sampled, mask, torch.stack(logps, 1), alive)

    def _prompt_text(self, task: str, images: int) -> str:
        content = [{"type": "image"}] * images + [{"type": "text", "text": self.instructions[task]}]
        messages = [{"role": "user", "content": content}]
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _embed(self, ids: Tensor) -> Tensor:
        return self.qwen.get_input_embeddings()(ids)

    def _prompt_embeds(self, prompts: Prompts) -> Tensor:
        embeds = self._embed(prompts.ids)
        at = (prompts.ids == self.qwen.config.image_token_id)[..., None].expand_as(embeds)
        return embeds.masked_scatter(at, torch.cat(prompts.visual).to(embeds.dtype))

    @property
    def _language_model(self) -> Any:
        return self.qwen.model.language_model

    @contextmanager
    def _sampling_mode(self) -> Iterator[None]:
        """Evaluation mode and no gradient checkpointing, which would switch the cache off; both come back after."""
        model, training = self.qwen, self.training
        checkpointing = self.config.gradient_checkpointing
        self.eval()
        if checkpointing:
            model.gradient_checkpointing_disable()
        try:
            yield
        finally:
            self.train(training)
            if checkpointing:
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def pad_right(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, T) ids of rows of unequal length and their bool mask, built from the lengths."""
    lengths = torch.tensor([len(row) for row in rows], device=device)
    width = int(lengths.max()) if len(rows) else 0
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device).view(len(rows), width)
    return ids, torch.arange(width, device=device) < lengths[:, None]


def _vision_ids(config: Any) -> tuple[int | None, ...]:
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return tuple(getattr(config, name, None) for name in names)
