"""Files, folders and patterns as people name them."""

from pathlib import Path

import pytest
from PIL import Image

from lightning_sal.datamodules import PredictDataModule
from lightning_sal.datasets.images import UnreadableSample
from lightning_sal.datasets.photographs import find_groups, read_group

FILES = ("b.jpg", "a.png", "sub/c.JPG", "sub/deep/d.webp", ".hidden/e.png", "sub/.f.png", "notes.txt", "[1].png")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    for name in FILES:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["photos"], ["[1].png", "a.png", "b.jpg", "sub/c.JPG", "sub/deep/d.webp"]),
        (["photos/b.jpg", "photos/a.png"], ["b.jpg", "a.png"]),
        (["photos/a.png", "photos", "./photos/a.png"], ["a.png", "[1].png", "b.jpg", "sub/c.JPG", "sub/deep/d.webp"]),
        (["photos/*.png"], ["[1].png", "a.png"]),
        (["photos/**/*.[jJ][pP][gG]"], ["b.jpg", "sub/c.JPG"]),
        (["photos/[1].png"], ["[1].png"]),
        (["photos/s*"], ["sub/c.JPG", "sub/deep/d.webp"]),
        (["photos/notes.txt"], ["notes.txt"]),  # named outright: reading it will say what it is
    ],
)
def test_each_file_is_a_sample(paths, found):
    assert find_groups(paths, "sod") == [(f"photos/{name}",) for name in found]


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["photos"], [("[1].png", "a.png", "b.jpg"), ("sub/c.JPG",), ("sub/deep/d.webp",)]),
        (["photos/b.jpg", "photos/sub/c.JPG"], [("b.jpg", "sub/c.JPG")]),
        (
            ["photos/sub", "photos/*.png", "photos/b.jpg"],
            [("[1].png", "a.png", "b.jpg"), ("sub/c.JPG",), ("sub/deep/d.webp",)],
        ),
    ],
)  # fmt: skip
def test_each_folder_is_a_group_and_so_are_the_files_named_together(paths, found):
    assert find_groups(paths, "cosod") == [tuple(f"photos/{name}" for name in group) for group in found]


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["photos/gone.jpg"], "photos/gone.jpg: there is no such image file or folder"),
        (["photos/*.gif"], "photos/*.gif: no file or folder fits this pattern"),
        (["empty"], "empty: there is no image there"),
        ([], "no path: there is no image there"),
    ],
)
def test_nothing_to_answer_is_one_line(paths, message):
    with pytest.raises((OSError, ValueError)) as error:
        find_groups(paths, "sod")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_group_is_read_or_every_bad_file_named(tmp_path):
    good, wrong, cut = (str(tmp_path / name) for name in ("a.png", "b.png", "c.jpg"))
    Image.new("RGB", (40, 30), (9, 200, 9)).save(good)
    Path(wrong).write_text("no image")
    Image.effect_noise((64, 64), 90).save(cut)
    Path(cut).write_bytes(Path(cut).read_bytes()[:600])
    group = read_group([good], "sis")
    assert (group.key, group.task, group.paths, tuple(group.images[0].shape)) == (good, "sis", (good,), (30, 40, 3))
    assert group.images[0][0, 0].tolist() == [9, 200, 9]
    with pytest.raises(UnreadableSample) as error:
        read_group([good, wrong, cut], "cosod")
    assert f"{wrong}: not an image" in str(error.value)
    assert cut in str(error.value)
    with pytest.raises(ValueError, match="cosod needs a group of at least 2 images, and 1 given"):
        read_group([good], "cosod")
    with pytest.raises(ValueError, match="sod needs one image, and 2 given"):
        read_group([good, good], "sod")


def test_images_that_cannot_be_read_are_found_too_and_what_systems_leave_behind_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "IMG_1.HEIC", "b.gif", "c.avif", "d.CR2", "._a.jpg", "Thumbs.db", "desktop.ini", "notes.txt"):
        Path(name).touch()
    for folder in ("__MACOSX", "@eaDir", ".cache"):
        Path(folder).mkdir()
        Path(folder, "a.jpg").touch()
    found = ["IMG_1.HEIC", "a.jpg", "b.gif", "c.avif", "d.CR2"]
    assert find_groups(["."], "sod") == [(name,) for name in found]
    assert find_groups(["."], "cosod") == [tuple(found)]
    assert find_groups(["**/*.jpg"], "sod") == [("a.jpg",)]
    with pytest.raises(FileNotFoundError, match=r"\*\.db: no file or folder fits"):
        find_groups(["*.db"], "sod")


def test_prediction_is_refused_before_it_starts_where_a_format_is_not_read(tmp_path):
    for name in ("a.jpg", "b.CR2"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"b\.CR2: a raw photograph, which is not read"):
        PredictDataModule([str(tmp_path)])
