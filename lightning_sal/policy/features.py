"""Features of images on disk, so that a frozen vision tower sees an image once, not once an epoch.

Legend: N visual tokens of an image, C hidden size, H x W its pixels.
"""

from __future__ import annotations

import errno
import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

FORMAT = 1  # Of the files and of what the vision tower is shown; raised when either changes, so that older ones rest


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What the vision tower made of one image.

    Args:
        features: (N, C), or more columns as in `Prompts.visual`.
        grid: (3,) patches in time, height and width; their product is N times the square of the merge size.
    """

    features: Tensor
    grid: Tensor


class FeatureCache:
    """A folder with a file an image, `<key>.safetensors`, which several processes and runs may share.

    The key is a SHA-256 of the image's pixels and size and of `fingerprint`, which tells all else that features depend
    on: whoever comes with other weights, sizes or precision finds nothing and adds files of its own. A file is written
    beside its place and moved there whole, so that a killed process leaves at worst a `.part`, which nobody reads. The
    folder only grows; what is in it may be deleted at any time. Nodes may share it, or have one each, as with a relative
    path on disks of their own: what one lacks it computes.

    What it saves, from the second epoch on, is the resizing of an image and the vision tower's forward pass. At 7B size,
    for a megapixel, that pass is 7 of the 48 TFLOP of an SFT step with LoRA (300 response tokens); of an RL step it is
    less, since that spends its time on sampling. Where images never come again, as with endless scenes, the cache only
    fills the disk.

    Args:
        folder: Where the files are; made where it does not exist.
        fingerprint: Of model, processor and arithmetic: see `vision_fingerprint` and `arithmetic`.
    """

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        self.folder, self.fingerprint = Path(folder), fingerprint
        self.folder.mkdir(parents=True, exist_ok=True)

    def key(self, image: Tensor) -> str:
        """Under which the features of an (H, W, 3) image are kept."""
        digest = hashlib.sha256(f"{FORMAT}\n{self.fingerprint}\n".encode())
        _add(digest, image)
        return digest.hexdigest()

    def read(self, key: str) -> ImageFeatures | None:
        """What is kept under a key, on the CPU; None where nothing is, or where a file is damaged, with a warning."""
        path = self._path(key)
        try:
            content = load(path.read_bytes())
            found = ImageFeatures(content["features"], content["grid"])
            if torch.equal(content["sha256"], _checksum(found)):
                return found
            reason = "wrong checksum"
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            return None  # of a network file system, where another node put a file in its place at this moment
        except (SafetensorError, KeyError) as error:
            reason = f"{type(error).__name__}: {error}"
        warnings.warn(f"{path}: damaged ({reason}): its image is encoded anew and the file replaced")
        return None

    def write(self, key: str, found: ImageFeatures) -> None:
        """Keep features. Where two processes do so at once the later file stays; they differ by rounding at most."""
        kept = ImageFeatures(found.features.detach().cpu().contiguous(), found.grid.cpu().contiguous())
        part = self.folder / f"{uuid4().hex}.part"
        try:
            part.write_bytes(save({"features": kept.features, "grid": kept.grid, "sha256": _checksum(kept)}))
            part.replace(self._path(key))
        finally:
            part.unlink(missing_ok=True)  # of a full disk; after the move it is not there

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def vision_fingerprint(vision: nn.Module, *settings: Any) -> str:
    """SHA-256 of a vision tower's weights and buffers and of the settings around it, in hexadecimal.

    Args:
        vision: The tower, on any device.
        *settings: What else changes features, each with a `repr` that says all of it.

    Raises:
        ValueError: If the weights are shards. All processes must then run the tower together, which they would not
            where one finds its images in the cache and another does not.
    """
    if any(type(weight) is not nn.Parameter or not weight.numel() for weight in vision.parameters()):
        raise ValueError(
            "policy.feature_cache needs the whole vision tower in each process, not shards: set it to null"
        )
    digest = hashlib.sha256(repr(settings).encode())
    for name, tensor in (*vision.named_parameters(), *vision.named_buffers()):
        digest.update(name.encode())
        _add(digest, tensor)
    return digest.hexdigest()


def arithmetic(weight: Tensor) -> str:
    """What decides at the moment how products with a weight are rounded: its device and dtype, autocast, TF32, torch."""
    device = weight.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return f"{device} {weight.dtype} {autocast} {torch.get_float32_matmul_precision()} {torch.__version__}"


def _checksum(found: ImageFeatures) -> Tensor:
    digest = hashlib.sha256()
    _add(digest, found.features)
    _add(digest, found.grid)
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def _add(digest: Any, tensor: Tensor) -> None:
    """A tensor's dtype and shape, then its bytes."""
    digest.update(f"\n{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
