"""Training on an accelerator: each kind of step, mixed precision, determinism, the callbacks that look on, checkpoints."""

from __future__ import annotations

import os
from pathlib import Path

import lightning as L
import pytest
import torch
import yaml

import lightning_sal
from lightning_sal import Predictor
from lightning_sal.callbacks import InterleavedSFT
from lightning_sal.cli import main
from lightning_sal.modules import CGPO, DAPO, GRPO, SFT, SegmenterFineTuning, base
from lightning_sal.rewards import (
    Alignment,
    Centred,
    Chance,
    Correctness,
    Elsewhere,
    Format,
    Pointing,
    RankedReward,
    Reward,
)
from lightning_sal.tiny.scenes import scene_group
from tests.device import pretend
from tests.device.parts import PART, WHOLE, Spread, module, scenes, trainer

PACKAGE = Path(lightning_sal.__file__).parent


SPREAD = {"reward": Reward([Spread()]), "temperature": 2.0}  # with which the responses to a prompt differ


def moved(trained):
    """Whether the adapters, which start at 0, have moved."""
    return any(bool(p.any()) for name, p in trained.policy.named_parameters() if "lora_B" in name)


def test_sft(tmp_path):
    trained = module(SFT)
    trainer(tmp_path, mixed=True).fit(trained, datamodule=scenes(streams=["sft"]))
    assert moved(trained)


def test_grpo_with_two_updates_a_divergence_and_gradient_checkpointing(tmp_path):
    trained = module(
        GRPO,
        checkpointing=True,
        responses_per_prompt=2,
        updates_per_rollout=2,
        **SPREAD,
    )
    trainer(tmp_path, gradient_clip_val=1.0).fit(trained, datamodule=scenes(streams=["rl"]))
    assert moved(trained)


def test_cgpo_with_all_that_varies_it(tmp_path):
    """On responses that hold an answer, in half precision but for what is remembered."""
    options = {"confidence_over": "answer", "confidence_mean": "geometric", "normalise": "scale", "calibrate": True}
    trained = module(CGPO, max_new_tokens=WHOLE, model="tiny", updates_per_rollout=2, micro_batch_size=1, **options)
    trainer(tmp_path, mixed=True, max_steps=2).fit(trained, datamodule=scenes(streams=["rl"], batch_size=3))
    assert moved(trained)
    assert any(response.answer.answer_at for response in trained.record.responses)
    assert float(trained.calibration[0]) == pytest.approx(3 + 0.95 * 3)


def test_dapo(tmp_path):
    trained = module(DAPO, responses_per_prompt=2, prompts_per_step=1, overlong_buffer=4, **SPREAD)
    trainer(tmp_path, mixed=True).fit(trained, datamodule=scenes(streams=["rl"]))
    assert moved(trained)


def aligned():
    """All that looks at maps."""
    terms = [Alignment(), Pointing(), Alignment(Elsewhere(), "elsewhere"), Alignment(Centred(), "centred"), Chance()]
    return Reward([*terms, Format()], {**dict.fromkeys((term.name for term in terms), 0.1), "format": 0.5})


def test_a_reward_on_where_the_policy_looks(tmp_path):
    trained = module(GRPO, responses_per_prompt=2, max_new_tokens=WHOLE, reward=aligned(), model="tiny")
    loop = trainer(tmp_path, mixed=True, limit_val_batches=1.0)
    loop.fit(trained, datamodule=scenes(streams=["rl"]))
    assert float(loop.logged_metrics["train/reward/alignment"]) > 0
    assert loop.validate(trained, datamodule=scenes(), verbose=False)[0]["val/sod/reward_alignment"] > 0


