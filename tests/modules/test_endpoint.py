"""A model behind an endpoint is evaluated like a policy, whatever its server does and however often the run is killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from lightning_sal.callbacks import EvaluationResults
from lightning_sal.cli import main
from lightning_sal.clients.endpoint_config import EndpointConfig
from lightning_sal.datamodules import BenchmarksDataModule
from lightning_sal.errors import UsageError
from lightning_sal.evaluation.results import read_images, read_summary
from lightning_sal.inference.responses import gather
from lightning_sal.modules import Endpoint
from lightning_sal.rewards import Alignment, Format, Reward
from tests.annotation.parts import write_cosod, write_sis, write_sod
from tests.annotation.server import INPUT, OUTPUT, Model, Server
from tests.cli_parts import fails, parsed_alone
from tests.docs.pages import ROOT
from tests.docs.workspace import COSOD, SIS, SOD, write_benchmarks
from tests.kills.endpoint import BENCHMARKS
from tests.modules.parts import StripeSegmenter, scenes, sft, trainer

NINE = {
    **dict.fromkeys((name for name in SOD if name != "DUTS-TR"), "sod"),
    **dict.fromkeys(SIS, "sis"),
    **dict.fromkeys((name for name in COSOD if name != "CoCO-SEG"), "cosod"),
}
SECOND = ROOT / "conf/eval/endpoint.yaml"
SAID = {"sod": "<rg>a</rg>", "sis": "<ins>a</ins><ins>bb</ins>", "cosod": "<rg>[semantic] a</rg>"}


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-0123456789")


def task_of(text):
    return "cosod" if "belong together" in text else "sis" if "<ins>" in text else "sod"


def answer(text, image):
    return f"<think>Number {image}-{task_of(text)}.</think><answer>{SAID[task_of(text)]}</answer>"


def endpoint(server, folder, **options):
    how = {"backoff": 0.001, "timeout": 5.0, "cache": str(folder / "kept")}
    how |= {name: options.pop(name) for name in [*options] if name in EndpointConfig.__dataclass_fields__}
    settings = {"segmenter": StripeSegmenter(), "max_new_tokens": 77, **options}
    return Endpoint(EndpointConfig("some-model", server.url, **how), **settings)


def evaluated(folder, module, data):
    """What `test` logs, and the folder of results."""
    results = EvaluationResults(folder / "results", "some-model", numbered=True)
    values = trainer(folder, callbacks=[results]).test(module, data, verbose=False)[0]
    return values, results.folder


@pytest.fixture
def small(tmp_path):
    """Three benchmarks, one a task, of photographs with numbers."""
    write_sod(tmp_path / "data/ECSSD", 12)
    write_sis(tmp_path / "data/ILSO", [1, 2, 3, 1, 2, 1, 2, 1])
    write_cosod(tmp_path / "data/CoCA", {f"group{i}": [2 * i, 2 * i + 1] for i in range(4)})
    return BenchmarksDataModule(BENCHMARKS, str(tmp_path / "data"), batch_size=6)


def test_nine_benchmarks_are_measured_as_those_of_a_policy_that_says_the_same(tmp_path, monkeypatch):
    write_benchmarks(tmp_path / "data")
    data = BenchmarksDataModule(NINE, str(tmp_path / "data"), batch_size=5)
    with Server(Model(answer=answer)) as server:
        found, folder = evaluated(tmp_path, endpoint(server, tmp_path), data)

    def saying_the_same(groups, rollout, *rest, **options):
        texts = tuple(f"<think>So.</think><answer>{SAID[group.task]}</answer>" for group in groups)
        return gather(groups, replace(rollout, texts=texts), *rest, **options)

    monkeypatch.setattr("lightning_sal.modules.base.gather", saying_the_same)
    expected, _ = evaluated(tmp_path, sft(), data)
    of_tokens = re.compile("confidence|ece")
    expected = {name: value for name, value in expected.items() if not of_tokens.search(name)}
    assert len({name.split("/")[1] for name in expected}) == 9
    assert found == pytest.approx(expected)
    results = read_summary(folder)
    assert results.tasks == NINE
    assert all(each["samples"] * INPUT == each["input_tokens"] for each in results.usage.values())
    settings = results.settings["ECSSD"]
    assert (settings["model"], settings["address"], settings["reading"]) == ("some-model", server.url, "lenient")


def test_what_a_server_does_on_its_way_changes_no_number(tmp_path, small):
    deeds = {1: ["429 after", "ok"], 2: ["500", "reset", "ok"], 4: ["cut body", "cut JSON", "ok"], 6: ["hang", "ok"]}
    with Server(Model(deeds, answer=answer)) as server:
        found, _ = evaluated(tmp_path, endpoint(server, tmp_path, timeout=1.0), small)
    with Server(Model(answer=answer)) as server:
        assert found == evaluated(tmp_path, endpoint(server, tmp_path), small)[0]


def test_a_refusal_is_an_empty_answer_that_says_why(tmp_path, small, capsys):
    deeds = {3: ["refusal"], 5: ["bad request"]}
    with Server(Model(deeds, answer=answer)) as server:
        module = endpoint(server, tmp_path, input_price=2.0, output_price=10.0)
        values, folder = evaluated(tmp_path, module, small)
    rows = {Path(row["image"]).stem: row for row in read_images(folder, "ECSSD")}
    reasons = {name: row["malformed"] for name, row in rows.items() if row["malformed"]}
    assert reasons == {"3": "refused: I will not.", "5": "refused: BadRequestError: 400 this image is not allowed"}
    assert float(rows["3"]["reward"]) < float(rows["2"]["reward"])
    assert values["test/ECSSD/malformed"] == pytest.approx(2 / 12)
    cost = (2.0 * INPUT + 10.0 * OUTPUT) / 1e6
    usage = read_summary(folder).usage["ECSSD"]
    assert usage["samples"] == 12
    assert usage["cost"] == pytest.approx(11 * cost)  # a request that is turned away costs nothing
    start, end = (line for line in capsys.readouterr().out.splitlines() if line.startswith("some-model"))
    assert "0 answers are kept already; $2 and $10 a million tokens" in start
    assert "24 answers, 0 of them kept from before" in end
    assert "refused" in end


def test_nothing_but_zeros_is_no_result(tmp_path, small):
    deeds = {number: ["bad request"] for number in range(12)}
    with Server(Model(deeds, answer=answer)) as server:
        module = endpoint(server, tmp_path, give_up_after=99)
        with pytest.raises(UsageError, match=r"nothing: each of 24 requests was turned away, the last: .*not allow"):
            evaluated(tmp_path, module, small)
    assert not (tmp_path / "results/summary.json").exists()


def test_how_answers_are_read_changes_masks_and_never_the_share_of_the_format(tmp_path, small):
    unformed = {"sod": "It is <rg>a</rg>", "sis": "<ins>a</ins> and <ins>bb</ins>", "cosod": "<rg>[semantic] a</rg>"}
    found = {}
    with Server(Model(answer=lambda text, image: unformed[task_of(text)])) as server:
        for reading in ("strict", "lenient"):
            module = endpoint(server, tmp_path, evaluation_reading=reading)
            found[reading], folder = evaluated(tmp_path, module, small)
            assert read_summary(folder).settings["ECSSD"]["reading"] == reading
    assert len(server.log) == 24  # the answers are the same ones
    with Server(Model(answer=answer)) as server:  # the same words in the form
        found["formed"], _ = evaluated(tmp_path, endpoint(server, tmp_path), small)
    for name in BENCHMARKS:
        kinds = ("malformed", "reward_format", "reward_correctness")
        strict, lenient, formed = ([values[f"test/{name}/{kind}"] for kind in kinds] for values in found.values())
        assert strict[:2] == lenient[:2] == [1, 0]
        assert formed[:2] == [0, 1]
        assert strict[2] == 0
        assert lenient[2] == formed[2]
    assert found["formed"]["test/ECSSD/reward_correctness"] > 0


def test_confidence_is_measured_where_there_are_log_probabilities(tmp_path, small):
    with Server(Model(answer=answer, logps=[-0.5])) as server:
        values, folder = evaluated(tmp_path, endpoint(server, tmp_path), small)
    sure = torch.tensor(-0.5).exp().item()
    assert values["test/ECSSD/confidence"] == pytest.approx(sure)
    assert [float(row["confidence"]) for row in read_images(folder, "CoCA")] == pytest.approx([sure] * 8)
    assert "test/ECSSD/ece" in values


def test_validation_and_prediction_ask_too(tmp_path):
    data = scenes(val_size=3, batch_size=2, annotated=3)
    with Server(Model(answer=answer)) as server:
        values = trainer(tmp_path, limit_val_batches=1.0).validate(endpoint(server, tmp_path), data, verbose=False)[0]
        asked = len(server.log)
        found = trainer(tmp_path).predict(endpoint(server, tmp_path), data.val_dataloader())
    predictions = [prediction for batch in found for prediction in batch]
    assert len(server.log) == asked == len(predictions) > 0  # which has been answered
    assert all(prediction.usage.output_tokens == OUTPUT for prediction in predictions)
    assert any(name.endswith("/reward") for name in values)


def test_what_an_endpoint_does_not_have_is_refused_in_one_line(tmp_path):
    with Server(Model()) as server:
        module = endpoint(server, tmp_path)
        with pytest.raises(UsageError, match="nothing can be trained: take test or validate"):
            trainer(tmp_path, max_steps=1).fit(module, scenes())
        with pytest.raises(ValueError, match="has no attribution maps, which a term of model"):
            endpoint(server, tmp_path, reward=Reward([Alignment(), Format()]))
        with pytest.raises(UsageError, match="no weights here to load: leave out --ckpt_path"):
            module.on_load_checkpoint({})
        with pytest.raises(ValueError, match="max_new_tokens 0"):
            endpoint(server, tmp_path, max_new_tokens=0)
    assert not server.log


@pytest.mark.parametrize(
    "path",
    [path for path in sorted((ROOT / "conf/eval").glob("*.yaml")) if "lightning_sal.datamodules." in path.read_text()],
    ids=lambda path: path.stem,
)
def test_the_second_config_fits_every_evaluation(path, monkeypatch):
    parsed = parsed_alone(monkeypatch)
    options = ["--model.init_args.policy.model", "gpt-4o", "--model.init_args.policy.base_url", "http://127.0.0.1:9/v1"]
    assert main(["test", "--config", str(path), "--config", str(SECOND), *options]) == 0
    (config,) = parsed
    assert config.model.class_path == "lightning_sal.modules.Endpoint"
    assert config.model.init_args.policy.model == "gpt-4o"
    named = "segmenter:" in path.read_text()
    assert (config.model.init_args.segmenter is not None) == named
    assert config.trainer.callbacks[0].init_args.name == "gpt-4o"


def test_the_command_of_the_page_works_as_it_is_written(tmp_path, monkeypatch, capsys):
    write_benchmarks(tmp_path / "data")
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    monkeypatch.chdir(tmp_path)
    command = "test --config conf/eval/all.yaml --config conf/eval/endpoint.yaml --data.init_args.root data"
    with Server(Model(answer=answer)) as server:
        where = f"--model.init_args.policy.model gpt-4o --model.init_args.policy.base_url {server.url}"
        assert main([*command.split(), *where.split()]) == 0
        asked = len(server.log)
        assert main([*command.split(), *where.split()]) == 0
    assert len(server.log) == asked
    first, second = (read_summary(tmp_path / f"runs/eval/gpt-4o{number}") for number in ("", "-2"))
    assert first.name == "gpt-4o"
    assert first == second
    assert set(first.tasks) == set(NINE)
    assert f"gpt-4o at {server.url}: 0 answers are kept already" in capsys.readouterr().out


def test_what_is_missing_is_said_before_anything_is_loaded(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lightning_sal.configs.trainer_cli", None)
    monkeypatch.delenv("OPENAI_API_KEY")
    configs = [word for name in ("ecssd", "endpoint") for word in ("--config", str(ROOT / f"conf/eval/{name}.yaml"))]
    assert "no key: put it into the environment variable OPENAI_API_KEY" in fails(capsys, ["test", *configs], 2)
    gemini = ["--model.init_args.policy.model", "gemini:some-model"]
    assert "variable GEMINI_API_KEY or GOOGLE_API_KEY" in fails(capsys, ["test", *configs, *gemini], 2)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-0123456789")
    for package in ("openai", "tenacity"):
        with monkeypatch.context() as patch:
            patch.setattr(
                "lightning_sal.clients.api.find_spec", lambda name, missing=package: None if name == missing else 1
            )
            assert f"this model needs the package {package}: " in fails(capsys, ["test", *configs], 2)


def test_ten_kills_change_nothing_and_no_answer_is_asked_for_twice(tmp_path, small):
    """The server kills the evaluation whenever three more requests have come, two of them at once."""
    marks = []
    with Server(Model({5: ["500", "refusal"], 7: ["429 after", "ok"]}, answer=answer)) as server:

        def kill():
            os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
            marks.append(len(server.log))

        for number in range(1, 11):
            server.at_request(3 * number, kill)
        whole = tmp_path / "whole"  # nothing is left that would kill it
        shutil.copytree(tmp_path / "data", whole / "data")
        command = [sys.executable, "-m", "tests.kills.endpoint", server.url, str(tmp_path), str(whole)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, len(marks)) == (0, 10), done.stderr
    broken = server.log[:-24]

    borders = [0, *marks, len(broken)]
    for number, (first, last) in enumerate(pairwise(borders)):
        kept = re.findall(r"Number (\d+)-(\w+)", (tmp_path / f"kept-{number}.json").read_text())
        asked = {(str(each.image), task_of(each.texts[0])) for each in broken[first:last]}
        assert asked.isdisjoint(kept)
        assert bool(kept) == bool(number)
    one, other = ((folder / "results") for folder in (tmp_path, whole))
    left, right = (json.loads((folder / "summary.json").read_text()) for folder in (one, other))
    for summary in (left, right):
        for usage in summary["usage"].values():
            assert usage.pop("seconds") > 0
    assert left == right
    assert left["usage"]["ECSSD"]["cost"] == pytest.approx(12 * (2.0 * INPUT + 10.0 * OUTPUT) / 1e6)
    for name in BENCHMARKS:
        assert (one / f"{name}.csv").read_text() == (other / f"{name}.csv").read_text().replace(
            str(whole), str(tmp_path)
        )
    ledgers = [
        re.sub(r", \d+ of them kept from before; \d+ requests(, \d+ of unknown cost)?", "", output.splitlines()[-1])
        for output in ((folder / "output.txt").read_text() for folder in (tmp_path, whole))
    ]
    assert ledgers[0] == ledgers[1]
    assert f"24 answers; {24 * INPUT:,} tokens in" in ledgers[0]
    assert "; 24 requests; " in (whole / "output.txt").read_text()
