"""Folders as people have them: several datasets side by side, what systems leave, names in other spellings."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_sal.datasets import Record, layout_of
from lightning_sal.tasks import COSOD, SIS, SOD

WHITE = np.full((9, 12), 255, np.uint8)
LAYOUTS = {task.name: layout_of(task) for task in (SOD, SIS, COSOD)}
REAL = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real photographs lie in ../shared/data, which is absent")


def keys(records: list[Record]) -> list[str]:
    return [record.key for record in records]


def instances(record: Record) -> torch.Tensor:
    (masks,) = record.read().masks or (torch.zeros(0),)
    return masks


def one_sample(save, images: str, masks: str, name: str = "1", mask: np.ndarray = WHITE) -> None:
    save(f"{images}/{name}.jpg")
    save(f"{masks}/{name}.png", mask)


def test_one_of_several_datasets_is_named_by_its_folder(save, tmp_path):
    """As GCoNet and PASCAL-S have them: images/A and images/B beside gts/A and gts/B."""
    for name in ("pascal", "bruce"):
        one_sample(save, f"data/imgs/{name}", f"data/masks/{name}", name)
        for group in ("cow", "dog"):
            one_sample(save, f"co/images/{name}/{group}", f"co/gts/{name}/{group}", name)
    for task, root, above in (("sod", tmp_path / "data", "imgs"), ("cosod", tmp_path / "co", "images")):
        layout = LAYOUTS[task]
        with pytest.raises(ValueError, match=rf"\({above}/bruce, {above}/pascal\); name one of them"):
            layout.records(root)
        for side in root.iterdir():
            (photograph, *_) = layout.records(side / "pascal")[0].photographs
            assert photograph.path.stem == "pascal"
    assert keys(LAYOUTS["cosod"].records(tmp_path / "co/images/pascal", "test")) == ["cow", "dog"]


def test_folders_of_other_versions_do_not_come_between(save, tmp_path):
    for version in ("", "_old"):
        one_sample(save, f"images{version}", f"masks{version}", f"1{version}")
    save("labels/1.png", WHITE)
    assert keys(LAYOUTS["sod"].records(tmp_path)) == ["1"]


def test_folders_of_splits_are_splits_and_no_groups(save, tmp_path):
    for split in ("train", "val", "test"):
        one_sample(save, f"images/{split}", f"masks/{split}", split)
    assert keys(LAYOUTS["sod"].records(tmp_path, "val")) == ["val"]
    assert LAYOUTS["cosod"].candidates(tmp_path) == []


def test_instance_masks_are_taken_for_sis_and_others_for_sod(save, tmp_path):
    """SOC has both beside its photographs, and names of instances as text."""
    codes = np.zeros((9, 12, 3), np.uint8)
    codes[:4, :5], codes[6:, 7:] = (255, 0, 0), (0, 255, 0)
    for split in ("TrainSet", "ValSet"):
        one_sample(save, f"{split}/Imgs", f"{split}/gt", split)
        save(f"{split}/Instance gt/{split}.png", codes)
        (tmp_path / split / "Instance name").mkdir()
        (tmp_path / split / "Instance name" / f"{split}.txt").touch()
    assert sorted(int(mask.sum()) for mask in instances(LAYOUTS["sis"].records(tmp_path, "train")[0])) == [15, 20]
    region = instances(LAYOUTS["sod"].records(tmp_path, "train")[0])
    assert region.shape == (1, 9, 12)
    assert region.all()


def test_what_systems_leave_behind_is_passed_over(save, tmp_path):
    for root in ("a/ECSSD", "a/__MACOSX/ECSSD"):
        one_sample(save, f"{root}/images", f"{root}/masks")
    for file in (
        "images/._1.jpg",
        "masks/._1.png",
        "images/Thumbs.db",
        "images/desktop.ini",
        "images/.DS_Store",
        "._a.json",
    ):
        (tmp_path / "a/ECSSD" / file).write_bytes(b'\0\5\x16\7"annotations"')
    for task in ("sod", "sis"):
        (record,) = LAYOUTS[task].records(tmp_path)
        record.read()
    one_sample(save, "b/image/cow", "b/gt/cow")
    one_sample(save, "b/image/__MACOSX", "b/gt/__MACOSX")
    (tmp_path / "b/gt/cow/._1.png").touch()
    assert keys(LAYOUTS["cosod"].records(tmp_path / "b")) == ["cow"]


def test_names_are_the_same_however_accents_are_written(save, tmp_path):
    composed, apart = "caf\u00e9", "cafe\u0301"
    one, other = tmp_path / "images" / f"{composed}.jpg", tmp_path / "masks" / f"{apart}.png"
    save(f"images/{one.name}")
    save(f"masks/{other.name}", WHITE)
    assert keys(LAYOUTS["sod"].records(tmp_path)) == [composed]
    assert not LAYOUTS["sod"].records(tmp_path)[0].problems()
    save(f"co/image/{composed}/{apart}.jpg")
    save(f"co/gt/{apart}/{composed}.png", WHITE)
    (record,) = LAYOUTS["cosod"].records(tmp_path / "co")
    assert record.problems() == []
    assert len(record.photographs) == 1


def test_of_several_files_of_one_stem_the_sound_one_is_taken_and_the_others_named(save, tmp_path, caplog):
    one_sample(save, "images", "masks")
    save("masks/1.jpg", WHITE)
    (tmp_path / "images/1.CR2").write_bytes(b"II*\0")
    (record,) = LAYOUTS["sod"].records(tmp_path)
    assert record.read().paths == (str(tmp_path / "images/1.jpg"),)
    assert caplog.messages == [f"{tmp_path}: left out 2 stray files (1.CR2, 1.jpg): check-data says why"]
    save("masks/1.bmp", WHITE)
    (line,) = LAYOUTS["sod"].records(tmp_path)[0].problems()
    assert "several files of one stem" in line


def test_a_photograph_of_a_format_that_is_not_read_is_a_fault(save, tmp_path):
    one_sample(save, "images", "masks")
    save("masks/2.png", WHITE)
    (tmp_path / "images/2.jxl").write_bytes(b"\xff\x0a")
    lines = [line for record in LAYOUTS["sod"].records(tmp_path) for line in record.problems()]
    assert lines == [f"{tmp_path / 'images/2.jxl'}: JPEG XL, which is not read: save it as JPEG or PNG"]


def test_an_unknown_layout_names_the_folders_far_below(save, tmp_path):
    save("data/colour/CoCA/apple/0.jpg")
    save("data/truth/CoCA/apple/0.png", WHITE)
    with pytest.raises(
        ValueError, match=r"found data/colour/CoCA/apple/ \(1 images\), data/truth/CoCA/apple/ \(1 images\)"
    ):
        LAYOUTS["cosod"].records(tmp_path)
