"""Windowed attention of Qwen2.5-VL's vision tower, all windows of one size in one call."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def batch_windows(model: Any) -> None:
    """Put `BatchedWindows` in place of the attention of each vision block; same weights under the same names."""
    for block in model.model.visual.blocks:
        block.attn = BatchedWindows(block.attn)


class BatchedWindows(nn.Module):
    """Attention within each window, which transformers computes window by window where there is no FlashAttention.

    A photograph of a megapixel has about a hundred windows in each of some thirty blocks, nearly all of one size.

    Legend: S patches, H heads, D width of a head.

    Args:
        attention: The block's own attention, whose layers are taken over.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.qkv, self.proj, self.heads = attention.qkv, attention.proj, attention.num_heads

    def forward(
        self, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: Any
    ) -> Tensor:
        """(S, C) -> (S, C); `cu_seqlens` are the borders of the windows, 0 and S included."""
        from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

        query, key, value = self.qkv(hidden_states).unflatten(1, (3, self.heads, -1)).unbind(1)  # (S, H, D)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        starts, lengths = cu_seqlens[:-1].long(), cu_seqlens.diff().long()
        seen = torch.empty_like(value)
        for length in lengths.unique().tolist():
            places = starts[lengths == length][:, None] + torch.arange(
                length, device=starts.device
            )  # (windows, length)
            q, k, v = (part[places].transpose(1, 2) for part in (query, key, value))
            seen = seen.index_put((places,), F.scaled_dot_product_attention(q, k, v).transpose(1, 2))
        return self.proj(seen.flatten(1))
