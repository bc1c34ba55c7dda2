"""The guard on a module whose weight grows by 1 a step, so that every number can be told by hand."""

import jsonargparse
import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_sal.callbacks import CollapseGuard
from lightning_sal.samples import Phased
from tests.distributed.processes import in_processes
from tests.modules.parts import cgpo, scenes
from tests.modules.parts import trainer as quiet_trainer
from tests.modules.test_buffers import Baseline, stateful


class Growing(L.LightningModule):
    """After n steps the weight is n. A step logs what its batch says, or the weight before it, or nothing."""

    def __init__(self, decay=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0))
        self.decay = decay
        self.seen = []

    def training_step(self, batch, batch_idx):
        value = self.weight.detach() if batch == "weight" else batch
        self.seen.append(self.weight.item())
        if batch != "nothing":
            self.log_dict({"signal": value, "other": 0.0})
        return -self.weight

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=1.0)  # of a constant gradient: each step is the rate
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, self.decay)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Says:
    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        yield from self.values


def fit(folder, values, *guards, save=None, module=None, checkpoint=None, **options):
    """`save`: options of a ModelCheckpoint."""
    module = module or Growing()
    saver = [] if save is None else [ModelCheckpoint(folder, filename="{step}", **save)]
    trainer = quiet_trainer(
        folder, max_epochs=1, callbacks=[*guards, *saver], enable_checkpointing=save is not None, **options
    )
    trainer.fit(module, Says(values), ckpt_path=checkpoint, weights_only=True)
    return module, trainer


ALL = {"every_n_train_steps": 4, "save_top_k": -1}


def lines(caplog):
    return [record.getMessage() for record in caplog.records if "CollapseGuard" in record.getMessage()]


def test_a_mean_that_leaves_its_limit_stops_with_one_line(tmp_path, caplog):
    """The mean of three weights before steps n - 2, n - 1, n is n - 2: above 10 first at step 13."""
    guard = CollapseGuard({"other": (0, 0), "signal": (None, 10)}, window=3)
    _, trainer = fit(tmp_path, ["weight"] * 50, guard)
    assert trainer.global_step == 13
    (line,) = lines(caplog)
    assert (
        line == "CollapseGuard: signal is 11 in the mean of 3 steps, outside of [null, 10], at step 13: training stops"
    )


def test_only_steps_that_logged_a_scalar_count(tmp_path, caplog):
    """(1 + 5 + 1) / 3 is below 2.5; a 5 that is counted on each silent step would not be."""
    _, trainer = fit(tmp_path, [1.0, 5.0, *["nothing"] * 6, 1.0], CollapseGuard({"signal": (None, 2.5)}, window=3))
    assert trainer.global_step == 9
    assert not lines(caplog)
    _, trainer = fit(tmp_path, [1.0, 5.0, *["nothing"] * 6, 2.0, 1.0], CollapseGuard({"signal": (None, 2.5)}, window=3))
    assert trainer.global_step == 9
    assert lines(caplog)


@pytest.mark.parametrize("limits", [(None, 9), (0.5, None), (2, 9)])
def test_what_is_no_number_is_outside_of_every_limit(limits, tmp_path, caplog):
    _, trainer = fit(tmp_path, [3.0, 3.0, float("nan"), 3.0], CollapseGuard({"signal": limits}, window=2))
    assert trainer.global_step == 3
    assert "signal is nan" in lines(caplog)[0]


def test_rollback_to_the_newest_checkpoint_before_the_window(tmp_path, caplog):
    """Files at 4, 8, 12, ...; the window of steps 11 to 13 trips at 13: back to 8, before its first step.

    Then steps 14, 15, ... start at 8, 9, ...: the window of steps 16 to 18 trips. Of the files from before it, 12 was
    given up; back to 8 again. A third time is one too many.
    """
    guard = CollapseGuard({"signal": (None, 10)}, action="rollback", window=3, max_rollbacks=2)
    module, trainer = fit(tmp_path, ["weight"] * 50, guard, save=ALL)
    expected = [*range(13), *range(8, 13), *range(8, 13)]
    assert module.seen == pytest.approx(expected, abs=1e-4)
    assert trainer.global_step == len(expected) == 23
    told = lines(caplog)
    assert [line.partition("go back to ")[2].partition(",")[0] for line in told] == ["step 8", "step 8", ""]
    assert told[2].endswith("at step 23: training stops after 2 rollbacks")
    # Adam had taken 8 steps where it went back to, and 5 since.
    assert float(trainer.optimizers[0].state_dict()["state"][0]["step"]) == 13


