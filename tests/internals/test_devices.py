"""What a GPU is told once."""

from __future__ import annotations

import pytest
import torch

from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.segmenters.tiny import EmbeddedSAM2Prompt, embedded_evf_sam2


@pytest.mark.parametrize(
    "make", [lambda: FastPolicy(PolicyConfig("tiny-scratch")), embedded_evf_sam2, EmbeddedSAM2Prompt]
)
def test_what_is_made_attends_without_cudnn_until_told_otherwise(make):
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        made = make()
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        torch.backends.cuda.enable_cudnn_sdp(True)
        made.eval()
        assert torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(False)
