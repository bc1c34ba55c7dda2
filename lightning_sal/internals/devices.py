"""What a GPU needs to be told or handed in a way of its own, in one place for policy and segmenters."""

from __future__ import annotations

import torch
from torch import Tensor


def leave_out_cudnn_attention() -> None:
    """Take cuDNN out of the back ends of `scaled_dot_product_attention`, in this process, from here on.

    It plans anew for each length of the keys, which takes 20 ms and more; with images, texts and responses of all lengths
    no plan comes up often enough to pay. Flash and memory-efficient attention plan nothing. Who wants it all the same says
    `torch.backends.cuda.enable_cudnn_sdp(True)` once models are built, or `torch.nn.attention.sdpa_kernel` around a call.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device, sent without a wait for what the device still does.

    To CUDA it goes by way of pinned memory: from any other, a copy first waits until the device is done.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=tensor.device.type == "cpu")
