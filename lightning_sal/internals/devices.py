"""What a GPU needs to be told once, by policy and segmenters alike."""

from __future__ import annotations

import torch


def leave_out_cudnn_attention() -> None:
    """Take cuDNN out of the back ends of `scaled_dot_product_attention`, in this process, from here on.

    It plans anew for each length of the keys, which takes 20 ms and more; with images, texts and responses of all lengths
    no plan comes up often enough to pay. Flash and memory-efficient attention plan nothing. Who wants it all the same says
    `torch.backends.cuda.enable_cudnn_sdp(True)` once models are built, or `torch.nn.attention.sdpa_kernel` around a call.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)
