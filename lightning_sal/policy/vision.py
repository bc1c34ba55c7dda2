"""The vision tower of Qwen2.5-VL without detours: all windows of one size in one call, patches as rows of a matrix."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def batch_windows(model: Any) -> None:
    """Put `BatchedWindows` in place of the attention of each vision block; same weights under the same names."""
    for block in model.model.visual.blocks:
        block.attn = BatchedWindows(block.attn)


def flatten_patches(model: Any) -> None:
    """Put `FlatPatches` in place of the patch embedding; same weights under the same names."""
    model.model.visual.patch_embed = FlatPatches(model.model.visual.patch_embed)


class FlatPatches(nn.Module):
    """The patch embedding as a matrix product: its convolution sees each patch once, and 3-D convolutions are slow.

    Args:
        embedding: The tower's own, whose convolution is taken over.
    """

    def __init__(self, embedding: Any) -> None:
        super().__init__()
        self.proj = embedding.proj

    def forward(self, patches: Tensor) -> Tensor:
        """(S, 3 x 2 x 14 x 14) pixels of each patch -> (S, C)."""
        weight = self.proj.weight.flatten(1)
        return F.linear(patches.to(weight.dtype), weight, self.proj.bias)


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
