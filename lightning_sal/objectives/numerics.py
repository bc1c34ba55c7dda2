"""Guards that the objectives share."""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(values: Tensor) -> Tensor:
    """The same numbers in float32 at least: half precision cannot hold 1 + 3e-4, nor a sum over many tokens."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def at_least_one(count: Tensor | float) -> Tensor | float:
    """A count that may be divided by: an idle rank or a row without tokens then contributes 0, not NaN."""
    return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)
