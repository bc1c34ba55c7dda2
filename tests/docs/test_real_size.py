"""The benchmark at real size measures every row at tiny size, and loses none where it is interrupted or a row breaks."""

import json
import math
import signal
import subprocess
import sys
import time

import pytest

from tests.docs.pages import ROOT, in_checkout

BREAKING = """
import json, os, sys, time
from pathlib import Path

sys.path.insert(0, {benchmarks!r})
from rows import processes


def add(given):
    print("heard")
    return {{"sum": given.a + given.b}}


def fail(given):
    raise ValueError("a reason\\nand more")


def die(given):
    os._exit(7)


def hang(given):
    time.sleep(600)


def needs_its_own(given):
    import multiprocessing

    if multiprocessing.get_start_method() != "spawn":
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess.")
    return {{"process": "its own"}}


if __name__ == "__main__":
    processes.begin([Path({benchmarks!r})], [])
    for measure, limit in ((add, 60), (fail, 60), (die, 60), (hang, 1), (needs_its_own, 60), (add, 60)):
        print(json.dumps(processes.measured(measure, {{"a": 1, "b": 2}}, limit, Path(sys.argv[1]))))
"""


def command(folder, *more):
    return [sys.executable, "benchmarks/real_size.py", "--dry", "--folder", str(folder), *more]


def records(folder):
    file = folder / "rows.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@in_checkout
def test_every_row_is_measured_once_also_where_a_signal_comes_between(tmp_path):
    run = subprocess.Popen(command(tmp_path), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while run.poll() is None and len(records(tmp_path)) < 4:
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    shown, _ = run.communicate(timeout=60)
    assert run.returncode == 130
    kept = records(tmp_path)
    _, after = shown.split("interrupted")
    assert len(kept) >= 4
    assert all(f"| {record['row']} |" in after for record in kept)  # in the table

    again = subprocess.run(command(tmp_path), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert again.count("(measured before)") == len(kept) - 1  # all but the machine itself
    found = records(tmp_path)[1:]
    names = [record["row"] for record in found if record["row"] != "machine"]
    assert len(names) == len(set(names)) == int(again.split()[0]) - 1
    for part in ("decode 64 rows, 4 images a prompt, captured", "cuDNN", "CGPO", "GRPO", "SFT", "EVF", "SAM2", "IASM"):
        assert any(part in name for name in names), part
    for record in found:
        numbers = [value for value in record["values"].values() if not isinstance(value, str)]
        assert numbers, record
        assert all(map(math.isfinite, numbers)), record
    values = {record["row"]: record["values"] for record in found}
    assert values["padding sees nothing, by -inf"]["blind rows"] > 0 == values["padding sees itself"]["blind rows"]
    assert values["padded prompts"]["not finite, sampled"] == values["padded prompts"]["not finite, scored"] == 0
    assert values["padded prompts"]["furthest apart, nats"] < 1e-4
    assert "CGPO / GRPO, s a step" in again
    assert "published 0.237" in again


@in_checkout
def test_a_row_that_breaks_hangs_or_dies_costs_itself_alone(tmp_path):
    script = tmp_path / "breaking.py"
    script.write_text(BREAKING.format(benchmarks=str(ROOT / "benchmarks")))
    log = tmp_path / "log"
    run = subprocess.run([sys.executable, str(script), str(log)], capture_output=True, text=True, check=True)
    summed, failed, died, hung, own, last = map(json.loads, run.stdout.splitlines())
    assert summed["values"] == last["values"] == {"sum": 3}
    assert failed["failed"] == f"ValueError: a reason (see {log})"
    assert "ended with 7" in died["failed"]
    assert hung["failed"] == "took longer than 1 s"
    assert hung["seconds"] < 30
    assert own["values"] == {"process": "its own"}
    assert "heard" in log.read_text()
    assert "and more" in log.read_text()


@in_checkout
def test_what_a_bare_machine_lacks_is_named_and_nothing_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from rows import needs  # pyright: ignore[reportMissingImports]  of benchmarks

    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\ndependencies = ["numpy>=1", "numpy>=99", "no-such-package>=3"]\n')
    (old, old_is_fatal), (missing, missing_is_fatal) = needs.packages(project)
    assert old.startswith("numpy is ")
    assert "numpy>=99" in old
    assert not old_is_fatal
    assert missing == "the package no-such-package is missing: install no-such-package>=3"
    assert missing_is_fatal
    assert not list(needs.packages(ROOT / "pyproject.toml"))

    monkeypatch.setattr(needs, "MEMORY", 1e9)
    monkeypatch.setattr(needs, "DISK", 1e9)
    assert [line.split(":")[-1] for line in needs.machine(tmp_path)] == [f" {1e9} GB are needed"] * 2


@in_checkout
@pytest.mark.parametrize("line", ['{"row": "a", "giv', ""])
def test_a_line_that_was_cut_off_is_measured_again(tmp_path, monkeypatch, capsys, line):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from rows.results import Results  # pyright: ignore[reportMissingImports]  of benchmarks

    results = Results(tmp_path)
    results.add({"row": "whole", "given": {"a": 1}, "values": {"x": 1}})
    with results.path.open("a") as file:
        file.write(line)
    results.add({"row": "next", "given": {"a": 1}, "failed": "no"})
    assert [record["row"] for record in results.all()] == ["whole", "next"]
    assert results.of("whole", {"a": 1})
    assert not results.of("whole", {"a": 2})
    assert not results.of("next", {"a": 1})
    assert ("line 2 is cut off" in capsys.readouterr().out) is bool(line)
