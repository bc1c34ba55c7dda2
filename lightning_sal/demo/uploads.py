"""What people upload, bounded before it is decoded: a line for whatever cannot be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from lightning_sal.datasets.decoding import FORMATS, TooManyPixels, UnreadableSample
from lightning_sal.datasets.images import read_image, read_size
from lightning_sal.demo.bounds import Bounds
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import get_task

MEBIBYTE = 2**20
THUMBNAIL = 176  # pixels of its longer side


def read_upload(path: str, bounds: Bounds) -> Tensor:
    """A photograph as it is displayed; its size is read from the header before it is decoded.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: It cannot be used; the message names the file without its folder, and says why.
    """
    file = Path(path)
    if file.stat().st_size > bounds.megabytes * MEBIBYTE:
        raise ValueError(f"{file.name} is larger than the {bounds.megabytes} MB that this page takes.")
    megapixels = min(bounds.megapixels, (Image.MAX_IMAGE_PIXELS or 10**9) // 10**6)
    if _pixels(file) > megapixels * 10**6:
        raise ValueError(f"{file.name} has more than the {megapixels} million pixels that this page takes.")
    try:
        return read_image(path)
    except UnreadableSample as error:
        raise ValueError(str(error).replace(path, file.name, 1)) from error


def check_uploads(paths: Sequence[str], bounds: Bounds) -> tuple[dict[str, Image.Image], list[str]]:
    """Sort out which files can be used.

    Returns:
        The path of each file that can -> a small picture of it; and a line for each other.
    """
    pictures: dict[str, Image.Image] = {}
    reasons: list[str] = []
    for path in paths:
        try:
            if len(pictures) == bounds.images:
                raise ValueError(f"{Path(path).name} is one more than the {bounds.images} that one run takes.")
            picture = Image.fromarray(read_upload(path, bounds).numpy())
        except ValueError as error:
            reasons.append(str(error))
        else:
            picture.thumbnail((THUMBNAIL, THUMBNAIL))
            pictures[path] = picture
    return pictures, reasons


def read_groups(paths: Sequence[str], task: str, bounds: Bounds, question: str = "") -> Iterator[ImageGroup]:
    """Read photographs as image groups, each when its turn comes: all in one for CoSOD, each its own for SOD and SIS.

    Args:
        paths: The uploaded files; their names alone get into the groups.
        task: Name of a task.
        bounds: What is taken at most.
        question: What is asked of each, where the task has a question.

    Raises:
        ValueError: At once where there are too few or too many photographs, later where one cannot be used; the message
            is for the page.
    """
    if not paths:
        raise ValueError("There is no photograph yet: drop one, or take an example.")
    several, asks = get_task(task).several, get_task(task).has_question
    if asks and not question.strip():
        raise ValueError("There is no question yet: write what you want to know of the photograph.")
    if several and len(paths) < 2:
        raise ValueError("Co-salient objects are what several photographs share: add at least one more.")
    if len(paths) > bounds.images:
        raise ValueError(f"{len(paths)} photographs are more than the {bounds.images} that one run takes.")
    groups = [paths] if several else [[path] for path in paths]
    return (_read_group(files, task, bounds, question.strip() if asks else "") for files in groups)


def _read_group(paths: Sequence[str], task: str, bounds: Bounds, question: str) -> ImageGroup:
    names = tuple(Path(path).name for path in paths)
    images = tuple(read_upload(path, bounds) for path in paths)
    return ImageGroup(names[0], task, images, paths=names, question=question)


def _pixels(file: Path) -> float:
    """Width times height as the header has it; infinite where Pillow itself takes the file for a bomb."""
    try:
        height, width = read_size(file)
    except TooManyPixels:
        return float("inf")
    except UnreadableSample as error:
        reason = str(error).removeprefix(f"{file}: ")
        raise ValueError(f"{file.name} cannot be read: {reason}; {', '.join(FORMATS)} can.") from error
    return width * height
