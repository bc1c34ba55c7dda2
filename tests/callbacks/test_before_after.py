"""Before and after a run, and the control beside it."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_sal.callbacks import BeforeAfter, InterleavedSFT
from lightning_sal.callbacks.before_after import sft_steps
from lightning_sal.evaluation.comparison import paired_difference, read_arms, summary
from tests.distributed.processes import in_processes
from tests.modules.parts import cgpo, scenes, trained, trainer


def run(folder, callback=None):
    torch.set_num_threads(1)
    callbacks = [InterleavedSFT(rl_steps=1, sft_steps=1), *([callback] if callback else [])]
    module = cgpo()
    trainer(folder, max_steps=4, callbacks=callbacks).fit(module, datamodule=scenes())
    return trained(module)


def test_controls_leave_the_run_as_it_would_be_without_them(tmp_path, capsys):
    callback = BeforeAfter(tmp_path / "out", panels=2, control=True, equal_time=True)
    compared = run(tmp_path, callback)
    plain = run(tmp_path)
    assert all(torch.equal(compared[name], weight) for name, weight in plain.items())
    arms = read_arms(tmp_path / "out" / "samples.jsonl")
    assert list(arms) == ["start", "SFT only, 2 steps", "CGPO", "SFT only, equal time"]
    assert {len(samples) for samples in arms.values()} == {7}
    assert callback.outputs()["Gallery"].is_file()
    printed = capsys.readouterr().out
    assert "CGPO - SFT only, 2 steps" in printed
    assert "±" in printed


def two_ranks(world_size, rank, folder):
    """Five samples in batches of two: of the last ones the second process has none."""
    callback = BeforeAfter(folder / f"of-{world_size}", panels=1)
    data = scenes(streams=["rl"], batch_size=2, val_size=5)
    options = {"devices": world_size, "strategy": "ddp"} if world_size > 1 else {}
    trainer(folder, max_steps=1, callbacks=[callback], **options).fit(cgpo(), datamodule=data)
    if world_size > 1:
        try:
            BeforeAfter(equal_time=True).on_train_start(SimpleNamespace(world_size=world_size), None)
        except ValueError as error:
            (folder / f"error-{rank}").write_text(str(error))


def test_two_processes_share_the_samples_and_controls_need_one(tmp_path):
    in_processes(two_ranks, [1, 2], tmp_path)
    alone, shared = (read_arms(tmp_path / f"of-{number}" / "samples.jsonl")["start"] for number in (1, 2))
    shared.sort(key=lambda sample: sample.key)
    assert [sample.key for sample in shared] == sorted(sample.key for sample in alone)
    for one, other in zip(shared, sorted(alone, key=lambda sample: sample.key), strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)  # in other batches it rounds differently
        assert one.correctness == pytest.approx(other.correctness, abs=1e-4)
    assert (tmp_path / "of-2" / "gallery.png").is_file()
    assert [(tmp_path / f"error-{rank}").read_text().partition(":")[0] for rank in (0, 1)] == [
        "BeforeAfter trains its controls in one process"
    ] * 2


def test_an_earlier_gallery_is_not_overwritten(tmp_path):
    for _ in range(2):
        run(tmp_path, BeforeAfter(tmp_path / "out", panels=1))
    assert (tmp_path / "out_2" / "samples.jsonl").is_file()


def schedule(steps, *callbacks):
    return L.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, callbacks=list(callbacks), enable_checkpointing=False
    )


@pytest.mark.parametrize(("steps", "updates", "sft"), [(300, 1, 120), (10, 1, 4), (3, 1, 0), (16, 2, 4)])
def test_the_control_has_the_sft_steps_of_the_run(steps, updates, sft):
    """3 RL batches and 2 SFT batches in turn; two updates a rollout make 8 steps of a turn."""
    module = L.LightningModule()
    module.updates_per_rollout = updates
    assert sft_steps(schedule(steps, InterleavedSFT(rl_steps=3, sft_steps=2)), module) == sft


def test_a_control_without_sft_steps_to_repeat_is_refused():
    with pytest.raises(ValueError, match="add it, or leave control out"):
        sft_steps(schedule(10), L.LightningModule())
    with pytest.raises(ValueError, match=r"set trainer\.max_steps"):
        sft_steps(schedule(-1, InterleavedSFT(period=2)), L.LightningModule())


def test_loggers_get_two_scalars_a_figure_and_a_table(tmp_path):
    logger = TensorBoardLogger(tmp_path / "log", name=None, version="")
    callbacks = [InterleavedSFT(rl_steps=1, sft_steps=1), BeforeAfter(tmp_path / "out", panels=1, control=True)]
    trainer(tmp_path, max_steps=2, callbacks=callbacks, logger=logger).fit(cgpo(), datamodule=scenes())
    events = EventAccumulator(str(tmp_path / "log"), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    names = [name for name in events.Tags()["scalars"] if name.startswith("before_after")]
    assert sorted(names) == ["before_after/correctness", "before_after/exact"]
    arms = read_arms(tmp_path / "out" / "samples.jsonl")
    for name in names:
        key = name.rpartition("/")[2]
        expected = [(0, summary(arms["start"])[key]), (2, summary(arms["CGPO"])[key])]
        assert [(each.step, each.value) for each in events.Scalars(name)] == [
            (step, pytest.approx(value)) for step, value in expected
        ]
    assert [image.step for image in events.Images("before_after")] == [2]
    (text,) = events.Tensors("before_after/text_summary")
    lines = text.tensor_proto.string_val[0].decode().split("\n")
    assert lines[0] == "|  | start | SFT only, 1 steps | CGPO |"
    difference, error = paired_difference([s.reward for s in arms["CGPO"]], [s.reward for s in arms["start"]])
    (reward,) = (line for line in lines if line.startswith("| reward |"))
    assert reward.endswith(f"({difference:+.3f} ± {error:.3f}) |")
