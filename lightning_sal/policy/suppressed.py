"""The token ids that a policy never samples."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from lightning_sal.policy.backbone import VISION_TOKENS


def suppressed_ids(tokenizer: Any, config: Any, eos: Collection[int]) -> Tensor:
    """The ids that are never sampled and have probability 0.

    They are the tokenizer's special tokens but those that end a response, what the model takes for an image or a video,
    and the rows of the output layer beyond the tokenizer's last id, which were never trained.

    Args:
        tokenizer: Of the model.
        config: A `Qwen2_5_VLConfig`.
        eos: Ids that end a response.

    Returns:
        (V,) bool, True where an id is suppressed.
    """
    suppressed = torch.zeros(config.text_config.vocab_size, dtype=torch.bool)
    suppressed[[i for i in tokenizer.all_special_ids if i not in eos]] = True
    suppressed[[i for name in VISION_TOKENS if (i := getattr(config, name, None)) is not None]] = True
    suppressed[len(tokenizer) :] = True
    return suppressed
