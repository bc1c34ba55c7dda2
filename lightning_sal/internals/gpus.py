"""Whether this machine has a GPU, told without torch, which takes seconds to load."""

from __future__ import annotations

import os
from glob import glob

from lightning_sal.errors import UsageError

_NAMES = ("cuda", "gpu")
# Of Nvidia's driver, of Nvidia's boards without one, of AMD's, and of Linux inside Windows
_FILES = ("/dev/nvidia*", "/dev/nvhost*", "/dev/nvmap", "/dev/kfd", "/dev/dxg")


def without_gpu(name: str) -> str | None:
    """Why a device or accelerator of this name cannot be had here; None where it may be.

    Args:
        name: As torch or Lightning names it: cpu, cuda, cuda:1, gpu.
    """
    if name.partition(":")[0] not in _NAMES:
        return None
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return f"{name}: CUDA_VISIBLE_DEVICES hides every GPU of this machine; cpu works"
    if not any(map(glob, _FILES)):
        return f"{name}: this machine has no GPU; cpu works"
    return None


def device(name: str) -> str:
    """The value of `--device`, refused where it cannot be had; for `argparse`."""
    if why := without_gpu(name):
        raise UsageError(f"--device {why}")
    return name
