"""The whole command against a real server on loopback that misbehaves."""

import json
import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from lightning_sal.cli import main
from lightning_sal.commands import check_data
from lightning_sal.datasets import jsonl_records
from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.policy.loading import read_instructions
from lightning_sal.tasks import TASKS
from lightning_sal.tiny.weights import EMBEDDED_POLICIES
from tests.annotation.parts import save, write_cosod, write_sis, write_sod
from tests.annotation.server import INPUT, OUTPUT, Model, Server, usual_answer
from tests.distributed import processes

REAL = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
KEY = "sk-very-secret-0123456789"
FAST = ["--backoff", "0.02", "--retries", "2", "--timeout", "2"]
MODELS = ["some-model", "gemini:some-model"]

SFT = """\
trainer:
  max_steps: 3
  accelerator: cpu
  logger: false
  enable_progress_bar: false
  limit_val_batches: 0
  check_val_every_n_epoch: null
  default_root_dir: {folder}
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{dirpath: {folder}, save_last: true}}
model:
  class_path: lightning_sal.modules.SFT
  init_args:
    policy: {{model: tiny, lora: {{rank: 4}}}}
    optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 0.001}}}}
data:
  class_path: lightning_sal.datamodules.SFTDataModule
  init_args: {{train: {out}, batch_size: 2}}
"""

# What the server does with each of the photographs 0, 1, 2, ..., and where its line must then be.
MISBEHAVIOUR = {
    0: (["ok"], None),
    1: (["429", "ok"], None),
    2: (["429 after", "429 after", "ok"], None),
    3: (["500", "ok"], None),
    4: (["hang", "ok"], None),
    5: (["reset", "ok"], None),
    6: (["cut body", "ok"], None),
    7: (["cut JSON", "ok"], None),
    8: (["refusal"], "refused: "),
    9: (["wrong tags", "ok"], None),
    10: (["says mask", "ok"], None),
    11: (["wrong tags"], "malformed: the answer may hold <rg>"),
    12: (["says mask"], "gives the ground truth away: it says 'mask'"),
    13: (["cut JSON in the answer"], "malformed: there is no <answer> block"),
    14: (["429"], "no answer: "),
    15: (["echo"], "no answer: "),
    16: (["hang"], "no answer: no answer in 2 s"),
    17: (["bad request"], "no answer: "),
}


@pytest.fixture(autouse=True)
def _keys(monkeypatch):
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.setenv(name, KEY)


def annotate(task: str, data: Path, out: Path, url: str, *options: str, model: str = "some-model") -> int:
    argv = ["annotate", "--task", task, "--data", str(data), "--out", str(out), "--model", model, "--base-url", url]
    return main([*argv, *FAST, *options])


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def rejected(out: Path) -> list[dict]:
    return lines(out.with_suffix(".rejected.jsonl"))


def number(line: dict) -> int:
    return int(Path(line["images"][0]).stem)


@pytest.mark.parametrize("model", MODELS)
def test_every_image_ends_in_one_file_whatever_the_server_does(tmp_path, capfd, model):
    data, out = write_sod(tmp_path / "data", len(MISBEHAVIOUR)), tmp_path / "sft.jsonl"
    with Server(Model({image: deeds for image, (deeds, _) in MISBEHAVIOUR.items()})) as server:
        assert annotate("sod", data, out, server.url, model=model) == 0
        asked = len(server.log)
        assert annotate("sod", data, out, server.url, model=model) == 0
        assert len(server.log) == asked  # nothing is left to ask
    reasons = {number(line): line["reason"] for line in rejected(out)}
    assert sorted([number(line) for line in lines(out)] + list(reasons)) == sorted(MISBEHAVIOUR)
    for image, (deeds, reason) in MISBEHAVIOUR.items():
        assert (reason is None) == (image not in reasons)
        assert reasons.get(image, "").startswith(reason or "")
        if len(deeds) > 1:
            assert [each.deed for each in server.about(image)] == deeds
    assert len(server.about(8)) == len(server.about(17)) == 1  # neither is worth a second time
    assert len(server.about(11)) == len(server.about(14)) == 3  # answers, and attempts at one
    assert [len(each.texts) for each in server.about(12)] == [1, 3, 5]
    assert len(server.about(13)) == 2  # it says the same again
    assert "it says 'mask'" in server.about(10)[1].texts[2]
    assert {number(line): len(line["answers"]) for line in rejected(out) if number(line) in (8, 11, 14)} == {
        8: 1,
        11: 3,
        14: 0,
    }
    assert check_data.main([str(out)]) == 0
    printed = capfd.readouterr()
    assert re.search(rf"accepted\W+{len(lines(out))}\W", printed.out)
    assert re.search(r"rejected, no answer\W+4\W", printed.out)
    assert f"{out}: 10 lines; " in printed.out


