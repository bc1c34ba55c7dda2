"""What this framework costs at real size, row by row: random weights, one GPU, eight minutes on an H200.

    python benchmarks/real_size.py                       # rows that are not in benchmarks/results yet
    python benchmarks/real_size.py --folder $OUT         # another folder for rows.jsonl and the logs
    python benchmarks/real_size.py --dry                 # all of it at tiny size, on the CPU, in two minutes

- decode: milliseconds a token of a Qwen2.5-VL-7B (bfloat16, LoRA of rank 16) at 8 and 64 rows behind prompts of one and of
  four photographs, beside the bound that a copy of this GPU's memory sets; captured as a CUDA graph and eager, with cuDNN
  attention and without.
- CGPO, GRPO, SFT: seconds and peak memory of a training step beside the published ones.
- EVF-SAM2-L, SAM2: masks a second. Metrics: images a second on the GPU and on the CPU.
- padding: NaN where it sees nothing or itself, kernel by kernel, and in the policy.

Each row is a process of its own with a time limit. It is printed and written to rows.jsonl as soon as it is there; stopped
by Ctrl-C, SIGTERM or a fault, what was measured stays, and is not measured again with the same folder. Rows that no longer
fit into --minutes, or into the GPU's memory, are left out, which is said.

It needs Python 3.11, one GPU of 80 GB (fewer rows with less), 16 GB of main memory, 1 GB of disk, and the packages that
pyproject.toml names; nothing is downloaded, and the package itself need not be installed. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from rows import decoding, machine, masks, metrics, needs, padding, processes, steps  # noqa: E402
from rows.results import Results  # noqa: E402
from rows.row import DRY, REAL, Row  # noqa: E402

ROWS = [
    *decoding.ROWS,
    *steps.ROWS,
    *masks.ROWS,
    *padding.ROWS,
    *metrics.ROWS,
    *decoding.CUDNN_ROWS,
]


def say(text: str) -> None:
    """Print at once, whatever comes after."""
    print(text, flush=True)


def cells(values: Mapping[str, float | str]) -> list[str]:
    """Values as text."""
    return [value if isinstance(value, str) else f"{value:.4g}" for value in values.values()]


def line(record: Mapping[str, Any]) -> str:
    """A record in one line."""
    if "failed" in record:
        return f"{record['row']}: FAILED, {record['failed']}"
    values = record["values"]
    return f"{record['row']}: {', '.join(map(' '.join, zip(values, cells(values), strict=True)))}"


def tables(records: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """All that was measured as tables in Markdown, a table for rows of one kind; then ratios beside those published."""
    done = [record for record in records if "values" in record]
    for heads, alike in groupby(done, lambda record: tuple(record["values"])):
        yield f"| | {' | '.join(heads)} |"
        yield f"|---|{'---|' * len(heads)}"
        yield from (f"| {' | '.join([record['row'], *cells(record['values'])])} |" for record in alike)
        yield ""
    yield from (line(record) for record in records if "failed" in record)
    yield from steps.ratios({record["row"]: record["values"] for record in done})


def measure(given: argparse.Namespace, results: Results) -> list[dict[str, Any]]:
    """Measure what is not there yet and fits; gives the records of all rows so far, also where it is interrupted."""
    size, end = DRY if given.dry else REAL, time.monotonic() + 60 * given.minutes
    shown: list[dict[str, Any]] = []

    def record(row: Row, more: dict[str, Any]) -> dict[str, Any]:
        wanted = size.given(row) | more
        known = results.of(row.name, wanted)
        if known is not None:
            say(f"{line(known)} (measured before)")
        else:
            left = end - time.monotonic()
            limit = 300.0 if given.dry else max(1.0, min(3 * max(row.seconds, 20), left))
            found = processes.measured(row.measure, wanted, limit, results.path.with_suffix(".log"))
            known = {"row": row.name, "given": wanted} | found
            results.add(known)
            say(f"{line(known)} ({known['seconds']:.1f} s)")
        shown.append(known)
        return known

    try:
        [first] = machine.ROWS
        # Measured in each run, since rows count for the machine that they were measured on.
        here = record(first, {"at": time.time()})
        if "failed" in here:
            return shown
        gpu = {"name": here["values"]["name"]}
        for row in ROWS:
            left = end - time.monotonic()
            known = results.of(row.name, size.given(row) | gpu)
            if known is None and row.seconds > left and not given.dry:
                say(f"{row.name}: left out, its {row.seconds:.0f} s do not fit into the {left:.0f} s that are left")
            elif known is None and row.gigabytes > here["values"]["free GB"] and not given.dry:
                say(f"{row.name}: left out, it needs {row.gigabytes:.0f} GB of GPU memory")
            else:
                record(row, gpu)
    except KeyboardInterrupt:
        say("interrupted: what was measured follows, and stays")
        given.interrupted = True
    return shown


def interrupt(*_: Any) -> None:
    """End as after Ctrl-C, also where a shell in the background has Ctrl-C ignored."""
    raise KeyboardInterrupt


def main() -> int:
    """Check the machine, measure, print the table.

    Returns:
        0; 1 where something is missing or a row failed, 130 where it was interrupted.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=HERE / "results", help="of rows.jsonl and rows.log")
    parser.add_argument("--minutes", type=float, default=8.0, help="in which all must end; by default 8")
    parser.add_argument("--dry", action="store_true", help="every row at tiny size, on the CPU")
    given = parser.parse_args()
    given.interrupted = False
    signal.signal(signal.SIGTERM, interrupt)

    missing = False
    for text, fatal in needs.packages(HERE.parent / "pyproject.toml"):
        say(text)
        missing |= fatal
    results = Results(given.folder)
    for text in needs.machine(given.folder) if not given.dry else ():
        say(text)
        missing = True
    if missing:
        return 1
    planned = sum(row.seconds for row in (*machine.ROWS, *ROWS))
    say(f"{len(ROWS) + 1} rows, {planned:.0f} s planned of {60 * given.minutes:.0f} s, results in {results.path}")
    if given.dry:
        say("dry: the numbers mean nothing, and nothing is captured on a CPU")
    processes.begin([HERE, HERE.parent], ["rows.warm"])
    shown = measure(given, results)
    say("")
    for text in tables(shown):
        say(text)
    return 130 if given.interrupted else int(any("failed" in record for record in shown))


if __name__ == "__main__":
    sys.exit(main())
