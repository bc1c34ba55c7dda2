"""Encode prompts: chats become token ids, images go through the vision tower once.

Legend: P prompts, C hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lightning_sal.policy.backbone import Backbone
from lightning_sal.policy.chat import chat_text
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.features import FeatureCache, ImageFeatures, arithmetic, vision_fingerprint
from lightning_sal.policy.images import patches
from lightning_sal.policy.positions import mrope_positions
from lightning_sal.policy.prompts import FastPrompts
from lightning_sal.samples import Message
from lightning_sal.transfer import moved


class PromptEncoder:
    """Makes prompts of images and chats.

    Args:
        backbone: Whose prompts they are.
        processor: Its processor.
        config: Limits, and where features of images are kept.
    """

    def __init__(self, backbone: Backbone, processor: Any, config: PolicyConfig) -> None:
        self.backbone, self.processor, self.config = backbone, processor, config

    def encode(
        self,
        images: Sequence[Sequence[Tensor]],
        chats: Sequence[Sequence[Message]],
        names: Sequence[str],
        device: torch.device,
    ) -> FastPrompts:
        """Prompts of P conversations on a device: see `Policy.encode_chats`."""
        flat = [image for shown in images for image in shown]
        cache = self._feature_cache()
        keys = [str(id(image)) if cache is None else cache.key(image) for image in flat]
        seen = {} if cache is None else {key: kept for key in set(keys) if (kept := cache.read(key))}
        new = {key: image for key, image in zip(keys, flat, strict=True) if key not in seen}
        grids, on = {key: kept.grid for key, kept in seen.items()}, device
        if new:
            pixels, new_grids = patches(list(new.values()), self.processor.image_processor, on)
            grids |= zip(new, new_grids, strict=True)
        grid = torch.stack([grids[key] for key in keys]) if keys else torch.empty(0, 3, dtype=torch.long)
        inputs = self._tokenized(chats, names, grid.split([len(shown) for shown in images]))
        mask = inputs["attention_mask"].bool()
        for name, length in zip(names, mask.sum(1).tolist(), strict=True):
            if length > self.config.max_prompt_tokens:
                raise ValueError(
                    f"{name}: the prompt has {length} tokens, more than max_prompt_tokens "
                    f"{self.config.max_prompt_tokens}: lower max_pixels or the group size, or raise the limit"
                )
        lengths = tuple(mask.sum(1).tolist())
        positions = mrope_positions(self.backbone.is_image(inputs["input_ids"]), lengths, grid, self.backbone.merge)
        following = positions.amax(dim=(0, 2)) + 1
        if new:
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.train_vision):
                found = self.backbone.features(pixels, new_grids)
            for key, features in zip(new, found, strict=True):
                seen[key] = ImageFeatures(features, grids[key])
                if cache is not None:
                    cache.write(key, seen[key])
        per_image = iter([moved(seen[key].features, on) for key in keys])
        widths = [kept.features.shape[1] for kept in seen.values()] or [self.backbone.width]
        no_image = torch.empty(0, widths[0], device=on)
        visual = tuple(torch.cat([next(per_image) for _ in shown]) if shown else no_image for shown in images)
        ids, mask, positions, following = (moved(x, on) for x in (inputs["input_ids"], mask, positions, following))
        return FastPrompts(ids, mask, positions, following, visual, lengths)

    def _tokenized(self, chats: Sequence[Sequence[Message]], names: Sequence[str], grids: Sequence[Tensor]) -> Any:
        """Ids and mask of the prompts, each image's placeholder as often as the image has visual tokens.

        The processor would do it too, but only together with resizing all images, those whose features are known as well.
        """
        placeholder, texts = self.processor.image_token, []
        for messages, name, grid in zip(chats, names, grids, strict=True):
            first, *rest = chat_text(self.processor, messages).split(placeholder)
            if len(rest) != len(grid):
                raise ValueError(f"{name}: the text of the prompt holds {placeholder}, which stands for an image alone")
            counts = (grid.prod(1) // self.backbone.merge**2).tolist()
            parts = zip(counts, rest, strict=True)
            texts.append(first + "".join(placeholder * count + text for count, text in parts))
        return self.processor.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")

    def _feature_cache(self) -> FeatureCache | None:
        if self.config.feature_cache is None:
            return None
        now = arithmetic(next(self.backbone.vision.parameters()))
        return FeatureCache(self.config.feature_cache, f"{self._vision_fingerprint}, {now}")

    @cached_property
    def _vision_fingerprint(self) -> str:
        vision = self.backbone.vision
        return vision_fingerprint(vision, vision.config, self.processor.image_processor, self.config.attention)