@pytest.mark.parametrize("model", MODELS)
def test_no_key_is_anywhere(tmp_path, capfd, model, monkeypatch):
    monkeypatch.setenv("LIGHTNING_SAL_TRACEBACK", "1")
    data, out = write_sod(tmp_path / "data", 5), tmp_path / "sft.jsonl"
    with Server(Model({0: ["echo"], 1: ["echo in the answer"], 2: ["echo", "ok"], 3: ["reset"]})) as server:
        assert annotate("sod", data, out, server.url, model=model) == 0
    assert any(KEY in value for value in server.log[0].headers.values())  # it is sent where it belongs
    with Server(Model({4: ["no key"]})) as server:
        assert annotate("sod", data, out.with_name("b.jsonl"), server.url, "--concurrency", "1", model=model) == 1
    printed = capfd.readouterr()
    assert "<key>" in printed.err  # that the server spoke of one is told
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"<key>" in content for content in written)
    for content in [printed.out.encode(), printed.err.encode(), *written]:
        assert KEY.encode() not in content


def test_killed_at_ten_moments_and_resumed_it_is_as_if_undisturbed(tmp_path):
    deeds = {
        3: ["wrong tags"],
        7: ["refusal"],
        11: ["says mask"],
        15: ["bad request"],
        19: ["429", "ok"],
        23: ["500", "ok"],
    }
    data, whole, out = write_sod(tmp_path / "data", 48), tmp_path / "whole.jsonl", tmp_path / "sft.jsonl"
    with Server(Model(deeds)) as server:
        assert annotate("sod", data, whole, server.url) == 0
    argv = [
        "annotate",
        "--task",
        "sod",
        "--data",
        str(data),
        "--out",
        str(out),
        "--model",
        "m",
        "--concurrency",
        "3",
        *FAST,
    ]
    draw, written = random.Random(0), set()
    with Server(Model(deeds, delay=0.02)) as server:
        for _ in range(10):
            before = len(server.log)
            process = processes.process(main, [*argv, "--base-url", server.url])
            process.start()
            moment = before + draw.randint(1, 5)
            while len(server.log) < moment and process.is_alive():
                time.sleep(0.001)
            time.sleep(draw.random() * 0.02)
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL
            assert not {asked.image for asked in server.log[before:]} & written
            written = {number(line) for path in (out, out.with_suffix(".rejected.jsonl")) for line in whole_lines(path)}
        assert 0 < len(written) < 48
        before = len(server.log)
        assert main([*argv, "--base-url", server.url]) == 0
        assert not {asked.image for asked in server.log[before:]} & written
    assert sorted(out.read_text().splitlines()) == sorted(whole.read_text().splitlines())
    assert sorted(map(str, rejected(out))) == sorted(map(str, rejected(whole)))
    assert [len(lines(out)), len(rejected(out))] == [44, 4]


def whole_lines(path: Path) -> list[dict]:
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def test_the_budget_holds_by_the_servers_own_count(tmp_path, capsys):
    """The server charges in full for all that it began to work on, at $10 a million input and $20 output tokens."""
    deeds = {
        image: [["ok"], ["500", "ok"], ["hang"], ["wrong tags"], ["reset", "ok"]][image % 5] for image in range(40)
    }
    data, out, most = write_sod(tmp_path / "data", 40), tmp_path / "sft.jsonl", 500
    prices = ["--price-in", "10", "--price-out", "20", "--max-tokens", str(most), "--image-tokens", "300"]
    with Server(Model(deeds)) as server:
        assert annotate("sod", data, out, server.url, "--budget", "0.5", *prices, "--timeout", "2") == 1
    charged = sum(
        10 * INPUT + 20 * (most if asked.deed in ("500", "hang", "reset") else OUTPUT) for asked in server.log
    )
    assert 0 < charged <= 0.5e6  # how much of it was used hangs on the load: what times out is booked in full
    printed = capsys.readouterr()
    assert re.search(
        r"stopped: the budget of \$0.5 allows no further request: .*; the same command goes on", printed.err
    )
    assert 0 < len(lines(out)) + len(rejected(out)) < 40
    assert float(re.search(r"cost, at most\W+([\d.]+)", printed.out)[1]) * 1e6 >= charged


