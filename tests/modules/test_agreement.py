"""A run that goes on is the run that began: what is another is said in one line, with both values, before a step."""

from dataclasses import asdict, replace
from functools import partial

import lightning as L
import pytest
import torch

from lightning_sal.modules.agreement import refuse_other_policy
from lightning_sal.policy.config import LoRA, PolicyConfig
from tests.modules.parts import POLICY, cgpo, scenes, sft, trainer

LORA = LoRA(rank=4)


@pytest.mark.parametrize(
    ("other", "both"),
    [
        ({"lora": replace(LORA, rank=8)}, ("rank 4", "rank is 8")),
        ({"lora": replace(LORA, alpha=8.0)}, ("alpha 32.0", "alpha is 8.0")),
        ({"lora": replace(LORA, targets=("q_proj",))}, ("up_proj", "is ['q_proj']")),
        ({"lora": None}, ("'rank': 4", "lora is null")),
        ({"model": "tiny"}, ("tiny-scratch", "is tiny:")),
        ({"train_vision": True}, ("train_vision False", "is True")),
    ],
)
def test_another_policy_is_refused_with_both_values(other, both):
    with pytest.raises(ValueError, match="the checkpoint was trained") as error:
        refuse_other_policy(asdict(POLICY), replace(POLICY, **other))
    line = str(error.value)
    assert "\n" not in line
    assert all(value in line for value in both)


def test_what_changes_no_weight_may_differ(tmp_path):
    here, moved = tmp_path / "here", tmp_path / "gone"
    here.mkdir()
    stored = asdict(replace(POLICY, model=str(moved)))
    refuse_other_policy(stored, replace(POLICY, model=str(here), dtype="bfloat16", max_pixels=9000))
    moved.mkdir()  # it is still there, so that the other one is another
    with pytest.raises(ValueError, match="gone"):
        refuse_other_policy(stored, replace(POLICY, model=str(here)))
    (tmp_path / "link").symlink_to(moved)
    refuse_other_policy(stored, replace(POLICY, model=str(tmp_path / "link")))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of a step of SFT on all tasks."""
    folder = tmp_path_factory.mktemp("run")
    run = trainer(folder, max_steps=1)
    run.fit(sft(), datamodule=scenes(streams=["sft"]))
    run.save_checkpoint(folder / "a.ckpt")
    return folder / "a.ckpt"


def spoiled(checkpoint, change):
    content = torch.load(checkpoint, weights_only=True)
    change(content)
    path = checkpoint.with_name("spoiled.ckpt")
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("module", "options", "values"),
    [
        (partial(sft, policy=PolicyConfig("tiny-scratch", lora=LoRA(rank=8))), {}, ("rank 4", "rank is 8")),
        (cgpo, {}, ("module SFT", "module CGPO")),
        (sft, {"tasks": {"sod": 1}}, ("tasks cosod, sis, sod", "tasks sod")),
        (partial(sft, optimizer=partial(torch.optim.SGD, lr=0.1)), {}, ("another optimizer than SGD",)),
    ],
)
def test_another_run_is_refused_before_its_first_step(module, options, values, checkpoint, tmp_path):
    run = trainer(tmp_path, max_steps=2)
    with pytest.raises(ValueError, match="the checkpoint") as error:
        run.fit(module(), datamodule=scenes(streams=["sft"], **options), ckpt_path=checkpoint, weights_only=True)
    assert all(part in str(error.value) for part in values)
    assert "\n" not in str(error.value)


def test_weights_of_another_shape_or_of_nan_are_refused(checkpoint, tmp_path):
    def shorten(content):
        del content["policy"]  # as in early checkpoints
        name = next(iter(content["state_dict"]))
        content["state_dict"][name] = content["state_dict"][name][:1]

    def nan(content):
        next(iter(content["state_dict"].values())).fill_(float("nan"))

    for change, message in ((shorten, r"is \(1, .*\) in it"), (nan, "NaN")):
        with pytest.raises(ValueError, match=message):
            trainer(tmp_path).test(
                sft(), datamodule=scenes(), ckpt_path=spoiled(checkpoint, change), weights_only=True, verbose=False
            )


def test_two_streams_ask_for_interleaving(tmp_path):
    with pytest.raises(ValueError, match=r"2 streams, rl and sft, .*InterleavedSFT"):
        trainer(tmp_path, max_steps=1).fit(cgpo(), datamodule=scenes())


@pytest.mark.parametrize(("steps", "every"), [(1, 50), (3, 2), (2, 2)])
def test_a_run_of_any_length_ends_with_a_checkpoint(steps, every, tmp_path):
    save = L.pytorch.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=every)
    run = trainer(tmp_path, max_steps=steps, callbacks=[save], enable_checkpointing=True)
    run.fit(sft(), datamodule=scenes(streams=["sft"], batch_size=2))
    steps_saved = [torch.load(path, weights_only=True)["global_step"] for path in sorted(tmp_path.glob("*.ckpt"))]
    assert max(steps_saved) == steps
    assert len(steps_saved) == (1 if steps <= every else 2)  # no second one of the same step
