"""What people upload: bounded before it is decoded, and a line for whatever cannot be used."""

import re
import warnings

import pytest
import torch
from PIL import Image, PngImagePlugin

from lightning_sal.demo.bounds import Bounds
from lightning_sal.demo.uploads import check_uploads, read_groups, read_upload
from tests.demo.parts import png

BOUNDS = Bounds(megabytes=1, images=3, megapixels=2)


@pytest.fixture
def photograph(tmp_path):
    """Name, size and colour -> the path of a photograph."""

    def write(name="a.png", size=(6, 4), colour=(200, 100, 50)):
        Image.new("RGB", size, colour).save(tmp_path / name)
        return str(tmp_path / name)

    return write


def write(path, content):
    path.write_bytes(content)
    return str(path)


def test_a_photograph_is_read_as_it_is_displayed(tmp_path):
    pixels = Image.new("RGB", (6, 4), (10, 20, 30))
    exif = pixels.getexif()
    exif[0x0112] = 6  # a quarter turn
    pixels.save(tmp_path / "turned.png", exif=exif)
    found = read_upload(str(tmp_path / "turned.png"), BOUNDS)
    assert found.dtype == torch.uint8
    assert found.shape == (6, 4, 3)
    assert (found == torch.tensor([10, 20, 30])).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.png", b"hello", "text.png cannot be read: not an image, or cut off in its header; AVIF, BMP, "),
        ("empty.jpg", b"", "empty.jpg cannot be read: not an image, or cut off"),
        ("script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "script.png cannot be read: "),
        ("large.png", b"\0" * (2**20 + 1), "large.png is larger than the 1 MB that this page takes."),
        ("huge.png", png(20_000, 20_000), "huge.png has more than the 2 million pixels that this page takes."),
        ("wide.png", png(20_000, 101), "wide.png has more than the 2 million pixels that this page takes."),
        ("bomb.png", png(60_000, 60_000), "bomb.png has more than the 2 million pixels that this page takes."),
        ("cut.png", png(20, 20), "cut.png: "),
    ],
)
def test_each_bad_file_is_told_by_its_name_and_reason(name, content, message, tmp_path):
    path = write(tmp_path / name, content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=f"^{re.escape(message)}") as raised:
            read_upload(path, BOUNDS)
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize("kind", ["text", "profile"])
def test_a_photograph_with_a_long_text_or_colour_profile_is_read(kind, tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * 2_000_000, zip=True)
    options = {"pnginfo": text} if kind == "text" else {"icc_profile": b"x" * 2_000_000}
    Image.new("RGB", (6, 4), (10, 20, 30)).save(tmp_path / "a.png", **options)
    assert read_upload(str(tmp_path / "a.png"), BOUNDS)[0, 0].tolist() == [10, 20, 30]


def test_a_photograph_of_a_format_that_is_not_read_is_told_by_its_name(tmp_path):
    path = write(tmp_path / "IMG_1.jpg", b"\xff\x0a\xfa")
    with pytest.raises(
        ValueError, match=r"^IMG_1\.jpg cannot be read: JPEG XL, which is not read: save it as JPEG or PNG"
    ):
        read_upload(path, BOUNDS)


def test_no_pixel_is_decoded_of_a_photograph_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="million pixels"):
        read_upload(write(tmp_path / "huge.png", png(2000, 1001)), BOUNDS)


def test_limits_are_inclusive(photograph, tmp_path):
    path = photograph(size=(2000, 1000))
    assert read_upload(path, BOUNDS).shape == (1000, 2000, 3)
    with (tmp_path / "a.png").open("ab") as file:
        file.truncate(2**20)  # what follows the end of a PNG is not read
    assert read_upload(path, BOUNDS).shape == (1000, 2000, 3)


def test_files_that_can_be_used_are_kept_and_each_other_has_its_line(photograph, tmp_path):
    good = [photograph(f"{name}.png", colour=(5, 5, 5), size=(400, 200)) for name in "abcd"]
    bad = write(tmp_path / "text.png", b"hello")
    pictures, reasons = check_uploads([good[0], bad, *good[1:]], BOUNDS)
    assert list(pictures) == good[:3]
    assert [picture.size for picture in pictures.values()] == [(176, 88)] * 3
    assert [reason.split()[0] for reason in reasons] == ["text.png", "d.png"]
    assert reasons[1] == "d.png is one more than the 3 that one run takes."


@pytest.mark.parametrize("task", ["sod", "sis"])
def test_each_photograph_is_its_own_for_sod_and_sis(task, photograph):
    groups = list(read_groups([photograph("a.png"), photograph("b.png", (3, 5))], task, BOUNDS))
    assert [(group.key, group.task, group.paths) for group in groups] == [
        ("a.png", task, ("a.png",)),
        ("b.png", task, ("b.png",)),
    ]
    assert [group.images[0].shape for group in groups] == [(4, 6, 3), (5, 3, 3)]


def test_all_photographs_are_one_group_for_cosod(photograph):
    (group,) = read_groups([photograph("a.png"), photograph("b.png", (3, 5))], "cosod", BOUNDS)
    assert (group.task, group.paths) == ("cosod", ("a.png", "b.png"))
    assert [image.shape for image in group.images] == [(4, 6, 3), (5, 3, 3)]


@pytest.mark.parametrize(
    ("number", "task", "message"),
    [
        (0, "sod", "There is no photograph yet"),
        (0, "cosod", "There is no photograph yet"),
        (1, "cosod", "add at least one more"),
        (4, "sis", "4 photographs are more than the 3 that one run takes"),
    ],
)
def test_numbers_of_photographs_are_checked_before_any_is_read(number, task, message):
    with pytest.raises(ValueError, match=message):
        read_groups(["there is no such file"] * number, task, BOUNDS)


def test_a_question_is_asked_where_the_task_has_one(photograph):
    with pytest.raises(ValueError, match="There is no question yet"):
        read_groups(["there is no such file"], "vqa", BOUNDS, " ")
    paths = [photograph("a.png"), photograph("b.png")]
    assert [group.question for group in read_groups(paths, "vqa", BOUNDS, " What is it? ")] == ["What is it?"] * 2
    assert [group.question for group in read_groups(paths, "sod", BOUNDS, "left from before")] == ["", ""]


@pytest.mark.parametrize("name", ["megabytes", "images", "megapixels", "waiting"])
def test_a_bound_below_one_is_refused(name):
    with pytest.raises(ValueError, match=f"--max-{name} is 0: give 1 or more"):
        Bounds(**{name: 0})
