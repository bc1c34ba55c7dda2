"""Whether rows of padding that see nothing give NaN, in each kernel of attention.

Prompts of unequal length are padded on the left. What padding sees is put right or wrong here whatever the policy does:
with `| eye` a row that sees nothing else sees itself, without it such rows see nothing.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from rows.decoding import graphs
from rows.inputs import groups, mixed, random_policy
from rows.row import Row, Values

KERNELS = {"cuda": ("EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH"), "cpu": ("FLASH_ATTENTION", "MATH")}


def measure(given: Namespace) -> Values:
    """NaN among what attention gives and among the log-probabilities of responses, kernel by kernel."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    policy = random_policy(given)
    heights = [given.height, given.height * 5 // 6]
    size = policy.processor.image_processor.size
    policy.processor.image_processor.size = type(size)(shortest_edge=1, longest_edge=2 * given.pixels)  # as they are
    found: Values = {}
    with torch.no_grad(), mixed(given), graphs(False):
        prompts = policy.encode(groups(given, images=1, heights=heights)[: given.prompts])
        found["prompt tokens"] = " to ".join(str(bound(prompts.lengths)) for bound in (min, max))
        for name in KERNELS[given.device]:
            label = name.split("_")[0].lower()
            with seen_by_padding(itself=given.eye) as counts, sdpa_kernel([getattr(SDPBackend, name)]):
                try:
                    logp = policy.sample(prompts, given.decoded).logp
                except RuntimeError as error:
                    found[f"NaN, {label}"] = f"refused: {str(error).splitlines()[0][:60]}"
                    continue
            if bool(counts["blind"]) is given.eye:
                raise RuntimeError(
                    f"{counts['blind']} rows saw nothing with eye {given.eye}: masks are made in another way"
                )
            found[f"blind rows, {label}"] = counts["blind"]
            found[f"NaN, {label}"] = f"{counts['nan']} in attention, {int(logp.isnan().sum())} in log-probabilities"
    return found


@contextmanager
def seen_by_padding(*, itself: bool) -> Iterator[dict[str, int]]:
    """Inside, padding before a prompt sees itself or nothing; counts rows that see nothing, and NaN in what comes out."""
    import torch
    import torch.nn.functional as F

    attend, counts = F.scaled_dot_product_attention, {"blind": 0, "nan": 0}

    def patched(query: Any, key: Any, value: Any, attn_mask: Any = None, *rest: Any, **options: Any) -> Any:
        if attn_mask is not None and attn_mask.shape[-1] == attn_mask.shape[-2]:
            sees = attn_mask if attn_mask.dtype == torch.bool else attn_mask > torch.finfo(attn_mask.dtype).min / 2
            count = sees.sum(-1)
            # Padding sees at most itself, and so does the first token of a prompt; the row below tells them apart.
            padding = (count <= 1) & (torch.roll(count, -1, -1) <= 1)
            sees = sees & ~padding[..., None]
            if itself:
                sees = sees | padding[..., None] & torch.eye(sees.shape[-1], dtype=torch.bool, device=sees.device)
            counts["blind"] += int((~sees.any(-1)).sum())
            attn_mask = torch.zeros_like(sees, dtype=query.dtype).masked_fill_(~sees, torch.finfo(query.dtype).min)
        out = attend(query, key, value, attn_mask, *rest, **options)
        counts["nan"] += int(out.isnan().sum())
        return out

    with mock.patch.object(F, "scaled_dot_product_attention", patched):
        yield counts


ROWS = [
    Row(f"padding that sees {how}", measure, seconds=16, gigabytes=40, options={"eye": eye})
    for eye, how in ((False, "nothing"), (True, "itself"))
]
