"""Training steps: gradients that do not depend on how a step is cut up, and runs that go on where they stopped."""

import os
import signal
from functools import partial

import lightning as L
import pytest
import torch

from lightning_sal.callbacks import InterleavedSFT
from tests.distributed.processes import process
from tests.modules.parts import SGD, cgpo, scenes, sft, trained, trainer


def after_one_step(module, data, folder):
    trainer(folder, max_steps=1).fit(module, datamodule=data)
    return trained(module)


@pytest.mark.parametrize(("make", "stream"), [(sft, "sft"), (cgpo, "rl")])
def test_the_gradient_does_not_depend_on_the_micro_batch(make, stream, tmp_path):
    """With SGD at rate 1 the change of a weight is its gradient."""
    start = after_one_step(make(optimizer=lambda p: torch.optim.SGD(p, lr=0.0)), scenes(streams=[stream]), tmp_path)
    whole, *cut = (
        after_one_step(make(optimizer=SGD, micro_batch_size=size), scenes(streams=[stream]), tmp_path)
        for size in (None, 1, 4)
    )
    scale = max((whole[name] - start[name]).abs().max() for name in whole)
    assert scale > 0
    for weights in cut:
        for name, weight in weights.items():
            torch.testing.assert_close(weight, whole[name], atol=2e-6 * float(scale), rtol=1e-6)


def test_gradients_of_one_step_do_not_leak_into_the_next(tmp_path):
    """Two steps of SGD on one batch of SFT, by Lightning and by hand."""
    rate = partial(torch.optim.SGD, lr=0.1)
    module, data = sft(optimizer=rate, micro_batch_size=4), scenes(streams=["sft"])
    trainer(tmp_path, max_steps=2).fit(module, datamodule=data)
    by_hand = sft(optimizer=rate)
    by_hand.configure_model()
    by_hand.all_reduce = by_hand.max_over_ranks = lambda value: value
    optimizer = by_hand.configure_optimizers()
    stream = iter(data.streams["sft"])
    data.streams["sft"].load_state_dict({"position": 0})
    for _ in range(2):
        optimizer.zero_grad()
        for loss in by_hand.sft_losses(next(stream)):
            loss.backward()
        optimizer.step()
    for name, weight in trained(by_hand).items():
        torch.testing.assert_close(weight, trained(module)[name], atol=1e-5, rtol=1e-4)


def test_gradient_clipping_of_the_trainer_is_honoured(tmp_path):
    start = after_one_step(sft(optimizer=lambda p: torch.optim.SGD(p, lr=0.0)), scenes(streams=["sft"]), tmp_path)
    module = sft(optimizer=SGD, micro_batch_size=2)
    trainer(tmp_path, max_steps=1, gradient_clip_val=0.01).fit(module, datamodule=scenes(streams=["sft"]))
    moved = torch.stack([(weight - start[name]).norm() for name, weight in trained(module).items()]).norm()
    assert moved.item() == pytest.approx(0.01, rel=1e-3)


def test_accumulation_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="micro_batch_size"):
        trainer(tmp_path, max_steps=1, accumulate_grad_batches=2).fit(sft(), datamodule=scenes(streams=["sft"]))


def test_the_loss_of_an_sft_step_of_rl_has_its_weight(tmp_path):
    """With SGD at rate 1 the change of a weight is its gradient."""

    def after_an_sft_step(rate, **options):
        module = cgpo(optimizer=partial(torch.optim.SGD, lr=rate), **options)
        callbacks = [InterleavedSFT(rl_steps=1, sft_steps=1, warmup_sft=1)]
        trainer(tmp_path, max_steps=1, callbacks=callbacks).fit(module, datamodule=scenes())
        return trained(module)

    start, whole, quarter = after_an_sft_step(0.0), after_an_sft_step(1.0), after_an_sft_step(1.0, sft_weight=0.25)
    assert any(not whole[name].equal(start[name]) for name in start)
    for name in start:
        torch.testing.assert_close(quarter[name] - start[name], (whole[name] - start[name]) / 4, atol=1e-6, rtol=1e-4)


