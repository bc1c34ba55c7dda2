"""The published checkpoints of EVF-SAM2: what their config.json and their tokenizer say of the model.

`evf-sam2` was trained on referring expressions alone and gives a single mask; `evf-sam2-multitask` also knows
`[semantic]`, one added token before the name of a category, and gives the best of three masks. Their config.json is
the same: the tokenizer tells them apart. Images are resized as for the multitask checkpoint; for the other one the
public code rounds at another place, which moves a normalised pixel by 0.006 on average.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_sal.files.loading import built_from
from lightning_sal.tasks import SEMANTIC

FILES = ("*.json", "sentencepiece.bpe.model", "*.safetensors")
MODEL_TYPE = "evf"
SAM_SCALES: dict[str, dict[str, Any]] = {
    "large": {"sam2_config": "sam2_hiera_l.yaml"},
    "tiny": {"sam2_config": "sam2_hiera_t.yaml"},
}
BEIT3_SCALES: dict[str, dict[str, int]] = {
    "large": {"width": 1024, "layers": 24, "heads": 16, "hidden": 4096},
    "base": {"width": 768, "layers": 12, "heads": 12, "hidden": 3072},
}
_SEMANTIC_ID = 64002  # after the 64,000 pieces, the token before them and <mask>


def constructor_arguments(config: Mapping[str, Any], *, semantic: bool) -> dict[str, Any]:
    """Arguments of `EVFSAM2` for a published config.json.

    Args:
        config: The file's content: hidden_size, out_dim, sam_scale and mm_extractor_scale are read.
        semantic: Whether its tokenizer knows `[semantic]`.

    Raises:
        ValueError: If a scale is unknown or a size is not there.
    """
    for key in ("hidden_size", "out_dim"):
        if not isinstance(config.get(key), int):
            raise ValueError(f"the published config.json has {key} = {config.get(key)!r}: it must be a whole number")
    return {
        **_of_scale(SAM_SCALES, config, "sam_scale"),
        "beit3": _of_scale(BEIT3_SCALES, config, "mm_extractor_scale"),
        "hidden_size": config["hidden_size"],
        "out_dim": config["out_dim"],
        "multimask": semantic,
        "semantic": semantic,
    }


def _of_scale(scales: Mapping[str, dict[str, Any]], config: Mapping[str, Any], key: str) -> dict[str, Any]:
    if config.get(key) not in scales:
        raise ValueError(f"the published config.json has {key} = {config.get(key)!r}: known are {', '.join(scales)}")
    return scales[config[key]]


def load_tokenizer(folder: Path) -> tuple[Any, bool]:
    """The tokenizer of a published folder, and whether it knows `[semantic]`.

    Raises:
        FileNotFoundError: If sentencepiece.bpe.model is not there.
    """
    from transformers import XLMRobertaTokenizer

    if not (folder / "sentencepiece.bpe.model").is_file():
        raise FileNotFoundError(f"segmenter folder {folder} has no sentencepiece.bpe.model: the tokenizer is needed")
    with built_from(str(folder / "sentencepiece.bpe.model")):
        tokenizer = XLMRobertaTokenizer.from_pretrained(folder)
    marker = tokenizer.get_added_vocab().get(SEMANTIC)
    if marker not in (None, _SEMANTIC_ID):
        warnings.warn(
            f"segmenter folder {folder} gives {SEMANTIC} the id {marker}, the published one is {_SEMANTIC_ID}: "
            f"check that tokenizer and weights belong together",
            stacklevel=3,
        )
    return tokenizer, marker is not None
