"""`test` on benchmarks in folders: what is logged, and what is written."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_sal.callbacks import EvaluationResults, PredictionWriter
from lightning_sal.commands.score import main as score
from lightning_sal.datamodules import BenchmarksDataModule
from lightning_sal.evaluation.results import read_images, read_masks, read_summary
from lightning_sal.inference.responses import gather
from lightning_sal.metrics.functional import structure_measure
from tests.modules.parts import sft, trainer

ANSWERS = {"sod": "<rg>a</rg>", "sis": "<ins>a</ins><ins>bb</ins>", "cosod": "<rg>[semantic] a</rg>"}


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def benchmarks(root: Path) -> BenchmarksDataModule:
    """Two SOD benchmarks, one of SIS and one of CoSOD, each of two or three images."""
    draw = np.random.default_rng(0)
    for name in ("ECSSD", "PASCAL-S"):
        for i in range(3):
            save(root / name / "Imgs" / f"{i}.jpg", draw.integers(0, 255, (24, 30, 3), dtype=np.uint8))
            save(root / name / "GT" / f"{i}.png", 255 * draw.integers(0, 2, (24, 30), dtype=np.uint8))
    for i in range(2):
        save(root / "ILSO/image" / f"{i}.jpg", draw.integers(0, 255, (24, 30, 3), dtype=np.uint8))
        save(root / "ILSO/gt" / f"{i}.png", np.repeat(draw.integers(0, 3, (24, 30, 1), dtype=np.uint8), 3, 2))
        save(root / "CoCA/image/cat" / f"{i}.jpg", draw.integers(0, 255, (24, 30, 3), dtype=np.uint8))
        save(root / "CoCA/binary/cat" / f"{i}.png", 255 * draw.integers(0, 2, (24, 30), dtype=np.uint8))
    tasks = {"ECSSD": "sod", "PASCAL-S": "sod", "ILSO": "sis", "CoCA": "cosod"}
    return BenchmarksDataModule(tasks, str(root), batch_size=2)


def run(tmp_path: Path, module) -> tuple[dict[str, float], Path]:
    out = tmp_path / "out"
    callback = EvaluationResults(out, "stripes")
    data = benchmarks(tmp_path / "data")
    return dict(trainer(tmp_path, callbacks=[callback]).test(module, data, verbose=False)[0]), out


@pytest.fixture
def module(monkeypatch):
    """A policy that always answers as it should, so that masks are known: stripes of 2 and of 3 rows."""
    module = sft()
    module.configure_model()

    def answered(groups, rollout, *rest, **options):
        texts = tuple(f"<think></think><answer>{ANSWERS[group.task]}</answer>" for group in groups)
        return gather(groups, replace(rollout, texts=texts), *rest, **options)

    monkeypatch.setattr("lightning_sal.modules.base.gather", answered)
    return module


def test_each_benchmark_has_its_own_numbers(tmp_path: Path, module) -> None:
    values, out = run(tmp_path, module)
    stripe = torch.arange(24)[None, :, None].expand(1, 24, 30) // 2 % 2 == 0
    for name in ("ECSSD", "PASCAL-S"):
        files = sorted((tmp_path / "data" / name / "GT").iterdir())
        truths = [torch.from_numpy(np.array(Image.open(file)) > 127)[None] for file in files]
        expected = [structure_measure(stripe, truth).item() for truth in truths]
        assert values[f"test/{name}/s_measure"] == pytest.approx(np.mean(expected), abs=1e-6)
        assert [float(row["s_measure"]) for row in read_images(out, name)] == pytest.approx(expected, abs=1e-6)
        assert values[f"test/{name}/malformed"] == 0
        for kept, truth in zip(read_masks(out, name), truths, strict=True):  # these are smaller than what is kept
            for column, mask in (("truth", truth), ("prediction", stripe)):
                picture = Image.open(io.BytesIO(base64.b64decode(kept[column]))).convert("1")
                assert np.array_equal(np.array(picture), mask[0].numpy())
    assert values["test/ECSSD/s_measure"] != values["test/PASCAL-S/s_measure"]
    assert {"test/ILSO/iasm", "test/ILSO/ap50", "test/CoCA/mae"} <= set(values)
    results = read_summary(out)
    assert results.name == "stripes"
    assert results.tasks == {"ECSSD": "sod", "PASCAL-S": "sod", "ILSO": "sis", "CoCA": "cosod"}
    for name, metrics in results.metrics.items():
        for metric, value in metrics.items():
            assert value == pytest.approx(values[f"test/{name}/{metric}"]), (name, metric)
    assert [row["expressions"] for row in read_images(out, "ILSO")] == ["a; bb"] * 2
    assert [len(read_masks(out, name)) for name in ("ILSO", "CoCA")] == [2, 2]
    assert (out / "failures.html").read_text().count("<figure ") == 10


def test_kept_predictions_score_the_same_again(tmp_path: Path, module) -> None:
    kept, out, data = tmp_path / "kept", tmp_path / "out", benchmarks(tmp_path / "data")
    callbacks = [EvaluationResults(out, "a"), PredictionWriter(kept)]
    trainer(tmp_path, callbacks=callbacks).test(module, data, verbose=False)
    first = read_summary(out)
    for name, task in first.tasks.items():
        arguments = ["--preds", str(kept), "--gt", str(tmp_path / "data" / name), "--task", task]
        assert score([*arguments, "--out", str(tmp_path / name)]) == 0
        again = read_summary(tmp_path / name).metrics[name]
        assert again == pytest.approx({metric: first.metrics[name][metric] for metric in again}, abs=1e-6)


def test_what_cannot_be_read_counts_as_empty(tmp_path: Path, module, monkeypatch) -> None:
    monkeypatch.setitem(ANSWERS, "sod", "no expression")
    values, out = run(tmp_path, module)
    assert values["test/ECSSD/malformed"] == 1
    assert values["test/ECSSD/giou"] == 0
    assert all(row["malformed"] for row in read_images(out, "ECSSD"))


def test_results_are_not_written_over(tmp_path: Path, module) -> None:
    run(tmp_path, module)
    with pytest.raises(FileExistsError, match="results are there already"):
        run(tmp_path, module)


def test_a_missing_benchmark_is_named(tmp_path: Path) -> None:
    data = BenchmarksDataModule({"ECSSD": "sod"}, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="ECSSD: no such folder"):
        data.setup("test")
    with pytest.raises(ValueError, match="unknown task 'sad'"):
        BenchmarksDataModule({"ECSSD": "sad"})


def test_a_numbered_folder_leaves_the_results_of_before(tmp_path, module):
    for name in ("out", "out-2", "out-3"):
        callback = EvaluationResults(tmp_path / "out", "stripes", numbered=True)
        trainer(tmp_path, callbacks=[callback]).test(module, benchmarks(tmp_path / "data"), verbose=False)
        assert callback.outputs()["Results"] == tmp_path / name
        assert (tmp_path / name / "summary.json").is_file()


def test_the_summary_says_what_the_responses_of_a_policy_took(tmp_path: Path, module) -> None:
    _, out = run(tmp_path, module)
    dataset = benchmarks(tmp_path / "data").evaluation_dataset("test")
    groups = [group for group in map(dataset.__getitem__, range(len(dataset))) if group.benchmark == "ECSSD"]
    usage = read_summary(out).usage["ECSSD"]
    assert usage["samples"] == len(groups) == 3
    assert usage["input_tokens"] == sum(module.policy.encode(groups).lengths)
    assert 3 <= usage["output_tokens"] <= 3 * 8
    assert usage["seconds"] > 0
    assert "cost" not in usage
