"""Cases of the embedded policy in float64."""

from __future__ import annotations

from functools import cache

import torch

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.explanations.cases import cases_of
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.fast import FastPolicy
from lightning_sal.samples import Rollout
from lightning_sal.tasks import task_of

SCENES = SceneGroups(5, {"sod": 1, "sis": 1, "cosod": 1}, size=12)


@cache
def policy():
    with torch.no_grad():
        return FastPolicy(PolicyConfig("tiny")).double().requires_grad_(False).eval()


@cache
def cases(seed=0):
    """Of the annotated responses to some scenes, one and several images and labels."""
    groups = [SCENES[index] for index in range(4)]
    with torch.no_grad():
        prompts = policy().encode(groups)
    tokens, mask = policy().encode_responses([group.response for group in groups])
    nothing = torch.zeros(mask.shape)
    rollout = Rollout(tuple(group.response for group in groups), tokens, mask, nothing, mask.any(1) & False)
    answers = [task_of(group).parse(group.response) for group in groups]
    return cases_of(policy(), prompts, rollout, groups, answers, seed)
