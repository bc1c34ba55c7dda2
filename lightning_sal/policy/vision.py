"""Attention of the vision tower: all windows of one size in one call.

transformers computes it window by window where there is no FlashAttention. A photograph of a megapixel has about a hundred
windows in each of some thirty blocks, nearly all of one size. Which patches they hold follows from the sizes of the images,
which are known on the CPU: it is planned there once, so that no block asks the device for it.

Legend: S patches, H heads, D width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_sal.transfer import moved


@dataclass(frozen=True, slots=True)
class Windows:
    """Which patches see one another.

    Args:
        kinds: (windows, patches of each) for each size of window.
        order: (S,) the patches window by window, sizes as in `kinds`; None where they stand so already.
        back: (S,) where each patch is in that order; None likewise.
    """

    kinds: tuple[tuple[int, int], ...]
    order: Tensor | None
    back: Tensor | None

    def attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention within each window: (S, H, D) each -> (S, H, D)."""
        parts = [x if self.order is None else x.index_select(0, self.order) for x in (query, key, value)]
        pieces = zip(*(x.split([count * length for count, length in self.kinds]) for x in parts), strict=True)
        seen = []
        for (count, _), piece in zip(self.kinds, pieces, strict=True):
            q, k, v = (x.unflatten(0, (count, -1)).transpose(1, 2) for x in piece)  # (windows, H, patches, D)
            seen.append(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1))
        joined = torch.cat(seen)
        return joined if self.back is None else joined.index_select(0, self.back)


def plan_windows(borders: Tensor, device: torch.device) -> Windows:
    """Windows that stand one behind the other.

    Args:
        borders: (windows + 1,) where they begin and end, 0 and S included, on the CPU.
        device: Of the patches.
    """
    lengths = borders.diff()
    sizes, counts = lengths.unique(return_counts=True)
    kinds = tuple(zip(counts.tolist(), sizes.tolist(), strict=True))
    order = lengths.repeat_interleave(lengths).argsort(stable=True)
    if len(kinds) == 1 or bool((order.diff() == 1).all()):
        return Windows(kinds, None, None)
    return Windows(kinds, moved(order, device), moved(order.argsort(), device))


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
