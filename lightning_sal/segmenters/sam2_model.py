"""SAM2 for single images, built from the configurations that the `sam2` package carries.

Legend: B images, N prompts, P points of a prompt, C channels, h x w the decoder's grid (a quarter of the image fed to
SAM2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_sal.internals.devices import leave_out_cudnn_attention
from lightning_sal.transfer import moved

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
# Parts that follow objects through a video. Published files carry their weights; a single image needs none.
_MEMORY_PARTS = (
    "memory_attention.",
    "memory_encoder.",
    "mask_downsample.",
    "maskmem_tpos_enc",
    "no_mem_pos_enc",
    "no_obj_ptr",
    "no_obj_embed_spatial",
    "obj_ptr_proj.",
    "obj_ptr_tpos_proj.",
)

# What sam2's own builder adds to its YAML for evaluation
_STABILITY = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}


def build_sam2(config: str, overrides: Mapping[str, Any], image_size: int) -> Any:
    """SAM2 for single images from a YAML of the `sam2` package, without touching Hydra's global state.

    Args:
        config: File name of the YAML, as "sam2_hiera_l.yaml".
        overrides: Values by dotted key of that YAML, as {"model.image_encoder.trunk.embed_dim": 32}.
        image_size: Pixels of a side of the square that every image is squashed to.

    Returns:
        A `SAM2Base` without its memory: image encoder, prompt encoder and mask decoder.

    Raises:
        ValueError: If the package has no such YAML, or nothing can be built with these values.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    leave_out_cudnn_attention()
    hydra_in_use = GlobalHydra.instance().is_initialized()
    import sam2

    if not hydra_in_use:  # importing sam2 initialises it, and the application's own initialize() would then fail
        GlobalHydra.instance().clear()
    files = {file.name: file for file in sorted((Path(sam2.__path__[0]) / "configs").rglob("*.yaml"))}
    if config not in files:
        raise ValueError(f"sam2_config '{config}' is not in the sam2 package: use one of {', '.join(sorted(files))}")
    yaml: Any = OmegaConf.load(files[config])
    OmegaConf.update(yaml, "model.sam_mask_decoder_extra_args", _STABILITY, force_add=True)
    for key, value in overrides.items():
        OmegaConf.update(yaml, key, value, force_add=True)
    yaml.model.update(
        image_size=image_size,
        memory_attention=None,
        memory_encoder=None,
        use_obj_ptrs_in_encoder=False,
        fixed_no_obj_ptr=False,
        proj_tpos_enc_in_obj_ptrs=False,
        no_obj_embed_spatial=False,
    )
    OmegaConf.update(yaml, "model.image_encoder.neck.position_encoding.warmup_cache", False, force_add=True)
    try:
        model = instantiate(yaml.model, _convert_="all")
    except HydraException as error:
        raise ValueError(str(error)) from error
    del model.maskmem_tpos_enc, model.no_mem_pos_enc
    model.image_encoder.neck.position_encoding = _NoPositions()
    return model


class _NoPositions(nn.Module):
    """In place of the position codes that only the memory reads: as large as the features, and fetched each time."""

    def forward(self, features: Tensor) -> Tensor:
        return features.new_empty(0)


