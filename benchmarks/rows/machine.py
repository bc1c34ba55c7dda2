"""The machine itself: its GPU, how fast it copies and how fast it multiplies."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from typing import Any

from rows.row import Row, Values


def measure(given: Namespace) -> Values:
    """Name and free memory of the device, the bandwidth of a copy (bytes read and written) and bf16 arithmetic."""
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("no GPU is here that this torch can use")
    square = [torch.randn(given.square, given.square, device=given.device, dtype=torch.bfloat16) for _ in range(2)]
    seconds = seconds_of(lambda: square[0] @ square[1], given.device)
    cuda = given.device == "cuda"
    free, total = torch.cuda.mem_get_info() if cuda else (0, 0)
    return {
        "name": torch.cuda.get_device_name() if cuda else "CPU",
        "torch": torch.__version__,
        "free GB": free / 1e9,
        "GB": total / 1e9,
        "copy TB/s": copy_bandwidth(given) / 1e12,
        "bf16 TFLOP/s": 2 * given.square**3 / seconds / 1e12,
    }


def copy_bandwidth(given: Namespace) -> float:
    """Bytes a second that a copy on the device reads and writes."""
    import torch

    one, other = (torch.empty(given.copied, dtype=torch.uint8, device=given.device) for _ in range(2))
    return 2 * given.copied / seconds_of(lambda: other.copy_(one), given.device)


def seconds_of(run: Callable[[], Any], device: str, times: int = 10) -> float:
    """Mean seconds of so many calls in a row, after three that do not count."""
    from meter import Meter

    meter = Meter(device)
    for _ in range(3):
        run()
    start = meter.now()
    for _ in range(times):
        run()
    return (meter.now() - start) / times


def data_sheet(given: Namespace) -> Any:
    """What `lightning-sal plan` knows of this GPU, None where it knows none of its name."""
    import torch

    from lightning_sal.policy.gpus import GPUS

    name = torch.cuda.get_device_name() if given.device == "cuda" else ""
    known = sorted(GPUS, key=len, reverse=True)  # H100-PCIe before H100
    return next((GPUS[key] for key in known if all(part in name for part in key.split("-"))), None)


ROWS = [Row("machine", measure, seconds=30, gigabytes=12)]
