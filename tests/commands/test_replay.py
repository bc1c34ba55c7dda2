"""A training that the guard stops, and its step taken again from the file alone."""

import math
import textwrap
from pathlib import Path

import pytest
import torch

from lightning_sal.cli import main
from lightning_sal.modules import RolloutModule
from lightning_sal.modules.replay import read_replay
from lightning_sal.objectives import cgpo_advantages
from tests.modules.test_buffers import Baseline

SEEN = []
RECORDS = []

CONFIG = """\
seed_everything: 3
trainer:
  max_steps: 4
  accelerator: cpu
  gradient_clip_val: 1.0
  logger: false
  default_root_dir: logs
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  limit_val_batches: 0
  callbacks:
    - class_path: lightning_sal.callbacks.InterleavedSFT
      init_args: {rl_steps: 2, sft_steps: 1}
    - class_path: lightning_sal.callbacks.FiniteGuard
      init_args: {folder: replays}
model:
  class_path: tests.commands.test_replay.Spoilt
  init_args:
    at: 1
    policy: {model: tiny-scratch, lora: {rank: 4}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1e-3}}
    max_new_tokens: 8
    micro_batch_size: 2
    seed: 5
data:
  class_path: lightning_sal.datamodules.ScenesDataModule
  init_args: {batch_size: 4, steps_per_epoch: 4, annotated: 9}
"""


class Spoilt(RolloutModule):
    """CGPO with any reward, whose last micro-batch of one step has a loss that is no number.

    Args:
        at: The step.
        **kwargs: As for `RolloutModule`.
    """

    def __init__(self, at: int, **kwargs):
        super().__init__(**kwargs)
        self.at = at

    def advantages(self, rewards, confidence):
        return cgpo_advantages(rewards, confidence)

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        adapter = next(p.detach().clone() for p in self.parameters() if p.requires_grad)
        SEEN.append((self.global_step, self.record and self.record.rollout.tokens, adapter))
        return loss * math.nan if self.global_step == self.at else loss


class SpoiltBaseline(Spoilt, Baseline):
    """The same, with an advantage that rests on a buffer."""

    def advantages(self, rewards, confidence):
        return rewards - self.baseline

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        RECORDS.append(self.record)
        return loss


@pytest.fixture
def stopped(tmp_path, monkeypatch, capsys):
    """Runs a config until the guard stops it, with changes to its text; gives the file and what the steps saw."""
    monkeypatch.chdir(tmp_path)

    def run(module="Spoilt", **changes):
        text = textwrap.dedent(CONFIG).replace("Spoilt", module)
        for key, value in changes.items():
            (line,) = (line for line in text.splitlines() if line.strip().startswith(f"{key}:"))
            text = text.replace(line, f"{line.partition(':')[0]}: {value}")
        Path("run.yaml").write_text(text)
        SEEN.clear()
        assert main(["fit", "--config", "run.yaml"]) == 1
        (file,) = Path("replays").iterdir()
        assert f"lightning-sal replay {file}" in capsys.readouterr().err
        return file, [*SEEN]

    return run


def replayed(*argv):
    """The exit code of the command, and what its one step saw."""
    SEEN.clear()
    code = main(["replay", *map(str, argv), "--accelerator", "cpu"])
    (seen,) = SEEN
    return code, seen


def test_the_step_is_reproduced_from_the_file_alone(stopped, capsys):
    """The second step of RL: the weights are not those of the start, and neither are the random numbers."""
    file, seen = stopped()
    for left in Path().rglob("*.yaml"):
        left.unlink()
    code, (step, tokens, adapter) = replayed(file)
    assert code == 1
    assert [step for step, *_ in seen] == [0, 1]
    assert step == 1
    assert torch.equal(tokens, seen[1][1])
    assert torch.equal(adapter, seen[1][2])
    assert not torch.equal(tokens, seen[0][1])
    shown = capsys.readouterr().out
    first, second = (line for line in shown.splitlines() if "micro-batch" in line)
    assert "nan" not in first
    assert "micro-batch 2: loss nan, gradient norm so far nan; gradients of" in second
    assert "finite: log-probs, reward correctness, reward format, reward, confidence, advantages" in shown
    assert "reproduced: see above" in shown


