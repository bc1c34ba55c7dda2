"""The general path on an accelerator: nothing stands where it should not.

Of a family with positions of one axis: transformers computes those of several by scalars that the pretended one has not.
"""

from __future__ import annotations

import torch

from lightning_sal.policy.config import LoRA, PolicyConfig
from lightning_sal.policy.general.policy import GeneralPolicy
from lightning_sal.tiny.scenes import scene_group
from tests.device import pretend
from tests.families import FAMILIES


def test_the_general_path_samples_scores_and_learns_on_the_device(tmp_path):
    config = PolicyConfig(str(FAMILIES["internvl"](tmp_path / "model")), lora=LoRA(rank=4))
    torch.manual_seed(0)
    here = GeneralPolicy(config)
    torch.manual_seed(0)
    there = GeneralPolicy(config).to(pretend.device())
    groups = [scene_group(0, "sod", number) for number in range(2)]
    found = []
    for policy in (here, there):
        prompts = policy.encode(groups)
        rollout = policy.sample(prompts, 40, responses=2, temperature=0)
        scores = policy.score_tokens(prompts, rollout.tokens, rollout.mask)
        scores.logp.sum().backward()
        assert all(p.grad is not None for p in policy.parameters() if p.requires_grad)
        found.append((rollout.texts, scores.logp.detach().cpu()))
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[1][1], found[0][1], atol=1e-5, rtol=0)
