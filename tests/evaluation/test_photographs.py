"""Real photographs with boxes from their masks: questions, training on ranks, `test` and the table, as a user would."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lightning_sal.cli import main
from lightning_sal.datasets import task_records
from lightning_sal.datasets.questions import box_of, inner_point
from lightning_sal.evaluation.results import read_summary
from lightning_sal.tasks import SIS

CONF = Path(__file__).parents[2] / "conf"
REAL = Path(__file__).parents[3] / "shared/data/sis"
TASKS = ("perception", "detection", "counting")


def pedestrians(file: Path) -> Path:
    """A question about each photograph of Penn-Fudan, for each task; boxes and points are those of the coloured masks."""
    lines = []
    for record in task_records(SIS, REAL / "PennFudan-coloured"):
        group = record.read()
        assert group.masks is not None
        (masks,), (image,) = group.masks, group.paths
        found = {"boxes": [list(map(box_of, masks))], "points": [list(map(inner_point, masks))]}
        colours = REAL / f"PennFudan-coloured/gt/{Path(image).stem}.png"
        for task in TASKS:
            drawn = {"annotation": os.fspath(colours)} if task == "perception" else {}
            lines.append({"task": task, "images": [image], "question": "all pedestrians", **found, **drawn})
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return file


def coco(file: Path) -> Path:
    """The command's own questions about photographs of COCO."""
    assert main(["questions", os.fspath(REAL / "COCO-salient/instances.json"), os.fspath(file), "--limit", "8"]) == 0
    return file


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared is not here")
@pytest.mark.parametrize(("make", "tasks"), [(pedestrians, TASKS), (coco, TASKS[:1])])
def test_photographs_go_through_fit_test_and_table(monkeypatch, tmp_path, capsys, make, tasks):
    monkeypatch.chdir(tmp_path)
    where = json.dumps({task: os.fspath(make(tmp_path / "questions.jsonl")) for task in tasks})
    options = ["--config", os.fspath(CONF / "real/perception.yaml"), "--data.init_args.train", where]
    options += ["--data.init_args.limit", "3", "--model.init_args.max_new_tokens", "24", "--trainer.logger", "false"]
    results = {"class_path": "lightning_sal.callbacks.EvaluationResults", "init_args": {"folder": "a", "name": "ours"}}
    assert main(["fit", *options, "--trainer.max_steps", "2", "--trainer.callbacks", "[]"]) == 0
    assert main(["test", *options, "--trainer.callbacks", json.dumps([results])]) == 0
    capsys.readouterr()
    assert main(["table", "a"]) == 0
    found, table = read_summary(Path("a")), capsys.readouterr().out
    assert list(found.tasks) == list(tasks)
    assert f"{found.metrics['perception']['giou']:.3f}" in table
    for task in tasks:
        assert 1 <= len(Path(f"a/{task}.csv").read_text().splitlines()) - 1 <= 3  # those that were held out
        assert {"count_accuracy", "ap50", "target_accuracy", "unreadable", "reward_box"} <= found.metrics[task].keys()
