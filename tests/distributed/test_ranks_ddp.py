"""Ranks of two and three processes (gloo), whose shares are uneven: values, ranks and queue of one, to the last bit."""

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_sal.modules import CGPO, DAPO, GRPO
from lightning_sal.rewards import RankedReward, RewardTerm, Scores
from lightning_sal.samples import Batch
from lightning_sal.tiny.scenes import scene_group
from tests.distributed.processes import in_processes
from tests.distributed.test_rl_ddp import G, Written, rl_module
from tests.modules.parts import trainer

PROMPTS, STEPS, CAPACITY = 5, 3, 9  # prompts of a step on all ranks together
CASES = {"cgpo": CGPO, "grpo": GRPO, "dapo": DAPO}


class Share(RewardTerm):
    """Thirds of lengths, which no half precision holds; unknown for some; dynamic sampling drops every third prompt."""

    name = "share"

    def forward(self, responses):
        numbers = [int(item.group.key.rpartition("-")[2]) for item in responses]
        values = [7.0 if n % 3 == 0 else (len(item.text) + n) / 3 for item, n in zip(responses, numbers, strict=True)]
        known = torch.tensor([item.text.count("!") % 4 != 3 for item in responses])
        return Scores(torch.tensor(values, dtype=torch.float64), (None,) * len(responses), known=known)


def batches(world_size, rank):
    """The prompts of each step in turns, of which the first ranks have more."""
    mine = [range(step * PROMPTS + rank, (step + 1) * PROMPTS, world_size) for step in range(STEPS)]
    groups = [Batch(tuple(scene_group(0, "sod", number) for number in numbers)) for numbers in mine]
    return DataLoader(groups, batch_size=None)


def work(world_size, rank, folder):
    for name, algorithm in CASES.items():
        reward = RankedReward([Share()], capacity=CAPACITY, zeros=2, digits=2)
        module, found = rl_module(algorithm, reward=reward, sampler=Written()), []
        options = {"strategy": "ddp", "devices": world_size} if world_size > 1 else {}
        run = trainer(folder, max_steps=STEPS, log_every_n_steps=1, use_distributed_sampler=False, **options)
        observe = module._observe

        def kept(experience, observe=observe, found=found, module=module):
            observe(experience)
            found.append({"terms": experience.rewards.terms, "queue": module.reward.queue("share").rows})

        module._observe = kept
        run.fit(module, train_dataloaders=batches(world_size, rank))
        found.append(
            {"queue": module.reward.queue("share").rows, "logged": run.callback_metrics["train/reward/share_rank"]}
        )
        torch.save(found, folder / f"{name}-{world_size}-{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    in_processes(work, (1, 2, 3), folder)
    return folder


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count", [2, 3])
def test_values_ranks_and_queue_are_those_of_one_process(name, count, folder):
    (one,), several = (
        [torch.load(folder / f"{name}-{n}-{rank}.pt", weights_only=True) for rank in range(n)] for n in (1, count)
    )
    for step in range(STEPS + 1):
        assert all(found[step]["queue"].equal(one[step]["queue"]) for found in several), step
    assert len(one[-1]["queue"]) == CAPACITY  # of rows that left in the midst of a step
    each = 1 if CASES[name] is CGPO else G
    for step in range(STEPS):
        for term, values in one[step]["terms"].items():
            for rank, found in enumerate(several):
                assert found[step]["terms"][term].view(-1, each).equal(values.view(-1, each)[rank::count]), (term, step)
    assert not one[1]["terms"]["share_rank"].eq(1).all()
    assert all(float(found[-1]["logged"]) == pytest.approx(float(one[-1]["logged"]), rel=1e-6) for found in several)
