"""Files that a list names as another system spells them."""

import unicodedata
from pathlib import Path

import pytest

from lightning_sal.datasets.spelling import file_of, find_files


@pytest.fixture
def make(tmp_path):
    def touch(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return touch


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("listed", ["NFC", "NFD"])
def test_both_normal_forms_and_both_separators(make, stored, listed):
    name = "fotos/grün/é ü.jpg"
    root = make(unicodedata.normalize(stored, name))
    wanted = unicodedata.normalize(listed, name)
    assert file_of(root, wanted).is_file()
    assert file_of(root, wanted.replace("/", "\\")).is_file()


def test_a_backslash_that_is_there_stays_one(make):
    root = make("a\\b.jpg", "a/b.jpg")
    assert file_of(root, "a\\b.jpg") == root / "a\\b.jpg"


def test_what_is_not_there_stays_as_it_is_listed(make):
    assert file_of(make(), "x\\é.jpg") == make() / "x\\é.jpg"
    assert file_of(make(), "a\0b") == make() / "a\0b"
    assert file_of(make(), "x" * 5000).name == "x" * 5000


@pytest.mark.parametrize(
    "prefix", ["C:\\Users\\me\\data\\", "/home/someone/data/", "..\\", "https://server/upload/7/", "../data/"]
)
def test_folders_that_nobody_has_here_are_left_out(make, prefix):
    root = make("images/a/1.jpg", "images/b/1.jpg")
    separator = "\\" if "\\" in prefix else "/"
    names = [prefix + f"images/{group}/1.jpg".replace("/", separator) for group in "ab"]
    assert find_files([root], names) == [root / "images/a/1.jpg", root / "images/b/1.jpg"]


def test_what_tells_two_names_apart_is_never_left_out(make):
    root = make("1.jpg", "2.jpg")
    assert not any(path.is_file() for path in find_files([root], ["/x/a/1.jpg", "/x/b/2.jpg"]))


def test_the_folder_with_most_is_taken_and_the_others_are_not_looked_at(make):
    root = make("a/1.jpg", "b/1.jpg", "b/2.jpg")
    assert find_files([root / "a", root / "b"], ["1.jpg", "2.jpg", "3.jpg"]) == [
        root / "b" / name for name in ("1.jpg", "2.jpg", "3.jpg")
    ]
    assert find_files([root / "a", root / "b"], ["1.jpg"]) == [root / "a/1.jpg"]
