"""Files are there whole or not at all; a full disk is one line that names the folder and what was being written."""

import errno
import os
import subprocess

import pytest
import torch
from safetensors.torch import save_file

from lightning_sal.files.writing import appending, naming, whole


def no_room(path):
    """Writes half of it, then fails as a full disk does."""
    path.write_text("half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def disk(tmp_path):
    """A disk of 1 MB of its own."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk of its own can be had here: {mounted.stderr.decode().strip()}")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def test_of_a_full_disk_nothing_is_left_and_the_former_file_stays(tmp_path):
    (tmp_path / "a.txt").write_text("former")
    with pytest.raises(OSError, match=r"a\.txt was being written") as error, whole(tmp_path / "a.txt") as part:
        no_room(part)
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "former"


def half_of(path, error):
    with whole(path) as part:
        part.write_text("half")
        raise error


@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt])
def test_other_errors_stay_what_they_are_and_leave_nothing_either(tmp_path, kind):
    with pytest.raises(kind):
        half_of(tmp_path / "a.txt", kind)
    assert not list(tmp_path.iterdir())


def test_a_folder_takes_the_place_of_the_former_one(tmp_path):
    for content in ("first", "second"):
        with whole(tmp_path / "folder") as part:
            part.mkdir()
            (part / content).touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "second"]


def half_a_line_of(path):
    with appending(path) as file:
        file.write("tw")
        file.flush()
        no_room(path.parent / "other")


def test_an_addition_that_fails_leaves_no_part_of_it(tmp_path):
    path = tmp_path / "lines.jsonl"
    with pytest.raises(OSError, match="disk is full"):
        half_a_line_of(path)
    assert not path.exists()
    with appending(path) as file:
        file.write("one\n")
    with pytest.raises(OSError, match=r"lines\.jsonl was being written"):
        half_a_line_of(path)
    assert path.read_text() == "one\n"


def saved_by_torch(path):
    with path.open("wb") as file:
        torch.save({"weight": torch.zeros(500_000)}, file)


@pytest.mark.parametrize(
    "write",
    [
        saved_by_torch,
        lambda path: save_file({"weight": torch.zeros(500_000)}, path),
        lambda path: path.write_bytes(bytes(2_000_000)),
    ],
    ids=["torch", "safetensors", "python"],
)
def test_whoever_writes_to_a_real_full_disk(disk, write):
    with (
        pytest.raises(OSError, match=r"the disk is full: a\.bin was being written") as error,
        whole(disk / "a.bin") as part,
    ):
        write(part)
    assert error.value.filename == str(disk)
    assert not list(disk.iterdir())


def hidden(folder):
    try:
        no_room(folder / "a")
    except OSError:
        raise RuntimeError("unexpected pos 64 vs 0")  # noqa: B904  as torch does


def test_an_error_that_hides_a_full_disk_is_seen_through(tmp_path):
    with pytest.raises(OSError, match="the log was being written"), naming(tmp_path, "the log"):
        hidden(tmp_path)