def test_an_sft_step_without_weight_is_refused():
    with pytest.raises(ValueError, match="sft_weight 0 must be above 0"):
        cgpo(sft_weight=0)


def test_sft_without_responses_names_the_sample(tmp_path):
    with pytest.raises(ValueError, match="needs a response"):
        trainer(tmp_path, max_steps=1).fit(sft(), datamodule=scenes(streams=["rl"]))


def test_validation_and_prediction(tmp_path):
    module, data = sft(), scenes(streams=["sft"], batch_size=3)
    values = trainer(tmp_path, limit_val_batches=1.0).validate(module, datamodule=data, verbose=False)[0]
    assert {"val/sod/s_measure", "val/sis/iasm", "val/cosod/mae", "val/sod/exact", "val/sis/reward"} <= set(values)
    assert {"val/sod/e_max", "val/cosod/f_max", "val/sis/ap50", "val/sod/ece"} <= set(values)
    assert all(0 <= value <= 1.001 for value in values.values())  # E of a perfect mask is HW / (HW - 1)


class StopAfter(L.Callback):
    """Kills its own process without a word once a number of steps is done."""

    def __init__(self, steps):
        self.steps = steps

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.steps:
            os.kill(os.getpid(), signal.SIGKILL)


def interleaved_run(folder, kill_at=None, checkpoint=None):
    torch.use_deterministic_algorithms(True)
    save = L.pytorch.callbacks.ModelCheckpoint(folder, every_n_train_steps=2, save_top_k=-1, filename="{step}")
    callbacks = [InterleavedSFT(rl_steps=2, sft_steps=1), save]
    if kill_at is not None:
        callbacks.append(StopAfter(kill_at))
    module = cgpo(lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, total_iters=10))
    run = trainer(folder, max_steps=8, callbacks=callbacks, enable_checkpointing=True)
    run.fit(module, datamodule=scenes(steps_per_epoch=5), ckpt_path=checkpoint, weights_only=True)
    return module


def test_a_killed_run_goes_on_to_bitwise_the_same_weights(tmp_path):
    """Epochs of 5 steps, a schedule of 3, a checkpoint every 2, killed before step 7: nothing falls together."""
    expected = trained(interleaved_run(tmp_path / "whole"))
    killed = process(interleaved_run, tmp_path / "killed", 7)
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    last = tmp_path / "killed" / "step=6.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    module = interleaved_run(tmp_path / "again", checkpoint=last)
    assert set(checkpoint["state_dict"]) == set(expected)
    for name, weight in trained(module).items():
        assert torch.equal(weight, expected[name]), name


def test_a_checkpoint_of_other_adapters_is_refused(tmp_path):
    from lightning_sal.policy.config import LoRA, PolicyConfig

    run = trainer(tmp_path, max_steps=1)
    run.fit(sft(), datamodule=scenes(streams=["sft"]))
    run.save_checkpoint(tmp_path / "one.ckpt")
    other = sft(policy=PolicyConfig("tiny-scratch", lora=LoRA(rank=4, targets=("q_proj",))))
    with pytest.raises(ValueError, match=r"lora\.targets"):
        trainer(tmp_path, max_steps=2).fit(other, datamodule=scenes(streams=["sft"]), ckpt_path=tmp_path / "one.ckpt")


def test_lightnings_own_callbacks_watch_the_metrics(tmp_path):
    stop = L.pytorch.callbacks.EarlyStopping("val/sod/s_measure", mode="max", patience=1, min_delta=1.0)
    best = L.pytorch.callbacks.ModelCheckpoint(tmp_path, monitor="val/cosod/f_max", mode="max", filename="best")
    options = {"limit_val_batches": 1.0, "enable_checkpointing": True, "callbacks": [stop, best]}
    run = trainer(tmp_path, max_steps=20, **options)
    run.fit(sft(), datamodule=scenes(streams=["sft"], batch_size=3))
    assert run.global_step == 8  # epochs of 4; nothing gains 1.0, so the second validation is the last
    assert (tmp_path / "best.ckpt").exists()