def test_a_sft_step_is_reproduced_too(stopped, capsys):
    file, seen = stopped(at=2)
    code, (step, tokens, adapter) = replayed(file)
    assert (code, step, tokens) == (1, 2, None)
    assert torch.equal(adapter, seen[2][2])


def test_of_several_updates_the_first_is_repeated_to_the_bit(stopped, capsys):
    """Before the loss of the second update is spoilt, the first has changed the weights, by AdamW after a first step."""
    file, seen = stopped(seed="5\n    updates_per_rollout: 2")
    code, (_, tokens, adapter) = replayed(file)
    assert code == 1
    assert torch.equal(tokens, seen[1][1])
    assert torch.equal(adapter, seen[1][2])
    assert all(not torch.equal(adapter, weight) for weight in read_replay(file)["state_dict"].values())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("update ")]
    assert [line[:24] for line in lines if "nan" in line] == ["update 2, micro-batch 2:"]


def test_what_algorithm_and_reward_kept_from_the_steps_before_is_there(stopped, capsys):
    """The reward is 1 / (1 + the responses rewarded so far) and the baseline the mean reward of the step before."""
    terms = "[{class_path: tests.modules.test_buffers.Novelty}]"
    reward = f"{{class_path: lightning_sal.rewards.Reward, init_args: {{terms: {terms}}}}}"
    RECORDS.clear()
    file, _ = stopped("SpoiltBaseline", seed=f"5\n    reward: {reward}")
    replayed(file)
    first, second, again = RECORDS
    assert torch.equal(again.rewards.total, second.rewards.total)
    assert torch.equal(again.advantages, second.advantages)
    assert not torch.equal(second.rewards.total, first.rewards.total)
    assert "buffers" not in capsys.readouterr().out


def test_buffers_that_the_file_lacks_are_told(stopped, capsys):
    file, _ = stopped("SpoiltBaseline")
    saved = read_replay(file)
    del saved["buffers"]["baseline"]
    torch.save(saved, "lacking.replay")
    replayed("lacking.replay")
    assert "buffers in the file or in the config alone start anew: 1, first baseline" in capsys.readouterr().out


def test_what_is_not_spoilt_is_not_reproduced(stopped, capsys):
    """The same step with a config that spoils another one."""
    file, seen = stopped()
    text = Path("logs/config.yaml").read_text()
    Path("other.yaml").write_text(text.replace("at: 1", "at: 9"))
    code, (_, tokens, _) = replayed(file, "--config", "other.yaml")
    assert code == 0
    assert torch.equal(tokens, seen[1][1])
    shown = capsys.readouterr().out
    assert "not reproduced: every loss and gradient is finite here" in shown
    assert "nan" not in shown


def test_the_rewards_and_samples_at_fault_are_named(stopped, capsys):
    """A weight beyond float32 makes the reward infinite, or 0 times infinity where a term is 0."""
    weights = "{weights: {correctness: 1, format: 1e39}}"
    reward = f"{{class_path: lightning_sal.rewards.Reward, init_args: {weights}}}"
    file, _ = stopped(at=99, seed=f"5\n    reward: {reward}")
    code, _ = replayed(file)
    assert code == 1
    shown = capsys.readouterr().out
    assert "\nreward: not finite in 4 of 4 responses, first that to " in shown
    assert "\nadvantages: not finite in 4 of 4" in shown
    assert "finite: log-probs, reward correctness, reward format, confidence" in shown


def test_another_rank_draws_other_numbers(stopped):
    file, seen = stopped()
    torch.save({**read_replay(file), "rank": 1, "world_size": 2}, "of_another_rank.replay")
    _, (_, tokens, _) = replayed("of_another_rank.replay")
    assert not torch.equal(tokens[:, :4], seen[1][1][:, :4])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "is not a replay file, or only the beginning of one"),
        (b"PK", "is not a replay file, or only the beginning of one"),
        ({"state_dict": {}}, "is not a replay file: FiniteGuard writes them"),
    ],
)
def test_another_file_is_refused_by_one_line(content, message, tmp_path, capsys):
    path = tmp_path / "a.replay"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    assert main(["replay", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
