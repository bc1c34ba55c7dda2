"""Predictions as a dataset of FiftyOne, whose classes are played here: names of fields are those of its documentation."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.cli import main
from lightning_sal.datasets.photographs import read_group
from lightning_sal.inference.responses import Prediction
from lightning_sal.pages.answer_folder import AnswerFolder
from lightning_sal.tasks import TASKS


class Kept(SimpleNamespace):
    """A sample, or a label, with the fields that it was given."""


@dataclass
class Dataset:
    """Datasets are found by name, as those of the data base."""

    name: str
    persistent: bool = False
    samples: list[Any] = field(default_factory=list)
    all: ClassVar[dict[str, Any]] = {}

    def __post_init__(self) -> None:
        self.all[self.name] = self

    def add_samples(self, samples: list[Any]) -> None:
        self.samples += samples

    def __len__(self) -> int:
        return len(self.samples)


@pytest.fixture
def fiftyone(monkeypatch):
    Dataset.all.clear()
    error = type("FiftyOneConfigError", (Exception,), {})
    module = SimpleNamespace(
        Sample=Kept,
        Detections=Kept,
        Detection=Kept,
        Dataset=Dataset,
        dataset_exists=lambda name: name in Dataset.all,
        core=SimpleNamespace(config=SimpleNamespace(FiftyOneConfigError=error)),
    )
    monkeypatch.setitem(sys.modules, "fiftyone", module)
    return module


def answered(folder: Path, photograph: Path, task: str, expressions: list[str], *masks: torch.Tensor) -> None:
    photograph.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20)).save(photograph)
    group = read_group((str(photograph),), task)
    text = TASKS[task].response("what stands out", expressions)
    found = torch.stack(masks)
    kept = found.any(0, keepdim=True) if TASKS[task].masks_per_image == 1 else found
    AnswerFolder(folder, {"task": task}).add(Prediction(group, text, TASKS[task].parse(text), (kept,), 0.5, (found,)))


def square(top: int, left: int, side: int) -> torch.Tensor:
    mask = torch.zeros(20, 40, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_masks_are_where_they_are_and_expressions_without_one_are_named(tmp_path, fiftyone, capsys) -> None:
    masks = square(5, 10, 10), square(0, 0, 0), square(15, 30, 5)
    answered(tmp_path / "out", tmp_path / "a.jpg", "sis", ["cat", "dog", "cow"], *masks)
    assert main(["convert", str(tmp_path / "out"), "mine", "--to", "fiftyone"]) == 0
    assert "fiftyone app launch mine" in capsys.readouterr().out
    (sample,) = fiftyone.Dataset.all["mine"].samples
    assert fiftyone.Dataset.all["mine"].persistent
    assert sample.filepath == str(tmp_path / "a.jpg")
    assert sample.reasoning == "what stands out"
    assert sample.without_mask == ["dog"]
    first, last = sample.prediction.detections
    assert (first.label, last.label) == ("cat", "cow")
    assert first.bounding_box == [0.25, 0.25, 0.25, 0.5]  # x, y, width, height as shares of 40 x 20
    for mask, found in ((masks[0], first), (masks[2], last)):
        x, y, width, height = (round(a * b) for a, b in zip(found.bounding_box, (40, 20, 40, 20), strict=True))
        whole = np.zeros((20, 40), bool)
        whole[y : y + height, x : x + width] = found.mask
        assert (whole == mask.numpy()).all()


def test_results_stand_beside_each_image(tmp_path, fiftyone) -> None:
    photograph, truth = tmp_path / "data/images/a.jpg", tmp_path / "data/GT/a.png"
    answered(tmp_path / "out", photograph, "sod", ["cat", "dog"], square(5, 10, 10), square(0, 0, 4))
    truth.parent.mkdir()
    Image.fromarray(square(5, 10, 10).numpy()).save(truth)
    scored = ["--gt", str(tmp_path / "data"), "--task", "sod", "--out", str(tmp_path / "scores")]
    assert main(["score", "--preds", str(tmp_path / "out"), *scored]) == 0
    assert main(["convert", str(tmp_path / "out"), "m", "--to", "fiftyone", "--results", str(tmp_path / "scores")]) == 0
    (sample,) = fiftyone.Dataset.all["m"].samples
    assert sample.mae == pytest.approx(16 / 800)
    assert [each.label for each in sample.prediction.detections] == ["cat, dog"]  # one mask of both


def test_a_dataset_is_never_overwritten(tmp_path, fiftyone, capsys) -> None:
    answered(tmp_path / "out", tmp_path / "a.jpg", "sod", ["cat"], square(5, 10, 10))
    assert main(["convert", str(tmp_path / "out"), "mine", "--to", "fiftyone"]) == 0
    assert main(["convert", str(tmp_path / "out"), "mine", "--to", "fiftyone"]) != 0
    assert "not overwritten" in capsys.readouterr().err
    assert len(fiftyone.Dataset.all["mine"]) == 1


def test_without_fiftyone_one_line_says_how_to_install_it(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    assert main(["convert", str(tmp_path), "mine", "--to", "fiftyone"]) != 0
    assert "FiftyOne is not installed" in capsys.readouterr().err
