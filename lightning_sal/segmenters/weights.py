"""Where a segmenter's weights come from: folders, files and the hub, read without trusting what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_sal.files.loading import read_safetensors, read_tensors, refuse_non_finite
from lightning_sal.files.reading import read_object
from lightning_sal.internals.hub import is_hub_name, require_hub


def find_folder(source: str | Path, patterns: Sequence[str]) -> Path:
    """The folder of that name, or what of a hub's repository of that name matches the patterns.

    Raises:
        FileNotFoundError: If there is no such folder and the name is none of the hub's, or the hub does not give it.
    """
    folder, name = Path(source), str(source)
    if folder.is_dir():
        return folder
    # What cannot be a hub name, or lies in a folder that is here, is a path that was mistyped.
    if not is_hub_name(name):
        raise FileNotFoundError(f"segmenter '{name}': there is no such folder, and it is no hub name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError

    try:
        require_hub(name)
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except GatedRepoError as error:
        raise FileNotFoundError(
            f"segmenter '{name}': the hub gives it only to those who were granted access: ask for it on the model's page, "
            "then log in by `hf auth login` or set HF_TOKEN"
        ) from error
    except (OSError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(
            f"segmenter '{name}': there is no such folder, and the hub gives none: {reason}"
        ) from error


def find_file(source: str | Path) -> Path:
    """The file of that name, or the one .safetensors or .pt file in the folder of that name.

    Raises:
        FileNotFoundError: If there is no such file, or not exactly one in the folder.
    """
    path = Path(source)
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"segmenter weights {path} are not there: give a .safetensors or .pt file, or a folder")
    found = sorted(file for file in path.iterdir() if file.suffix in (".safetensors", ".pt"))
    if len(found) != 1:
        names = f" ({', '.join(file.name for file in found)})" if found else ""
        raise FileNotFoundError(
            f"segmenter folder {path} has {len(found)} files of weights{names}: name the one to read"
        )
    return found[0]


def read_folder(folder: Path) -> dict[str, Tensor]:
    """The tensors of model.safetensors, or of the shards that model.safetensors.index.json lists.

    Raises:
        FileNotFoundError: If one of these files is missing.
    """
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        placed = read_object(index).get("weight_map")
        if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
            raise ValueError(f"{index}: it has no weight_map that says in which file each weight is")
        names = sorted(set(placed.values()))
    state: dict[str, Tensor] = {}
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"segmenter folder {folder} has no {name}: give a folder with all of its weights")
        state |= read_safetensors(folder / name)
    return state


def read_file(file: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of a PyTorch checkpoint, there under "model" or at the top.

    Raises:
        ValueError: If a checkpoint holds anything else than tensors and plain values.
    """
    if file.suffix == ".safetensors":
        return read_safetensors(file)
    content = read_tensors(file)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(weight, Tensor) for weight in state.values()):
        raise ValueError(f"{file} is no checkpoint of tensors alone: give one, or a .safetensors file")
    return state


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: str, *, assign: bool = False) -> None:
    """Load every tensor to its place.

    Args:
        module: What is filled.
        state: Tensors by key.
        source: Where the tensors are from, for the error.
        assign: Put the tensors themselves into the module, with their dtypes and devices, and not their values.

    Raises:
        ValueError: If a key is missing, unknown or of another shape.
    """
    own = module.state_dict()
    faults = [f"missing {k}" for k in own if k not in state] + [f"unknown {k}" for k in state if k not in own]
    faults += [
        f"{k} is {tuple(state[k].shape)} instead of {tuple(v.shape)}"
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ValueError(f"{source} does not fit this model: {'; '.join(faults[:3])}{more}")
    module.load_state_dict(dict(state), assign=assign)


def fill(module: nn.Module, state: Mapping[str, Tensor], source: str, dtype: torch.dtype) -> None:
    """Give a module that was built without memory its weights: parameters in `dtype`, buffers in float32.

    Raises:
        ValueError: If a key is missing, unknown or of another shape, or a weight is NaN or infinite.
    """
    refuse_non_finite(state, source)
    buffers = {name for name, _ in module.named_buffers()}
    placed = {k: v.to(torch.float32 if k in buffers else dtype) for k, v in state.items()}
    load_strictly(module, placed, source, assign=True)


def model_type(source: str | Path) -> str | None:
    """The `model_type` that config.json states in a folder or in a hub's repository; None where it states none.

    Raises:
        FileNotFoundError: See `find_folder`.
    """
    stated = find_folder(source, ["config.json"]) / "config.json"
    return read_object(stated).get("model_type") if stated.is_file() else None
