"""Attention of responses to the prompt that they share: two attentions, to the prompt and to oneself, that become one.

With scores s, softmax over two sets of keys is a mean of the softmax over each, weighted by their sums of exponentials:

    o = w o_own + (1 - w) o_prompt,   w = exp(m_own) / (exp(m_own) + exp(m_prompt)),   m = log sum exp s

so the prompt's keys are read once for all its responses, and no mask is needed. The backward pass of a flash kernel
computes probabilities again as exp(s - m). Given m and o of both sets together, it gives the exact gradient through each
set alone, as in ring attention (Liu et al. 2023, arXiv:2310.01889).

Legend: P prompts, G responses a prompt, L prompt tokens, T response tokens, S = L + G T, H heads, K key heads, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_aten = torch.ops.aten


def can_merge(query: Tensor) -> bool:
    """Whether a kernel for the device, dtype and width of queries (P, H, S, D) tells its log-sum-exp."""
    if query.device.type == "cpu":
        return query.is_floating_point()
    return query.device.type == "cuda" and _working_dtype(query).itemsize == 2 and query.shape[3] in range(8, 257, 8)


def attend_behind(
    query: Tensor, key: Tensor, value: Tensor, length: int, responses: int, scale: float | None
) -> Tensor:
    """Prompts see themselves, each response its prompt and itself, all causally.

    Args:
        query: (P, H, L + G T, D), or (P, H, 1 + G T, D) from the end of each prompt on.
        key: (P, K, L + G T, D).
        value: (P, K, L + G T, D).
        length: L.
        responses: G.
        scale: What scores are multiplied by; None takes 1 / sqrt(D).

    Returns:
        (P, L + G T, H, D) or (P, 1 + G T, H, D).
    """
    dtype = _working_dtype(query)
    query, key, value = (states.to(dtype) for states in (query, key, value))
    return _Behind.apply(query, key, value, length, responses, scale)  # type: ignore[return-value]


class _Behind(torch.autograd.Function):
    """`attend_behind`; keeps what it is given and what it returns, and two sums a query."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, length: int, responses: int, scale: float | None
    ) -> Tensor:
        asked = query.shape[2] - key.shape[2] + length
        (q, q_own), (k, k_own), (v, v_own) = _two(query, asked), _two(key, length), _two(value, length)
        first, first_sum, *first_rest = _flash(q, k, v, causal=asked == length, scale=scale)
        far, far_sum, *far_rest = _flash(q_own, k, v, causal=False, scale=scale)
        own = (_apart(part, responses) for part in (q_own, k_own, v_own))
        near, near_sum, *near_rest = _flash(*own, causal=True, scale=scale)
        near_sum = _together(near_sum, responses)
        weight = (near_sum - far_sum).sigmoid()[..., None]
        seen = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
        seen[:, :asked] = first.transpose(1, 2)
        far, near = (part.to(weight.dtype) for part in (far, _together(near, responses)))
        seen[:, asked:] = far.lerp(near, weight).transpose(1, 2)
        ctx.save_for_backward(query, key, value, seen, torch.cat([first_sum, far_sum.logaddexp(near_sum)], dim=2))
        ctx.given = asked, length, responses, scale, (first_rest, far_rest, near_rest)
        return seen

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, seen, total = ctx.saved_tensors
        asked, length, responses, scale, (first_rest, far_rest, near_rest) = ctx.given
        given = (grad.transpose(1, 2), query, key, value, seen.transpose(1, 2), total)
        borders = (asked, asked, length, length, asked, asked)
        prompt, behind = zip(*map(_two, given, borders), strict=True)
        far = (*behind[:2], *prompt[2:4], *behind[4:])
        own = (_apart(part, responses) for part in behind)
        slopes = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        (q, q_own), (k, k_own), (v, v_own) = map(_two, slopes, (asked, length, length))
        first_q, first_k, first_v = _flash_backward(prompt, first_rest, causal=asked == length, scale=scale)
        far_q, far_k, far_v = _flash_backward(far, far_rest, causal=False, scale=scale)
        near = _flash_backward(tuple(own), near_rest, causal=True, scale=scale)
        near_q, near_k, near_v = (_together(part, responses) for part in near)
        found = ((q, first_q), (q_own, far_q.add_(near_q)), (k, first_k.add_(far_k)), (k_own, near_k))
        for slope, part in (*found, (v, first_v.add_(far_v)), (v_own, near_v)):
            slope.copy_(part)
        return *slopes, None, None, None


def _working_dtype(states: Tensor) -> torch.dtype:
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype


def _two(states: Tensor, border: int) -> tuple[Tensor, Tensor]:
    """Prompts, and what stands behind them."""
    return states[:, :, :border], states[:, :, border:]


def _apart(states: Tensor, responses: int) -> Tensor:
    """(P, H, G T, ...) -> (P G, H, T, ...)."""
    return states.unflatten(2, (responses, -1)).transpose(1, 2).flatten(0, 1)


def _together(states: Tensor, responses: int) -> Tensor:
    """(P G, H, T, ...) -> (P, H, G T, ...)."""
    return states.unflatten(0, (-1, responses)).transpose(1, 2).flatten(2, 3)


def _flash(query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float | None) -> tuple[Any, ...]:
    """Attention (B, H, N, D), log-sum-exp (B, H, N), and what else the backward pass asks for."""
    if query.device.type == "cpu":
        kernel = _aten._scaled_dot_product_flash_attention_for_cpu
        return kernel(query, key, value, is_causal=causal, scale=scale)
    kernel = _aten._scaled_dot_product_flash_attention
    return kernel(query, key, value, is_causal=causal, scale=scale)[:-1]


def _flash_backward(
    parts: tuple[Tensor, ...], rest: list[Any], *, causal: bool, scale: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value.

    Args:
        parts: Gradient, query, key, value, all that the queries saw, and its log-sum-exp.
        rest: What else `_flash` returned.
        causal: As for `_flash`.
        scale: As for `_flash`.
    """
    *states, total = parts
    given = (*states, total.contiguous())
    if total.device.type == "cpu":
        kernel = _aten._scaled_dot_product_flash_attention_for_cpu_backward
        return kernel(*given, 0.0, causal, scale=scale)
    starts, random = rest[:4], rest[4:]
    return _aten._scaled_dot_product_flash_attention_backward(*given, *starts, 0.0, causal, *random, scale=scale)
