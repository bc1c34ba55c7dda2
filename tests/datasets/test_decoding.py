"""Image files of any origin: read, or refused at once by one line that says what they are."""

import os
import socket
import stat
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lightning_sal.datasets import decoding
from lightning_sal.datasets.decoding import TooManyPixels, UnreadableSample, open_image
from lightning_sal.datasets.images import read_image, read_instances_png, read_mask, read_orientation
from tests.demo.parts import png

GREEN = np.full((9, 12, 3), (30, 200, 60), np.uint8)


def with_chunk(path: Path, kind: bytes, content: bytes) -> Path:
    """A PNG with one more chunk behind its header."""
    data = path.read_bytes()
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    path.write_bytes(data[:33] + chunk + data[33:])
    return path


@pytest.mark.parametrize("suffix", ["avif", "bmp", "gif", "jp2", "jfif", "jpg", "mpo", "png", "ppm", "tif", "webp"])
def test_whatever_pillow_opens_by_itself_is_read(save, suffix):
    if f".{suffix}" not in decoding.SUFFIXES:
        pytest.skip(f"this Pillow is built without {suffix}")
    lossless = {"webp": {"lossless": True}, "avif": {"quality": 100}}.get(suffix, {})
    image = read_image(save(f"a.{suffix}", GREEN, **lossless)).numpy()
    assert image.shape == (9, 12, 3)
    assert np.abs(image.astype(int) - GREEN).max() <= 3  # what JPEG and AVIF lose of one colour


def test_the_first_picture_of_an_animation_is_read(save):
    others = [Image.fromarray(GREEN // 2)]
    image = read_image(save("a.gif", Image.fromarray(GREEN), save_all=True, append_images=others)).numpy()
    assert np.abs(image.astype(int) - GREEN).max() <= 3


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"tEXt", b"workflow\0" + b"x" * 3_000_000),
        (b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 3_000_000)),
        (b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(b"x" * 3_000_000)),
        (b"iCCP", b"profile\0\0" + zlib.compress(b"x" * 3_000_000)),
    ],
)
def test_a_png_with_a_long_text_or_profile_is_read(save, kind, content):
    assert np.array_equal(read_image(with_chunk(save("a.png", GREEN), kind, content)).numpy(), GREEN)


def test_a_text_that_unpacks_to_more_than_all_texts_may_is_refused(save, monkeypatch):
    limit = PngImagePlugin.MAX_TEXT_MEMORY
    assert limit <= 2**26
    bomb = zlib.compress(b"x" * (limit + 1), 9)
    assert len(bomb) < limit / 500
    with pytest.raises(UnreadableSample, match=r"a\.png: "):
        read_image(with_chunk(save("a.png", GREEN), b"zTXt", b"bomb\0\0" + bomb))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC, which is read once pillow-heif is installed"),
        ("a.jpg", b"\0\0\0\x18ftypheix\0\0\0\0mif1heic", "HEIC, which is read once pillow-heif is installed"),
        ("a.jxl", b"\xff\x0a\xfa\x1f", "JPEG XL, which is not read: save it as JPEG or PNG"),
        ("a.psd", b"8BPS\0\1", "a Photoshop document, which is not read"),
        ("a.tga", b"\0\0\2" + bytes(15), r"\.tga is not read here: save it as JPEG or PNG"),
        ("a.jpg", b"<!DOCTYPE html><html>", "text .HTML, XML or SVG., not an image"),
        ("a.png", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS, .*`git lfs pull`"),
        ("a.png", b"hello", "not an image, or cut off in its header"),
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
)
def test_what_is_not_read_is_told_by_what_it_is(tmp_path, name, content, reason, monkeypatch):
    monkeypatch.setattr(decoding, "FORMATS", tuple(name for name in decoding.FORMATS if name != "HEIF"))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableSample, match=rf"^{tmp_path / name}: {reason}") as error:
        read_image(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_raw_photograph_is_refused_and_not_read_as_the_thumbnail_in_it(save):
    path = save("a.tif", GREEN).rename(save("a.tif", GREEN).with_suffix(".NEF"))
    with pytest.raises(UnreadableSample, match=r"a\.NEF: a raw photograph, which is not read"):
        read_image(path)


def special_file(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / "a.png"
    match kind:
        case "a pipe":
            os.mkfifo(path)
        case "a socket":
            socket.socket(socket.AF_UNIX).bind(str(path.relative_to(Path.cwd())))
        case "a folder":
            path.mkdir()
        case "a device":
            path.symlink_to("/dev/zero")
    return path


@pytest.mark.parametrize("read", [read_image, read_mask, read_instances_png, read_orientation, open_image])
@pytest.mark.parametrize("kind", ["a pipe", "a socket", "a folder", "a device"])
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch, kind, read):
    monkeypatch.chdir(tmp_path)
    path = special_file(tmp_path, kind)
    raised: list[UnreadableSample] = []

    def reading() -> None:
        try:
            read(path)
        except UnreadableSample as error:
            raised.append(error)

    thread = threading.Thread(target=reading, daemon=True)
    thread.start()
    thread.join(20)  # a pipe without a writer would never let go
    assert [str(error) for error in raised] == [f"{path}: {kind}, not a file"]
    assert not stat.S_ISREG(path.stat().st_mode)


def test_a_file_that_states_too_many_pixels_is_refused_before_any_is_made(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png(60_000, 60_000))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    for read in (read_image, read_mask, read_instances_png):
        with pytest.raises(TooManyPixels, match=r"a\.png: .*3600000000 pixels"):
            read(path)


def test_heic_is_read_and_turned_where_its_plugin_is_installed(save):
    pytest.importorskip("pillow_heif", reason="HEIC is read by pillow-heif, which is not installed")
    open_image(save("a.png", GREEN)).close()  # registers the plugin, which writes the file below
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save("a.heic", np.full((64, 48, 3), (30, 200, 60), np.uint8), exif=exif.tobytes(), quality=95)
    image = read_image(path).numpy().astype(int)
    assert image.shape == (48, 64, 3)
    assert np.abs(image - (30, 200, 60)).max() <= 3
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UnreadableSample, match=r"a\.heic: "):
        read_image(path)
