"""What others wrote, read without trusting it: where it is damaged or odd, one line names it and says what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile
from zlib import error as CompressionError

import torch
from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# What a library raises that is given other values than it expects: most check few of them.
ODD_VALUES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TemplateError,
    TypeError,
    ValueError,
    re.error,
)


@contextmanager
def built_from(source: str) -> Iterator[None]:
    """Inside, only a library builds something from a user's file or folder, and what it raises is one line that names it.

    Args:
        source: What it is built from, in words.

    Raises:
        ValueError: In place of the library's own error, which is its cause.
    """
    try:
        yield
    except ODD_VALUES as error:
        text = " ".join(str(error).split())
        if isinstance(error, ValueError) and source in text:
            raise
        kind = "" if isinstance(error, ValueError) and text else f"{type(error).__name__}: "
        raise ValueError(f"{source} cannot be built: {kind}{text}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a .safetensors file.

    Raises:
        ValueError: If it is no such file, or only the beginning of one.
    """
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is damaged, or only the beginning of a .safetensors file; copy or download it again: {error}"
        ) from error


def is_whole(path: Path) -> bool:
    """Whether a file of `torch.save` can be read to its end, and reads as it was written: its checksums are computed."""
    try:
        with ZipFile(path) as archive:
            return archive.testzip() is None
    except (BadZipFile, EOFError, NotImplementedError, CompressionError, ValueError, RuntimeError):
        return False


def read_tensors(
    path: Path, what: str = "checkpoint of tensors and plain values", *, mmap: bool = False, checked: bool = False
) -> Any:
    """What torch has saved in a file, which holds tensors and plain values alone.

    Args:
        path: The file.
        what: What it should be, for the error.
        mmap: Whether tensors stay in the file until they are read.
        checked: Whether `is_whole` has been asked.

    Raises:
        ValueError: If it holds anything else, is damaged, or only the beginning of one.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and is_zipfile(path))
    except (EOFError, OSError, UnpicklingError, *ODD_VALUES) as error:  # of the bytes of any file
        if isinstance(error, OSError) and error.filename is not None:  # it cannot be opened
            raise
        refused = isinstance(error, UnpicklingError) and is_whole(path)
        found = f"is not a {what}, or only the beginning of one, or damaged"
        if refused:
            found = "holds more than tensors and plain values, and is not read, since that could be code"
        raise ValueError(f"{path} {found}") from error
    if not checked and is_zipfile(path) and not is_whole(path):  # torch itself looks at few of the checksums
        raise ValueError(f"{path} is damaged: its checksums are not those of what it holds; take another one")
    return content


def refuse_non_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """Check that there is no NaN and no infinity among weights.

    Args:
        weights: Name -> tensor; those without numbers of their own (on the meta device, in shards) are passed over.
        source: What holds them, for the error.

    Raises:
        ValueError: If there is; the line names the first.
    """
    for name, weight in weights.items():
        if weight.is_floating_point() and weight.numel() and weight.device.type != "meta":
            low, high = weight.detach().aminmax()  # one pass, which NaN comes through
            if not (low.isfinite() and high.isfinite()):
                raise ValueError(
                    f"{source}: {name} holds NaN or infinity, of which no answer comes; take a checkpoint of before that"
                )
