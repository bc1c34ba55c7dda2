"""Attribution maps: how much each visual token adds to the logits of an answer, through the reasoning.

What is computed, and in which letters, stands at the head of `lightning_sal.policy.tracing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lightning_sal.policy.attention import Alone
from lightning_sal.policy.backbone import Backbone
from lightning_sal.policy.positions import mrope_positions
from lightning_sal.policy.prompts import FastPrompts
from lightning_sal.policy.tracing import Asked, Convention, Span, Traced, trace
from lightning_sal.transfer import read

_EPS = 1e-6  # of the public code of the method, see `norm_eps`


def attribute(
    backbone: Backbone,
    prompts: FastPrompts,
    tokens: Tensor,
    reading: Mapping[str, Any],
    spans: Sequence[Sequence[Span]],
    reasoning: Sequence[Span | None],
    *,
    convention: Convention = "key",
    attention_only: bool = False,
) -> list[list[tuple[Tensor, ...]]]:
    """Maps of the spans of B responses: see `lightning_sal.policy.policy.Policy.attribute`.

    Args:
        backbone: What reads; its attention must be ours.
        prompts: P prompts.
        tokens: (B, T) response tokens.
        reading: What `Backbone.read` gets of them.
        spans: Of each response.
        reasoning: Of each response.
        convention: See `Asked`.
        attention_only: Whether attention alone is added up.
    """
    places = [[token for first, last in each for token in range(first, last + 1)] for each in spans]
    asked = Asked.of(places, reasoning, convention, tokens.device)
    ids = tokens.gather(1, asked.tokens)
    traced, scale = trace(backbone, prompts, reading, asked, ids, attention_only=attention_only)
    assert traced.prompt is not None
    whole = (traced.prompt / scale).float().cpu()  # (B, A, L)
    images = image_places(backbone, prompts)
    found, responses = [], len(tokens) // len(prompts)
    for row, each in enumerate(spans):
        parts = whole[row, : len(places[row])].split([last + 1 - first for first, last in each]) if each else ()
        sums = [part.sum(0) for part in parts]
        found.append([tuple(one[at].view(rows, -1) for at, rows in images[row // responses]) for one in sums])
    return found


def image_places(backbone: Backbone, prompts: FastPrompts) -> list[list[tuple[Tensor, int]]]:
    """Where the visual tokens of each image of each prompt stand, and how many rows they form, on the CPU."""
    is_image, heights = read(backbone.is_image(prompts.ids), prompts.positions[1])
    return [_places_of_one(*row) for row in zip(is_image, heights, strict=True)]


def _places_of_one(is_image: Tensor, heights: Tensor) -> list[tuple[Tensor, int]]:
    at = is_image.nonzero()[:, 0]
    if not len(at):
        return []
    breaks = (at.diff() > 1).nonzero()[:, 0].tolist()  # images have words between them
    borders = [0, *(each + 1 for each in breaks), len(at)]
    images = [at[start:end] for start, end in pairwise(borders)]
    return [(image, int(heights[image].max() - heights[image].min()) + 1) for image in images]


@torch.no_grad()
def attribution_maps(
    model: Any,
    input_ids: Tensor,
    pixel_values: Tensor,
    image_grid_thw: Tensor,
    *,
    reasoning: Span | None,
    answer: Span,
    convention: Convention = "key",
    norm_eps: bool = False,
    attention_only: bool = False,
) -> list[Tensor]:
    """Attribution maps of one sequence by a model of transformers, which stays as it is; adapters of peft count.

    m(p) = sum over answer tokens a, layers, heads of (sum over reasoning tokens j of alpha(a, j) alpha(j, p))
    (W_O v(p)) . g_a / rms(h_a), in the letters of `lightning_sal.policy.tracing`.

    | variant | arguments |
    |---|---|
    | through the reasoning | reasoning and answer |
    | answer tokens alone | `reasoning=None` |
    | reasoning tokens alone | `reasoning=None`, the reasoning's span as `answer` |
    | a single token | a span of one token as `answer` |
    | attention alone | `attention_only=True`, with any of these |

    Args:
        model: A Qwen2.5-VL or Qwen3-VL for conditional generation, or a `peft` model around one.
        input_ids: (1, S) or (S,): prompt with its images, then the response.
        pixel_values: (patches, values), as the image processor gives them.
        image_grid_thw: (images, 3) patches of each image in time, height and width.
        reasoning: First and last token of the reasoning, places in the whole sequence; None for direct contributions.
        answer: First and last token whose logits are explained, likewise.
        convention: See `Asked`; "emit" is what the public code of the method does.
        norm_eps: Whether each contribution c is shrunk by rms(c) / sqrt(rms(c)^2 + 1e-6), as in the public code, whose
            last norm is applied to c itself. That takes (image x hidden) numbers for each answer token.
        attention_only: Whether attention weights are summed, without values.

    Returns:
        Of each image the (rows, columns) map of its visual tokens, before the ReLU, in float32 at least.

    Raises:
        ValueError: If a span is empty or outside the sequence, or the model has layers without attention rows.
    """
    ids = input_ids.reshape(1, -1)
    whole = Backbone(model.get_base_model() if hasattr(model, "get_base_model") else model, untouched=True)
    sequence = _read_sequence(whole, ids, pixel_values, image_grid_thw, reasoning or answer, answer)
    asked, traced, scale = sequence.trace(reasoning, answer, convention, attention_only, keep=norm_eps)
    assert traced.prompt is not None
    found = traced.prompt / scale  # (1, A, L)
    if norm_eps and not attention_only:
        found = found * _shrinking(whole, traced, asked, scale)
    total = found.sum(1)[0]
    return [total[at.to(total.device)].view(rows, -1) for at, rows in image_places(whole, sequence.prompts)[0]]


@torch.no_grad()
def token_contributions(
    model: Any, input_ids: Tensor, pixel_values: Tensor, image_grid_thw: Tensor, *, answer: Span
) -> Tensor:
    """Direct contributions of all tokens of a sequence to the logits of some of them.

    With what no token owns (the embedding of the query, MLPs, biases) they add up to the logit.

    Args:
        model: As for `attribution_maps`, like the other arguments.
        input_ids: (1, S) or (S,).
        pixel_values: (patches, values).
        image_grid_thw: (images, 3).
        answer: First and last token whose logits are explained.

    Returns:
        (A, S), 0 for tokens that are not seen.
    """
    whole = Backbone(model.get_base_model() if hasattr(model, "get_base_model") else model, untouched=True)
    sequence = _read_sequence(whole, input_ids.reshape(1, -1), pixel_values, image_grid_thw, answer, answer)
    _, traced, scale = sequence.trace(None, answer, "key", False)
    assert traced.prompt is not None
    assert traced.own is not None
    return (torch.cat([traced.prompt, traced.own], dim=2) / scale)[0]


@dataclass(frozen=True, slots=True)
class _Sequence:
    """One sequence in two parts, its prompt and what follows."""

    backbone: Backbone
    prompts: FastPrompts
    ids: Tensor  # (1, S)
    positions: Tensor

    @torch.no_grad()
    def trace(
        self, reasoning: Span | None, answer: Span, convention: Convention, attention_only: bool, keep: bool = False
    ) -> tuple[Asked, Traced, Tensor]:
        length = self.prompts.ids.shape[1]
        first, last = answer
        places = [range(first - length, last + 1 - length)]
        spans = [(reasoning[0] - length, reasoning[1] - length) if reasoning else None]
        asked = Asked.of(places, spans, convention, self.ids.device)
        backbone, following = self.backbone, self.ids[:, length:]
        reading = {
            "embeds": torch.cat([backbone.prompt_embeds(self.prompts), backbone.embed(following)], dim=1),
            "positions": self.positions,
            "sees": Alone(),
            **backbone.deep_features(self.prompts, following.shape[1]),
        }
        ids = self.ids[:, first : last + 1]
        training = backbone.model.training
        backbone.model.eval()
        try:
            with backbone.own_attention():
                traced, scale = trace(
                    backbone, self.prompts, reading, asked, ids, attention_only=attention_only, keep=keep
                )
        finally:
            backbone.model.train(training)
        return asked, traced, scale


@torch.no_grad()
def _read_sequence(
    backbone: Backbone, ids: Tensor, patches: Tensor, grids: Tensor, reasoning: Span, answer: Span
) -> _Sequence:
    """A sequence whose prompt ends before the first token of reasoning and answer."""
    size, start = ids.shape[1], min(reasoning[0], answer[0])
    for name, (first, last) in (("reasoning", reasoning), ("answer", answer)):
        if not 1 <= first <= last < size:
            raise ValueError(f"{name} ({first}, {last}) is no span of tokens within 1 .. {size - 1}")
    is_image = backbone.is_image(ids) & (torch.arange(size, device=ids.device) < start)
    positions = mrope_positions(is_image.cpu(), [size], grids, backbone.merge).to(ids.device)
    visual = (torch.cat(backbone.features(patches, grids)),)
    prompt = ids[:, :start]
    mask = torch.ones_like(prompt, dtype=torch.bool)
    prompts = FastPrompts(prompt, mask, positions[:, :, :start], positions[0, :, start - 1] + 1, visual, (start,))
    return _Sequence(backbone, prompts, ids, positions)


def _shrinking(backbone: Backbone, traced: Traced, asked: Asked, scale: Tensor) -> Tensor:
    """rms(c) / sqrt(rms(c)^2 + eps) of the contribution vectors c: (1, A, L)."""
    factors = []
    for a in range(asked.tokens.shape[1]):
        total: Any = 0.0
        for layer, (weights, values) in enumerate(traced.layers):
            seen = (weights[0, :, 0, :, a, :, None] * values[0, :, None]).flatten(0, 1)  # (H, L, D)
            out = backbone.out_projections[layer]
            total = total + out(seen.transpose(0, 1).flatten(1).to(next(out.parameters()).dtype)).to(weights.dtype)
        square = total.square().mean(-1)
        factors.append((square / (square + _EPS)).sqrt())
    return torch.stack(factors)[None]