def test_schedules_go_on_through_a_rollback(tmp_path):
    values = [0.0] * 5 + [9.0] + [0.0] * 4
    guard = CollapseGuard({"signal": (None, 5)}, action="rollback", window=1)
    module, trainer = fit(tmp_path, values, guard, save={**ALL, "every_n_train_steps": 2}, module=Growing(decay=0.5))
    assert module.seen[6] == pytest.approx(module.seen[4])  # of the weights of step 4, before the one bad step
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.5**10)


def test_without_a_checkpoint_from_before_the_window_it_stops_and_says_so(tmp_path, caplog):
    """The one file that is kept is that of step 12, in the window of steps 11 to 13."""
    guard = CollapseGuard({"signal": (None, 10)}, action="rollback", window=3)
    module, trainer = fit(tmp_path, ["weight"] * 50, guard, save={**ALL, "save_top_k": 1})
    assert trainer.global_step == 13
    assert module.weight.item() == pytest.approx(13)
    assert lines(caplog)[0].endswith("is left from before step 11; raise save_top_k")


def test_checkpoints_without_optimizer_states_are_not_used(tmp_path, caplog):
    guard = CollapseGuard({"signal": (None, 10)}, action="rollback", window=3)
    _, trainer = fit(tmp_path, ["weight"] * 50, guard, save={**ALL, "save_weights_only": True})
    assert trainer.global_step == 13
    assert "no checkpoint with optimizer states" in lines(caplog)[0]


@pytest.mark.parametrize("at", [4, 12, 16, 20])
def test_a_run_that_goes_on_decides_as_the_whole_one(at, tmp_path):
    """From before the first rollback, from within its window, after it, and after the second."""

    def guard():
        return CollapseGuard({"signal": (None, 10)}, action="rollback", window=3, max_rollbacks=2)

    whole, _ = fit(tmp_path, ["weight"] * 50, guard(), save=ALL)
    again, trainer = fit(tmp_path, ["weight"] * 50, guard(), save=ALL, checkpoint=tmp_path / f"step={at}.ckpt")
    assert again.seen == whole.seen[at:]
    assert trainer.global_step == 23


class Rising(Baseline):
    """Logs the number of steps before this one."""

    def rl_step(self, batch):
        self.log("signal", float(self.global_step))
        return super().rl_step(batch)


def test_a_rollback_puts_the_buffers_of_algorithm_and_reward_back(tmp_path):
    """The mean of 2 and 3 is above 2.4 after step 4, and the newest checkpoint from before that window is of step 2."""
    guard = CollapseGuard({"signal": (None, 2.4)}, action="rollback", window=2)
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    run = quiet_trainer(tmp_path, max_steps=4, callbacks=[guard, saver], enable_checkpointing=True)
    model = stateful(Rising)
    run.fit(model, datamodule=scenes(streams=["rl"], batch_size=2))
    assert guard.rollbacks == [(4, 2)]
    saved = torch.load(tmp_path / "step=2.ckpt", weights_only=True)
    assert model.reward.terms["novelty"].seen == 4
    assert model.baseline == saved["buffers"]["baseline"]


def test_rollback_without_a_model_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="add a ModelCheckpoint"):
        fit(tmp_path, [1.0], CollapseGuard({"signal": (0, 1)}, action="rollback"))


