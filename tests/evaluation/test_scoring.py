"""`lightning-sal score` and `table` on files of any method."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.commands.score import main as score
from lightning_sal.commands.table import main as table
from lightning_sal.datasets.images import UnreadableSample
from lightning_sal.errors import UsageError
from lightning_sal.evaluation import instance_scoring, scoring
from lightning_sal.evaluation.jobs import Options
from lightning_sal.evaluation.metrics import compute_all
from lightning_sal.evaluation.results import ResultsWriter, read_images, read_summary
from lightning_sal.metrics.functional import structure_measure
from lightning_sal.tasks import SIS
from lightning_sal.tasks import SOD as SOD_TASK
from tests.metrics.parts import SOD, dss, needs_sod


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def square(top: int) -> np.ndarray:
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[top : top + 8, 5:15] = 255
    return mask


def sod(root: Path, names: Sequence[str] = "ab") -> Path:
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
    assert metrics == pytest.approx({"iasm": 1, "matched_s": 1, "ap50": 1, "ap70": 1, "ap": 1, "ap_50_70": 1}, abs=1e-9)


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


def run(preds: Path, truth: Path, out: Path, task: str = "sod") -> dict[str, float]:
    assert score(["--preds", str(preds), "--gt", str(truth), "--task", task, "--name", "m", "--out", str(out)]) == 0
    return read_summary(out).metrics[truth.name]


SOFT = np.clip(np.linspace(-20, 280, 600).reshape(20, 30), 0, 255).astype(np.uint8)
ALIKE = {  # the same map, as others write it -> the line that says so
    "0/1 in 8 bits": (
        (SOFT > 128).astype(np.uint8),
        SOFT > 128,
        "2 maps of 8 bits hold nothing above 1: read as 0 to 1",
    ),
    "0/1 in 16 bits": ((SOFT > 128).astype(np.uint16), SOFT > 128, "16 bits hold nothing above 1: read as 0 to 1"),
    "8 in 16 bits": (SOFT.astype(np.uint16), SOFT, "2 maps of 16 bits hold nothing above 255: read as 0 to 255"),
    "floats to 255": (
        SOFT.astype(np.float32),
        SOFT,
        "2 maps of floats hold nothing above 255: read as 0 to 255",
    ),
    "floats to 1": (SOFT.astype(np.float32) / 255, SOFT, None),
    "floats to 1, rounded": (SOFT.astype(np.float32) / 255 * np.float32(1.0000001), SOFT, None),
    "16 bits": (SOFT.astype(np.uint16) * 257, SOFT, None),
    "colour": (np.repeat(SOFT[:, :, None], 3, axis=2), SOFT, None),
}


@pytest.mark.parametrize("name", ALIKE)
def test_maps_in_another_range_than_their_types_are_read_as_they_are_meant(tmp_path, caplog, name):
    truth = sod(tmp_path / "ECSSD")
    other, plain, line = ALIKE[name]
    plain = plain.astype(np.uint8) * 255 if plain.dtype == bool else plain
    for key in "ab":
        save(tmp_path / "other" / f"{key}.tif", other)
        save(tmp_path / "plain" / f"{key}.png", plain)
    expected = run(tmp_path / "plain", truth, tmp_path / "r1")
    assert not caplog.messages
    assert run(tmp_path / "other", truth, tmp_path / "r2") == pytest.approx(expected, abs=1e-6)
    assert [message for message in caplog.messages if line is None or line not in message] == []
    assert len(caplog.messages) == (line is not None)


def test_maps_that_may_be_in_another_range_are_warned_of(tmp_path, caplog):
    truth = sod(tmp_path / "ECSSD", "abc")
    for number, key in enumerate("abc"):
        save(tmp_path / "mixed" / f"{key}.png", square(2 + number) // (255 if key == "b" else 1))
        save(tmp_path / "percent" / f"{key}.png", square(2 + number) // 255 * 100)
        save(tmp_path / "black" / f"{key}.png", square(2 + number) * 0)
    run(tmp_path / "mixed", truth, tmp_path / "r1")
    assert [message.partition(":")[0] for message in caplog.messages] == ["1 of 3 maps hold nothing above 1 of 255 (b)"]
    caplog.clear()
    run(tmp_path / "percent", truth, tmp_path / "r2")
    assert caplog.messages[0].startswith("no value in 3 maps is above half of the range, the largest is 0.392 of 1")
    caplog.clear()
    run(tmp_path / "black", truth, tmp_path / "r3")
    assert not caplog.messages


def test_floats_of_no_known_range_are_refused(tmp_path):
    truth = sod(tmp_path / "ECSSD")
    for key in "ab":
        save(tmp_path / "m" / f"{key}.tif", SOFT.astype(np.float32) / 200)
    with pytest.raises(UnreadableSample, match=r"a\.tif: floats up to 1\.275 are neither of 0 to 1 nor of 0 to 255"):
        run(tmp_path / "m", truth, tmp_path / "r")


def test_a_truth_of_many_values_is_cut_as_the_toolboxes_do(tmp_path):
    """PySODMetrics counts what is above 128 as object: a ring of 128 is background, one of 129 is object."""
    py_sod_metrics = pytest.importorskip("py_sod_metrics")
    for ring in (127, 128, 129):
        root = tmp_path / str(ring)
        measures = [py_sod_metrics.Smeasure(), py_sod_metrics.MAE()]
        for number, key in enumerate("abc"):
            mask = square(3 + number)
            edge = (np.roll(mask, 2, 0) | np.roll(mask, -2, 0) | np.roll(mask, 3, 1)) & ~mask
            mask[edge > 0] = ring
            soft = SOFT // 2 + mask // 2
            soft = ((soft - soft.min()) * (255 / np.ptp(soft))).round().astype(np.uint8)
            save(root / "gt" / "images" / f"{key}.jpg", np.zeros((20, 30, 3), dtype=np.uint8))
            save(root / "gt" / "masks" / f"{key}.png", mask)
            save(root / "m" / f"{key}.png", soft)
            for measure in measures:
                measure.step(soft, mask)
        found = run(root / "m", root / "gt", root / "r")
        # The centroid of the S-measure is the authors' here, which PySODMetrics rounds otherwise.
        assert found["s_measure"] == pytest.approx(measures[0].get_results()["sm"], abs=5e-3)
        assert found["mae"] == pytest.approx(measures[1].get_results()["mae"], abs=1e-9)


def test_masks_without_a_photograph_are_named_and_left_out(tmp_path, caplog):
    """DUTS-TE is distributed with such masks."""
    truth = sod(tmp_path / "DUTS-TE")
    save(truth / "GT" / "ma.jpg", square(5))
    for name, top in (("a", 2), ("b", 3)):
        save(tmp_path / "m" / f"{name}.png", square(top))
    assert run(tmp_path / "m", truth, tmp_path / "r")["giou"] == 1
    assert caplog.messages == [f"{truth}: left out 1 stray files (ma.jpg): check-data says why"]


def test_what_a_mac_leaves_behind_is_no_prediction_and_accents_may_be_written_otherwise(tmp_path):
    truth = sod(tmp_path / "ECSSD", ["caf\u00e9", "b"])
    save(tmp_path / "m" / "cafe\u0301.png", square(2))
    save(tmp_path / "m" / "b.png", square(3))
    for name in ("._b.png", ".DS_Store", "Thumbs.db"):
        (tmp_path / "m" / name).write_bytes(b"\0\5\x16\7")
    assert run(tmp_path / "m", truth, tmp_path / "r")["giou"] == 1


def test_names_in_other_encodings_are_scored_and_written(tmp_path):
    """A name of GBK is no UTF-8: the table, the rows and the page hold it as escapes."""
    name = os.fsdecode(b"\xd5\xd5\xc6\xac1")
    truth = sod(tmp_path / "gbk", [name, "b"])
    save(tmp_path / "m" / f"{name}.png", square(2))
    save(tmp_path / "m" / "b.png", square(3))
    assert run(tmp_path / "m", truth, tmp_path / "r")["giou"] == 1
    rows = read_images(tmp_path / "r", "gbk")
    assert [row["key"] for row in rows] == ["b", r"\udcd5\udcd5Ƭ1"]
    assert r"\udcd5\udcd5Ƭ1" in (tmp_path / "r" / "failures.html").read_text(encoding="utf-8")
    assert table([str(tmp_path / "r")]) == 0


def test_two_predictions_for_one_image_are_refused(tmp_path):
    truth = sod(tmp_path / "ECSSD")
    for file in ("a.png", "a.bmp", "b.png"):
        save(tmp_path / "m" / file, square(2))
    with pytest.raises(ValueError, match=r"a\.bmp and a\.png"):
        run(tmp_path / "m", truth, tmp_path / "r")


def test_a_folder_without_predictions_names_what_is_there(tmp_path):
    truth = sod(tmp_path / "ECSSD")
    save(tmp_path / "m" / "ECSSD" / "a.png", square(2))
    with pytest.raises(ValueError, match=r"m: no predictions; .* found ECSSD/ \(1 images\)"):
        run(tmp_path / "m", truth, tmp_path / "r")


def test_the_truth_may_be_named_by_its_folder_of_masks(tmp_path):
    truth = sod(tmp_path / "ECSSD")
    for name, top in (("a", 2), ("b", 3)):
        save(tmp_path / "m" / f"{name}.png", square(top))
    assert run(tmp_path / "m", truth / "GT", tmp_path / "r")["giou"] == 1


def test_instances_without_photographs_and_with_a_prediction_missing(tmp_path, capsys):
    for name, tops in (("1", [1, 8]), ("2", [4])):
        save(tmp_path / "truth" / f"{name}.png", instances(tops))
    save(tmp_path / "m" / "1.png", instances([8, 1]))
    arguments = ["--preds", str(tmp_path / "m"), "--gt", str(tmp_path / "truth"), "--task", "sis"]
    with pytest.raises(ValueError, match=r"1 images without prediction \(2\)"):
        score([*arguments, "--out", str(tmp_path / "refused")])
    assert score([*arguments, "--skip-missing", "--out", str(tmp_path / "r")]) == 0
    results = read_summary(tmp_path / "r")
    assert all(value == pytest.approx(1, abs=1e-9) for value in results.metrics["truth"].values())
    assert results.settings["truth"] == {"images": 1, "missing": 1, "extra": 0}
    assert "1 images without prediction (2): left out" in capsys.readouterr().err


def test_instances_are_scored_as_the_metrics_of_their_task_do(tmp_path: Path) -> None:
    """The functions that `score` takes, against the torchmetrics of the task, image by image and over all."""
    draw = np.random.default_rng(5)
    for name, tops in (("1", [1, 8]), ("2", [3]), ("3", []), ("4", [1, 6, 12])):
        save(tmp_path / "ILSO" / "image" / f"{name}.jpg", np.zeros((20, 30, 3), dtype=np.uint8))
        save(tmp_path / "ILSO" / "gt" / f"{name}.png", instances(tops))
        save(tmp_path / "m" / f"{name}.png", np.roll(instances(tops[:2]), draw.integers(0, 4), 1))
    rows, results = [], []
    for way in (instance_scoring, scoring):
        folder = tmp_path / way.__name__
        ResultsWriter.prepare(folder)
        writer = ResultsWriter(folder, {"ILSO": "sis"})
        job = way.prepare(tmp_path / "m", tmp_path / "ILSO", SIS, "ILSO", Options(metrics="all"))
        results.append(job.run(writer, iter).metrics)
        with (folder / ".ILSO-0.csv").open(newline="") as file:
            rows.append(list(csv.DictReader(file)))
    assert results[0] == pytest.approx(results[1], abs=1e-12)
    for ours, theirs in zip(*rows, strict=True):
        known = {
            name: float(value) for name, value in theirs.items() if name in results[0] and value not in ("", "nan")
        }
        assert {name: float(ours[name]) for name in known if ours.get(name)} == pytest.approx(
            {name: value for name, value in known.items() if name in ours}, abs=1e-12
        )


@pytest.mark.parametrize(("task", "heavy"), [("sod", "torch"), ("sis", "torchmetrics")])
def test_what_a_command_does_not_wait_for(task: str, heavy: str, tmp_path: Path) -> None:
    """Maps are scored without torch, instances without torchmetrics; neither waits for Lightning or transformers."""
    truth = sod(tmp_path / "x")
    arguments = ["--preds", str(truth / "GT"), "--gt", str(truth / "GT"), "--task", task, "--out", str(tmp_path / "r")]
    code = (
        "import sys; from lightning_sal.cli import main; code = main(['score', *sys.argv[1:]]);"
        f"print({{'{heavy}', 'torchmetrics', 'lightning', 'transformers'}} & {{*sys.modules}}); sys.exit(code)"
    )
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_change_nothing(workers: int, tmp_path: Path) -> None:
    truth = sod(tmp_path / "ECSSD", "abcdefghijk")
    for number, name in enumerate("abcdefghijk"):
        save(tmp_path / "m" / f"{name}.png", np.roll(square(2), number, 0) // 2 + 3 * np.uint8(number))
    arguments = ["--preds", str(tmp_path / "m"), "--gt", str(truth), "--task", "sod", "--workers", str(workers)]
    assert score([*arguments, "--out", str(tmp_path / "r")]) == 0
    metrics = read_summary(tmp_path / "r").metrics["ECSSD"]
    rows = read_images(tmp_path / "r", "ECSSD")
    assert [row["key"] for row in rows] == list("abcdefghijk")
    assert metrics["mae"] == math.fsum(float(row["mae"]) for row in rows) / len(rows)  # to the last bit
    curves = json.loads((tmp_path / "r" / "curves.json").read_text())["ECSSD"]
    assert max(curves["f_measure"]) == metrics["f_max"]


def test_several_methods_on_several_benchmarks_and_their_page(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for benchmark in ("ECSSD", "DUTS"):
        sod(tmp_path / "data" / benchmark)
        for method, top in (("near", 3), ("far", 9)):
            for name in "ab":
                save(tmp_path / method / benchmark / f"{name}.png", square(top))
    arguments = ["--preds", "near", "far", "--gt", "data/ECSSD", "data/DUTS", "--task", "sod", "--html", "all.html"]
    assert score(arguments) == 0
    shown = capsys.readouterr().out
    assert "| near | **" in shown
    assert "| far |" in shown
    folders = [
        tmp_path / "runs/score" / method / benchmark for method in ("near", "far") for benchmark in ("ECSSD", "DUTS")
    ]
    near, far = (read_summary(folder).metrics["DUTS"]["s_measure"] for folder in folders[1::2])
    assert near > far
    page = (tmp_path / "all.html").read_text()
    assert f"{near:.3f}" in page
    assert f"{far:.3f}" in page
    with pytest.raises(FileExistsError, match="not overwritten"):
        score(arguments)
    with pytest.raises(UsageError, match="--name is the name of one method"):
        score([*arguments[:-2], "--name", "x"])
    with pytest.raises(UsageError, match="a convention is for saliency maps, and sis has none"):
        score(["--preds", "near/DUTS", "--gt", "data/DUTS", "--task", "sis", "--convention", "matlab"])


def test_all_metrics_equal_those_of_the_task(tmp_path: Path) -> None:
    truth = sod(tmp_path / "ECSSD")
    draw = np.random.default_rng(0)
    for number, name in enumerate("ab"):
        save(
            tmp_path / "m" / f"{name}.png",
            np.clip(square(3 + number) * 0.7 + draw.integers(0, 60, (20, 30)), 0, 255).astype("uint8"),
        )
    arguments = [
        "--preds",
        str(tmp_path / "m"),
        "--gt",
        str(truth),
        "--task",
        "sod",
        "--metrics",
        "all",
        "--normalize",
        "none",
    ]
    assert score([*arguments, "--out", str(tmp_path / "r")]) == 0
    metrics = SOD_TASK.metrics(everything=True)
    for number, name in enumerate("ab"):
        found = torch.from_numpy(np.array(Image.open(tmp_path / "m" / f"{name}.png")) / 255)[None]
        SOD_TASK.score(metrics, found, torch.from_numpy(square(2 + number) > 0)[None], None)
    expected = {name: value.item() for name, value in compute_all(metrics).items()}
    assert read_summary(tmp_path / "r").metrics["ECSSD"] == pytest.approx(expected, abs=1e-9)


def test_a_table_warns_of_what_is_not_measured_alike(tmp_path: Path, caplog) -> None:
    truth = sod(tmp_path / "ECSSD")
    folders = []
    for method, options in (
        ("a", []),
        ("b", ["--normalize", "none"]),
        ("c", ["--convention", "pysodmetrics", "--soft-truth"]),
    ):
        for name in "ab":
            save(tmp_path / method / f"{name}.png", square(3))
        folders.append(str(tmp_path / "r" / method))
        arguments = ["--preds", str(tmp_path / method), "--gt", str(truth), "--task", "sod", "--out", folders[-1]]
        assert score([*arguments, *options]) == 0
    assert read_summary(Path(folders[2])).settings["ECSSD"]["convention"]["soft_truth"] is True
    assert table(folders[:1]) == 0
    assert not caplog.records
    assert table(folders[:2]) == 0
    assert caplog.messages == [
        "ECSSD: not measured alike, so that values cannot be compared: normalize is min-max (a), none (b)"
    ]
