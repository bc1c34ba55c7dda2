"""`lightning-sal score` and `table` on files of any method."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.commands.score import main as score
from lightning_sal.commands.table import main as table
from lightning_sal.metrics.functional import structure_measure
from lightning_sal.results import read_images, read_summary
from tests.metrics.parts import SOD, dss, needs_sod


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def square(top: int) -> np.ndarray:
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[top : top + 8, 5:15] = 255
    return mask


def sod(root: Path, names: str = "ab") -> Path:
    for number, name in enumerate(names):
        save(root / "Imgs" / f"{name}.jpg", np.zeros((20, 30, 3), dtype=np.uint8))
        save(root / "GT" / f"{name}.png", square(2 + number))
    return root


@needs_sod
def test_published_maps_reach_their_published_values(tmp_path: Path, capsys) -> None:
    preds = str(SOD / "predictions" / "DSS")
    assert (
        score(["--preds", preds, "--gt", str(SOD), "--task", "sod", "--name", "DSS", "--out", str(tmp_path / "r")]) == 0
    )
    rows = {row["key"]: row for row in read_images(tmp_path / "r", "SOD")}
    for name, pred, mask in dss():
        expected = structure_measure(torch.from_numpy(pred / 255)[None], torch.from_numpy(mask > 128)[None]).item()
        assert float(rows[name]["s_measure"]) == pytest.approx(expected, abs=1e-9)
    assert "60 images" in capsys.readouterr().out


def test_a_perfect_and_a_resized_map(tmp_path: Path, capsys) -> None:
    truth = sod(tmp_path / "ECSSD")
    save(tmp_path / "m" / "a.png", square(2))
    save(tmp_path / "m" / "b.png", np.array(Image.fromarray(square(3)).resize((60, 40))))
    assert (
        score(["--preds", str(tmp_path / "m"), "--gt", str(truth), "--task", "sod", "--out", str(tmp_path / "r")]) == 0
    )
    metrics = read_summary(tmp_path / "r").metrics["ECSSD"]
    assert metrics["mae"] < 0.01
    assert metrics["s_measure"] > 0.98
    assert table([str(tmp_path / "r")]) == 0
    assert "| m | 0.9" in capsys.readouterr().out


def test_missing_and_extra_predictions_are_named(tmp_path: Path) -> None:
    truth = sod(tmp_path / "ECSSD", "abc")
    for name in "axy":
        save(tmp_path / "m" / f"{name}.png", square(2))
    with pytest.raises(
        ValueError, match=r"2 images without prediction \(b, c\) and 2 predictions without image \(x, y\)"
    ):
        score(["--preds", str(tmp_path / "m"), "--gt", str(truth), "--task", "sod", "--out", str(tmp_path / "r")])
    assert not (tmp_path / "r").exists()


def test_groups_are_told_apart_by_their_folder(tmp_path: Path) -> None:
    for group, top in (("cat", 2), ("dog", 9)):
        for name in "ab":
            save(tmp_path / "CoCA" / "image" / group / f"{name}.jpg", np.zeros((20, 30, 3), dtype=np.uint8))
            save(tmp_path / "CoCA" / "binary" / group / f"{name}.png", square(top))
            save(tmp_path / "m" / group / f"{name}.png", square(top))
    arguments = ["--preds", str(tmp_path / "m"), "--gt", str(tmp_path / "CoCA"), "--task", "cosod"]
    assert score([*arguments, "--out", str(tmp_path / "r")]) == 0
    assert read_summary(tmp_path / "r").metrics["CoCA"]["s_measure"] == pytest.approx(1)
    assert [row["key"] for row in read_images(tmp_path / "r", "CoCA")] == ["cat/a", "cat/b", "dog/a", "dog/b"]


def instances(tops: list[int]) -> np.ndarray:
    picture = np.zeros((20, 30, 3), dtype=np.uint8)
    for number, top in enumerate(tops):
        picture[top : top + 4, 5:15] = (80 * (number + 1), 0, 0)
    return picture


def test_coloured_instances(tmp_path: Path) -> None:
    save(tmp_path / "ILSO" / "image" / "1.jpg", np.zeros((20, 30, 3), dtype=np.uint8))
    save(tmp_path / "ILSO" / "gt" / "1.png", instances([1, 8]))
    save(tmp_path / "m" / "1.png", instances([8, 1]))  # other colours, the same instances
    arguments = ["--preds", str(tmp_path / "m"), "--gt", str(tmp_path / "ILSO"), "--task", "sis"]
    assert score([*arguments, "--out", str(tmp_path / "r")]) == 0
    metrics = read_summary(tmp_path / "r").metrics["ILSO"]
    assert metrics == pytest.approx({"iasm": 1, "ap50": 1, "ap70": 1, "ap": 1}, abs=1e-9)


def test_coco_results_use_their_scores(tmp_path: Path) -> None:
    box = {
        "a": [[5, 1, 15, 1, 15, 5, 5, 5]],
        "b": [[5, 8, 15, 8, 15, 12, 5, 12]],
        "wrong": [[20, 1, 28, 1, 28, 5, 20, 5]],
    }
    save(tmp_path / "SOC" / "imgs" / "1.jpg", np.zeros((20, 30, 3), dtype=np.uint8))
    annotations = [
        {"id": n, "image_id": 7, "category_id": 1, "segmentation": box[name], "iscrowd": 0}
        for n, name in enumerate("ab")
    ]
    images = [{"id": 7, "file_name": "1.jpg", "height": 20, "width": 30}]
    (tmp_path / "SOC" / "test.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    for wrong, expected in ((0.1, 1.0), (0.95, (51 * 2 / 3 + 50 * 2 / 3) / 101)):
        scores = {"a": 0.9, "b": 0.8, "wrong": wrong}
        results = [{"image_id": 7, "segmentation": box[name], "score": s} for name, s in scores.items()]
        preds, out = tmp_path / f"{wrong}.json", tmp_path / f"r{wrong}"
        preds.write_text(json.dumps(results))
        assert score(["--preds", str(preds), "--gt", str(tmp_path / "SOC"), "--task", "sis", "--out", str(out)]) == 0
        assert read_summary(out).metrics["SOC"]["ap50"] == pytest.approx(expected, abs=1e-12)
    preds.write_text(json.dumps([{"image_id": 8, "segmentation": box["a"], "score": 1}]))
    with pytest.raises(ValueError, match="image_id 8 is not in the ground truth"):
        score(["--preds", str(preds), "--gt", str(tmp_path / "SOC"), "--task", "sis", "--out", str(tmp_path / "x")])


def test_what_predict_has_written_is_scored(tmp_path: Path) -> None:
    truth = sod(tmp_path / "ECSSD")
    lines = []
    for number, name in enumerate("ab"):
        save(tmp_path / "p" / f"{name}-2.png", square(2 + number))
        lines.append(json.dumps({"images": [str(truth / "Imgs" / f"{name}.jpg")], "masks": [[f"{name}-2.png"]]}))
    (tmp_path / "p" / "predictions.jsonl").write_text("\n".join(lines) + "\n")
    assert (
        score(["--preds", str(tmp_path / "p"), "--gt", str(truth), "--task", "sod", "--out", str(tmp_path / "r")]) == 0
    )
    assert read_summary(tmp_path / "r").metrics["ECSSD"]["giou"] == 1
