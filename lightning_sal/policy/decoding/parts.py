"""Attention over parts of the keys, merged by log-sum-exp.

A kernel goes through the keys of a prompt one block after the other. Where few prompts have many keys most of a GPU would
wait, so the keys of a prompt are cut into parts that are gone through side by side. With out_i what part i gives and l_i the
logarithm of its sum of exponentials, the whole is sum_i softmax(l)_i out_i (Dao et al. 2023, "Flash-Decoding").

Legend: B prompts or parts of them, K key heads, R queries a key head, N keys, D width of a head.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# (query (B, K, R, D), keys (B, K, N, D), values, additive mask (B, 1 or K, R, N)) -> out (B, K, R, D), log-sum-exp (B, K, R)
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def _on_cpu(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(query, keys, values, attn_mask=mask)


def _on_cuda(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    mask = mask.expand(*query.shape[:3], -1)
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    out, sums, *_ = kernel(query, keys, values, mask, compute_log_sumexp=True)
    return out, sums[..., : query.shape[2]]  # it pads the sums


def by_hand(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Attention and its log-sum-exp as they are defined, in float32 at least."""
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = (query.to(wide) * query.shape[-1] ** -0.5) @ keys.to(wide).transpose(-1, -2) + mask
    sums = scores.logsumexp(dim=-1)
    return ((scores - sums[..., None]).exp() @ values.to(wide)).to(query.dtype), sums


_KERNELS: dict[str, Kernel] = {"cpu": _on_cpu, "cuda": _on_cuda}


def with_log_sum_exp(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Attention (B, K, R, D) and the log-sum-exp (B, K, R) of its scores over sqrt(D), by the kernel of the device.

    Args:
        query: (B, K, R, D).
        keys: (B, K, N, D).
        values: (B, K, N, D).
        mask: (B, 1, 1 or R, N) additive; each query sees a key.
    """
    mask = mask.expand(-1, -1, query.shape[2], -1)
    return _KERNELS.get(query.device.type, by_hand)(query, keys, values, mask)


def merge(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """What parts of the keys give, and their log-sum-exp, as one: (B, K, R, D).

    Args:
        parts: Each of (B, n, K, R, D) and (B, n, K, R), of n parts.
    """
    outs, sums = (torch.cat(each, dim=1) for each in zip(*parts, strict=True))
    weights = sums.softmax(dim=1)[..., None].to(outs.dtype)
    return (outs * weights).sum(dim=1)