def test_a_scalar_that_is_never_logged_is_named_with_those_that_are(tmp_path):
    with pytest.raises(ValueError, match="signl was not logged in 3 steps; logged are other, signal"):
        fit(tmp_path, [1.0] * 9, CollapseGuard({"signal": (0, 1), "signl": (0, 1)}, window=3))


def test_sft_steps_may_stay_silent(tmp_path):
    class OfPhases(Growing):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch.batch, batch_idx)

    warmup = [Phased("sft", "nothing")] * 5
    _, trainer = fit(
        tmp_path, [*warmup, Phased("rl", 1.0)], CollapseGuard({"signal": (0, 1)}, window=3), module=OfPhases()
    )
    assert trainer.global_step == 6
    values = [*warmup, *[Phased("rl", 0.0)] * 2, Phased("rl", 9.0), *warmup]  # a rollback empties the windows
    guard = CollapseGuard({"signal": (0, 1)}, action="rollback", window=3)
    module, trainer = fit(tmp_path, values, guard, save={**ALL, "every_n_train_steps": 1}, module=OfPhases())
    assert trainer.global_step == 13
    assert module.seen[8] == pytest.approx(5)


@pytest.mark.parametrize(
    "options",
    [
        dict(limits={}),
        dict(limits={"a": (None, None)}),
        dict(limits={"a": (2, 1)}),
        dict(limits={"a": (0, 1)}, window=0),
    ],
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match="CollapseGuard"):
        CollapseGuard(**options)


def test_limits_can_be_written_in_yaml():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(CollapseGuard, "guard")
    text = "guard: {limits: {train/confidence: [0.05, 0.98], train/response/length: [8, null]}, action: rollback}"
    guard = parser.instantiate(parser.parse_string(text)).guard
    assert guard.limits == {"train/confidence": (0.05, 0.98), "train/response/length": (8, None)}


def test_the_scalars_of_the_docstring_are_those_that_rl_logs(tmp_path):
    """The window of two steps is full, so none is missing, and length 1 at least has been exceeded."""
    names = ("train/confidence", "train/response/malformed", "train/reward/std")
    guard = CollapseGuard({**dict.fromkeys(names, (0, 1)), "train/response/length": (1, 8)}, window=2)
    run = quiet_trainer(tmp_path, max_steps=2, callbacks=[guard])
    run.fit(cgpo(), datamodule=scenes(streams=["rl"], batch_size=2))
    assert {name: len(window) for name, window in guard.windows.items()} == dict.fromkeys(guard.limits, 2)
    assert not run.should_stop


def two_ranks(world_size, rank, folder):
    """The ranks log 0 and 0, then 0 and 9, whose mean alone is above 4."""

    class PerRank(Growing):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch * self.global_rank, batch_idx)
            (folder / f"rank={self.global_rank}.txt").write_text(repr(self.seen))
            return loss

    guard = CollapseGuard({"signal": (None, 4)}, action="rollback", window=1)
    options = {"devices": world_size, "strategy": "ddp", "use_distributed_sampler": False}
    fit(
        folder,
        [0.0, 0.0, 0.0, 9.0, 0.0, 0.0],
        guard,
        save={**ALL, "every_n_train_steps": 2},
        module=PerRank(),
        **options,
    )


def test_ranks_that_log_unlike_values_roll_back_together(tmp_path):
    in_processes(two_ranks, (2,), tmp_path)
    for rank in range(2):
        seen = eval((tmp_path / f"rank={rank}.txt").read_text())
        assert seen == pytest.approx([0, 1, 2, 3, 2, 3], abs=1e-4)


def test_a_rollback_of_weights_in_shards_is_refused():
    from types import SimpleNamespace

    from lightning.pytorch.strategies import ModelParallelStrategy

    guard = CollapseGuard({"train/confidence": (0.1, None)}, action="rollback")
    trainer = SimpleNamespace(strategy=ModelParallelStrategy(1, tensor_parallel_size=1))
    with pytest.raises(ValueError, match="ModelParallelStrategy keeps them in shards: use action stop"):
        guard.on_train_start(trainer, None)
