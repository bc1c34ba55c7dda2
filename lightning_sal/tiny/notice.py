"""The line that goes with the embedded models wherever they meet photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_sal.files.reading import read_object
from lightning_sal.paths import Paths
from lightning_sal.tiny.weights import EMBEDDED_POLICIES

EXAMPLES = Path(__file__).parent / "examples"
"""Drawn scenes that the package ships, a folder a task."""
_SCRATCH = "-scratch"


def notice(model: str, segmenter: str | None = None) -> str | None:
    """What to know before predictions of an embedded model on photographs are believed: one line, or None for other models.

    The embedded ones have seen drawn scenes alone; what was trained or exported from one of them is small and drawn still.

    Args:
        model: As `lightning_sal.Predictor.load` takes it: a name, a folder, a checkpoint file or a folder of adapters.
        segmenter: The same for the segmenter; None and an empty text are the embedded ones.
    """
    real = Paths()
    small = is_embedded(model)
    if small and not segmenter:
        known, others = "models", f"{real.policy} and {real.segmenter}"
    elif small:
        known, others = "model", real.policy
    elif not segmenter:
        known, others = "segmenter", real.segmenter
    else:
        return None
    return f"Embedded {known}, trained on drawn scenes only: for photographs use {others}"


def is_embedded(model: str) -> bool:
    """Whether a policy is one of the embedded ones, or was trained or exported from one.

    Args:
        model: See `notice`. What cannot be read counts as another model: it is refused where it is loaded.
    """
    path = Path(model)
    if model in EMBEDDED_POLICIES or model.endswith(_SCRATCH) or path in EMBEDDED_POLICIES.values():
        return True
    try:
        if path.is_file():
            return is_embedded(str(_checkpoint(path).get("model", "")))
        if (adapters := path / "adapter_config.json").is_file():
            return is_embedded(str(read_object(adapters).get("base_model_name_or_path")))
        return (path / "config.json").is_file() and _vocabulary(path) in map(_vocabulary, EMBEDDED_POLICIES.values())
    except (OSError, ValueError):
        return False


def is_drawn(file: str | Path) -> bool:
    """Whether an image is one of the drawn scenes that the package ships, which need no notice."""
    return Path(file).absolute().is_relative_to(EXAMPLES)


def _vocabulary(folder: Path) -> tuple[Any, Any]:
    """Size of the vocabulary and id of the image token: an export keeps both, and no model of real size has so few."""
    config = read_object(folder / "config.json")
    text = config.get("text_config")
    return (text if isinstance(text, dict) else {}).get("vocab_size"), config.get("image_token_id")


def _checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint of `lightning fit` says of its policy."""
    from lightning_sal.files.loading import read_tensors

    content = read_tensors(path, mmap=True)
    policy = content.get("policy") if isinstance(content, dict) else None
    return policy if isinstance(policy, dict) else {}
