"""Words and attention told apart: by hand arithmetic, and on policies whose parts are exchanged."""

from __future__ import annotations

import json

import pytest
import torch

from lightning_sal.cli import main
from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.evaluation.decomposition import Decomposition, decompose
from lightning_sal.inference.responses import MAPS, MASKS, gather
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.rewards import Alignment
from lightning_sal.segmenters.tiny import embedded_segmenter

SCENES = SceneGroups(2_000_003, {"vqa": 1}, size=4, annotated=False)


def test_parts_by_hand():
    """Whose words (rows), whose attention (columns): .2 .3 / .4 .7; a sample without a region counts nowhere."""
    one = torch.tensor([[0.2, 0.3], [0.4, 0.7]])
    nothing = torch.full((2, 2), torch.nan)
    found = Decomposition(("start", "end"), torch.stack([one, one + 0.1, nothing], dim=-1))
    parts = found.parts(0, 1)
    assert parts["both"] == (pytest.approx(0.5), pytest.approx(0.0, abs=1e-6))
    assert parts["words"][0] == pytest.approx((0.2 + 0.4) / 2)
    assert parts["attention"][0] == pytest.approx((0.1 + 0.3) / 2)
    assert found.means()[1, 0] == pytest.approx(0.45)


@pytest.fixture(scope="module")
def policies():
    """The early policy, and the same with other weights in its first layer's keys."""
    early, other = (FastPolicy(PolicyConfig("tiny-vqa")).requires_grad_(False) for _ in range(2))
    weight = other.backbone.language_model.layers[0].self_attn.k_proj.weight
    weight.data.mul_(1.5)
    return {"early": early, "other": other}


def test_the_diagonal_is_the_alignment_of_each_policy(policies):
    groups = [SCENES[index] for index in range(4)]
    segmenter = embedded_segmenter()
    found = decompose(policies, [groups[:3], groups[3:]], segmenter, max_new_tokens=48)
    assert found.values.shape == (2, 2, 4)
    for number, policy in enumerate(policies.values()):
        prompts = policy.encode(groups)
        rollout = policy.sample(prompts, 48, temperature=0)
        responses = gather(groups, rollout, segmenter, {MASKS, MAPS}, policy=policy, prompts=prompts)
        torch.testing.assert_close(
            found.values[number, number], Alignment()(responses).values.double(), rtol=0, atol=1e-5
        )
    parts = found.parts(0, 1)
    assert parts["both"][0] == pytest.approx(parts["words"][0] + parts["attention"][0])
    assert (found.values[0, 0] != found.values[0, 1]).any()


def test_the_command(tmp_path, capsys):
    out = tmp_path / "values.json"
    options = ["--scenes", "2", "--max-new-tokens", "48", "--out", str(out)]
    assert main(["decompose", "--policy", "start=tiny-vqa", "--policy", "end=tiny-vqa", *options]) == 0
    said = capsys.readouterr().out
    assert "start -> end: words +0.000 ± 0.000, attention +0.000 ± 0.000, both +0.000 ± 0.000" in said
    written = json.loads(out.read_text())
    assert written["policies"] == ["start", "end"]
    assert written["alignment"][0][0] == written["alignment"][1][0]
    assert main(["decompose", "--policy", "a=tiny-vqa", "--policy", "b=tiny-vqa", *options]) == 2  # the file is there


def test_one_policy_cannot_be_told_apart_from_itself(capsys):
    assert main(["decompose", "--policy", "tiny-vqa", "--scenes", "1"]) == 2
    assert "give two policies or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--scenes", "0"], "0 is not 1 or more"),
        (["--scenes", "2", "--batch-size", "0"], "0 is not 1 or more"),
        (["nowhere.jsonl"], "nowhere.jsonl"),
        ([], "give either PATH or --scenes N"),
    ],
)
def test_what_cannot_be_run_is_answered_by_one_line(options, line, capsys):
    try:
        code = main(["decompose", "--policy", "a=tiny-vqa", "--policy", "b=tiny-vqa", *options])
    except SystemExit as stop:  # of argparse
        code = stop.code
    assert code == 2
    assert line in capsys.readouterr().err.strip().splitlines()[-1]