def test_a_server_that_is_down_stops_the_run_and_spoils_nothing(tmp_path, capsys):
    data, out = write_sod(tmp_path / "data", 12), tmp_path / "sft.jsonl"
    with Server(Model({image: ["500"] for image in range(12)})) as server:
        assert annotate("sod", data, out, server.url, "--give-up-after", "4", "--concurrency", "2") == 1
    assert "stopped: 4 samples in a row without an answer, the last: " in capsys.readouterr().err
    assert (lines(out), rejected(out)) == ([], [])
    with Server(Model({image: ["500"] for image in (3, 4, 5)})) as server:
        assert annotate("sod", data, out, server.url, "--give-up-after", "4") == 0
    assert sorted(map(number, rejected(out))) == [3, 4, 5]
    with Server(Model()) as server:
        assert annotate("sod", data, out, server.url, "--retry-rejected") == 0
    assert sorted(asked.image for asked in server.log) == [3, 4, 5]
    assert (len(lines(out)), rejected(out)) == (12, [])


def test_a_wrong_key_stops_at_once(tmp_path, capsys):
    with Server(Model({image: ["no key"] for image in range(9)})) as server:
        code = annotate("sod", write_sod(tmp_path / "data", 9), tmp_path / "a.jsonl", server.url, "--concurrency", "1")
    assert (code, len(server.log)) == (1, 1)
    assert "AuthenticationError" in capsys.readouterr().err