class QueueOnDevice(L.Callback):
    """Notes of each step where the queue is that was ranked in, and how long."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        rows = pl_module.reward.queue("spread").rows
        self.seen.append((len(rows), rows.dtype, rows.device))


@pytest.mark.parametrize("kind", [GRPO, CGPO])
def test_a_reward_by_ranks(kind, tmp_path):
    """Of a term on the device and two on the CPU."""
    reward, queue = RankedReward([Spread(), Correctness(), Format()], capacity=7, zeros=2), QueueOnDevice()
    trained = module(kind, reward=reward, temperature=2.0, **({} if kind is CGPO else {"responses_per_prompt": 2}))
    loop = trainer(tmp_path, mixed=True, max_steps=2, callbacks=[queue])
    loop.fit(trained, datamodule=scenes(streams=["rl"]))
    assert moved(trained)
    lengths = [5, 7] if kind is CGPO else [7, 7]
    assert queue.seen == [(length, torch.float64, pretend.device()) for length in lengths]
    assert 0 <= float(loop.logged_metrics["train/reward/spread_rank"]) <= 1


def test_interleaved_and_deterministic(tmp_path):
    trained = module(CGPO)
    try:
        loop = trainer(tmp_path, deterministic=True, max_steps=2, callbacks=[InterleavedSFT(rl_steps=1, sft_steps=1)])
        loop.fit(trained, datamodule=scenes(streams=["rl", "sft"]))
    finally:
        torch.use_deterministic_algorithms(False)
    assert moved(trained)


def test_segmenter(tmp_path):
    trained = SegmenterFineTuning(dice_weight=0.5)
    loop = trainer(tmp_path, mixed=True, limit_val_batches=1.0)
    loop.fit(trained, datamodule=scenes(streams=["sft"]))
    assert loop.validate(trained, datamodule=scenes(), verbose=False)[0]["val/giou"] >= 0


def test_seconds_are_read_once_the_device_is_done(tmp_path, monkeypatch):
    """A clock that moves only while the device is waited for: each phase waits at least once."""
    waited = []
    monkeypatch.setattr(
        torch.get_device_module(pretend.NAME), "synchronize", lambda *_: waited.append(0), raising=False
    )
    monkeypatch.setattr(base.time, "perf_counter", lambda: float(len(waited)))
    loop = trainer(tmp_path)
    loop.fit(module(CGPO), datamodule=scenes(streams=["rl"], batch_size=1))
    seconds = {name: float(value) for name, value in loop.logged_metrics.items() if name.startswith("train/seconds/")}
    assert set(seconds) == {f"train/seconds/{phase}" for phase in ("encode", "sample", "segment", "update")}
    assert min(seconds.values()) >= 1


@pytest.fixture(scope="module")
def quickstart(_accelerator, tmp_path_factory):
    """The quickstart's config at its smallest, on the device, with adapters saved beside its checkpoints."""
    folder = tmp_path_factory.mktemp("quickstart")
    config = yaml.safe_load((PACKAGE / "conf" / "quickstart.yaml").read_text())
    loop, callbacks = config["trainer"], config["trainer"]["callbacks"]
    loop |= {"max_steps": 2, "accelerator": pretend.NAME, "strategy": pretend.NAME, "log_every_n_steps": 1}
    options = {
        callback["class_path"].rpartition(".")[2]: callback.setdefault("init_args", {}) for callback in callbacks
    }
    options["BeforeAfter"] |= {"panels": 1}
    options["InterleavedSFT"] |= {"rl_steps": 1, "sft_steps": 1}
    options["ModelCheckpoint"] |= {"every_n_train_steps": 2}
    for name in ("RolloutPanels", "ResponseTypes", "Reliability"):
        options[name] |= {"every_n_steps": 1}
    callbacks.append({"class_path": "lightning_sal.callbacks.SaveAdapter"})
    config["data"]["init_args"] |= {"batch_size": 2, "annotated": 6, "mistakes": 0, "val_size": 2}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    before = Path.cwd()
    os.chdir(folder)
    try:
        main(["fit", "--config", "config.yaml"])
        last = next(folder.glob("runs/**/last.ckpt"))
        main(["fit", "--config", "config.yaml", "--ckpt_path", str(last), "--trainer.max_steps", "3"])
    finally:
        os.chdir(before)
    return last


def test_the_callbacks_of_the_quickstart(quickstart):
    events = quickstart.parent.parent
    assert list(events.glob("events.*"))
    assert list(events.parent.glob("gallery/gallery.png"))


def test_checkpoints_name_the_device_and_load_anywhere(quickstart):
    weights = torch.load(quickstart, weights_only=True)["state_dict"]
    assert {weight.device for weight in weights.values()} == {pretend.device()}
    adapter = next(quickstart.parent.glob("*.adapter"))
    texts = set()
    for model in (quickstart, adapter):
        for device in ("cpu", pretend.NAME):
            predictor = Predictor.load(str(model), device=device, max_new_tokens=PART)
            assert predictor.policy.device.type == device
            texts.add(predictor.predict([scene_group(0, "sod", 0)])[0].text)
    assert len(texts) == 1
