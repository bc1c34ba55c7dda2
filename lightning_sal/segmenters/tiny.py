"""The small segmenters for the scenes, by words and by boxes and points: random, and as the package carries them."""

from __future__ import annotations

from typing import Any

import torch

from lightning_sal.segmenters.by_prompt import SegmenterByPrompt
from lightning_sal.segmenters.evf_sam2 import EVFSAM2
from lightning_sal.segmenters.sam2_prompt import SAM2Prompt
from lightning_sal.segmenters.weights import fill, find_file, read_file
from lightning_sal.tiny.scenes import SIZE
from lightning_sal.tiny.weights import WEIGHTS

_WIDTH = 96  # of SAM2's neck and decoder
_PATCHES = 8  # of a side in BEiT-3


def embedded_segmenter() -> SegmenterByPrompt:
    """The small segmenters that the package carries: EVF-SAM2 for words, SAM2 for boxes and points."""
    return SegmenterByPrompt(embedded_evf_sam2(), EmbeddedSAM2Prompt())


def embedded_evf_sam2() -> EVFSAM2:
    """The small EVF-SAM2 that the package carries, in evaluation mode."""
    return EVFSAM2.from_pretrained(WEIGHTS / "segmenter")


class EmbeddedSAM2Prompt(SAM2Prompt):
    """The small SAM2 for boxes and points that the package carries, in evaluation mode."""

    def __init__(self) -> None:
        super().__init__(**_sam2_sizes(), image_size=SIZE, multimask=False, max_batch=64)
        file = find_file(WEIGHTS / "sam2_prompt")
        fill(self.sam2, read_file(file), str(file), torch.float32)
        self.eval()


def tiny_sam2_prompt() -> SAM2Prompt:
    """SAM2 for boxes and points at the sizes of `tiny_evf_sam2`, with random weights."""
    return SAM2Prompt(**_sam2_sizes(), image_size=SIZE, multimask=False, max_batch=64)


def _sam2_sizes() -> dict[str, Any]:
    """112 x 112 images, logits on a 28 x 28 grid."""
    trunk = {
        "embed_dim": 32,
        "num_heads": 1,
        "stages": [1, 2, 3],
        "q_pool": 2,
        "window_spec": [4, 14, 7],  # even before a pooling block, and 28 a multiple of the first
        "window_pos_embed_bkg_spatial_size": [7, 7],
        "global_att_blocks": [4, 5],  # never the first block of a stage, which pools
    }
    neck = {
        "d_model": _WIDTH,
        "backbone_channel_list": [128, 64, 32],  # the trunk's, last stage first
        "fpn_top_down_levels": [1, 2],
        "position_encoding.num_pos_feats": _WIDTH,
    }
    overrides: dict[str, Any] = {"model.image_encoder.scalp": 0}
    overrides |= {f"model.image_encoder.trunk.{key}": value for key, value in trunk.items()}
    overrides |= {f"model.image_encoder.neck.{key}": value for key, value in neck.items()}
    # A single mask trained from scratch is all there is: the other three never get a loss
    overrides["model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability"] = False
    return {"sam2_config": "sam2_hiera_t.yaml", "sam2_overrides": overrides}


def tiny_evf_sam2(tokenizer: Any) -> EVFSAM2:
    """EVF-SAM2 at small sizes: 112 x 112 images, logits on a 28 x 28 grid, 3.1 million random weights.

    Args:
        tokenizer: What `lightning_sal.tiny.segmenter_tokenizer.build_word_tokenizer` gives.
    """
    width = 128
    segmenter = EVFSAM2(
        **_sam2_sizes(),
        beit3={
            "image_size": SIZE,
            "patch_size": SIZE // _PATCHES,
            "vocab_size": len(tokenizer),
            "width": width,
            "layers": 6,
            "heads": 4,
            "hidden": 256,
            "positions": 66,
        },
        hidden_size=width,
        out_dim=_WIDTH,
        image_size=SIZE,
        multimask=False,
        tokenizer=tokenizer,
        max_batch=64,
    )
    table = segmenter.beit3.encoder.embed_positions.A.weight
    with torch.no_grad():  # rows that are alike for near patches: learning what "near" means would come first otherwise
        table[-_PATCHES * _PATCHES :] = _sine_cosine(_PATCHES, width)
    return segmenter


def _sine_cosine(side: int, width: int) -> torch.Tensor:
    """(side^2, width) sines and cosines of column and row at `width / 4` frequencies from 1 down to 1/100."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    frequencies = 100 ** -torch.linspace(0, 1, width // 4)
    angles = [place.reshape(-1, 1) * frequencies for place in (columns, rows)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
