"""The reward on where the policy looks, with every algorithm and every task that there are scenes of."""

from __future__ import annotations

import lightning as L
import pytest
import torch

from lightning_sal.datamodules import ScenesDataModule
from lightning_sal.inference.responses import MAPS, MASKS, gather
from lightning_sal.modules import CGPO, CISPO, DAPO, GRPO, GSPO, RLOO, DrGRPO
from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.rewards import Alignment, Chance, Format, Reward
from lightning_sal.tasks import get_task
from lightning_sal.tiny.scenes import scene_group

ALGORITHMS = [CGPO, GRPO, DrGRPO, DAPO, GSPO, CISPO, RLOO]


def data(**tasks):
    return ScenesDataModule(
        streams=["rl"], tasks=tasks, group_size=2, batch_size=sum(tasks.values()), steps_per_epoch=2, val_size=4
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_step_of_every_algorithm(algorithm, tmp_path):
    options = {} if algorithm is CGPO else {"responses_per_prompt": 2}
    module = algorithm(
        policy=PolicyConfig("tiny-early", lora=LoRA(rank=4)),
        reward=Reward([Alignment(), Format()]),
        max_new_tokens=56,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        **options,
    )
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    common = {"max_steps": 1, "accelerator": "cpu", "default_root_dir": tmp_path, "log_every_n_steps": 1, **quiet}
    trainer = L.Trainer(limit_val_batches=0, **common)
    trainer.fit(module, datamodule=data(sod=1, sis=1, cosod=1))
    logged = trainer.callback_metrics
    assert 0 < float(logged["train/reward/alignment"]) < 1
    assert float(logged["train/reward/alignment_unknown"]) == 0
    if algorithm is not CGPO:
        assert 0 <= float(logged["train/telling/format"]) <= float(logged["train/telling/reward"]) <= 1
    values = L.Trainer(**common).validate(module, datamodule=data(vqa=1), verbose=False)[0]
    assert 0 <= values["val/vqa/reward_alignment"] <= 1


@pytest.mark.parametrize("task", ["sod", "sis", "cosod"])
def test_a_trained_policy_looks_at_what_it_names(task):
    """Far more often than chance; and for instances, each at its own."""
    from lightning_sal.segmenters.tiny import embedded_segmenter

    policy = FastPolicy(PolicyConfig("tiny")).requires_grad_(False)
    groups = [scene_group(2_000_003, task, index) for index in range(12)]
    prompts = policy.encode(groups)
    rollout = policy.sample(prompts, 56, temperature=0)
    found = gather(groups, rollout, embedded_segmenter(), {MASKS, MAPS}, policy=policy, prompts=prompts)
    labels = [len(response.maps or ()) for response in found]
    assert labels == [len(response.answer.labels) for response in found]
    assert all(len(maps) == len(group.images) for r, group in zip(found, groups, strict=True) for maps in r.maps or ())
    aligned = Alignment()(found).values.mean()
    chance = Chance()(found).values.mean()
    assert get_task(task).masks_per_image is None or aligned > 1.5 * chance
    assert aligned > chance
