"""Algorithms that compare the responses to a prompt with each other: GRPO and its variants.

Each names its four choices: advantage, level of the ratio, clip, reduction. docs/algorithms.md shows them side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_sal.modules.experience import Experience, join_experience
from lightning_sal.modules.rollout import RolloutModule
from lightning_sal.modules.rollout_log import log_telling
from lightning_sal.objectives import group_advantages, has_variance, leave_one_out_advantages, overlong_penalty
from lightning_sal.samples import Batch, ImageGroup


class GroupModule(RolloutModule):
    """What they share: an advantage within the group of G responses.

    Args:
        responses_per_prompt: G >= 2.
        **kwargs: As for `RolloutModule`.
    """

    scale: ClassVar[Literal["group", "none"]] = "group"

    def __init__(self, *, responses_per_prompt: int = 8, **kwargs: Any) -> None:
        if responses_per_prompt < 2:
            raise ValueError(f"responses_per_prompt {responses_per_prompt} must be at least 2: a group is compared")
        super().__init__(responses_per_prompt=responses_per_prompt, **kwargs)

    def advantages(self, rewards: Tensor, confidence: Tensor) -> Tensor:
        return group_advantages(rewards, self.responses_per_prompt, self.scale)

    def rl_step(self, batch: Batch) -> Tensor:
        pending = super().rl_step(batch)
        assert self.record is not None
        log_telling(self, self.record.rewards, self.responses_per_prompt)
        return pending

    def trained(self, experience: Experience, rewards: Tensor) -> list[int]:
        """Without a KL term or an entropy bonus a group whose rewards are all equal has gradient 0."""
        if self.beta or self.entropy_coef:
            return experience.selected
        varies = has_variance(rewards, self.responses_per_prompt).tolist()
        return [row for row in experience.selected if varies[row]]


class GRPO(GroupModule):
    """Group relative policy optimisation (Shao et al. 2024, arXiv:2402.03300).

    A = (r - mean) / std in the group; token ratio; clip (0.2, 0.2); mean over tokens, then over responses; + beta KL.

    Args:
        beta: Weight of the KL divergence to the policy without adapters; > 0 takes one more forward pass.
        **kwargs: As for `RolloutModule`.
    """

    def __init__(self, *, beta: float = 0.04, **kwargs: Any) -> None:
        super().__init__(beta=beta, **kwargs)


class DrGRPO(GroupModule):
    """GRPO done right (Liu et al. 2025, arXiv:2503.20783): without its two biases.

    A = r - mean in the group; token ratio; clip (0.2, 0.2); sum over tokens by the constant `max_new_tokens`; no KL.
    """

    scale = "none"
    reduction = "constant"


class DAPO(GroupModule):
    """Decoupled clip and dynamic sampling (Yu et al. 2025, arXiv:2503.14476), by default with all that the paper has.

    A = (r - mean) / std in the group; token ratio; clip (0.2, 0.28); mean over all tokens of the step; no KL; responses that
    come near the token limit lose up to 1 of their reward, which is not in `train/reward/...`. A group whose
    rewards are all equal teaches nothing and is dropped, and more prompts of the batch are sampled in its place: give the
    datamodule a `batch_size` of several times `prompts_per_step`. The bound is the batch; where it holds too few groups
    with different rewards, the step takes those that there are, and `train/dynamic_sampling/gave_up` counts it.

    Args:
        clip: (low, high), how far the ratio may leave 1 downwards and upwards.
        prompts_per_step: Prompts that are sampled at a time, until as many groups have rewards that differ; null samples
            all prompts of the batch at once, which leaves none to replace those that are dropped.
        overlong_buffer: Tokens before `max_new_tokens` over which a penalty grows from 0 to -1; null takes a fifth of
            `max_new_tokens`, as the paper does (4,096 of 20,480), 0 is no penalty.
        **kwargs: As for `RolloutModule`.
    """

    reduction = "token_mean"

    def __init__(
        self,
        *,
        clip: tuple[float, float] = (0.2, 0.28),
        prompts_per_step: int | None = None,
        overlong_buffer: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(clip=clip, **kwargs)
        if prompts_per_step is not None and prompts_per_step < 1:
            raise ValueError(f"prompts_per_step {prompts_per_step} must be at least 1, or null")
        if overlong_buffer is None:
            overlong_buffer = max(1, self.max_new_tokens // 5)
        if overlong_buffer:
            overlong_penalty(torch.zeros(1), self.max_new_tokens, overlong_buffer)  # complains before training does
        self.prompts_per_step, self.overlong_buffer = prompts_per_step, overlong_buffer

    def shaped_rewards(self, experience: Experience) -> Tensor:
        rewards = experience.rewards.total
        if not self.overlong_buffer:
            return rewards
        lengths = torch.tensor(experience.lengths, device=rewards.device)
        return rewards + overlong_penalty(lengths, self.max_new_tokens, self.overlong_buffer)

    def collect(
        self, groups: Sequence[ImageGroup], generator: torch.Generator, seconds: dict[str, float]
    ) -> Experience:
        """Sample round after round until enough groups have rewards that differ, or the batch has no more prompts."""
        wanted = self.prompts_per_step or len(groups)
        rounds: list[Experience] = []
        for start in range(0, len(groups), wanted):
            found = super().collect(groups[start : start + wanted], generator, seconds)
            varies = has_variance(self.shaped_rewards(found), self.responses_per_prompt).tolist()
            rounds.append(replace(found, selected=[row for row, differs in enumerate(varies) if differs]))
            if not self.any_rank(sum(len(each.selected) for each in rounds) < wanted):
                break
        experience = join_experience(rounds)
        selected, sampled = len(experience.selected), len(experience.groups)
        counts = self.reduce_on_host(torch.tensor([sampled - selected, float(selected < wanted)])).tolist()
        self.log("train/dynamic_sampling/rounds", float(len(rounds)))
        self.log("train/dynamic_sampling/dropped", counts[0])
        self.log("train/dynamic_sampling/gave_up", counts[1])
        return experience


class GSPO(GroupModule):
    """Group sequence policy optimisation (Zheng et al. 2025, arXiv:2507.18071).

    A = (r - mean) / std in the group; ratio of the whole response, exp of the mean log-ratio; clip (3e-4, 4e-4); mean over
    responses; no KL. With one update a rollout the ratio is 1, and it is GRPO without KL.

    Args:
        clip: (low, high), how far the ratio may leave 1 downwards and upwards.
        **kwargs: As for `RolloutModule`.
    """

    ratio = "sequence"

    def __init__(self, *, clip: tuple[float, float] = (3e-4, 4e-4), **kwargs: Any) -> None:
        super().__init__(clip=clip, **kwargs)


class CISPO(GroupModule):
    """Clipped importance sampling weights (MiniMax 2025, arXiv:2506.13585): no token is held back.

    A = (r - mean) / std in the group; token ratio, capped at 5 and without gradient, as a weight on A log p; mean over all
    tokens of the step; no KL.

    Args:
        clip: (low, high), how far the weight may leave 1 downwards and upwards.
        **kwargs: As for `RolloutModule`.
    """

    reduction = "token_mean"
    surrogate = "weighted"

    def __init__(self, *, clip: tuple[float, float] = (1.0, 4.0), **kwargs: Any) -> None:
        super().__init__(clip=clip, **kwargs)


class RLOO(GroupModule):
    """REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv:2402.14740).

    A = r - mean of the other responses to the prompt; token ratio; clip (0.2, 0.2); sum over tokens by the constant
    `max_new_tokens`; no KL.
    """

    reduction = "constant"

    def advantages(self, rewards: Tensor, confidence: Tensor) -> Tensor:
        return leave_one_out_advantages(rewards, self.responses_per_prompt)
