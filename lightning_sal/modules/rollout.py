"""One step of reinforcement learning: sample, segment, update."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_sal.modules.base import PolicyModule
from lightning_sal.objectives import clip_fractions, policy_loss, token_confidence
from lightning_sal.rewards import RewardBatch
from lightning_sal.samples import Batch, ImageGroup, Phased, Rollout
from lightning_sal.tasks import TASKS


@dataclass(slots=True)
class RolloutRecord:
    """What one RL step did, for callbacks to log and to draw.

    Args:
        groups: B image groups.
        rollout: Their sampled responses.
        judged: Rewards, answers and masks.
        confidence: (B,) in [0, 1].
        advantages: (B,).
        seconds: Phase -> wall time.
    """

    groups: tuple[ImageGroup, ...]
    rollout: Rollout
    judged: RewardBatch
    confidence: Tensor
    advantages: Tensor
    seconds: dict[str, float] = field(default_factory=dict)


class RolloutModule(PolicyModule):
    """Reinforcement learning on sampled responses; a subclass states its advantage.

    A batch that comes as `Phased("sft", batch)` takes an SFT step instead: see `lightning_sal.callbacks.InterleavedSFT`.

    Args:
        clip: (low, high), how far the ratio of new to old policy may leave 1 downwards and upwards.
        temperature: Of sampling and of scoring alike, > 0.
        **kwargs: As for `PolicyModule`.
    """

    def __init__(self, *, clip: tuple[float, float] = (0.2, 0.2), temperature: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if temperature <= 0:
            raise ValueError(f"temperature {temperature} must be above 0: RL needs sampled responses")
        self.clip, self.temperature = clip, temperature
        self.record: RolloutRecord | None = None

    @abstractmethod
    def advantages(self, rewards: Tensor, confidence: Tensor) -> Tensor:
        """(B,) advantages from (B,) rewards and (B,) confidence."""

    def training_step(self, batch: Batch | Phased, batch_idx: int) -> Tensor:
        phase, data = batch if isinstance(batch, Phased) else ("rl", batch)
        self.record = None
        return self.sft_step(data) if phase == "sft" else self.rl_step(data)

    def rl_step(self, batch: Batch) -> Tensor:
        """Sample a response a prompt, judge them, and propagate the policy loss but for its last micro-batch."""
        groups, seconds = batch.groups, {}
        with self._clock("sample", seconds), torch.no_grad():
            prompts = self.policy.encode(groups)
            rollout = self.policy.sample(
                prompts, self.max_new_tokens, temperature=self.temperature, generator=self._generator()
            )
        with self._clock("segment", seconds), torch.no_grad():
            judged = self.reward(groups, rollout.texts, rollout.truncated, self.segmenter)
        rewards = judged.total.to(self.device)
        total = self.over_ranks(torch.tensor(float(len(groups)), device=self.device))
        confidence, advantages = torch.empty_like(rewards), torch.empty_like(rewards)
        held: list[Tensor] = []

        def loss(part: slice) -> Tensor:
            tokens, mask = rollout.tokens[part], rollout.mask[part]
            logp = self.policy.score(prompts.rows(part), tokens, mask, self.temperature)
            confidence[part] = sure = token_confidence(logp, mask)
            advantages[part] = advantage = self.advantages(rewards[part], sure)
            # One update a rollout: the old policy is the current one, from the same forward pass, and its ratio is 1.
            old = logp.detach()
            held.append(torch.stack(clip_fractions(logp, old, advantage, mask, clip=self.clip)))
            return policy_loss(logp, old, advantage, mask, clip=self.clip, total_sequences=total)

        self._update_started = time.perf_counter()
        pending = self.accumulate(loss(part) for part in self.micro_batches(len(groups)))
        self.record = RolloutRecord(groups, rollout, judged, confidence, advantages, seconds)
        self._log_rollout(self.record)
        low, high = torch.stack(held).mean(0).tolist()
        self.log_dict({"train/clip_ratio/low": low, "train/clip_ratio/high": high})
        return pending

    def on_train_batch_end(self, *_: Any) -> None:
        """Log the seconds of each phase, now that the last backward pass and the optimiser are done."""
        if self.record is None:
            return
        seconds = self.record.seconds
        seconds["update"] = time.perf_counter() - self._update_started
        self.log_dict({f"train/seconds/{phase}": value for phase, value in seconds.items()})
        self.log("train/tokens_per_second", float(self.record.rollout.mask.sum()) / sum(seconds.values()))

    def _generator(self) -> torch.Generator:
        """A generator that depends on seed, step and rank alone, so a run that goes on draws what it would have drawn."""
        state = np.random.SeedSequence((self.seed, self.global_step, self.global_rank)).generate_state(1, np.uint64)
        return torch.Generator(self.device).manual_seed(int(state[0] >> 1))

    @contextmanager
    def _clock(self, phase: str, seconds: dict[str, float]) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds[phase] = time.perf_counter() - start

    def _log_rollout(self, record: RolloutRecord) -> None:
        """Log means over all ranks; a fixed set of sums is reduced once, whatever tasks a rank happened to draw."""
        judged, rollout = record.judged, record.rollout
        length = rollout.mask.sum(1).float()
        malformed = torch.tensor([float(answer.reason is not None) for answer in judged.answers])
        columns = {
            "reward/mean": judged.total,
            **{f"reward/{name}": values for name, values in judged.terms.items()},
            "reward_squared": judged.total**2,
            "confidence": record.confidence,
            "advantage/mean": record.advantages,
            "advantage_squared": record.advantages**2,
            "response/length": length,
            "response/malformed": malformed,
            "response/truncated": rollout.truncated.float(),
        }
        rows = torch.stack([column.detach().float().to(self.device) for column in columns.values()])  # (columns, B)
        member = torch.tensor([[group.task == task for group in record.groups] for task in TASKS], device=self.device)
        member = torch.cat([torch.ones_like(member[:1]), member]).float()  # all, then each task
        sums = self.over_ranks(torch.cat([rows @ member.T, member.sum(1)[None]]))
        means = (sums[:-1] / sums[-1]).cpu()
        for at, scope in enumerate(("train", *(f"train/{task}" for task in TASKS))):
            if not sums[-1, at]:
                continue
            value = dict(zip(columns, means[:, at].tolist(), strict=True))
            for name in ("reward", "advantage"):
                value[f"{name}/std"] = max(value.pop(f"{name}_squared") - value[f"{name}/mean"] ** 2, 0.0) ** 0.5
            value["confidence_minus_reward"] = value["confidence"] - value["reward/mean"]
            self.log_dict({f"{scope}/{name}": number for name, number in value.items()})
        self.log("train/reward", means[0, 0].item(), prog_bar=True, logger=False)
        self.log("train/conf", record.confidence.mean().item(), prog_bar=True, logger=False)