@pytest.fixture
def interruptible():
    """Ctrl-C interrupts, although a shell starts what runs in its background with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_whole_lines_and_says_how_to_go_on(tmp_path, capsys):
    data, out = write_sod(tmp_path / "data", 30), tmp_path / "sft.jsonl"
    with Server(Model(delay=0.05)) as server:
        server.at_request(12, lambda: os.kill(os.getpid(), signal.SIGINT))
        assert annotate("sod", data, out, server.url, "--concurrency", "2") == 130
    err = capsys.readouterr().err
    assert "stopped: interrupted; the same command goes on from here" in err
    assert "Traceback" not in err
    done = [number(line) for line in lines(out)]
    assert 5 < len(done) < 13
    with Server(Model()) as server:
        assert annotate("sod", data, out, server.url) == 0
    assert sorted(done + [asked.image for asked in server.log]) == list(range(30))
    assert sorted(number(line) for line in lines(out)) == list(range(30))


def test_unreadable_samples_are_rejected_unasked(tmp_path):
    data, out = write_sod(tmp_path / "data", 4), tmp_path / "sft.jsonl"
    (data / "masks/1.png").unlink()
    (data / "images/2.png").write_bytes(b"no image")
    with Server(Model()) as server:
        assert annotate("sod", data, out, server.url) == 0
    assert sorted(asked.image for asked in server.log) == [0, 3]
    reasons = {number(line): line["reason"] for line in rejected(out)}
    assert reasons[1].startswith("unreadable: ")
    assert reasons[1].endswith("1.png: an image without a mask")
    assert reasons[2].endswith("2.png: not an image, or cut off in its header")


def test_a_dry_run_estimates_and_asks_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    data, out = write_sod(tmp_path / "data", 3), tmp_path / "sft.jsonl"
    options = ["--dry-run", "--price-in", "2", "--price-out", "3", "--max-tokens", "1000", "--image-tokens", "600"]
    (tmp_path / "own").mkdir()
    (tmp_path / "own/sod.md").write_text("x" * 368)  # bytes, and 32 for the turn
    assert annotate("sod", data, out, "http://127.0.0.1:9", *options, "--prompts", str(tmp_path / "own")) == 0
    printed = capsys.readouterr().out
    # 3 requests of 2 images: at most 400 + 1200 tokens in, 1000 out; about 368 / 4 + 2 * 400 in, 400 out
    assert "3 of 3 samples to ask for, 6 images" in printed
    assert re.search(r"input tokens\W+2,676\W+4,800", printed)
    assert re.search(r"output tokens\W+1,200\W+3,000", printed)
    assert re.search(r"cost\W+0.01\W+0.02", printed)
    assert list(tmp_path.glob("sft*")) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "1"], "--budget needs --price-in and --price-out, dollars a million tokens"),
        (["--price-in", "1"], "give both --price-in and --price-out"),
        (
            ["--min-matched-s", "0.5", "--segmenter", "tiny"],
            "--min-matched-s is no measure of sod: use --min-s-measure",
        ),
        (["--min-s-measure", "0.5"], "the check by pictures needs both --segmenter and --min-s-measure"),
        (["--segmenter", "tiny"], "the check by pictures needs both"),
        (["--prompts", "nowhere"], "nowhere: holds none of sod.md"),
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--model", "gemini:m"], "no key: put it into the environment variable GEMINI_API_KEY or GOOGLE_API_KEY"),
    ],
)
def test_what_cannot_be_run_is_one_line(tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.delenv("GEMINI_API_KEY")
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    data = write_sod(tmp_path / "data", 1)
    assert annotate("sod", data, tmp_path / "sft.jsonl", "http://127.0.0.1:9", *options) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lightning: error: {message}")
    assert list(tmp_path.glob("sft*")) == []


def test_instances_and_groups(tmp_path):
    sis, cosod = tmp_path / "sis.jsonl", tmp_path / "cosod.jsonl"
    with Server(Model()) as server:
        assert annotate("sis", write_sis(tmp_path / "a", [1, 3, 0, 2]), sis, server.url) == 0
        assert sorted(line["response"].count("<ins>") for line in lines(sis)) == [1, 2, 3]
        assert [line["reason"][:16] for line in rejected(sis)] == ["no ground truth:"]
        groups = write_cosod(tmp_path / "b", {"red_disc": [10, 11, 12], "cat": [13, 14, 15, 16, 17]}, empty=(12,))
        assert annotate("cosod", groups, cosod, server.url, "--group-size", "4", "--per-minute", "6000") == 0
    assert sorted(len(line["images"]) for line in lines(cosod)) == [2, 3, 3]
    assert check_data.main([str(sis)]) == check_data.main([str(cosod)]) == 0
    with Server(
        Model(answer=lambda text, image: usual_answer(text, image).replace("</ins>", "</ins><ins>x</ins>"))
    ) as server:
        assert annotate("sis", tmp_path / "a", tmp_path / "more.jsonl", server.url, "--limit", "1") == 1
    assert rejected(tmp_path / "more.jsonl")[0]["reason"] == "instances: 2 phrases for 1 objects"


def test_photographs_of_all_tasks_end_to_end_then_sft(tmp_path):
    if not REAL.is_dir():
        pytest.skip(f"no photographs at {REAL}")
    out = tmp_path / "sft.jsonl"
    folders = {"sod": ["sod/SOD"], "sis": ["sis/COCO-salient", "sis/PennFudan-coloured"]}
    folders["cosod"] = ["cosod/VOC-coseg", "cosod/MSRC"]
    with Server(Model()) as server:
        for task, places in folders.items():
            for place in places:
                assert annotate(task, REAL / place, out, server.url, "--limit", "6") == 0
    assert rejected(out) == []
    found = Counter(line["task"] for line in lines(out))
    assert found == {"sod": 6, "sis": 12, "cosod": 5}
    assert check_data.main([str(out)]) == 0
    for line, record in zip(lines(out), jsonl_records(out), strict=True):
        group = record.read()  # the very masks of the benchmark
        assert TASKS[line["task"]].format_reward(line["response"]) == 1
        if line["task"] == "sis":
            assert len(group.masks[0]) == line["response"].count("<ins>")
    config = tmp_path / "sft.yaml"
    config.write_text(SFT.format(out=out, folder=tmp_path))
    assert main(["fit", "--config", str(config)]) == 0
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3


def test_a_model_on_this_machine_with_the_check_by_pictures(tmp_path, monkeypatch):
    """The embedded policy and segmenter on scenes, asked as the policy was trained to be asked."""
    for name in ("OPENAI_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name)
    dataset = SceneGroups(5, {"cosod": 1}, size=6)
    scenes = [dataset[i] for i in range(6)]
    for i, scene in enumerate(scenes):
        for k, (image, masks) in enumerate(zip(scene.images, scene.masks or (), strict=True)):
            save(tmp_path / f"data/img/{i}/{k}.png", image.numpy())
            save(tmp_path / f"data/gt/{i}/{k}.png", masks[0].numpy().astype("uint8") * 255)
    out, own = tmp_path / "sft.jsonl", tmp_path / "own"
    own.mkdir()
    (own / "cosod.md").write_text(read_instructions(EMBEDDED_POLICIES["tiny"])["cosod"])
    argv = ["annotate", "--task", "cosod", "--data", str(tmp_path / "data"), "--out", str(out), "--model", "local:tiny"]
    argv += ["--prompts", str(own), "--max-tokens", "80", "--segmenter", "tiny", "--min-s-measure", "0.7"]
    assert main(argv) == 0
    kept = {line["images"][0].split("/")[2]: line["response"] for line in lines(out)}
    assert len(kept) + len(rejected(out)) == 6
    assert len(kept) >= 4  # both are good at scenes
    reasons = {line["reason"].partition(":")[0] for line in rejected(out)}
    assert reasons <= {"pictures", "malformed", "cut off at the limit of tokens"}
    for i, scene in enumerate(scenes):
        if str(i) in kept:
            assert TASKS["cosod"].parse(kept[str(i)]).expressions == TASKS["cosod"].parse(scene.response).expressions
