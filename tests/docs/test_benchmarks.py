"""The benchmarks that the pages name run to their tables, at the least size and in one process."""

import io
import runpy
import subprocess
import sys
from contextlib import redirect_stdout

import pytest

from tests.docs.pages import ROOT, in_checkout


def run(monkeypatch, script, *arguments):
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    shown = io.StringIO()
    with redirect_stdout(shown):
        runpy.run_path(script, run_name="__main__")
    return shown.getvalue()


@in_checkout
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("script", "arguments", "rows"),
    [
        ("metrics.py", "--images 2 --instance-images 2 --rounds 1 --batch 2", ["PySODMetrics", "torchmetrics"]),
        (
            "rl_step.py",
            "--systems cgpo --images 1 --prompts 1 --tokens 2 --rounds 1 --steps 1 --warmup 1",
            ["CGPO", "tokens/s"],
        ),
    ],
)
def test_a_benchmark_prints_its_table(monkeypatch, script, arguments, rows):
    path = str(ROOT / "benchmarks" / script)

    def in_this_process(command, **_):
        return subprocess.CompletedProcess(command, 0, run(monkeypatch, path, *command[2:]), "")

    monkeypatch.setattr(subprocess, "run", in_this_process)
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    shown = run(monkeypatch, path, *arguments.split())
    for row in rows:
        assert row in shown


@in_checkout
def test_the_one_of_score_prints_its_table(tmp_path):
    command = [
        sys.executable,
        "benchmarks/score.py",
        *["--images", "2", "--rounds", "1", "--cores", "1", "--files", "warm"],
    ]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for row in ("PySODMetrics, a loop", "of CPU"):
        assert row in shown
