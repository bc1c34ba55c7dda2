"""What responses took: sums over samples and processes, and an average in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lightning_sal.evaluation.report import report
from lightning_sal.evaluation.results import Results, ResultsWriter, joined, read_summary
from lightning_sal.evaluation.usage import NOTHING, in_words, known, summed, total
from lightning_sal.samples import Usage


def test_sums_by_hand() -> None:
    whole = summed(map(total, [Usage(1.5, 1000, 20, 0.25), Usage(0.5, 400, 10, 0.5)]))
    assert known(whole) == {"samples": 2, "seconds": 2, "input_tokens": 1400, "output_tokens": 30, "cost": 0.75}
    assert in_words(known(whole)) == "1 s, 700 input tokens, 15 output tokens, $0.375"


def test_what_is_unknown_of_one_is_unknown_of_all_and_never_0() -> None:
    whole = summed(
        map(total, [Usage(seconds=1, output_tokens=3), Usage(output_tokens=5), Usage(seconds=2, output_tokens=0)])
    )
    assert known(whole) == {"samples": 3, "output_tokens": 8}
    assert known(summed([whole, total(None)])) == {}
    assert known(NOTHING) == {}
    assert in_words({}) == ""


@pytest.mark.parametrize("parts", [1, 3])
def test_the_summary_has_the_sums_of_all_processes(tmp_path: Path, parts: int) -> None:
    tasks = {"CoCA": "cosod", "ECSSD": "sod"}
    for part in range(parts):
        writer = ResultsWriter(tmp_path, tasks, part, parts)
        for number in range(part, 7, parts):
            fields = {"benchmark": "CoCA", "key": str(number), "s_measure": 0.5}
            for image in ("a.jpg", "b.jpg"):
                writer.add(fields | {"image": image}, lambda: {"photograph": Image.new("RGB", (4, 4))})
            writer.use("CoCA", Usage(seconds=number, output_tokens=10, cost=0.25 if number != 3 else None))
        writer.use("ECSSD", None)
        writer.close()
    metrics = {"CoCA": {"s_measure": 0.5}}
    ResultsWriter(tmp_path, tasks, parts=parts).finish(Results("A", {"CoCA": "cosod"}, metrics))
    results = read_summary(tmp_path)
    assert results.usage == {"CoCA": {"samples": 7, "seconds": 21, "output_tokens": 70}}
    assert joined([results, Results("A", {"X": "sod"}, usage={"X": {"samples": 1}})])[0].usage.keys() == {"CoCA", "X"}
    assert "3 s, 10 output tokens" in report([tmp_path])


def test_a_summary_of_before_is_read(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"name": "A", "tasks": {}, "metrics": {}, "settings": {}}))
    assert read_summary(tmp_path).usage == {}
    (tmp_path / "summary.json").write_text(json.dumps({"name": "A", "usage": {"ECSSD": {"cost": "much"}}}))
    with pytest.raises(ValueError, match="not a summary of results"):
        read_summary(tmp_path)
