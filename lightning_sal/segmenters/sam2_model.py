"""SAM2 for single images, built from the configurations that the `sam2` package carries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
        ValueError: If the package has no such YAML.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

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
    )
    OmegaConf.update(yaml, "model.image_encoder.neck.position_encoding.warmup_cache", False, force_add=True)
    model = instantiate(yaml.model, _convert_="all")
    del model.maskmem_tpos_enc, model.no_mem_pos_enc
    return model
