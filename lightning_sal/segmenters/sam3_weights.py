"""SAM 3's weights and processor from a folder or the hub, read without trusting what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lightning_sal.files.loading import built_from, refuse_non_finite
from lightning_sal.files.reading import read_object
from lightning_sal.internals.notices import without_bars
from lightning_sal.segmenters.weights import find_folder

FILES = ("*.json", "*.safetensors", "merges.txt")
KERNELS = {2: "bilinear", 3: "bicubic"}  # PIL's number, by which a processor names how it resizes -> the kernel
MODEL_TYPES = ("sam3", "sam3_video")  # of the image model, and of the video model, which has the image model as a part


def load_sam3(source: str | Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """A `Sam3Model` in evaluation mode, and its `Sam3Processor`.

    Args:
        source: A folder or a name on the hub.
        dtype: Of the weights.

    Raises:
        FileNotFoundError: If there is no such folder, one of its files is missing, or the hub does not give it.
        ValueError: If it is of another model, or its files are damaged, lack weights, or hold NaN.
    """
    from transformers import Sam3Config, Sam3Model, Sam3Processor

    folder = find_folder(source, FILES)
    for name in ("config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"segmenter folder {folder} has no {name}: give one with all files of a SAM 3")
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(f"segmenter folder {folder} has no .safetensors: weights are read from nothing else")
    stated = read_object(folder / "config.json")
    if stated.get("model_type") not in MODEL_TYPES:
        raise ValueError(f"{folder / 'config.json'} is not of a SAM 3: give another folder or hub name")
    label = f"segmenter folder {folder}"
    with built_from(label), without_bars():
        processor = Sam3Processor.from_pretrained(folder)
        config = Sam3Config(**stated["detector_config"]) if "detector_config" in stated else Sam3Config(**stated)
        loader: Any = Sam3Model
        model, found = loader.from_pretrained(
            folder, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    if (kernel := processor.image_processor.resample) not in KERNELS:
        known = " and ".join(KERNELS.values())
        raise ValueError(f"{label}: its processor resizes by PIL's kernel {kernel}, and {known} are known here")
    if missing := sorted(found["missing_keys"]):
        raise ValueError(
            f"{label}: its files lack {len(missing)} of the weights that its config.json asks for (first: {missing[0]})"
        )
    refuse_non_finite(dict(model.named_parameters()), label)
    return model.eval(), processor
