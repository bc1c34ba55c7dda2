"""The map of collapses: what is said of a run, what is not run again, and the picture."""

import json
import sys
from argparse import Namespace

import pytest
from PIL import Image

from tests.docs.pages import ROOT, in_checkout

pytestmark = [in_checkout, pytest.mark.filterwarnings("ignore")]
SCENES = 100


@pytest.fixture
def collapse(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import collapse  # pyright: ignore[reportMissingImports]  of benchmarks

    return collapse


def columns(exact, form, correctness, confidence=0.5):
    """Values of scenes of which the given shares have 1 and the others 0, but for confidence, which all have."""
    share = lambda part: [1.0] * round(SCENES * part) + [0.0] * round(SCENES * (1 - part))  # noqa: E731
    values = {"exact": share(exact), "format": share(form), "format_reward": share(form)}
    return values | {"correctness": share(correctness), "confidence": [confidence] * SCENES}


def both(**shares):
    return {kind: columns(**shares) for kind in ("greedy", "sampled")}


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        (dict(exact=0.5, form=1, correctness=0.7), "holds"),
        (dict(exact=0.7, form=1, correctness=0.7), "improves"),  # by 20 of 100: 0.2 against 0.04
        (dict(exact=0.52, form=1, correctness=0.7), "holds"),  # by 2 of 100: 0.02 against 0.014
        (dict(exact=0.5, form=0.95, correctness=0.7), "holds"),  # as far as the margin
        (dict(exact=0.5, form=0.9, correctness=0.7), "collapses"),  # by 0.1, against 0.03
        (dict(exact=0.7, form=1, correctness=0.6), "collapses"),  # whatever else rose
    ],
)
def test_a_verdict_is_of_paired_scenes(collapse, after, verdict):
    assert collapse.verdict_of(both(exact=0.5, form=1, correctness=0.7), both(**after)) == verdict


def test_sampled_responses_that_collapse_are_seen_before_greedy_ones_do(collapse):
    before = both(exact=0.5, form=1, correctness=0.7)
    assert collapse.verdict_of(before, before | {"sampled": columns(0.5, 0.8, 0.7)}) == "collapses"


def record(row, values, **given):
    return {
        "row": row,
        "given": {"model": "m", "wording": None, "temperature": 1.0, "scenes": SCENES, **given},
        **values,
    }


RUN = {"steps": 1, "responses": 8, "lr": 0.1, "seed": 0}
ASKED = "--models m --temperatures 1 --scales 0.5 1 --arms cgpo grpo --scenes 100 --steps 1 --responses 8 --lr 0.1"


def made_up(collapse, folder):
    """The results of two arms in a cell, of one that failed in another, and of one with another learning rate."""
    results = collapse.Results(folder)
    start = both(exact=0.5, form=1, correctness=0.6, confidence=0.9)
    results.add(record("start", {"values": start}))
    for arm, end in {"cgpo": 0.4, "grpo": 0.8}.items():
        after = both(exact=end, form=1, correctness=end)
        results.add(record("run", {"values": after}, arm=arm, scale=0.5, **RUN))
    results.add(record("run", {"failed": "no"}, arm="cgpo", scale=1.0, **RUN))
    results.add(record("run", {"values": start}, arm="grpo", scale=0.5, **RUN | {"lr": 0.2}))
    return results


def test_a_cell_stands_at_its_start_and_has_its_gain(collapse, tmp_path):
    found = list(collapse.cells(made_up(collapse, tmp_path).all()))[:2]
    assert [cell.arm for cell in found] == ["cgpo", "grpo"]
    assert [cell.confidence for cell in found] == pytest.approx([0.9, 0.9])
    assert [cell.reward for cell in found] == pytest.approx([0.5 * (0.6 + 1) / 2] * 2)
    assert [cell.gain for cell in found] == pytest.approx([-0.2, 0.2])
    assert [cell.verdict for cell in found] == ["collapses", "improves"]


def test_the_picture_is_of_what_is_asked_for_and_there(collapse, tmp_path, monkeypatch, capsys):
    made_up(collapse, tmp_path)
    plot = tmp_path / "map.png"
    options = ["--folder", str(tmp_path), "--picture-only", "--plot", str(plot), *ASKED.split()]
    monkeypatch.setattr(sys, "argv", ["collapse.py", *options])
    collapse.main()
    shown = capsys.readouterr().out.splitlines()
    assert shown[:-1] == ["cgpo: c 0.90, r 0.40: collapses, -0.200", "grpo: c 0.90, r 0.40: improves, +0.200"]
    assert Image.open(plot).size[0] > 500


def test_without_results_there_is_no_picture(collapse, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["collapse.py", "--folder", str(tmp_path), "--picture-only"])
    with pytest.raises(SystemExit):
        collapse.main()
    assert "has ended" in capsys.readouterr().err


def test_what_is_there_is_not_run_again_and_what_failed_is(collapse, tmp_path, monkeypatch):
    given = Namespace(
        models=["m"], temperatures=[1.0], scales=[0.5, 1.0], arms=["a", "b"],
        wording=None, scenes=SCENES, steps=1, responses=8, lr=0.1, seed=0,
    )  # fmt: skip
    todo = list(collapse.jobs(given))
    assert [row for row, _ in todo] == ["start"] + ["run"] * 4
    results = collapse.Results(tmp_path)
    for (row, of_run), outcome in zip(todo[:3], ("values", "values", "failed"), strict=True):
        results.add({"row": row, "given": of_run, outcome: {}})
    asked = []

    def measured(measure, of_run, limit, log):
        asked.append((measure, of_run))
        return {"values": {}, "seconds": 1.0}

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(collapse.processes, "begin", lambda *_: None)
    monkeypatch.setattr(collapse.processes, "measured", measured)
    collapse.run(todo, results, 1)
    assert asked == [(collapse.after_run, of_run) for _, of_run in todo[2:]]
    collapse.run(todo, results, 1)
    assert len(asked) == 3
    assert len(results.path.read_text().splitlines()) == 6


def test_a_run_measures_its_cell(collapse):
    given = dict(model="tiny-early", wording=None, temperature=1.5, scenes=2)
    before = collapse.at_start(Namespace(**given))
    after = collapse.after_run(Namespace(**given, arm="cgpo", scale=0.5, steps=2, responses=3, lr=0.0, seed=0))
    assert {kind: after[kind] for kind in before} == before  # at learning rate 0 nothing moves
    assert len(after["steps"]) == 2
    assert all(
        0 < step["reward"] <= 0.5 and 0 < step["confidence"] < 1 and step["entropy"] > 0 for step in after["steps"]
    )
    json.dumps(after, allow_nan=False)
