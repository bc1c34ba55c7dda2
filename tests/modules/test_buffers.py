"""The buffers of algorithm and reward, which hold what they keep from step to step, are in checkpoints."""

import pytest
import torch

from lightning_sal.modules import RolloutModule
from lightning_sal.rewards import Format, Reward, RewardTerm, Scores
from tests.modules.parts import ADAMW, POLICY, StripeSegmenter, scenes, trained, trainer


class Novelty(RewardTerm):
    """1 / (1 + the responses learnt from so far)."""

    name = "novelty"
    bounds = (0.0, 1.0)

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, responses):
        return Scores((1 / (1 + self.seen)).expand(len(responses)), (None,) * len(responses))

    def commit(self, observed):
        self.seen += len(observed)


class Baseline(RolloutModule):
    """A = r - the reward of the last step."""

    def __init__(self, **options):
        super().__init__(**options)
        self.baseline: torch.Tensor
        self.register_buffer("baseline", torch.zeros(()))

    def advantages(self, rewards, confidence):
        return rewards - self.baseline

    def rl_step(self, batch):
        loss = super().rl_step(batch)
        self.baseline.copy_(self.record.rewards.total.mean())
        return loss


def stateful(algorithm=Baseline):
    torch.manual_seed(0)  # peft draws the adapters
    return algorithm(
        policy=POLICY,
        segmenter=StripeSegmenter(),
        reward=Reward([Novelty(), Format()]),
        optimizer=ADAMW,
        max_new_tokens=8,
    )


def fit(folder, steps, checkpoint=None):
    run, model = trainer(folder, max_steps=steps), stateful()
    run.fit(model, datamodule=scenes(streams=["rl"], batch_size=2), ckpt_path=checkpoint, weights_only=True)
    return run, model


def test_a_resumed_run_takes_the_buffers_up_again(tmp_path):
    run, _ = fit(tmp_path, 2)
    run.save_checkpoint(tmp_path / "at2.ckpt")
    _, resumed = fit(tmp_path, 3, tmp_path / "at2.ckpt")
    _, undisturbed = fit(tmp_path, 3)
    assert resumed.reward.terms["novelty"].seen == 6
    assert resumed.baseline == undisturbed.baseline
    expected = trained(undisturbed)
    for name, weight in trained(resumed).items():
        assert weight.equal(expected[name]), name


def test_a_checkpoint_of_something_else_starts_anew(tmp_path):
    run, _ = fit(tmp_path, 1)
    run.save_checkpoint(tmp_path / "at1.ckpt")
    saved = torch.load(tmp_path / "at1.ckpt", weights_only=True)
    assert saved["buffers"]["reward.terms.novelty.seen"] == 2
    assert set(saved["state_dict"]) == set(saved["trained"])
    saved["buffers"] = {}
    torch.save(saved, tmp_path / "at1.ckpt")
    _, model = fit(tmp_path, 2, tmp_path / "at1.ckpt")
    assert model.reward.terms["novelty"].seen == pytest.approx(2)
