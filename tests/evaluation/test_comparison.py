"""Comparing trainings on the same samples."""

import io
import math

import pytest
from rich.console import Console

from lightning_sal.commands.compare import main
from lightning_sal.evaluation.comparison import Sample, differences, paired_difference, read_arms, summary, write_arms


def sample(key, exact, correctness=0.5):
    return Sample(key, "sod", exact, correctness, 0.5 * correctness + 0.5, 0.9)


def test_paired_difference_by_hand():
    """Differences 1, 0, 1: mean 2/3, variance 1/3, standard error sqrt(1/9)."""
    mean, error = paired_difference([1, 1, 1], [0, 1, 0])
    assert mean == pytest.approx(2 / 3)
    assert error == pytest.approx(1 / 3)
    assert paired_difference([0.5], [0.25]) == (0.25, 0.0)


def test_summary_means():
    values = summary([sample("a", True, 0.4), sample("b", False, 0.8)])
    assert values["exact"] == values["exact/sod"] == 0.5
    assert values["correctness"] == pytest.approx(0.6)


def test_the_table_of_differences_has_their_standard_errors():
    """Exact: differences 1, 0; mean 0.5, error sqrt(0.5 / 2). Correctness: 0.2, 0.4; mean 0.3, error sqrt(0.02 / 2)."""
    arms = {
        "start": [sample("a", False, 0.1), sample("b", True, 0.2)],
        "CGPO": [sample("a", True, 0.3), sample("b", True, 0.6)],
    }
    console = Console(width=80, file=io.StringIO())
    console.print(differences(arms, "CGPO"))
    lines = {line.split()[0]: line for line in console.file.getvalue().splitlines() if "±" in line}
    assert "+0.500 ± 0.500" in lines["exact"]
    assert "+0.300 ± 0.100" in lines["S"]


def test_arms_round_trip_and_are_never_overwritten(tmp_path):
    arms = {"start": [sample("a", False)], "CGPO": [sample("a", True)]}
    write_arms(arms, tmp_path / "samples.jsonl")
    assert read_arms(tmp_path / "samples.jsonl") == arms
    with pytest.raises(FileExistsError):
        write_arms(arms, tmp_path / "samples.jsonl")


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "samples.jsonl").write_text('{"arm": "start"}\n')
    with pytest.raises(ValueError, match=r"samples\.jsonl:1: not a sample"):
        read_arms(tmp_path / "samples.jsonl")


def test_the_command_averages_runs_before_it_pairs(tmp_path, capsys):
    """Two runs, two scenes. Means of CGPO over runs: 1, 0.5; of the control: 0, 0.5; differences 1, 0."""
    ours, theirs = [(True, True), (True, False)], [(False, True), (False, False)]
    for run, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        arms = {
            "SFT only, 2 steps": [sample(key, exact) for key, exact in zip("ab", b, strict=True)],
            "CGPO": [sample(key, exact) for key, exact in zip("ab", a, strict=True)],
        }
        write_arms(arms, tmp_path / f"{run}.jsonl")
    assert main([str(tmp_path / "0.jsonl"), str(tmp_path / "1.jsonl")]) == 0
    printed = capsys.readouterr().out
    assert f"+50.0 ± {100 * math.sqrt(0.5 / 2):.1f} points exact" in printed
    assert "by run +50.0, +50.0" in printed


def test_unlike_runs_are_refused(tmp_path):
    write_arms({"CGPO": [sample("a", True)]}, tmp_path / "0.jsonl")
    write_arms({"CGPO": [sample("b", True)]}, tmp_path / "1.jsonl")
    with pytest.raises(ValueError, match="like with like"):
        main([str(tmp_path / "0.jsonl"), str(tmp_path / "1.jsonl")])
