"""Results on disk, their tables, and paired differences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_sal.evaluation.results import (
    WORST,
    Results,
    ResultsWriter,
    joined,
    measures_of,
    read_images,
    read_masks,
    read_summary,
)
from lightning_sal.evaluation.tables import (
    by_image,
    comma_separated,
    difference_lines,
    latex,
    markdown,
)

TASKS = {"ECSSD": "sod", "ILSO": "sis"}
VALUES = {"ECSSD": {"s_measure": 0.9, "mae": 0.05}, "ILSO": {"ap50": 0.5}}
A = Results("A_1", TASKS, VALUES, measures_of(TASKS))
B = Results("B", {"ECSSD": "sod"}, {"ECSSD": {"s_measure": 0.8, "mae": 0.04}}, measures_of({"ECSSD": "sod"}))


def row(number: int, score: float) -> dict:
    return {"benchmark": "ECSSD", "key": str(number), "image": f"{number}.jpg", "s_measure": score, "mae": 1 - score}


def picture(number: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (number % 256, 0, 0))


def written(folder: Path, scores: list[float], name: str = "A", parts: int = 1) -> Path:
    ResultsWriter.prepare(folder)
    for part in range(parts):
        writer = ResultsWriter(folder, {"ECSSD": "sod"}, part, parts)
        for number in range(part, len(scores), parts):
            writer.add(row(number, scores[number]), lambda number=number: {"photograph": picture(number)})
        writer.close()
    results = Results(name, {"ECSSD": "sod"}, {"ECSSD": {"s_measure": float(np.mean(scores))}})
    ResultsWriter(folder, {"ECSSD": "sod"}, parts=parts).finish(results)
    return folder


@pytest.mark.parametrize("parts", [1, 3])
def test_what_is_written_is_read_in_the_order_of_the_data(tmp_path: Path, parts: int) -> None:
    scores = [0.1 * n for n in range(8)]
    folder = written(tmp_path / "r", scores, parts=parts)
    rows = read_images(folder, "ECSSD")
    assert [r["image"] for r in rows] == [f"{n}.jpg" for n in range(8)]
    assert [float(r["s_measure"]) for r in rows] == scores
    assert read_summary(folder).metrics["ECSSD"]["s_measure"] == pytest.approx(0.35)
    assert sorted(p.name for p in folder.iterdir()) == ["ECSSD.csv", "failures.html", "summary.json"]


@pytest.mark.parametrize("parts", [1, 2])
def test_masks_stand_in_the_order_of_the_rows(tmp_path: Path, parts: int) -> None:
    ResultsWriter.prepare(tmp_path / "r")
    for part in range(parts):
        writer = ResultsWriter(tmp_path / "r", {"ECSSD": "sod"}, part, parts)
        for number in range(part, 4, parts):
            writer.add(row(number, 0.5), lambda: {}, {"truth": "", "prediction": f"mask {number}"})
        writer.close()
    writer.finish(Results("A", {"ECSSD": "sod"}, {"ECSSD": {"s_measure": 0.5}}))
    assert [each["prediction"] for each in read_masks(tmp_path / "r", "ECSSD")] == [f"mask {n}" for n in range(4)]
    assert read_masks(written(tmp_path / "without", [0.5]), "ECSSD") == []


def test_failures_are_the_worst_first_and_bounded(tmp_path: Path) -> None:
    scores = list(np.random.default_rng(0).permutation(100) / 100)
    page = (written(tmp_path / "r", scores) / "failures.html").read_text()
    shown = [page.index(f"<h3>{scores.index(s)}.jpg") for s in sorted(scores)[:WORST]]
    assert shown == sorted(shown)
    assert page.count("<figure") == WORST
    assert f"The {WORST} worst of 100, by S." in page
    assert f"<dt>S</dt><dd>{min(scores):.3f}</dd>" in page
    assert "http" not in page


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    ResultsWriter.prepare(folder)
    writer = ResultsWriter(folder, {"ECSSD": "sod"})
    writer.add(row(1, 0.5) | {"image": "<script>.jpg", "expressions": "<b>"}, lambda: {"photograph": picture(1)})
    writer.close()
    writer.finish(Results("<x>", {"ECSSD": "sod"}))
    page = (folder / "failures.html").read_text()
    assert page.count("<script>") == 1  # ours
    assert "<b>" not in page
    assert "<x>" not in page


def test_results_are_never_written_over(tmp_path: Path) -> None:
    folder = written(tmp_path / "r", [0.5])
    with pytest.raises(FileExistsError, match="results are there already"):
        ResultsWriter.prepare(folder)


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"summary\.json"):
        read_summary(tmp_path)
    (tmp_path / "summary.json").write_text(json.dumps({"who": "knows"}))
    with pytest.raises(ValueError, match="not a summary"):
        read_summary(tmp_path)


def test_markdown_has_the_best_in_bold() -> None:
    lines = markdown([A, B], ["s_measure", "mae", "ap50"]).splitlines()
    assert lines[0] == "| method | ECSSD S | ECSSD MAE | ILSO AP50 |"
    assert lines[2] == "| A_1 | **0.900** | 0.050 | **0.500** |"
    assert lines[3] == "| B | 0.800 | **0.040** | - |"
    with pytest.raises(ValueError, match=r"metric 'ap5'; did you mean ap50\?"):
        markdown([A, B], ["ap5"])
    with pytest.raises(ValueError, match="metric 'reward'; there are ap50, mae, s_measure"):
        markdown([A, B], ["reward"])
    assert "**" not in markdown([B])  # nothing to be better than


def test_latex_has_the_best_in_bold_and_escapes_names() -> None:
    text = latex([A, B])
    assert r"A\_1 & \textbf{0.900} & 0.050 & \textbf{0.500}" in text
    assert r"\multicolumn{2}{c}{ECSSD} & \multicolumn{1}{c}{ILSO}" in text
    assert text.count(r" \\") == 4


def test_csv_has_every_value_unrounded() -> None:
    lines = comma_separated([Results("A", {"X": "sod"}, {"X": {"mae": 1 / 3}})]).splitlines()
    assert lines == ["method,benchmark,task,metric,value", f"A,X,sod,mae,{1 / 3}"]


def test_results_of_one_method_are_joined() -> None:
    other = Results("B", {"ILSO": "sis"}, {"ILSO": {"ap50": 0.6}})
    (whole,) = joined([B, other])
    assert whole.metrics == {**B.metrics, **other.metrics}
    with pytest.raises(ValueError, match="two folders hold results of 'B' on ECSSD"):
        joined([B, B])


def test_what_an_unfinished_run_left_is_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    ResultsWriter.prepare(folder)
    ResultsWriter(folder, {"ECSSD": "sod"}).add(
        row(7, 0.1), lambda: {"photograph": picture(7)}
    )  # and then it is killed
    assert [r["image"] for r in read_images(written(folder, [0.5, 0.6]), "ECSSD")] == ["0.jpg", "1.jpg"]


def test_images_are_the_same_wherever_a_benchmark_lies() -> None:
    here = by_image([{"image": "/data/ECSSD/Imgs/1.jpg"}, {"image": "/data/ECSSD/Imgs/2.jpg"}])
    assert set(here) == set(by_image([{"image": "ECSSD/Imgs/2.jpg"}, {"image": "ECSSD/Imgs/1.jpg"}]))
    assert len(by_image([{"image": "", "key": "scene"}] * 3)) == 3  # the images of a group without files


def test_two_folders_are_compared_image_by_image(tmp_path: Path) -> None:
    ours = written(tmp_path / "a", [0.5, 0.6, 0.7], "A")
    theirs = written(tmp_path / "b", [0.4, 0.5, 0.6], "B", parts=2)
    lines = difference_lines(ours, theirs)
    assert lines[0] == "ECSSD s_measure: A - B = +0.1000, 95 % [+0.1000, +0.1000], 3 images\n"
    assert lines[1].startswith("ECSSD mae: A - B = -0.1000")
    with pytest.raises(ValueError, match="'f_max' is no mean over images"):
        difference_lines(ours, theirs, ["f_max"])
    with pytest.raises(ValueError, match="hold different images"):
        difference_lines(ours, written(tmp_path / "c", [0.5], "C"))
