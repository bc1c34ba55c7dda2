"""The tasks beside saliency on an accelerator, and the commands that look into a policy: as on the CPU."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lightning_sal.cli import main
from lightning_sal.modules import GRPO
from lightning_sal.rewards import (
    BoxIoU,
    CountMatch,
    FormatJSON,
    FormatTags,
    Look,
    NonRepeat,
    PointDistance,
    RankedReward,
)
from tests.device import pretend
from tests.device.parts import Spread, module, scenes, trainer
from tests.device.test_fit import aligned, moved

TERMS = [FormatTags(), FormatJSON(), Look(), NonRepeat(), BoxIoU(), CountMatch(), PointDistance(), Spread()]
PERCEPTION = {
    "model": "tiny-perception",
    "reward": RankedReward(TERMS, ranked=["box", "count", "point"], capacity=24, zeros=6),
    "max_new_tokens": 96,
}
QUESTIONS = {"model": "tiny-vqa", "reward": aligned(), "max_new_tokens": 48}


@pytest.mark.parametrize(
    ("options", "tasks"),
    [(PERCEPTION, {"perception": 1, "detection": 1, "counting": 1}), (QUESTIONS, {"vqa": 1})],
    ids=["perception", "questions"],
)
def test_fit_and_validate(options, tasks, tmp_path):
    trained = module(GRPO, responses_per_prompt=2, temperature=2.0, **options)
    trainer(tmp_path, mixed=True).fit(trained, datamodule=scenes(streams=["rl"], tasks=tasks))
    assert moved(trained)
    data, policy = scenes(tasks=tasks, val_size=4), module(GRPO, responses_per_prompt=2, **options)
    expected, found = (
        trainer(tmp_path, limit_val_batches=1.0, **where).validate(policy, datamodule=data, verbose=False)[0]
        for where in ({"accelerator": "cpu", "strategy": "auto"}, {})
    )
    assert found == pytest.approx(expected, abs=1e-5)
    assert {name.split("/")[1] for name in found} >= tasks.keys()


def test_explain_by_every_method(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    means = []
    for device in ("cpu", pretend.NAME):
        options = ["--scenes", "1", "--task", "sod", "--max-new-tokens", "64", "--device", device, "--out", device]
        assert main(["explain", *options]) == 0
        means.append(json.loads((tmp_path / device / "summary.json").read_text())["methods"])
    assert means[0].keys() == means[1].keys()
    for method, expected in means[0].items():
        # In per cent. Pixels that are alike change places in the order in which they are taken away.
        assert means[1][method] == pytest.approx(expected, abs=0.1), method


def test_decompose(tmp_path):
    values = []
    for device in ("cpu", pretend.NAME):
        policies = ["--policy", "start=tiny-early", "--policy", "end=tiny"]
        file = tmp_path / f"{device}.json"
        options = ["--scenes", "1", "--task", "sis", "--max-new-tokens", "56", "--device", device, "--out", str(file)]
        assert main(["decompose", *policies, *options]) == 0
        values.append(json.loads(file.read_text()))
    assert values[0]["policies"] == values[1]["policies"]
    assert np.array(values[1]["alignment"], float) == pytest.approx(np.array(values[0]["alignment"], float), abs=1e-5)
