"""Whether padding gives NaN: in each kernel of attention where it sees nothing or itself, and in the policy as it is.

A kernel is asked twice in a row, so that NaN of padding, which is key and value the second time, reaches what is no padding.
"""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from rows.inputs import groups, mixed, random_policy
from rows.row import Row, Values

KERNELS = {"cuda": ("EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH"), "cpu": ("FLASH_ATTENTION", "MATH")}
HEADS, WIDTH = 28, 128  # of a 7B


def kernels(given: Namespace) -> Values:
    """NaN after two layers and in the gradient, of sequences a fifth of which is padding on the left."""
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel

    length = given.tokens * 4
    padding = torch.arange(length, device=given.device) < length // 5
    sees = torch.ones(length, length, dtype=torch.bool, device=given.device).tril() & ~padding
    if given.itself:
        sees = sees | torch.eye(length, dtype=torch.bool, device=given.device)
    least = float("-inf") if given.infinite else torch.finfo(torch.bfloat16).min
    mask = torch.zeros(2, 1, length, length, dtype=torch.bfloat16, device=given.device).masked_fill_(~sees, least)
    found: Values = {"blind rows": int((~sees.any(-1)).sum())}
    for name in KERNELS[given.device]:
        shape = (2, HEADS, length, WIDTH)
        states = torch.randn(shape, dtype=torch.bfloat16, device=given.device, requires_grad=True)
        try:
            with sdpa_kernel([getattr(SDPBackend, name)]):
                first = F.scaled_dot_product_attention(states, states, states, attn_mask=mask)
                second = F.scaled_dot_product_attention(first, first, first, attn_mask=mask)
                second[:, :, ~padding].sum().backward()
        except RuntimeError as error:
            found[name.split("_")[0].lower()] = f"refused: {str(error).splitlines()[0][:60]}"
            continue
        words, gradient = (part[:, :, ~padding] for part in (second, states.grad))
        counts = (int(part.isnan().sum()) for part in (first[:, :, padding], words, gradient))
        found[name.split("_")[0].lower()] = "NaN: {} padding, {} words, {} gradient".format(*counts)
    return found


def policy(given: Namespace) -> Values:
    """What is not finite among log-probabilities behind prompts of unequal length, sampled and scored."""
    import torch

    policy: Any = random_policy(given)
    size = policy.processor.image_processor.size
    policy.processor.image_processor.size = type(size)(shortest_edge=1, longest_edge=2 * given.pixels)  # as they are
    shown = groups(given, images=1, heights=[given.height, given.height * 5 // 6])[: given.prompts]
    with torch.no_grad(), mixed(given):
        prompts = policy.encode(shown)
        rollout = policy.sample(prompts, given.decoded)
        scored = policy.score(prompts, rollout.tokens, rollout.mask)
    if min(prompts.lengths) == max(prompts.lengths):
        raise RuntimeError(f"all prompts have {max(prompts.lengths)} tokens: none was padded")
    return {
        "shortest prompt": min(prompts.lengths),
        "longest": max(prompts.lengths),
        "not finite, sampled": int((~rollout.logp.isfinite()).sum()),
        "not finite, scored": int((~scored.isfinite()).sum()),
        "furthest apart, nats": float((rollout.logp - scored).abs().max()),
    }


def _row(name: str, *, itself: bool, infinite: bool = False) -> Row:
    return Row(f"padding sees {name}", kernels, 6, 8, {"itself": itself, "infinite": infinite})


ROWS = [
    Row("padded prompts", policy, seconds=16, gigabytes=40),
    _row("nothing, by the least number", itself=False),
    _row("nothing, by -inf", itself=False, infinite=True),
    _row("itself", itself=True),
]
