"""What an RL step logs: means over all responses and all ranks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_sal.modules.accumulation import AccumulatingModule
from lightning_sal.modules.experience import RolloutRecord
from lightning_sal.objectives import clip_fractions, has_variance, log_ratio
from lightning_sal.objectives.policy import Ratio
from lightning_sal.rewards import RewardBatch
from lightning_sal.tasks import TASKS


class RatioLog:
    """Importance ratios of a step before the clip, and how much the clip holds back.

    Args:
        clip: (low, high) of the objective.
        ratio: Level of its ratio.
    """

    def __init__(self, clip: tuple[float, float], ratio: Ratio) -> None:
        self.clip = clip
        self.ratio: Ratio = ratio
        self._sums: list[Tensor] = []
        self._extremes: list[Tensor] = []

    @torch.no_grad()
    def add(self, logp: Tensor, logp_old: Tensor, sampled: Tensor, advantages: Tensor, mask: Tensor) -> None:
        """Add a micro-batch; arguments as for `policy_loss`, and (B, T) log-probabilities of the sampler."""
        count = mask.sum()
        low, high = clip_fractions(logp, logp_old, advantages, mask, ratio=self.ratio, clip=self.clip)
        log = log_ratio(logp, logp_old, mask, self.ratio).expand_as(logp)
        drift = log_ratio(logp_old, sampled, mask)
        totals = [torch.where(mask, each.exp(), 0.0).sum() for each in (log, drift)]
        self._sums.append(torch.stack([low * count, high * count, *totals, count]).double())
        # 0 outside the mask, as of a ratio of 1
        self._extremes.append(torch.stack([log.max(), -log.min(), drift.max(), -drift.min()]))

    def over(self, module: AccumulatingModule) -> dict[str, float]:
        """`train/clip_ratio/...`, `train/ratio/...` and `train/sampler_ratio/...` over all ranks."""
        sums = module.all_reduce(torch.stack(self._sums).sum(0))
        low, high, *means = (sums[:4] / sums[4].clamp(min=1)).tolist()
        extremes = module.all_reduce(torch.stack(self._extremes).amax(0), "max").tolist()
        values = {"train/clip_ratio/low": low, "train/clip_ratio/high": high}
        for name, mean, up, down in zip(("ratio", "sampler_ratio"), means, extremes[::2], extremes[1::2], strict=True):
            values |= {
                f"train/{name}/mean": mean,
                f"train/{name}/max": math.exp(up),
                f"train/{name}/min": math.exp(-down),
            }
        return values


def log_rollout(module: AccumulatingModule, record: RolloutRecord) -> None:
    """Log means over all ranks; a fixed set of sums is reduced once, whatever tasks a rank happened to draw."""
    rewards, rollout = record.rewards, record.rollout
    answers = [response.answer for response in record.responses]
    malformed = torch.tensor([float(answer.reason is not None) for answer in answers])
    tokens = rollout.mask.sum(1).float()
    columns = {
        "reward/mean": rewards.total,
        **{f"reward/{name}": values for name, values in rewards.terms.items()},
        **{f"reward/{name}_unknown": (~known).float() for name, known in rewards.known.items()},
        "reward_squared": rewards.total**2,
        "confidence": record.confidence,
        "advantage/mean": record.advantages,
        "advantage_squared": record.advantages**2,
        "response/length": tokens,
        "response/malformed": malformed,
        "response/truncated": rollout.truncated.float(),
        "entropy": record.entropy * tokens,
        "entropy_tokens": record.scored * tokens,
    }
    device = module.device
    rows = torch.stack([column.detach().float().to(device) for column in columns.values()])  # (columns, B)
    member = torch.tensor([[group.task == task for group in record.groups] for task in TASKS], device=device)
    member = torch.cat([torch.ones_like(member[:1]), member]).float()  # all, then each task
    sums = module.all_reduce(torch.cat([(rows[:, None] * member).sum(-1), member.sum(1)[None]]))
    means = (sums[:-1] / sums[-1]).cpu()
    for at, scope in enumerate(("train", *(f"train/{task}" for task in TASKS))):
        if not sums[-1, at]:
            continue
        value = dict(zip(columns, means[:, at].tolist(), strict=True))
        for name in ("reward", "advantage"):
            value[f"{name}/std"] = max(value.pop(f"{name}_squared") - value[f"{name}/mean"] ** 2, 0.0) ** 0.5
        if over := value.pop("entropy_tokens"):
            value["entropy"] /= over  # the mean over tokens, not over responses
        else:
            del value["entropy"]  # no response was scored
        value["confidence_minus_reward"] = value["confidence"] - value["reward/mean"]
        module.log_dict({f"{scope}/{name}": number for name, number in value.items()})
    module.log("train/reward", means[0, 0].item(), prog_bar=True, logger=False)
    module.log("train/conf", record.confidence.mean().item(), prog_bar=True, logger=False)


def log_telling(module: AccumulatingModule, rewards: RewardBatch, group_size: int) -> None:
    """Log `train/telling/<term>`: the share of groups, over all ranks, in which a term alone tells the responses apart.

    A term that tells none apart moves nothing, whatever its weight; `reward` is the total.

    Args:
        module: Logs.
        rewards: Of B responses, the G to a prompt side by side.
        group_size: G >= 2.
    """
    columns = {"reward": rewards.total, **rewards.terms}
    telling = torch.stack([has_variance(values, group_size).float().sum() for values in columns.values()])
    groups = torch.tensor([len(rewards.total) / group_size])
    sums = module.all_reduce(torch.cat([telling, groups]).double().to(module.device)).tolist()
    module.log_dict({f"train/telling/{name}": sums[at] / sums[-1] for at, name in enumerate(columns)})
