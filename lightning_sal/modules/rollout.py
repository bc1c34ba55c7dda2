"""One step of reinforcement learning: sample, segment, update."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lightning_sal.inference.responses import Response, gather
from lightning_sal.modules.base import PolicyModule
from lightning_sal.modules.gathering import gather_rows
from lightning_sal.modules.rollout_log import RatioLog, log_rollout
from lightning_sal.objectives import policy_loss, token_confidence
from lightning_sal.objectives.policy import Ratio, Reduction, Surrogate
from lightning_sal.policy.prompts import Prompts
from lightning_sal.rewards import RewardBatch
from lightning_sal.samplers import PolicySampler, Sampler
from lightning_sal.samples import Batch, ImageGroup, Phased, Rollout


@dataclass(slots=True)
class RolloutRecord:
    """What one RL step did, for callbacks to log and to draw.

    Legend: B = P G rows, the G responses to a prompt side by side.

    Args:
        groups: B image groups, one a response: each of the P groups comes G times.
        rollout: The sampled responses.
        responses: They, with what the reward needed of them.
        rewards: What they are worth.
        confidence: (B,) in [0, 1].
        advantages: (B,); 0 for responses that the update left out.
        seconds: Phase -> wall time.
    """

    groups: tuple[ImageGroup, ...]
    rollout: Rollout
    responses: Sequence[Response]
    rewards: RewardBatch
    confidence: Tensor
    advantages: Tensor
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Experience:
    """Sampled responses with rewards, which an update is computed from; rows as in `RolloutRecord`.

    Args:
        groups: P image groups.
        prompts: They, encoded.
        rollout: The sampled responses.
        responses: They, with what the reward needed of them.
        rewards: What they are worth.
        selected: Indices of the prompts whose responses are trained on.
    """

    groups: tuple[ImageGroup, ...]
    prompts: Prompts
    rollout: Rollout
    responses: Sequence[Response]
    rewards: RewardBatch
    selected: list[int]


class RolloutModule(PolicyModule):
    """Reinforcement learning on sampled responses: a subclass names its objective, which is four choices.

    | choice | where | values |
    |---|---|---|
    | advantage | `advantages` | of the subclass |
    | level of the ratio | `ratio` | token, sequence |
    | clip | `clip`, `surrogate` | (low, high) around 1; clipped, weighted |
    | reduction | `reduction` | sequence_mean, token_mean, constant |

    One step samples G responses to each of P prompts at once, computes their rewards, and updates in micro-batches, whose
    size does not change the gradient. A batch that comes as `Phased("sft", batch)` takes an SFT step instead: see
    `lightning_sal.callbacks.InterleavedSFT`.

    Args:
        clip: (low, high), how far the ratio of new to old policy may leave 1 downwards and upwards.
        temperature: Of sampling and of scoring alike, > 0.
        responses_per_prompt: G >= 1, responses that are sampled to each prompt.
        updates_per_rollout: Optimisation steps on each rollout, >= 1, each on all its responses. The first is on-policy.
            They are one step of the trainer, so `max_steps` counts rollouts, and the learning rate moves once a rollout.
        beta: Weight of the KL divergence (k3) to the reference, which is the policy without its adapters; >= 0.
        sampler: Where responses come from; null samples with the policy itself.
        sampler_ratio_cap: Most that a token is weighed by where the sampler is not exact: min(cap, exp(logp_old -
            logp_sampler)), truncated importance sampling.
        **kwargs: As for `PolicyModule`.
    """

    ratio: ClassVar[Ratio] = "token"
    reduction: ClassVar[Reduction] = "sequence_mean"
    surrogate: ClassVar[Surrogate] = "clipped"

    def __init__(
        self,
        *,
        clip: tuple[float, float] = (0.2, 0.2),
        temperature: float = 1.0,
        responses_per_prompt: int = 1,
        updates_per_rollout: int = 1,
        beta: float = 0.0,
        sampler: Sampler | None = None,
        sampler_ratio_cap: float = 3.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if temperature <= 0:
            raise ValueError(f"temperature {temperature} must be above 0: RL needs sampled responses")
        if responses_per_prompt < 1 or updates_per_rollout < 1 or beta < 0:
            raise ValueError(
                "responses_per_prompt and updates_per_rollout must be at least 1 and beta at least 0, not "
                f"{responses_per_prompt}, {updates_per_rollout} and {beta}"
            )
        if beta and self.policy_config.lora is None:
            raise ValueError(
                f"beta {beta} needs a reference, which is the policy without adapters: give policy.lora, or beta 0"
            )
        if self.policy_config.lora and self.policy_config.lora.dropout:
            raise ValueError(
                f"policy.lora.dropout {self.policy_config.lora.dropout} must be 0 in RL: responses are sampled without it, "
                "and scored with it they would not be those of the policy"
            )
        if self.policy_config.train_vision:
            raise ValueError(
                "RL keeps the vision tower frozen, since its features serve a whole step: drop train_vision"
            )
        self.clip, self.temperature, self.beta = clip, temperature, beta
        self.responses_per_prompt, self.updates_per_rollout = responses_per_prompt, updates_per_rollout
        self.sampler: Any = PolicySampler() if sampler is None else sampler
        self.sampler_ratio_cap = sampler_ratio_cap
        self.record: RolloutRecord | None = None

    @abstractmethod
    def advantages(self, rewards: Tensor, confidence: Tensor) -> Tensor:
        """(B,) advantages from (B,) rewards and (B,) confidence, the G responses to a prompt side by side."""

    def shaped_rewards(self, experience: Experience) -> Tensor:
        """(B,) rewards that the advantage rests on."""
        return experience.rewards.total

    def training_step(self, batch: Batch | Phased, batch_idx: int) -> Tensor:
        phase, data = batch if isinstance(batch, Phased) else ("rl", batch)
        self.record = None
        return self.sft_step(data) if phase == "sft" else self.rl_step(data)

    def rl_step(self, batch: Batch) -> Tensor:
        """Sample, compute rewards, and propagate the policy loss but for the last micro-batch of the last update."""
        seconds: dict[str, float] = {}
        experience = self.collect(batch.groups, self._generator(), seconds)
        rewards = self.shaped_rewards(experience).to(self.device)
        rollout = experience.rollout
        confidence = token_confidence(rollout.logp, rollout.mask)  # of the sampler, until a row is scored
        sequences, tokens_in_all = self._totals(experience)
        ratios = RatioLog(self.clip, self.ratio)
        # Filled by the first update, whose own forward pass gives the old policy: on-policy the ratio is exactly 1.
        old, reference = torch.zeros_like(rollout.logp), torch.zeros_like(rollout.logp) if self.beta else None
        parts = self._parts(experience.prompts, self.trained(experience, rewards))

        def losses(first: bool) -> Iterator[Tensor]:
            for which, rows, counts in parts:
                length = int(rollout.mask[rows].sum(1).max())
                tokens, mask = rollout.tokens[rows, :length], rollout.mask[rows, :length] & counts
                prompts = experience.prompts.select(which)
                logp = self.policy.score(prompts, tokens, mask, self.temperature)
                if first and counts:
                    old[rows, :length] = logp.detach()
                    confidence[rows] = token_confidence(logp, mask)
                    if reference is not None:
                        with torch.no_grad(), self.policy.reference():
                            reference[rows, :length] = self.policy.score(prompts, tokens, mask, self.temperature)
                advantage = self.advantages(rewards, confidence)[rows]
                ratios.add(logp, old[rows, :length], rollout.logp[rows, :length], advantage, mask)
                drift = (old[rows, :length] - rollout.logp[rows, :length]).exp().clamp(max=self.sampler_ratio_cap)
                yield policy_loss(
                    logp,
                    old[rows, :length],
                    advantage,
                    mask,
                    ratio=self.ratio,
                    reduction=self.reduction,
                    clip=self.clip,
                    surrogate=self.surrogate,
                    max_length=self.max_new_tokens,
                    weights=None if self.sampler.exact else drift,
                    logp_ref=None if reference is None else reference[rows, :length],
                    beta=self.beta,
                    total_sequences=sequences,
                    total_tokens=tokens_in_all,
                )

        self._update_started = self._now()
        with self.memory_advice("update"):
            pending = self.accumulate(losses(first=True), len(parts))
            for _ in range(self.updates_per_rollout - 1):
                self.extra_optimizer_step(pending)
                pending = self.accumulate(losses(first=False), len(parts))
        advantages = self.advantages(rewards, confidence)
        self.record = RolloutRecord(
            self._repeated(experience.groups),
            rollout,
            experience.responses,
            experience.rewards,
            confidence,
            advantages,
            seconds,
        )
        rows = self._rows(experience.selected)
        self._observed = {name: experience.rewards.observed[name][rows] for name in self.reward.remembers}
        log_rollout(self, self.record)
        self.log_dict(ratios.over(self))
        if reference is not None:
            self._log_kl(old, reference, rollout.mask)
        return pending

    def collect(
        self, groups: Sequence[ImageGroup], generator: torch.Generator, seconds: dict[str, float]
    ) -> Experience:
        """Sample responses to P groups and compute their rewards; `seconds` gets the time of each phase added."""
        with torch.no_grad():
            with self.clock("encode", seconds):
                prompts = self.policy.encode(groups)
            with self.clock("sample", seconds):
                rollout = self.sampler.sample(
                    self.policy,
                    groups,
                    prompts,
                    max_new_tokens=self.max_new_tokens,
                    responses=self.responses_per_prompt,
                    temperature=self.temperature,
                    generator=generator,
                )
            with self.clock("segment", seconds):
                responses = gather(self._repeated(groups), rollout, self.segmenter, self.reward.needs)
                rewards = self.reward(responses)
        return Experience(tuple(groups), prompts, rollout, responses, rewards, list(range(len(groups))))

    def memory_knob(self, phase: str) -> str:
        if phase == "sample":
            count = f"{self.responses_per_prompt} x data.batch_size responses are sampled at once"
            return f"{count}: halve data.batch_size, or set model.max_new_tokens {self.max_new_tokens // 2}"
        if phase == "segment":
            return "halve max_batch of model.segmenter"
        return super().memory_knob(phase)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Log the seconds of each phase and let the reward remember, now that backward pass and optimiser are done."""
        super().optimizer_step(*args, **kwargs)
        if self.record is None:
            return
        self.reward.commit({name: gather_rows(self, values) for name, values in self._observed.items()})
        seconds = self.record.seconds
        seconds["update"] = self._now() - self._update_started
        self.log_dict({f"train/seconds/{phase}": value for phase, value in seconds.items()})
        self.log("train/tokens_per_second", float(self.record.rollout.mask.sum()) / sum(seconds.values()))

    def trained(self, experience: Experience, rewards: Tensor) -> list[int]:
        """The prompts whose responses have a gradient: no pass is spent on the others, though they count as responses."""
        return experience.selected

    def _parts(self, prompts: Prompts, trained: Sequence[int]) -> list[tuple[list[int], list[int], bool]]:
        """Prompts, rows and whether they count, of each micro-batch; as many on every rank."""
        order = [row for row in prompts.by_length() if row in set(trained)]
        parts = [(*part, True) for part in micro_batches(order, self.responses_per_prompt, self.micro_batch_size)]
        return parts + [([0], [0], False)] * (self.max_over_ranks(len(parts) or 1) - len(parts))

    def _totals(self, experience: Experience) -> list[float]:
        """Responses and response tokens of the whole step on all ranks."""
        rows = self._rows(experience.selected)
        tokens = experience.rollout.mask[rows].sum()
        return self.all_reduce(torch.stack([torch.tensor(len(rows), device=self.device), tokens]).double()).tolist()

    def _rows(self, prompts: Sequence[int]) -> list[int]:
        """The rows of the responses to some prompts."""
        return [row * self.responses_per_prompt + g for row in prompts for g in range(self.responses_per_prompt)]

    def _repeated(self, groups: Sequence[ImageGroup]) -> tuple[ImageGroup, ...]:
        return tuple(group for group in groups for _ in range(self.responses_per_prompt))

    def _log_kl(self, logp: Tensor, reference: Tensor, mask: Tensor) -> None:
        d = (reference - logp)[mask]
        sums = self.all_reduce(torch.stack([(d.exp() - d - 1).sum(), mask.sum()]).double())
        self.log("train/kl", float(sums[0] / sums[1]))

    def _generator(self) -> torch.Generator:
        """A generator that depends on seed, step and rank alone, so a run that goes on draws what it would have drawn."""
        state = np.random.SeedSequence((self.seed, self.global_step, self.global_rank)).generate_state(1, np.uint64)
        return torch.Generator(self.device).manual_seed(int(state[0] >> 1))

    @contextmanager
    def clock(self, phase: str, seconds: dict[str, float]) -> Iterator[None]:
        """Add the wall time of what happens inside to `seconds[phase]`, and say which knob to turn if memory ends."""
        start = self._now()
        with self.memory_advice(phase):
            yield
        seconds[phase] = seconds.get(phase, 0.0) + self._now() - start

    def _now(self) -> float:
        """Seconds on a clock, read once the device has done all that it was given."""
        torch.get_device_module(self.device).synchronize()
        return time.perf_counter()


def micro_batches(prompts: Sequence[int], responses: int, size: int | None) -> list[tuple[list[int], list[int]]]:
    """Prompts and rows of each micro-batch of at most `size` responses, each prompt with equally many of its responses.

    Args:
        prompts: Numbers of the prompts; prompt n has the rows n G .. n G + G - 1.
        responses: G.
        size: Most responses at once, or None for all.
    """
    size = size or max(1, len(prompts)) * responses
    at_once = max(1, size // responses)
    chunks = [list(prompts[start : start + at_once]) for start in range(0, len(prompts), at_once)]
    slots = [range(start, min(start + size, responses)) for start in range(0, responses, size)]
    return [(chunk, [n * responses + g for n in chunk for g in slot]) for chunk in chunks for slot in slots]
