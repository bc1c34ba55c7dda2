"""What the host reads from a device and sends to it, so that it seldom waits.

A device works through a queue, and the host runs ahead of it. Whoever reads a number waits until the queue is done, so
numbers are read together. What is sent may wait too, unless it is told not to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def read(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The same tensors on the CPU, detached; those of a device come in one copy, for which the host waits once.

    Of several dtypes, they travel as float64, which holds every float, bool, and whole number up to 2^53 as it is.

    Args:
        tensors: Of any shapes and dtypes, on the CPU or on one device.
    """
    there = [tensor.detach() for tensor in tensors if tensor.device.type != "cpu"]
    if not there:
        return tuple(tensor.detach() for tensor in tensors)
    one = there[0].dtype if len({tensor.dtype for tensor in there}) == 1 else torch.float64
    flat = torch.cat([tensor.flatten().to(one) for tensor in there]).cpu()
    parts = iter(flat.split([tensor.numel() for tensor in there]))
    return tuple(
        tensor.detach() if tensor.device.type == "cpu" else next(parts).view(tensor.shape).to(tensor.dtype)
        for tensor in tensors
    )


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; the host does not wait for what that still does.

    To CUDA it goes by way of pinned memory: a copy from any other has the host wait, but for the smallest.
    """
    if tensor.device.type != "cpu":
        return tensor.to(device)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def indices(numbers: Sequence[int], device: torch.device) -> Tensor:
    """(n,) int64 on a device, to index with: a list would be made into one anew each time, for which the host waits."""
    return moved(torch.tensor(numbers, dtype=torch.int64), device)
