"""What an RL step logs: means over all responses and all ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

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

    def sums(self) -> tuple[Tensor, Tensor]:
        """What `log_rollout` makes its ratios of: (5,) float64 sums over tokens, and (4,) extremes."""
        return torch.stack(self._sums).sum(0), torch.stack(self._extremes).amax(0)


def log_rollout(
    module: AccumulatingModule,
    record: RolloutRecord,
    ratios: Tensor,
    extremes: Tensor,
    divergence: Tensor | None = None,
) -> None:
    """Log means over all ranks; a fixed set of sums is reduced once, whatever tasks a rank happened to draw.

    All that it is given is on the CPU, so that nothing here waits for the device but what other ranks have to say.

    Args:
        module: Logs.
        record: Of the step.
        ratios: As `RatioLog.sums` gives them.
        extremes: Likewise.
        divergence: (2,) the KL divergence to the reference, summed over tokens, and their number; None without a reference.
    """
    columns = _columns(record)
    rows = torch.stack([column.float() for column in columns.values()])  # (columns, B)
    member = torch.tensor([[group.task == task for group in record.groups] for task in TASKS])
    member = torch.cat([torch.ones_like(member[:1]), member]).float()  # all, then each task
    table = torch.cat([(rows[:, None] * member).sum(-1), member.sum(1)[None]])
    parts = [table.flatten(), ratios] + ([] if divergence is None else [divergence])
    sums = module.reduce_on_host(torch.cat([part.double() for part in parts]))
    table, ratios, divergence = sums.split([table.numel(), len(ratios), len(sums) - table.numel() - len(ratios)])
    table = table.view(-1, len(member))
    means = table[:-1] / table[-1]
    for at, scope in enumerate(("train", *(f"train/{task}" for task in TASKS))):
        if table[-1, at]:
            values = _derived(dict(zip(columns, means[:, at].tolist(), strict=True)))
            module.log_dict({f"{scope}/{name}": number for name, number in values.items()})
    for name, column in (("train/reward", "reward/mean"), ("train/conf", "confidence")):
        module.log(name, means[list(columns).index(column), 0].item(), prog_bar=True, logger=False)
    module.log_dict(ratio_values(ratios.tolist(), module.reduce_on_host(extremes, "max").tolist()))
    if len(divergence):
        module.log("train/kl", (divergence[0] / divergence[1].clamp(min=1)).item())


def ratio_values(sums: Sequence[float], extremes: Sequence[float]) -> dict[str, float]:
    """`train/clip_ratio/...`, `train/ratio/...` and `train/sampler_ratio/...` of what `RatioLog.sums` gives."""
    low, high, *means = (value / max(sums[4], 1) for value in sums[:4])
    values = {"train/clip_ratio/low": low, "train/clip_ratio/high": high}
    for name, mean, up, down in zip(("ratio", "sampler_ratio"), means, extremes[::2], extremes[1::2], strict=True):
        values |= {
            f"train/{name}/mean": mean,
            f"train/{name}/max": math.exp(up),
            f"train/{name}/min": math.exp(-down),
        }
    return values


def _columns(record: RolloutRecord) -> dict[str, Tensor]:
    """Name -> (B,) on the CPU, what is averaged over responses."""
    rewards, tokens = record.rewards, torch.tensor(record.lengths, dtype=torch.float32)
    return {
        "reward/mean": rewards.total,
        **{f"reward/{name}": values for name, values in rewards.terms.items()},
        **{f"reward/{name}_unknown": ~known for name, known in rewards.known.items()},
        "reward_squared": rewards.total**2,
        "confidence": record.confidence,
        "advantage/mean": record.advantages,
        "advantage_squared": record.advantages**2,
        "response/length": tokens,
        "response/malformed": torch.tensor([response.answer.reason is not None for response in record.responses]),
        "response/truncated": torch.tensor([response.truncated for response in record.responses]),
        "entropy": record.entropy * tokens,
        "entropy_tokens": record.scored * tokens,
    }


def _derived(value: dict[str, float]) -> dict[str, float]:
    """What is logged of the means of the columns."""
    for name in ("reward", "advantage"):
        value[f"{name}/std"] = max(value.pop(f"{name}_squared") - value[f"{name}/mean"] ** 2, 0.0) ** 0.5
    if over := value.pop("entropy_tokens"):
        value["entropy"] /= over  # the mean over tokens, not over responses
    else:
        del value["entropy"]  # no response was scored
    value["confidence_minus_reward"] = value["confidence"] - value["reward/mean"]
    return value


def log_telling(module: AccumulatingModule, rewards: RewardBatch, group_size: int) -> None:
    """Log `train/telling/<term>`: the share of groups, over all ranks, in which a term alone tells the responses apart.

    A term that tells none apart moves nothing, whatever its weight; `reward` is the total.

    Args:
        module: Logs.
        rewards: Of B responses, the G to a prompt side by side.
        group_size: G >= 2.
    """
    columns = {"reward": rewards.total, **rewards.terms}
    telling = [int(has_variance(values, group_size).sum()) for values in columns.values()]
    groups = len(rewards.total) / group_size
    sums = module.reduce_on_host(torch.tensor([*telling, groups], dtype=torch.float64)).tolist()
    module.log_dict({f"train/telling/{name}": sums[at] / sums[-1] for at, name in enumerate(columns)})