def without_memory(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The weights under published names, less those of SAM2's memory; SAM2's own names follow `prefix`."""
    left_out = tuple(prefix + part for part in _MEMORY_PARTS)
    return {key: value for key, value in state.items() if not key.startswith(left_out)}


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What SAM2 knows of B images before it is asked for anything.

    Args:
        embedding: (B, C, h / 4, w / 4).
        high_res: (B, C / 8, h, w) and (B, C / 4, h / 2, w / 2).
    """

    embedding: Tensor
    high_res: tuple[Tensor, Tensor]

    def select(self, index: Tensor) -> ImageFeatures:
        """The features of image `index[n]` for each prompt n."""
        fine, middle = self.high_res
        return ImageFeatures(
            self.embedding.index_select(0, index), (fine.index_select(0, index), middle.index_select(0, index))
        )


def normalised(pixels: Tensor, divided_by: float = 1.0) -> Tensor:
    """(B, 3, S, S) pixels in [0, 255 / divided_by] -> what SAM2 sees."""
    mean, std = (moved(torch.tensor(v)[:, None, None] / divided_by, pixels.device) for v in (PIXEL_MEAN, PIXEL_STD))
    return (pixels - mean) / std


def encode_images(sam: Any, pixels: Tensor) -> ImageFeatures:
    """SAM2's features of (B, 3, S, S) normalised images."""
    # The neck adds its top-down path in float32 whatever the dtype of the weights
    fine, middle, coarse = (level.to(pixels.dtype) for level in sam.image_encoder(pixels)["backbone_fpn"])
    high_res = (sam.sam_mask_decoder.conv_s0(fine), sam.sam_mask_decoder.conv_s1(middle))
    return ImageFeatures(coarse + sam.no_mem_embed.view(1, -1, 1, 1), high_res)


def encode_points(sam: Any, coordinates: Tensor, labels: Tensor) -> Tensor:
    """Points as prompts of the decoder, computed in float32 whatever the dtype of the weights.

    Args:
        sam: What `build_sam2` gives.
        coordinates: (N, P, 2) x and y in pixels of the square that SAM2 sees.
        labels: (N, P) 1 foreground, 0 background, 2 and 3 the first and the second corner of a box.

    Returns:
        (N, P + 1, C): SAM2 adds a point that stands for none.
    """
    encoder = sam.sam_prompt_encoder
    weights = {name: value.float() for name, value in encoder.state_dict(keep_vars=True).items()}
    arguments = {"points": (coordinates.float(), labels), "boxes": None, "masks": None}
    with torch.autocast(coordinates.device.type, enabled=False):
        sparse, _ = torch.func.functional_call(encoder, weights, kwargs=arguments)
    return sparse.to(sam.no_mem_embed)


def decode(sam: Any, features: ImageFeatures, prompts: Tensor, *, multimask: bool) -> Tensor:
    """Mask logits of N prompts on the decoder's grid.

    Args:
        sam: What `build_sam2` gives.
        features: Of the image of each prompt.
        prompts: (N, P, C).
        multimask: True takes the best of three masks by predicted IoU, False the single mask, with SAM2's fallback
            where it is unstable.

    Returns:
        (N, h, w) logits, the mask where > 0.
    """
    _, dense = sam.sam_prompt_encoder(points=None, boxes=None, masks=None)
    masks, iou, _, _ = sam.sam_mask_decoder(
        image_embeddings=features.embedding,
        image_pe=_position_code(sam),
        sparse_prompt_embeddings=prompts,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
        repeat_image=False,
        high_res_features=list(features.high_res),
    )
    return masks[torch.arange(len(masks), device=masks.device), iou.argmax(dim=1)]


def _position_code(sam: Any) -> Tensor:
    """(1, C, h / 4, w / 4) position code of the grid, computed in float32 whatever the dtype of the weights."""
    encoder = sam.sam_prompt_encoder
    matrix = {"positional_encoding_gaussian_matrix": encoder.pe_layer.positional_encoding_gaussian_matrix.float()}
    with torch.autocast(sam.no_mem_embed.device.type, enabled=False):
        code = torch.func.functional_call(encoder.pe_layer, matrix, (encoder.image_embedding_size,))
    return code[None].to(sam.no_mem_embed)


def to_image_frames(logits: Tensor, images: Sequence[Tensor], counts: Sequence[int]) -> list[Tensor]:
    """(N, h, w) logits, `counts` of them an image in turn -> (E, H, W) float32 for each image of (H, W, 3)."""
    return [
        F.interpolate(grids[None], image.shape[:2], mode="bilinear", align_corners=False)[0]
        for image, grids in zip(images, logits.float().split(list(counts)), strict=True)
    ]
