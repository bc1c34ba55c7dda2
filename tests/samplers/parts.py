"""What the tests of the vLLM sampler share."""

import torch

from lightning_sal.datasets.scenes import SceneGroups
from lightning_sal.samples import ImageGroup
from tests.modules.test_rl import G

SCENES = SceneGroups(3, {"sod": 1, "sis": 1, "cosod": 1}, size=6)
GROUPS = [SCENES[i] for i in range(3)]  # one and several images
SIZES = [(112, 112), (84, 140), (100, 80), (480, 640), (33, 500), (28, 28)]  # height and width
TEMPERATURE, TOKENS = 1.5, 8


def stir(policy, seed):
    """Adapters that do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return policy


def sample(sampler, policy, seed=1, groups=GROUPS, temperature=TEMPERATURE, tokens=TOKENS, responses=G):
    prompts = policy.encode(groups)
    rollout = sampler.sample(
        policy,
        groups,
        prompts,
        max_new_tokens=tokens,
        responses=responses,
        temperature=temperature,
        generator=torch.Generator().manual_seed(seed),
    )
    return prompts, rollout


def error(policy, prompts, rollout, temperature=TEMPERATURE):
    """Largest difference between the sampler's log-probabilities and the policy's own."""
    with torch.no_grad():
        logp = policy.score(prompts, rollout.tokens, rollout.mask, temperature)
    return float((logp - rollout.logp)[rollout.mask].abs().max())


def asked(server, path):
    return [question for at, question in server.asked if at == path]


def photographs(*sizes):
    generator = torch.Generator().manual_seed(2)
    images = tuple(torch.randint(256, (*size, 3), dtype=torch.uint8, generator=generator) for size in sizes)
    return [ImageGroup("photographs", "cosod", images)]
