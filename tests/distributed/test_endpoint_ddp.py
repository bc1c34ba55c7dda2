"""Two processes (gloo) that each ask a model behind an endpoint about their own samples: one table, one ledger."""

from contextlib import redirect_stdout

import pytest

from lightning_sal.callbacks import EvaluationResults
from lightning_sal.clients.endpoint_config import EndpointConfig
from lightning_sal.datamodules import BenchmarksDataModule
from lightning_sal.evaluation.results import read_images, read_summary
from lightning_sal.modules import Endpoint
from tests.annotation.parts import write_sis, write_sod
from tests.annotation.server import INPUT, Model, Server
from tests.distributed.processes import in_processes
from tests.modules.parts import StripeSegmenter, trainer

BENCHMARKS = {"ECSSD": "sod", "ILSO": "sis"}


def work(world_size, rank, folder, url):
    config = EndpointConfig(
        "some-model", url, cache=str(folder / f"kept-{world_size}"), input_price=2.0, output_price=10.0
    )
    data = BenchmarksDataModule(BENCHMARKS, str(folder / "data"), batch_size=2)
    callback = EvaluationResults(folder / f"results-{world_size}", "some-model")
    options = {"strategy": "ddp", "devices": world_size} if world_size > 1 else {}
    with (folder / f"output-{world_size}-{rank}.txt").open("w") as output, redirect_stdout(output):
        run = trainer(folder, callbacks=[callback], **options)
        run.test(Endpoint(config, StripeSegmenter(), max_new_tokens=77), data, verbose=False)


def test_two_ranks_make_the_table_of_one_and_ask_for_each_answer_once(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-0123456789")
    write_sod(tmp_path / "data/ECSSD", 5)
    write_sis(tmp_path / "data/ILSO", [1, 2, 1, 2])
    said = {True: "<ins>a</ins><ins>bb</ins>", False: "<rg>a</rg>"}
    with Server(
        Model({3: ["refusal"]}, answer=lambda text, _: f"<think>So.</think><answer>{said['<ins>' in text]}</answer>")
    ) as server:
        in_processes(work, [1, 2], tmp_path, server.url)
    assert len(server.log) == 2 * 9
    assert len({(each.image, each.texts) for each in server.log[9:]}) == 9
    one, two = (read_summary(tmp_path / f"results-{count}") for count in (1, 2))
    assert (one.tasks, one.settings, one.measures) == (two.tasks, two.settings, two.measures)
    for name in BENCHMARKS:
        assert two.metrics[name] == pytest.approx(one.metrics[name])
        rows = [read_images(tmp_path / f"results-{count}", name) for count in (1, 2)]
        assert rows[0] == rows[1]
        left, right = one.usage[name], two.usage[name]
        assert {**left, "seconds": 0} == pytest.approx({**right, "seconds": 0})
    assert two.usage["ECSSD"]["input_tokens"] == 5 * INPUT
    first, second = ((tmp_path / f"output-2-{rank}.txt").read_text() for rank in (0, 1))
    assert "0 answers are kept already" in first
    assert f"9 answers, 0 of them kept from before; 9 requests; {9 * INPUT:,} tokens in" in first
    assert "answers" not in second
