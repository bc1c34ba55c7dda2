"""From a folder of photographs to a model: what the last lines of a fit name is there, and their commands run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

from lightning_sal.cli import main
from lightning_sal.tiny.scenes import scene_group

SMALL = ["--trainer.accelerator", "cpu", "--model.init_args.max_new_tokens", "24", "--data.init_args.batch_size", "2"]


def save(path: str, values: torch.Tensor) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.numpy()).save(path)


@pytest.fixture(autouse=True)
def photos(tmp_path, monkeypatch):
    """Six pictures with their masks, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        group = scene_group(5, "sod", number)
        save(f"photos/images/{number}.png", group.images[0])
        save(f"photos/masks/{number}.png", 255 * group.masks[0][0].byte())


def last_lines(out: str) -> dict[str, str]:
    """Label -> what stands behind it."""
    return {label: text.strip() for label, _, text in (line.partition(":") for line in out.splitlines())}


def run(command: str) -> int:
    return main(shlex.split(command.removeprefix("uv run "))[1:])


@pytest.mark.slow
def test_two_steps_leave_a_model_and_the_commands_that_are_printed_run(capsys):
    fit = ["fit", "--config", "conf/real/sod.yaml", "--data.init_args.train", "photos", *SMALL]
    assert main([*fit, "--trainer.max_steps", "2"]) == 0
    out = capsys.readouterr().out
    lines = last_lines(out)
    assert "drawn scenes only" in out
    assert "held-out samples" in out  # the table before and after
    assert all(Path(lines[label]).exists() for label in ("Checkpoint", "Adapter", "Gallery"))
    assert torch.load(lines["Checkpoint"], weights_only=True)["global_step"] == 2
    held = {json.loads(line)["key"] for line in Path(lines["Samples"]).read_text().splitlines()}
    assert 0 < len(held) < 6

    assert run(lines["Evaluate"]) == 0
    results = last_lines(capsys.readouterr().out)["Results"]
    assert len(Path(results, "sod.csv").read_text().splitlines()) - 1 == len(held)
    assert run(lines["Answer images"]) == 0
    assert "6 of 6 answered" in capsys.readouterr().out
    assert run(lines["Export"]) == 0
    assert (
        main(["segment", "photos/images/1.png", "--model", "runs/real-sod/version_0/model", "--out", "runs/exported"])
        == 0
    )
    answered = json.loads(Path("runs/exported/predictions.jsonl").read_text())
    trained = map(json.loads, Path("runs/real-sod/version_0/answers/predictions.jsonl").read_text().splitlines())
    assert answered["response"] in [line["response"] for line in trained if line["images"] == answered["images"]]


def test_too_few_photographs_are_one_line(capsys):
    for path in Path("photos/images").glob("[1-5].png"):
        path.unlink()
    assert main(["fit", "--config", "conf/real/sod.yaml", "--data.init_args.train", "photos", *SMALL]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("lightning: error: sod: 1 sample with photographs of its own is too few to hold one out")
