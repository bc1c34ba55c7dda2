"""A segmenter by its name, as commands take it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_sal.files.code import import_place


def load_segmenter(name: str) -> Any:
    """The segmenter that a user names.

    Args:
        name: Folder or hub name of an EVF-SAM2 or a SAM 3, which take words; a .pt or .safetensors file of SAM2 large, which
            takes boxes and points; or one of your own as FILE.py:NAME or package.module:NAME, a class or a function that is
            called without arguments. That is code, and it is run: name none that you do not trust.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: There is no such name, or the weights do not fit.
    """
    place, _, own = name.rpartition(":")
    if place:
        if not callable(made := getattr(import_place(place), own, None)):
            raise ValueError(f"{place} has no segmenter {own!r}: name a class, or a function without arguments")
        return made()
    if Path(name).suffix in (".pt", ".safetensors"):
        from lightning_sal.segmenters.sam2_prompt import SAM2Prompt

        return SAM2Prompt.from_pretrained(name)
    from lightning_sal.segmenters import sam3_weights
    from lightning_sal.segmenters.weights import model_type

    if model_type(name) in sam3_weights.MODEL_TYPES:
        from lightning_sal.segmenters.sam3 import SAM3

        return SAM3.from_pretrained(name)
    from lightning_sal.segmenters.evf_sam2 import EVFSAM2

    return EVFSAM2.from_pretrained(name)
