"""Every convention against its tool: PySODMetrics and MATLAB's values, and the others' formulas written down again."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import py_sod_metrics
import pytest
from PIL import Image

from lightning_sal.commands import score
from lightning_sal.maps.conventions import CONVENTIONS, Convention
from lightning_sal.maps.counting import count_levels
from lightning_sal.maps.measures import Averages, ImageMeasures, measure
from tests.maps import references
from tests.metrics.parts import SOD, dss, needs_sod

Array = np.ndarray
Pair = tuple[Array, Array]
CURVES = {"e_measure": "e", "f_measure": "f", "precision": "precision", "recall": "recall"}


def measured(
    level: Array, truth: Array, convention: Convention, top: float = 255, truth_top: float = 255
) -> ImageMeasures:
    rules = convention.truth_above, convention.soft_truth, convention.centroid
    return measure(count_levels(level, top, truth, truth_top, *rules), convention)


def byte(*rows: list[int]) -> Array:
    return np.array(rows, dtype=np.uint8)


def drawn(count: int, seed: int = 0) -> list[Pair]:
    """Maps of all ranges, of two levels and of one, beside truths that are masks, of several levels, empty and full."""
    random, pairs = np.random.default_rng(seed), []
    for i in range(count):
        size = tuple(random.integers(3, 25, 2))
        low, high = np.sort(random.integers(0, 256, 2)) if i % 2 else (0, 255)
        level = random.integers(low, high + 1, size)
        truth = np.where(random.random(size) < random.random(), 255, 0)
        if i % 3 == 1:  # as PASCAL-S has them
            truth = np.where(
                random.random(size) < 0.5, random.choice([0, 1, 60, 126, 127, 128, 129, 200, 255], size), truth
            )
        if i % 5 == 2:
            level = np.where(level > 128, 255, 0)
        if i % 5 == 3:
            level = np.where(level > 128, 1, 0)
        if i % 10 == 4:
            level = np.full(size, random.choice([0, 1, 77, 255]))
        if i % 10 == 9:
            truth = np.full(size, random.choice([0, 255]))
        pairs.append((level.astype(np.uint8), truth.astype(np.uint8)))
    return pairs


class PySODMetrics:
    """The four metrics of PySODMetrics, and what they said of the last image."""

    def __init__(self) -> None:
        with pytest.warns(UserWarning, match="FmeasureV2"):
            self.f = py_sod_metrics.Fmeasure()
        self.s, self.mae, self.e = py_sod_metrics.Smeasure(), py_sod_metrics.MAE(), py_sod_metrics.Emeasure()

    def step(self, level: Array, truth: Array) -> tuple[dict[str, float], dict[str, Array]]:
        for metric in (self.s, self.mae, self.e, self.f):
            metric.step(level, truth)  # normalises, which is its default
        values = {
            "s_measure": self.s.sms[-1],
            "mae": self.mae.maes[-1],
            "e_adaptive": self.e.adaptive_ems[-1],
            "f_adaptive": self.f.adaptive_fms[-1],
        }
        curves = {
            "e_measure": self.e.changeable_ems[-1],
            "f_measure": self.f.changeable_fms[-1],
            "precision": self.f.precisions[-1],
            "recall": self.f.recalls[-1],
        }
        return values, {name: curve[::-1] for name, curve in curves.items()}  # its thresholds descend


def equals_pysodmetrics(pairs: list[Pair]) -> None:
    tool, convention = PySODMetrics(), CONVENTIONS["pysodmetrics"]
    averages = Averages(convention)
    for index, (level, truth) in enumerate(pairs):
        values, curves = tool.step(level, truth)
        own = measured(level, truth, convention)
        averages.add(own)
        for name, value in values.items():
            assert own.values[name] == pytest.approx(value, abs=1e-12), (index, name)
        for name, curve in curves.items():
            np.testing.assert_allclose(own.curves[name], curve, rtol=0, atol=1e-12, err_msg=f"{index} {name}")
    results, e, f = averages.results(), tool.e.get_results()["em"], tool.f.get_results()["fm"]
    expected = {
        "s_measure": tool.s.get_results()["sm"],
        "mae": tool.mae.get_results()["mae"],
        "e_max": e["curve"].max(),
        "e_mean": e["curve"].mean(),
        "e_adaptive": e["adp"],
        "f_max": f["curve"].max(),
        "f_mean": f["curve"].mean(),
        "f_adaptive": f["adp"],
    }
    assert {name: results[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_pysodmetrics_on_maps_of_all_kinds() -> None:
    equals_pysodmetrics(drawn(120))


@needs_sod
def test_pysodmetrics_on_published_maps() -> None:
    equals_pysodmetrics([(level, truth) for _, level, truth in dss()])


@needs_sod
@pytest.mark.parametrize("name", ["matlab", "ours"])
def test_matlabs_own_values_of_published_maps(name: str) -> None:
    rows = {row["name"]: row for row in csv.DictReader((SOD / "reference_metrics.csv").open())}
    images = dss()
    assert len(images) == len(rows) == 60
    for image, level, truth in images:
        own = measured(level, truth, CONVENTIONS[name]).values
        assert own["s_measure"] == pytest.approx(float(rows[image]["s_measure"]), abs=1e-10), image
        assert own["mae"] == pytest.approx(float(rows[image]["mae"]), abs=1e-10), image


@pytest.mark.parametrize(
    ("name", "reference", "tolerance"),
    [
        ("ours", references.one_key, 1e-10),
        ("cosod3k", references.one_key, 1e-10),
        ("matlab", references.sal_eval_toolbox, 1e-10),
        ("eval-co-sod", references.eval_co_sod, 1e-6),  # the tool itself computes in float32
    ],
)
def test_formulas_of_the_tools_pixel_by_pixel(
    name: str, reference: Callable[[Array, Array], references.Scores], tolerance: float
) -> None:
    for index, (level, truth) in enumerate(drawn(30, seed=1)):
        own, expected = measured(level, truth, CONVENTIONS[name]), reference(level, truth)
        assert own.values["s_measure"] == pytest.approx(expected.s, abs=tolerance), index
        assert own.values["mae"] == pytest.approx(expected.mae, abs=tolerance), index
        for curve, of_tool in CURVES.items():
            values = getattr(expected, of_tool)
            np.testing.assert_allclose(own.curves[curve], values, rtol=0, atol=tolerance, err_msg=f"{index} {curve}")


def test_eval_co_sod_by_hand() -> None:
    # The map becomes 0, 1, 1/2, 1; the truth is 0, 1, 1/5, 0. At one half three pixels are found, 6/5 of 6/5 in them; at 1
    # two, 1 of 6/5; at 0 all, so that nothing deviates from the mean and each pixel has 1/4, over 4 - 1.
    level, truth = byte([0, 100], [50, 100]), byte([0, 255], [51, 0])
    own = measured(level, truth, CONVENTIONS["eval-co-sod"])
    assert own.values["mae"] == pytest.approx((0 + 155 + 1 + 100) / 255 / 4)
    assert len(own.curves["f_measure"]) == 255
    precision, recall, f = own.curves["precision"], own.curves["recall"], own.curves["f_measure"]
    assert (precision[127], recall[127], f[127]) == pytest.approx((1.2 / 3, 1, 1.3 * 0.4 / (0.3 * 0.4 + 1)))
    assert (precision[254], recall[254]) == pytest.approx((1 / 2, 1 / 1.2))
    assert own.curves["e_measure"][0] == pytest.approx(1 / 3)


def test_levels_that_lie_on_one_of_255_thresholds_reach_it_where_float32_says_so() -> None:
    # Of 128 levels the k-th is k / 127, which is also the threshold 2 k / 254
    level = np.arange(20, 148, dtype=np.uint8).reshape(8, 16)
    truth = np.where(level % 3 == 0, 255, 0).astype(np.uint8)
    own, expected = measured(level, truth, CONVENTIONS["eval-co-sod"]), references.eval_co_sod(level, truth)
    np.testing.assert_allclose(own.curves["recall"], expected.recall, rtol=0, atol=1e-12)


def test_a_map_of_one_level_stays_or_becomes_zero() -> None:
    level, truth = np.full((4, 4), 51, dtype=np.uint8), np.zeros((4, 4), dtype=np.uint8)
    expected = {  # S is 1 - the mean, and MAE the mean, of what becomes of 51 / 255
        "ours": (0.8, 0.2),
        "pysodmetrics": (0.8, 0.2),
        "cosod3k": (0.8, 0.2),
        "matlab": (0.0, 0.2),  # divided by its maximum, but for MAE
        "eval-co-sod": (1.0, 0.2),
    }
    for name, pair in expected.items():
        values = measured(level, truth, CONVENTIONS[name]).values
        assert (values["s_measure"], values["mae"]) == pytest.approx(pair), name


def test_mae_alone_is_not_stretched_in_eval_co_sod() -> None:
    level, truth = byte([0, 51], [0, 51]), byte([0, 255], [0, 255])
    maes = {name: measured(level, truth, rule).values["mae"] for name, rule in CONVENTIONS.items()}
    assert maes == pytest.approx(dict.fromkeys(maes, 0.0) | {"eval-co-sod": 0.4})
    for name, rule in CONVENTIONS.items():
        assert measured(level, truth, rule).curves["f_measure"].max() == pytest.approx(1), name
    plain = measured(level, truth, replace(CONVENTIONS["ours"], normalize="none", normalize_mae="none"))
    assert plain.values["mae"] == pytest.approx(0.4)
    assert plain.curves["recall"].tolist() == [1.0] * 52 + [0.0] * 204


@pytest.mark.parametrize(
    ("convention", "objects"),
    [
        (CONVENTIONS["ours"], 2),
        (CONVENTIONS["pysodmetrics"], 2),
        (CONVENTIONS["cosod3k"], 2),
        (CONVENTIONS["matlab"], 3),
        (replace(CONVENTIONS["ours"], truth_above=25), 5),  # a cut at 0.1
    ],
)
def test_what_is_object_in_a_truth_of_several_levels(convention: Convention, objects: int) -> None:
    truth = byte([0, 25, 26, 127], [128, 129, 255, 0])
    everything = np.full_like(truth, 255)
    assert measured(everything, truth, convention).curves["precision"][255] == objects / 8
    wide = truth.astype(np.uint16) * 257
    assert measured(everything, wide, convention, truth_top=65535).curves["precision"][255] == objects / 8
    shares = truth / 255
    assert measured(everything, shares, convention, truth_top=1).curves["precision"][255] == objects / 8


def test_greys_of_a_truth_count_in_part_in_eval_co_sod() -> None:
    truth = byte([0, 25, 26, 127], [128, 129, 255, 0])
    convention = CONVENTIONS["eval-co-sod"]
    level = np.where(truth, 255, 0).astype(np.uint8)
    assert measured(level, truth, convention).curves["precision"][254] == pytest.approx(truth.sum() / 255 / 6)


def test_e_of_an_empty_and_of_a_full_truth() -> None:
    level = byte([0, 255, 255, 255, 255])
    for name, convention in CONVENTIONS.items():
        for truth, agreeing in ((np.zeros_like(level), 1), (np.full_like(level, 255), 4)):
            e = measured(level, truth, convention).curves["e_measure"][-1]
            # No exception in eval-co-sod: nothing deviates in such a truth, and each of five pixels has 1/4
            assert e == pytest.approx(5 / 4 / 4 if name == "eval-co-sod" else agreeing / 4), name


def test_groups_count_alike_and_maxima_come_last() -> None:
    pairs = drawn(7, seed=3)
    groups = {"large": pairs[:5], "small": pairs[5:]}
    averages = {name: Averages(CONVENTIONS[name]) for name in ("cosod3k", "ours")}
    for group, members in groups.items():
        for level, truth in members:
            for name, average in averages.items():
                average.add(measured(level, truth, CONVENTIONS[name]), group)
    scores = {group: [references.one_key(*pair) for pair in members] for group, members in groups.items()}
    results = averages["cosod3k"].results()
    f, e = references.in_groups(scores, lambda one: one.f), references.in_groups(scores, lambda one: one.e)
    expected = {"f_max": f.max(), "f_mean": f.mean(), "e_max": e.max(), "e_mean": e.mean()} | {
        "s_measure": references.in_groups(scores, lambda one: one.s),
        "mae": references.in_groups(scores, lambda one: one.mae),
    }
    assert {name: results[name] for name in expected} == pytest.approx(expected, abs=1e-10)
    over_images = [one.s for members in scores.values() for one in members]
    assert averages["ours"].results()["s_measure"] == pytest.approx(np.mean(over_images), abs=1e-10)


def test_f_max_of_mean_precision_and_recall_or_of_the_mean_curve() -> None:
    # A perfect image, P and R 1, and one where all is found, P 1/4 and R 1: F is 1 and 0.325 / 1.075, and F of the means
    # of P and R, 5/8 and 1, is another number than their mean
    level = byte([0, 0, 0, 255])
    images = level, byte([255, 255, 255, 255])
    averages = {name: Averages(CONVENTIONS[name]) for name in ("matlab", "ours")}
    for name, average in averages.items():
        for image in images:
            average.add(measured(image, level, CONVENTIONS[name]))
    assert averages["ours"].results()["f_max"] == pytest.approx((1 + 0.325 / 1.075) / 2)
    assert averages["matlab"].results()["f_max"] == pytest.approx(1.3 * 0.625 / (0.3 * 0.625 + 1))


def test_centroids_are_rounded_as_each_tool_does() -> None:
    # Rows 1 and 2 counted from 1: the mean 1.5 becomes 2 in MATLAB; 0.5 counted from 0 becomes 0 elsewhere, of which one
    # row is in the upper quadrants in PySODMetrics, none in eval-co-sod. Where rows are cut, S of each tool tells.
    random = np.random.default_rng(5)
    level = random.integers(0, 256, (6, 5)).astype(np.uint8)
    level[0, :2] = 0, 255
    truth = np.zeros_like(level)
    truth[:2, 1:4] = 255
    truth[5, 2] = 255  # with it the mean row is (3 * 0 + 3 * 1 + 5) / 7 = 8 / 7, no half: the first two agree
    without = truth.copy()
    without[5, 2] = 0
    s = {name: measured(level, without, rule).values["s_measure"] for name, rule in CONVENTIONS.items()}
    assert s["ours"] == s["cosod3k"] == pytest.approx(s["matlab"])
    assert len({round(value, 6) for value in s.values()}) == 3
    s = {name: measured(level, truth, rule).values["s_measure"] for name, rule in CONVENTIONS.items()}
    assert s["ours"] == pytest.approx(s["pysodmetrics"], abs=1e-12)
    assert abs(s["ours"] - s["eval-co-sod"]) > 1e-3


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_a_quadrant_without_a_pixel_counts_nothing_where_tools_have_no_number() -> None:
    level, truth = byte([0, 9, 60], [30, 90, 255]), byte([0, 0, 0], [0, 0, 255])
    assert np.isnan(PySODMetrics().step(level, truth)[0]["s_measure"])
    for name in ("ours", "pysodmetrics", "cosod3k"):
        own = measured(level, truth, CONVENTIONS[name]).values["s_measure"]
        assert own == pytest.approx(references.one_key(level, truth).s, abs=1e-10), name


def test_bits_of_pillow_are_maps_and_truths_like_bytes() -> None:
    level = byte([0, 255, 255], [255, 0, 0])
    truth = byte([0, 255, 0], [255, 255, 0])
    bits = [np.asarray(Image.fromarray(values).convert("1")) for values in (level, truth)]
    for name, convention in CONVENTIONS.items():
        own, expected = measured(bits[0], bits[1], convention), measured(level, truth, convention)
        assert own.values == pytest.approx(expected.values), name


def save(path: Path, values: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def scored(folder: Path, *options: str) -> tuple[dict[str, float], dict[str, Any]]:
    """Measures of the maps in `folder/maps` by the command, and the convention that the results state."""
    out = folder / "-".join(("out", *options))
    arguments = ["--preds", str(folder / "maps"), "--gt", str(folder / "truths"), "--out", str(out), *options]
    assert score.main(arguments) == 0
    summary = json.loads((out / "summary.json").read_text())
    return summary["metrics"]["truths"], summary["settings"]["truths"]["convention"]


def test_the_command_measures_by_convention_and_its_results_state_each_choice(tmp_path: Path) -> None:
    save(tmp_path / "maps/a.png", byte([0, 51], [51, 51]))
    save(tmp_path / "truths/a.png", byte([0, 128], [51, 255]))
    expected = {  # MAE of 0, 1, 1, 1, or of the fifths that they are, against what is object
        "ours": 2 / 4,
        "pysodmetrics": 2 / 4,
        "cosod3k": 2 / 4,
        "matlab": 1 / 4,
        "eval-co-sod": (128 - 51 + 255 - 51) / 255 / 4,
    }
    assert expected.keys() == CONVENTIONS.keys()
    for name, mae in expected.items():
        measures, stated = scored(tmp_path, "--task", "sod", "--convention", name)
        assert measures["mae"] == pytest.approx(mae), name
        assert stated == asdict(CONVENTIONS[name])
    _, stated = scored(tmp_path, "--task", "sod")
    assert stated == asdict(CONVENTIONS["ours"])
    changes = ("--normalize", "none", "--truth-above", "25.5", "--thresholds", "255", "--f-max", "precision-recall")
    measures, stated = scored(tmp_path, "--task", "sod", "--convention", "pysodmetrics", *changes)
    assert measures["mae"] == pytest.approx(3 * 0.8 / 4)
    changed = {"normalize": "none", "normalize_mae": "none", "truth_above": 25.5, "thresholds": 255}
    own = asdict(CONVENTIONS["pysodmetrics"]) | changed | {"f_max": "precision-recall"}
    assert stated == own | {"name": stated["name"]}
    assert stated["name"] not in CONVENTIONS


def test_the_command_averages_within_groups_first(tmp_path: Path) -> None:
    truth = byte([0, 255], [0, 255])
    for name, level in {"cow/a": 255 - truth, "cat/a": truth, "cat/b": truth, "cat/c": truth}.items():
        save(tmp_path / f"maps/{name}.png", level)
        save(tmp_path / f"truths/{name}.png", truth)
    maes = {
        name: scored(tmp_path, "--task", "cosod", "--convention", name)[0]["mae"] for name in ("cosod3k", "eval-co-sod")
    }
    assert maes == pytest.approx({"cosod3k": 1 / 2, "eval-co-sod": 1 / 4})
