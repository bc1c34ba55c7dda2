"""Opening image files of any origin: which formats are read, and one line where a file is none of them.

Formats are told by what a file holds, not by its name. Only those listed here are ever tried: Pillow hands some of the
others to programs outside.
"""

from __future__ import annotations

import stat
import struct
import warnings
import zlib
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

from PIL import Image, PngImagePlugin, UnidentifiedImageError, features

DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, struct.error,
    zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip

# Pillow refuses a PNG whose text or colour profile unpacks to more than 1 MB, as those of image generators and printers
# do. All texts of a file together are held to 64 MB by Pillow itself.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY

_SUFFIXES = {  # format, as Pillow names it -> suffixes
    "AVIF": (".avif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "JPEG": (".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"),
    "JPEG2000": (".j2k", ".jp2", ".jpf", ".jpx"),
    "PNG": (".apng", ".png"),
    "PPM": (".pbm", ".pgm", ".pnm", ".ppm"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
_BUILT_WITH = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}  # formats that not every Pillow has
# Raw photographs are TIFF to Pillow, which would read the thumbnail in them.
RAW = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf",
     ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)  # fmt: skip
_OTHERS = frozenset({".exr", ".hdr", ".jxl", ".psd", ".tga", ".xcf"})
SAVE_AS = "save it as JPEG or PNG"
NO_IMAGE = "not an image, or cut off in its header"
_HEIF = f"HEIC, which is read once pillow-heif is installed (pip install pillow-heif); or {SAVE_AS}"
_KINDS = (  # from which byte on a file begins so -> what it is; unless it is of a format that is read here
    (4, b"ftypavi", f"AVIF, which this Pillow cannot read: install a newer one, or {SAVE_AS}", "AVIF"),
    (4, b"ftyphe", _HEIF, "HEIF"),
    (4, b"ftypmif1", _HEIF, "HEIF"),
    (4, b"ftypcrx", f"a raw photograph, which is not read: {SAVE_AS}", ""),
    (4, b"JXL ", f"JPEG XL, which is not read: {SAVE_AS}", ""),
    (0, b"\xff\x0a", f"JPEG XL, which is not read: {SAVE_AS}", ""),
    (0, b"8BPS", f"a Photoshop document, which is not read: {SAVE_AS}", ""),
    (0, b"%PDF", f"a PDF, which is not read: {SAVE_AS}", ""),
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the image: run `git lfs pull`", ""),
    (0, b"<", "text (HTML, XML or SVG), not an image", ""),
)


class UnreadableSample(ValueError):
    """A sample that cannot be read; the message is one line with the path and the reason."""


class TooManyPixels(UnreadableSample):
    """An image that is too large to be decoded."""


def _is_there(format: str) -> bool:
    if format == "HEIF":
        return find_spec("pillow_heif") is not None
    return format not in _BUILT_WITH or features.check(_BUILT_WITH[format]) is True


FORMATS = tuple(format for format in _SUFFIXES if _is_there(format))  # that are read here
SUFFIXES = frozenset(suffix for format in FORMATS for suffix in _SUFFIXES[format])
# What people keep photographs in: folders are searched for these too, so that what cannot be read is named.
PICTURES = frozenset(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes) | RAW | _OTHERS


def open_image(path: str | Path, content: bytes | None = None) -> Image.Image:
    """A file of which the header alone has been read; to be used in a `with` statement.

    Args:
        path: The file.
        content: Its bytes, where it lies inside another one; `path` is then its name alone.

    Raises:
        TooManyPixels: It states more pixels than Pillow takes for sound.
        UnreadableSample: It is missing, no file (a pipe, a device, a folder), or of no format that is read.
    """
    try:
        if content is None:
            check_file(path)
        if "HEIF" in FORMATS:
            _register_heif()
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path if content is None else BytesIO(content), formats=FORMATS)
    except DECODER_ERRORS as error:
        raise unreadable(path, error) from error


def check_file(path: str | Path) -> None:
    """Raises OSError where a path is no regular file, which may never end, or block whoever opens it."""
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        raise OSError(f"{kinds.get(stat.S_IFMT(mode), 'a device')}, not a file")
    if Path(path).suffix.lower() in RAW:
        raise OSError(f"a raw photograph, which is not read: {SAVE_AS}")


def unreadable(path: str | Path, error: Exception) -> UnreadableSample:
    """What a decoder raised, in one line with the path."""
    match error:
        case UnreadableSample():
            return error
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return TooManyPixels(f"{path}: {error}")
        case FileNotFoundError():
            reason = "no such file"
        case UnidentifiedImageError():
            reason = _kind(Path(path)) if Path(path).is_file() else NO_IMAGE
        case OSError(strerror=str() as reason):
            pass
        case _:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UnreadableSample(f"{path}: {reason}")


@cache
def _register_heif() -> None:
    from pillow_heif import register_heif_opener  # pyright: ignore[reportMissingImports]

    register_heif_opener()


def _kind(path: Path) -> str:
    """What a file is that is none of the formats, as far as its first bytes or its name tell."""
    with path.open("rb") as file:
        head = file.read(64)
    for start, magic, what, format in _KINDS:
        if head[start:].startswith(magic) and format not in FORMATS:
            return what
    suffix = path.suffix.lower()
    if suffix in PICTURES - SUFFIXES:
        return f"{suffix} is not read here: {SAVE_AS}"
    return NO_IMAGE
