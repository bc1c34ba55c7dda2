"""BEiT-3, the encoder that reads an image and an expression together.

Legend: N image-expression pairs, P patches, L text tokens, T = 1 + P + L tokens, C width, S pixels of a side.
Module names are those of the published checkpoints: A holds the weights of image tokens, B those of text tokens.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FIRST_POSITION = 2  # the published position tables leave their first two rows unused


_Way = TypeVar("_Way", bound=nn.Module)


class _Multiway(nn.Module, Generic[_Way]):
    """Two copies of a layer: A for the image tokens, B for the text tokens."""

    def __init__(self, image: _Way, text: _Way) -> None:
        super().__init__()
        self.A, self.B = image, text

    def forward(self, x: Tensor, images: int) -> Tensor:
        return torch.cat([self.A(x[:, :images]), self.B(x[:, images:])], dim=1)


def _linear(inputs: int, outputs: int) -> _Multiway[nn.Linear]:
    return _Multiway(nn.Linear(inputs, outputs), nn.Linear(inputs, outputs))


def _norm(width: int) -> _Multiway[nn.LayerNorm]:
    return _Multiway(nn.LayerNorm(width), nn.LayerNorm(width))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj = _linear(width, width), _linear(width, width)
        self.q_proj, self.out_proj = _linear(width, width), _linear(width, width)
        self.inner_attn_ln = _norm(width)

    def forward(self, x: Tensor, images: int, attend: Tensor) -> Tensor:
        q, k, v = (
            project(x, images).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=attend).transpose(1, 2).flatten(2)
        return self.out_proj(self.inner_attn_ln(x, images), images)


class _FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.ffn_layernorm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        return self.fc2(self.ffn_layernorm(F.gelu(x.float()).type_as(x)))


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = _Attention(width, heads)
        self.self_attn_layer_norm = _norm(width)
        self.ffn = _Multiway(_FeedForward(width, hidden), _FeedForward(width, hidden))
        self.final_layer_norm = _norm(width)

    def forward(self, x: Tensor, images: int, attend: Tensor) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x, images), images, attend)
        return x + self.ffn(self.final_layer_norm(x, images), images)


class _Encoder(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, depth: int, image_tokens: int, positions: int) -> None:
        super().__init__()
        self.embed_positions = _Multiway(
            nn.Embedding(image_tokens + _FIRST_POSITION, width), nn.Embedding(positions, width)
        )
        self.layers = nn.ModuleList(_Layer(width, heads, hidden) for _ in range(depth))
        self.layer_norm = _norm(width)


class _VisionEmbedding(nn.Module):
    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))  # of the pre-training; the checkpoints carry it

    def forward(self, images: Tensor) -> Tensor:
        patches = self.proj(images).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], dim=1)


class BEiT3(nn.Module):
    """Multiway transformer over [class token, patches, text]: pre-norm and sub-norm, every layer fused.

    Wang et al., "Image as a Foreign Language: BEiT Pretraining for All Vision and Vision-Language Tasks",
    arXiv:2208.10442. The defaults are BEiT-3 large as EVF-SAM2 uses it.

    Args:
        image_size: Pixels of a side, a multiple of `patch_size`.
        patch_size: Pixels of a side of a patch.
        vocab_size: Number of token ids.
        width: Width C.
        layers: Number of layers.
        heads: Attention heads, a divisor of `width`.
        hidden: Width of the feed-forward layers.
        positions: Rows of the text's position table, two more than the longest text has tokens.
    """

    def __init__(
        self,
        image_size: int = 224,
        patch_size: int = 16,
        vocab_size: int = 64010,
        width: int = 1024,
        layers: int = 24,
        heads: int = 16,
        hidden: int = 4096,
        positions: int = 1024,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.max_tokens = positions - _FIRST_POSITION
        self.text_embed = nn.Embedding(vocab_size, width)
        self.vision_embed = _VisionEmbedding(patch_size, width)
        image_tokens = 1 + (image_size // patch_size) ** 2
        self.encoder = _Encoder(width, heads, hidden, layers, image_tokens, positions)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=width**-0.5)

    def embed_images(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalised images -> (B, 1 + P, C) tokens, which every expression on the image shares."""
        tokens = self.vision_embed(images)
        return tokens + self.encoder.embed_positions.A.weight[_FIRST_POSITION:][: tokens.shape[1]]

    def encode(self, image_tokens: Tensor, ids: Tensor, padding: Tensor) -> Tensor:
        """Fuse image tokens with expressions.

        Args:
            image_tokens: (N, 1 + P, C) from `embed_images`, one row an expression.
            ids: (N, L) token ids, L at most `max_tokens`.
            padding: (N, L) bool, True where `ids` is padding, which no token attends to.

        Returns:
            (N, 1 + P + L, C); rows of padding have no meaning.
        """
        images = image_tokens.shape[1]
        text = self.text_embed(ids) + self.encoder.embed_positions.B.weight[_FIRST_POSITION:][: ids.shape[1]]
        x = torch.cat([image_tokens, text], dim=1)
        attend = F.pad(~padding, (images, 0), value=True)[:, None, None]
        for layer in self.encoder.layers:
            x = layer(x, images, attend)
        return self.encoder.layer_norm(x, images)

    def forward(self, images: Tensor, ids: Tensor, padding: Tensor) -> Tensor:
        """(N, 3, S, S) images, (N, L) ids, (N, L) padding -> (N, 1 + P + L, C)."""
        return self.encode(self.embed_images(images), ids, padding)
