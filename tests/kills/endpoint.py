"""Evaluate a model behind an endpoint, in each folder again and again until an evaluation ends by itself.

    python -m tests.kills.endpoint URL FOLDER...

A folder holds the benchmarks as `data`. Each evaluation is a forked process, whose number stands in `pid` before it asks for
anything; it writes `results` and, at the end, `closing`. Before each, `kept-N.json` gets the texts that are kept.
"""

import json
import os
import signal
import sys
from contextlib import redirect_stdout
from pathlib import Path

import openai  # noqa: F401, once for all children, since it takes a while
import torch

import tests.forking  # noqa: F401
from lightning_sal.callbacks import EvaluationResults
from lightning_sal.clients import asking  # noqa: F401, likewise
from lightning_sal.clients.endpoint_config import EndpointConfig
from lightning_sal.datamodules import BenchmarksDataModule
from lightning_sal.modules import Endpoint
from tests.modules.parts import StripeSegmenter, trainer

BENCHMARKS = {"ECSSD": "sod", "ILSO": "sis", "CoCA": "cosod"}


def evaluate(folder: Path, url: str) -> None:
    config = EndpointConfig(
        "some-model", url, concurrency=2, backoff=0.001, cache=str(folder / "kept"), input_price=2.0, output_price=10.0
    )
    module = Endpoint(config, StripeSegmenter(), max_new_tokens=77)
    data = BenchmarksDataModule(BENCHMARKS, str(folder / "data"), batch_size=6)
    results = EvaluationResults(folder / "results", "some-model")
    with (folder / "output.txt").open("w") as output, redirect_stdout(output):
        trainer(folder, callbacks=[results]).test(module, data, verbose=False)


def run(folder: Path, url: str) -> int:
    """Evaluates once; returns the exit code, negative where a signal ended it."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        (folder / "pid").write_text(str(os.getpid()))
        evaluate(folder, url)
        code = 0
    finally:
        os._exit(code)


def main(folder: Path, url: str) -> int:
    """Evaluates until nobody kills it; returns the exit code of the last time."""
    for number in range(99):
        kept = [json.loads(path.read_text())["reply"]["reply"]["text"] for path in (folder / "kept").glob("*/*/*.json")]
        (folder / f"kept-{number}.json").write_text(json.dumps(kept))
        if (code := run(folder, url)) != -signal.SIGKILL:
            return code
    return 99


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(max(main(Path(folder), sys.argv[1]) for folder in sys.argv[2:]))
