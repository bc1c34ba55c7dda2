"""Attention of the vision tower: all windows of one size in one call.

transformers computes it window by window where there is no FlashAttention. A photograph of a megapixel has about a hundred
windows in each of some thirty blocks, nearly all of one size.

Legend: S patches, H heads, D width of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def windowed_attention(query: Tensor, key: Tensor, value: Tensor, borders: Tensor) -> Tensor:
    """Attention within each window.

    Args:
        query: (S, H, D).
        key: (S, H, D).
        value: (S, H, D).
        borders: (windows + 1,) where windows begin and end, 0 and S included.

    Returns:
        (S, H, D).
    """
    starts, lengths = borders[:-1].long(), borders.diff().long()
    seen = torch.empty_like(value)
    for length in lengths.unique().tolist():
        places = starts[lengths == length][:, None] + torch.arange(length, device=starts.device)  # (windows, length)
        q, k, v = (part[places].transpose(1, 2) for part in (query, key, value))
        seen = seen.index_put((places,), F.scaled_dot_product_attention(q, k, v).transpose(1, 2))
    return seen


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding (Su et al. 2021, arXiv:2104.09864) in float32 at least.

    Args:
        states: (S, H, D).
        cos: (S, D), of each patch's angles, its two halves alike.
        sin: (S, D).

    Returns:
        (S, H, D) in the dtype of `states`.
    """
    wide = states.to(torch.promote_types(states.dtype, torch.float32))
    first, second = wide.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (wide * cos[:, None].to(wide.dtype) + turned * sin[:, None].to(wide.dtype)).to(states.dtype)
