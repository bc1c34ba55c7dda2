"""Benchmarks on disk through `test`, and what it has written scored again without a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lightning_sal.callbacks import EvaluationResults, PredictionWriter
from lightning_sal.commands.score import main as score
from lightning_sal.datamodules import BenchmarksDataModule
from lightning_sal.datamodules.benchmarks import Benchmark
from lightning_sal.evaluation.results import read_summary
from lightning_sal.samplers import Annotated
from tests.evaluation.test_object_scoring import H, W, save, truth
from tests.evaluation.test_perception import FillBoxes
from tests.modules.parts import sft, trainer


def benchmarks(root: Path) -> dict[str, str | Benchmark]:
    """Questions in a JSONL, and a COCO json of two splits."""
    truth(root)
    for split, count in (("train", 1), ("val", 3)):
        save(root / "coco" / split / f"{split}.png", np.zeros((H, W, 3), dtype=np.uint8))
        boxes = [[10 * n, 2, 8, 12] for n in range(count)]
        annotations = [
            {"id": n + 1, "image_id": 1, "category_id": 1 + n // 2, "bbox": box, "iscrowd": 0}
            for n, box in enumerate(boxes)
        ]
        content = {
            "images": [{"id": 1, "file_name": f"{split}.png", "height": H, "width": W}],
            "annotations": annotations,
        }
        content["categories"] = [{"id": 1, "name": "bar"}, {"id": 2, "name": "pole"}]
        (root / "coco" / f"instances_{split}.json").write_text(json.dumps(content))
    return {"squares": Benchmark("perception", "squares.jsonl"), "COCO": Benchmark("detection", "coco", "val")}


@pytest.mark.parametrize("annotated", [True, False])
def test_predictions_are_scored_again_as_they_were(tmp_path: Path, annotated: bool) -> None:
    data = BenchmarksDataModule(benchmarks(tmp_path / "data"), str(tmp_path / "data"), batch_size=2)
    module = sft(segmenter=FillBoxes(), evaluation_sampler=Annotated() if annotated else None)
    callbacks = [EvaluationResults(tmp_path / "out", "m"), PredictionWriter(tmp_path / "p")]
    trainer(tmp_path, callbacks=callbacks).test(module, data, verbose=False)
    tested = read_summary(tmp_path / "out").metrics
    assert tested["squares"]["unreadable"] == float(not annotated)
    assert tested["COCO"]["f1"] == float(annotated)
    assert tested["COCO"]["count_error"] == (0 if annotated else (2 + 1) / 2)
    for name, task, file in (
        ("squares", "perception", "squares.jsonl"),
        ("COCO", "detection", "coco/instances_val.json"),
    ):
        out = tmp_path / f"score-{name}"
        arguments = ["--preds", str(tmp_path / "p"), "--gt", str(tmp_path / "data" / file), "--task", task]
        assert score([*arguments, "--benchmark", name, "--out", str(out)]) == 0
        again = read_summary(out).metrics[name]
        assert again == {key: value for key, value in tested[name].items() if key in again}
        assert {"ap50", "f1", "unreadable"} <= set(again)
        assert ("giou" in again) == (task == "perception")


def test_a_split_is_taken_where_several_lie(tmp_path: Path) -> None:
    places = benchmarks(tmp_path)
    keys = {}
    for split in ("train", "val"):
        data = BenchmarksDataModule({"COCO": Benchmark("detection", "coco", split)}, str(tmp_path))
        keys[split] = [record.key for record in data.evaluation_dataset("test").records]
    assert keys == {"train": ["COCO/train/bar"], "val": ["COCO/val/bar", "COCO/val/pole"]}
    with pytest.raises(ValueError, match=r"2 of the datasets found here fit"):
        BenchmarksDataModule({"COCO": Benchmark("detection", "coco")}, str(tmp_path)).evaluation_dataset("test")
    assert len(BenchmarksDataModule({"s": places["squares"]}, str(tmp_path)).evaluation_dataset("test")) == 3
