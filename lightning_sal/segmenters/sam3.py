"""SAM 3: a short noun phrase to masks, by transformers' `Sam3Model`.

Legend: B images of size H x W, N pairs of an image and a phrase, P distinct phrases, L = 32 text tokens, Q object queries,
C channels, h x w the grid of SAM 3's masks.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lightning_sal.internals.resizing import resize_bytes
from lightning_sal.samples import InstancePhrase
from lightning_sal.segmenters.base import Found
from lightning_sal.segmenters.batching import evaluating, find_distinct, stacked, views
from lightning_sal.segmenters.sam3_masks import choose_masks
from lightning_sal.segmenters.sam3_weights import KERNELS, load_sam3
from lightning_sal.tasks import SEMANTIC
from lightning_sal.transfer import indices, moved

_TOLD = frozenset(10**power for power in range(12))  # of the phrases that are cut off, those that are told of
Region = Literal["semantic", "instances"]


class _Asked(NamedTuple):
    """What SAM 3 is asked: a phrase, and whether one object is meant."""

    phrase: str
    instance: bool


class _Texts(NamedTuple):
    """Features of P distinct phrases."""

    rows: dict[str, int]
    features: Tensor  # (P, L, C)
    mask: Tensor  # (P, L), 0 on padding


class SAM3(nn.Module):
    r"""Segmentation of what a short noun phrase names.

    SAM 3 gives Q masks with scores $s_q = \sigma(l_q)\,p$, one mask of all that fits the phrase, and the presence score
    $p = \sigma(l)$, how sure it is that the image shows such a thing at all. A phrase that means one object
    (`InstancePhrase`, what `<ins>` holds) takes the mask of the best score; any other one, with `[semantic]` in front or
    without, takes a region. Where p is below `presence_threshold` nothing is found, and the mask is empty. Carion et al.,
    "SAM 3: Segment Anything with Concepts", arXiv:2511.16719. It is frozen.

    Args:
        model: A `Sam3Model` of transformers.
        processor: Its `Sam3Processor`.
        region: What the mask of a region is: `semantic`, the mask of all that fits; or `instances`, the union of the masks
            whose score exceeds `score_threshold`. `semantic` has neither that threshold nor at most Q objects, and
            takes what comes in no pieces, as sky and grass.
        presence_threshold: Least presence score of something that is found, in [0, 1]; 0 finds always.
        score_threshold: For `instances`, in [0, 1].
        max_batch: Most images in one pass of the image encoder, and most pairs of an image and a phrase in one pass of the
            rest.

    Raises:
        ValueError: If one of these values is not allowed.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        region: Region = "semantic",
        presence_threshold: float = 0.5,
        score_threshold: float = 0.5,
        max_batch: int = 8,
    ) -> None:
        super().__init__()
        if region not in ("semantic", "instances"):
            raise ValueError(f"region {region!r} of SAM3 is unknown: use semantic or instances")
        if max_batch < 1:
            raise ValueError(f"max_batch {max_batch} of SAM3 must be at least 1")
        for name, value in (("presence_threshold", presence_threshold), ("score_threshold", score_threshold)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} {value} of SAM3 must be in [0, 1]")
        self.model = model.requires_grad_(False)
        self.processor = processor
        self.region, self.max_batch = region, max_batch
        self.presence_threshold, self.score_threshold = presence_threshold, score_threshold
        self._cut = 0  # phrases that were too long so far

    def segment(self, images: Sequence[Tensor], prompts: Sequence[Sequence[str]]) -> list[Tensor]:
        """One mask an expression, in the frame of its image; evaluation mode, no gradient.

        Args:
            images: B tensors of shape (H, W, 3), uint8 RGB; sizes may differ.
            prompts: For each image its E >= 0 expressions, tags removed; `[semantic]` is not sent to the text encoder.

        Returns:
            B boolean tensors of shape (E, H, W) on the device of the weights, True inside the object.

        Raises:
            ValueError: If an image has another shape or dtype, or there are not as many lists of prompts as images.
        """
        return [found.masks for found in self.segment_with_presence(images, prompts)]

    @torch.no_grad()
    def segment_with_presence(self, images: Sequence[Tensor], prompts: Sequence[Sequence[str]]) -> list[Found]:
        """The masks, as `segment` gives them, with the presence score of each expression, (E,) in float32."""
        asked = [[_asked(prompt) for prompt in of_image] for of_image in prompts]
        with evaluating(self):
            texts = self._encode_phrases({each.phrase for of_image in asked for each in of_image})
            found = find_distinct(self, images, asked, partial(self._find, texts), self.max_batch)
        return [
            Found(
                stacked([mask for mask, _ in of_image], image, self.model.device),
                torch.stack([p for _, p in of_image]) if of_image else torch.zeros(0, device=self.model.device),
            )
            for image, of_image in zip(images, found, strict=True)
        ]

    def _encode_phrases(self, phrases: set[str]) -> _Texts:
        """Features of each phrase, padded as transformers' processor does."""
        rows = {phrase: row for row, phrase in enumerate(sorted(phrases))}
        if not rows:
            return _Texts(rows, torch.empty(0), torch.empty(0))
        tokens = self._tokenize(list(rows))
        ids, mask = (moved(tokens[name], self.model.device) for name in ("input_ids", "attention_mask"))
        parts = zip(ids.split(self.max_batch), mask.split(self.max_batch), strict=True)
        features = [self.model.get_text_features(input_ids=i, attention_mask=m).pooler_output for i, m in parts]
        return _Texts(rows, torch.cat(features), mask)

    def _tokenize(self, phrases: list[str]) -> Any:
        """(P, L) ids and mask; a phrase of more than L tokens loses those before the end token, and is told of."""
        longest = self.model.config.text_config.max_position_embeddings
        for phrase, ids in zip(phrases, self.processor.tokenizer(phrases)["input_ids"], strict=True):
            if len(ids) > longest:
                self._cut += 1
                if self._cut in _TOLD:
                    warnings.warn(
                        f"SAM 3 reads {longest} tokens and {phrase!r} has {len(ids)}: its end is cut off "
                        f"(phrase {self._cut} that is; told of 1, 10, 100, ...)"
                    )
        return self.processor.tokenizer(
            phrases, padding="max_length", max_length=longest, truncation=True, return_tensors="pt"
        )

    def _find(
        self, texts: _Texts, images: list[Tensor], asked: list[list[_Asked]]
    ) -> list[list[tuple[Tensor, Tensor]]]:
        """For each image the mask (H, W) and the presence score of each of its E >= 1 phrases."""
        device = self.model.device
        seen = self.model.get_vision_features(pixel_values=views(images, self._view, device).to(self.model.dtype))
        pairs = [(number, each) for number, of_image in enumerate(asked) for each in of_image]
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in images]
        for start in range(0, len(pairs), self.max_batch):
            part = pairs[start : start + self.max_batch]
            of_phrase = indices([texts.rows[each.phrase] for _, each in part], device)
            outputs = self.model(
                vision_embeds=_of_pairs(seen, indices([number for number, _ in part], device)),
                text_embeds=_Pooled(texts.features.index_select(0, of_phrase)),
                attention_mask=texts.mask.index_select(0, of_phrase),
            )
            sizes = [(images[number].shape[0], images[number].shape[1]) for number, _ in part]
            instances = [each.instance for _, each in part]
            masks = choose_masks(
                outputs, instances, sizes, self.score_threshold if self.region == "instances" else None, self.max_batch
            )
            presence = outputs.presence_logits[:, 0].sigmoid()
            for (number, _), mask, sure in zip(part, masks, presence, strict=True):
                found[number].append((mask & (sure >= self.presence_threshold), sure.float()))
        return found

    def _view(self, images: Tensor) -> Tensor:
        """(b, 3, H, W) uint8 -> (b, 3, S, S) as transformers' processor makes them on a CPU, on any device."""
        processor = self.processor.image_processor
        size = (processor.size["height"], processor.size["width"])
        kernel: Any = KERNELS[processor.resample]
        squashed = resize_bytes(images, size, kernel, antialias=True)
        made = processor(
            list(squashed),
            do_resize=False,
            input_data_format="channels_first",
            device=images.device,
            return_tensors="pt",
        )
        return made["pixel_values"]

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path = "facebook/sam3",
        dtype: torch.dtype = torch.float32,
        region: Region = "semantic",
        presence_threshold: float = 0.5,
        score_threshold: float = 0.5,
        max_batch: int = 8,
    ) -> SAM3:
        """A segmenter in evaluation mode, from published weights or a folder that transformers wrote.

        Args:
            source: A name on the hub, as "facebook/sam3", or a folder with the files that it has there: a `sam3`, or a
                `sam3_video`, of which the part for images is taken. Weights are read from safetensors alone.
            dtype: Of the weights.
            region: As of the class, and so are the rest.
            presence_threshold: Least presence score of something that is found.
            score_threshold: Least score of an instance in a region of `instances`.
            max_batch: Most images, and most pairs of an image and a phrase, in one forward pass.

        Raises:
            FileNotFoundError: If there is no such folder, or the hub does not give it.
            ValueError: If it is of another model, or its files are damaged, lack weights, or hold NaN.
        """
        model, processor = load_sam3(source, dtype)
        return cls(model, processor, region, presence_threshold, score_threshold, max_batch).eval()


class _Pooled(NamedTuple):
    """Features of phrases in the form in which `Sam3Model` reads them again."""

    pooler_output: Tensor


def _asked(prompt: str) -> _Asked:
    return _Asked(" ".join(prompt.replace(SEMANTIC, " ").split()), isinstance(prompt, InstancePhrase))


def _of_pairs(seen: Any, image: Tensor) -> Any:
    """What SAM 3 reads of the images of N pairs.

    It leaves out the coarsest level, and of the levels' positions, which are the same for all images, it reads the last:
    the rest is not copied, half of the memory.

    Args:
        seen: The encoder's features of B images, levels from fine to coarse.
        image: (N,) the image of each pair, in [0, B).
    """
    levels = [level.index_select(0, image) for level in seen.fpn_hidden_states[:-1]]
    positions = seen.fpn_position_encoding[-2][:1].expand_as(levels[-1])
    unread = levels[-1]
    return type(seen)(fpn_hidden_states=(*levels, unread), fpn_position_encoding=(positions, unread))
