"""Checkpoints: which are whole, and what is left where writing one fails."""

import errno
import os

import pytest
import torch

from lightning_sal.files import checkpoints
from lightning_sal.files.checkpoints import WholeCheckpoints, is_whole, newest_whole, require_whole

CONTENT = {"state_dict": {"weight": torch.arange(1000.0)}, "global_step": 3}


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints, written one after the other."""
    for age, name in enumerate(("last", "step=4", "step=2")):
        WholeCheckpoints().save_checkpoint(CONTENT, tmp_path / f"{name}.ckpt")
        os.utime(tmp_path / f"{name}.ckpt", (1000 - age, 1000 - age))
    return tmp_path


def flip(content):
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [lambda _: b"", lambda content: content[:700], lambda content: content[:-1], flip, lambda _: b"no checkpoint" * 99],
    ids=["empty", "beginning", "all but its end", "one bit", "something else"],
)
def test_a_damaged_one_is_told_and_the_newest_whole_one_is_named(folder, damage):
    last = folder / "last.ckpt"
    assert is_whole(last)
    assert newest_whole(folder) == last
    content = damage(last.read_bytes())
    last.write_bytes(content)
    os.utime(last, (1000, 1000))
    assert not is_whole(last)
    with pytest.raises(ValueError, match=r"last\.ckpt is not a checkpoint.*the newest whole one .*step=4\.ckpt"):
        require_whole(last)
    assert newest_whole(folder) == folder / "step=4.ckpt"


def test_where_none_is_whole_that_is_said(tmp_path):
    (tmp_path / "last.ckpt").touch()
    assert newest_whole(tmp_path) is None
    with pytest.raises(ValueError, match="no other one beside it is whole"):
        require_whole(tmp_path / "last.ckpt")


def test_on_a_full_disk_the_former_checkpoint_stays_and_nothing_else(folder, monkeypatch):
    def full(content, file):
        file.write(b"half of it")
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            raise RuntimeError("unexpected pos 64 vs 0")  # noqa: B904  as torch does

    before = {path.name for path in folder.iterdir()}
    monkeypatch.setattr(checkpoints.torch, "save", full)
    for name in ("last.ckpt", "step=6.ckpt"):
        with pytest.raises(OSError, match=f"{name} was being written") as error:
            WholeCheckpoints().save_checkpoint(CONTENT, folder / name)
        assert error.value.filename == str(folder)
    assert {path.name for path in folder.iterdir()} == before
    assert is_whole(folder / "last.ckpt")
