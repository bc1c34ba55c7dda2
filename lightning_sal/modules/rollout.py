"""One step of reinforcement learning: sample, segment, update."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_sal.inference.responses import MAPS, gather, with_maps
from lightning_sal.modules.accumulation import grouped_micro_batches
from lightning_sal.modules.base import PolicyModule
from lightning_sal.modules.experience import ConfidenceMeasure, Experience, OldPolicy, RolloutRecord
from lightning_sal.modules.gathering import gather_in_order
from lightning_sal.modules.rollout_log import RatioLog, log_rollout
from lightning_sal.objectives import k3, policy_loss, token_confidence
from lightning_sal.objectives.policy import Ratio, Reduction, Surrogate, check_dual_clip
from lightning_sal.policy.log_probs import Entropy
from lightning_sal.policy.prompts import Prompts
from lightning_sal.samplers import PolicySampler, Sampler
from lightning_sal.samples import Batch, ImageGroup, Phased, Rollout
from lightning_sal.transfer import indices, read


class MicroBatch(NamedTuple):
    """The part of a step that goes through one forward and backward pass.

    Args:
        prompts: Its prompts.
        rows: (n,) numbers of its responses, equally many to each prompt, on the device.
        lengths: Tokens of each of them.
        counts: False for a pass that contributes 0, so that all ranks do equally many.
    """

    prompts: Prompts
    rows: Tensor
    lengths: list[int]
    counts: bool


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
        dual_clip: c > 1, the ratio from which on a response with a negative advantage is pushed down no more (dual clip,
            Ye et al. 2020); null for no such bound.
        temperature: Of sampling and of scoring alike, > 0.
        responses_per_prompt: G >= 1, responses that are sampled to each prompt.
        updates_per_rollout: Optimisation steps on each rollout, >= 1, each on all its responses. The first is on-policy.
            They are one step of the trainer, so `max_steps` counts rollouts, and the learning rate moves once a rollout.
        beta: Weight of the KL divergence (k3) to the reference, which is the policy without its adapters; >= 0.
        unbiased_kl: Multiply the KL term by the ratio, so that its gradient is that of the KL divergence (DeepSeek-V3.2).
        entropy_coef: Weight of an entropy bonus, in units of the loss a nat, >= 0: what the loss of each token is lowered
            by per nat of the policy's entropy there, at the temperature that it was sampled at.
        sft_weight: What the loss of an SFT step is multiplied by, > 0. RL and SFT steps share the moments of an optimiser
            such as Adam, so the larger SFT's gradients are, the less an RL step moves the weights; a smaller weight gives
            it more of the way.
        mask_truncated: Leave responses that reached `max_new_tokens` before they ended out of the loss, its KL term and its
            entropy bonus. Their tokens do not count where a loss is divided by tokens, they do where it is divided by
            responses. Rewards, advantages, and what is logged of responses have them as ever.
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
        dual_clip: float | None = None,
        temperature: float = 1.0,
        responses_per_prompt: int = 1,
        updates_per_rollout: int = 1,
        beta: float = 0.0,
        unbiased_kl: bool = False,
        entropy_coef: float = 0.0,
        sft_weight: float = 1.0,
        mask_truncated: bool = False,
        sampler: Sampler | None = None,
        sampler_ratio_cap: float = 3.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if temperature <= 0:
            raise ValueError(f"temperature {temperature} must be above 0: RL needs sampled responses")
        if responses_per_prompt < 1 or updates_per_rollout < 1 or beta < 0 or entropy_coef < 0:
            raise ValueError(
                "responses_per_prompt and updates_per_rollout must be at least 1, beta and entropy_coef at least 0, not "
                f"{responses_per_prompt}, {updates_per_rollout}, {beta} and {entropy_coef}"
            )
        if sft_weight <= 0:
            raise ValueError(f"sft_weight {sft_weight} must be above 0: for RL alone leave InterleavedSFT out")
        check_dual_clip(dual_clip, self.surrogate)
        if unbiased_kl and not beta:
            raise ValueError("unbiased_kl corrects the KL term, which beta 0 leaves out: set beta, or drop unbiased_kl")
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
        self.clip, self.dual_clip, self.temperature = clip, dual_clip, temperature
        self.beta, self.unbiased_kl, self.entropy_coef = beta, unbiased_kl, entropy_coef
        self.sft_weight, self.mask_truncated = sft_weight, mask_truncated
        self.responses_per_prompt, self.updates_per_rollout = responses_per_prompt, updates_per_rollout
        self.sampler: Sampler = PolicySampler() if sampler is None else sampler
        self.sampler_ratio_cap = sampler_ratio_cap
        self.record: RolloutRecord | None = None

    @abstractmethod
    def advantages(self, rewards: Tensor, confidence: Tensor) -> Tensor:
        """(B,) advantages, the G responses to a prompt side by side.

        The first update asks for them in each micro-batch, when the rows of `confidence` that are still to come are those
        of the sampler. So the advantage of a response may depend on all rewards, on what `before_updates` has kept, and on
        no confidence but its own; what it is given twice it answers alike.

        Args:
            rewards: (B,) as `shaped_rewards` gives them, all known.
            confidence: (B,) in [0, 1], detached, as `confidence_measure` has it taken.
        """

    def confidence_measure(self, experience: Experience) -> ConfidenceMeasure:
        """How the confidence is taken that `advantages` gets: the mean probability of all tokens of a response."""
        return ConfidenceMeasure(token_confidence, experience.rollout.mask)

    def before_updates(self, rewards: Tensor, confidence: Tensor) -> None:
        """Once a step, before the first update: keep what advantages need of the whole step on all ranks.

        Args:
            rewards: As for `advantages`.
            confidence: Likewise, that of the sampler, which where the sampler is exact is the policy's but for rounding.
        """

    def after_updates(self, rewards: Tensor, confidence: Tensor) -> None:
        """Once a step, when the advantages of its last update are known: keep what later steps need of it.

        Args:
            rewards: As for `advantages`.
            confidence: Likewise, that of the policy, or of the sampler for responses that were not scored.
        """

    def shaped_rewards(self, experience: Experience) -> Tensor:
        """(B,) rewards that the advantage rests on."""
        return experience.rewards.total

    def training_step(self, batch: Batch | Phased, batch_idx: int) -> Tensor:
        phase, data = batch if isinstance(batch, Phased) else ("rl", batch)
        self.record = None
        return self.sft_step(data, self.sft_weight) if phase == "sft" else self.rl_step(data)

    def rl_step(self, batch: Batch) -> Tensor:
        """Sample, compute rewards, and propagate the policy loss but for the last micro-batch of the last update."""
        seconds: dict[str, float] = {}
        experience = self.collect(batch.groups, self._generator(), seconds)
        shaped = self.shaped_rewards(experience)
        rewards = shaped.to(self.device, non_blocking=True)
        measure = self.confidence_measure(experience)
        old = OldPolicy.of(experience.rollout, measure, self.policy.width, reference=bool(self.beta))
        self.before_updates(rewards, old.compared)
        ratios = RatioLog(self.clip, self.ratio)
        parts = self._parts(experience, self.trained(experience, shaped))
        totals = self._totals(experience)
        self._update_started = self.now()
        with self.memory_advice("update"):
            pending = self.accumulate(self._losses(experience, rewards, old, parts, totals, ratios, True), len(parts))
            for _ in range(self.updates_per_rollout - 1):
                self.extra_optimizer_step(pending)
                losses = self._losses(experience, rewards, old, parts, totals, ratios, False)
                pending = self.accumulate(losses, len(parts))
        confidence, advantages, scored, entropy, *sums = read(
            old.confidence,
            self.advantages(rewards, old.compared),
            old.scored,
            old.entropy,
            *ratios.sums(),
            *([] if old.reference is None else [self._divergence(old, experience.rollout)]),
        )
        self.record = RolloutRecord(
            self._repeated(experience.groups),
            experience.rollout,
            experience.responses,
            experience.rewards,
            confidence,
            advantages,
            scored,
            entropy,
            old.embeddings,
            seconds,
        )
        self.after_updates(rewards, old.compared)
        self._observe(experience)
        log_rollout(self, self.record, *sums)
        return pending

    def _losses(
        self,
        experience: Experience,
        rewards: Tensor,
        old: OldPolicy,
        parts: Sequence[MicroBatch],
        totals: tuple[Tensor, Tensor],
        ratios: RatioLog,
        first: bool,
    ) -> Iterator[Tensor]:
        """The policy loss, a micro-batch at a time; their sum is the loss of an update.

        Args:
            experience: What was sampled.
            rewards: (B,).
            old: Filled where `first`.
            parts: The micro-batches.
            totals: Responses, and response tokens that enter the loss, of the whole step.
            ratios: Gets each micro-batch added.
            first: Whether no update was done on these responses yet.
        """
        rollout, loss_mask = experience.rollout, self.loss_mask(experience.rollout)
        entropy: Entropy | None = "gradient" if self.entropy_coef else "value" if first else None
        for prompts, rows, lengths, counts in parts:
            length = max(lengths)
            tokens, mask = rollout.tokens[rows, :length], rollout.mask[rows, :length] & counts
            given = (prompts, tokens, mask, self.temperature)
            counted = lengths if counts else [0] * len(lengths)
            scores = self.policy.score_tokens(*given, entropy=entropy, lengths=counted)
            logp = scores.logp
            if first and counts:
                old.fill(rows, scores, mask)
                if old.reference is not None:
                    with torch.no_grad(), self.policy.reference():
                        reference = self.policy.score_tokens(*given, lengths=counted).logp
                    old.reference[rows, :length] = reference.to(old.reference.dtype)
            logp_old, sampled = old.logp[rows, :length], rollout.logp[rows, :length]
            advantages = self.advantages(rewards, old.compared)[rows]
            mask = mask & loss_mask[rows, :length]
            ratios.add(logp, logp_old, sampled, advantages, mask)
            yield policy_loss(
                logp,
                logp_old,
                advantages,
                mask,
                ratio=self.ratio,
                reduction=self.reduction,
                clip=self.clip,
                dual_clip=self.dual_clip,
                surrogate=self.surrogate,
                max_length=self.max_new_tokens,
                weights=None if self.sampler.exact else (logp_old - sampled).exp().clamp(max=self.sampler_ratio_cap),
                logp_ref=None if old.reference is None else old.reference[rows, :length],
                beta=self.beta,
                unbiased_kl=self.unbiased_kl,
                entropy=scores.entropy,
                entropy_coef=self.entropy_coef,
                total_sequences=totals[0],
                total_tokens=totals[1],
            )

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
                responses = gather(self._repeated(groups), rollout, self.segmenter, self.reward.needs - {MAPS})
            if MAPS in self.reward.needs:
                with self.clock("attribute", seconds):
                    responses = with_maps(responses, rollout, self.policy, prompts, self.micro_batch_size)
            with self.clock("segment", seconds):
                rewards = self.reward(responses)
        return Experience(tuple(groups), prompts, rollout, responses, rewards, list(range(len(groups))))

    def memory_setting(self, phase: str) -> str:
        if phase == "sample":
            count = f"{self.responses_per_prompt} x data.batch_size responses are sampled at once"
            lower = "halve data.batch_size, or data.rl_batch_size where it is given"
            return f"{count}: {lower}, or set model.max_new_tokens {self.max_new_tokens // 2}"
        if phase == "segment":
            return "halve max_batch of model.segmenter"
        return super().memory_setting(phase)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Log the seconds of each phase and let the reward remember, now that backward pass and optimiser are done."""
        super().optimizer_step(*args, **kwargs)
        if self.record is None:
            return
        self.reward.commit(gather_in_order(self, self._observed, self._places))
        seconds = self.record.seconds
        seconds["update"] = self.now() - self._update_started
        self.log_dict({f"train/seconds/{phase}": value for phase, value in seconds.items()})
        self.log("train/tokens_per_second", sum(self.record.lengths) / sum(seconds.values()))

    def _observe(self, experience: Experience) -> None:
        """Keep what the reward will remember of this step: of the responses that are learnt from, or of all if none is.

        Ranks start out all equal. Where every group is dropped for that, they would else stay so.
        """
        names, prompts = self.reward.remembers, experience.selected
        if names and not self.any_rank(bool(prompts)):
            prompts = list(range(len(experience.groups)))
        rows, observed = self._rows(prompts), experience.rewards.observed
        self._observed = {name: observed[name][indices(rows, observed[name].device)] for name in names}
        self._places = torch.tensor([self._place(row) for row in rows], dtype=torch.int64)

    def _place(self, row: int) -> int:
        """The number of a response among those of all ranks, which take the prompts of a batch in turns."""
        prompt, response = divmod(row, self.responses_per_prompt)
        return (prompt * self.trainer.world_size + self.global_rank) * self.responses_per_prompt + response

    def trained(self, experience: Experience, rewards: Tensor) -> list[int]:
        """The prompts whose responses have a gradient: no pass is spent on the others, though they count as responses.

        Args:
            experience: What was sampled.
            rewards: (B,) as `shaped_rewards` gives them.
        """
        return experience.selected

    def loss_mask(self, rollout: Rollout) -> Tensor:
        """(B, T) bool, True on the response tokens that enter the loss."""
        return rollout.mask & ~rollout.truncated[:, None] if self.mask_truncated else rollout.mask

    def _parts(self, experience: Experience, trained: Sequence[int]) -> list[MicroBatch]:
        """The micro-batches of a step, as many on every rank."""

        def part(prompts: Sequence[int], rows: Sequence[int], counts: bool) -> MicroBatch:
            lengths = [experience.lengths[row] for row in rows]
            return MicroBatch(experience.prompts.select(prompts), indices(rows, self.device), lengths, counts)

        order = [row for row in experience.prompts.by_length() if row in set(trained)]
        grouped = grouped_micro_batches(order, self.responses_per_prompt, self.micro_batch_size)
        parts = [part(*each, counts=True) for each in grouped]
        idle = self.max_over_ranks(len(parts) or 1) - len(parts)
        return parts + [part([0], [0], counts=False) for _ in range(idle)]

    def _totals(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """Responses, and response tokens that enter the loss, of the whole step on all ranks: two numbers on the device."""
        rows = indices(self._rows(experience.selected), self.device)
        tokens = self.loss_mask(experience.rollout)[rows].sum().double()
        sequences, tokens = self.all_reduce(torch.stack([torch.full_like(tokens, len(rows)), tokens]))
        return sequences, tokens

    def _rows(self, prompts: Sequence[int]) -> list[int]:
        """The rows of the responses to some prompts."""
        return [row * self.responses_per_prompt + g for row in prompts for g in range(self.responses_per_prompt)]

    def _repeated(self, groups: Sequence[ImageGroup]) -> tuple[ImageGroup, ...]:
        return tuple(group for group in groups for _ in range(self.responses_per_prompt))

    def _divergence(self, old: OldPolicy, rollout: Rollout) -> Tensor:
        """(2,) the KL divergence to the reference, summed over the tokens of the loss that were scored, and their number."""
        assert old.reference is not None
        mask = self.loss_mask(rollout) & old.scored[:, None]
        return torch.stack([k3(old.logp, old.reference, mask).sum().double(), mask.sum().double()])

    def _generator(self) -> torch.Generator:
        """A generator that depends on seed, step and rank alone, so a run that goes on draws what it would have drawn."""
        state = np.random.SeedSequence((self.seed, self.global_step, self.global_rank)).generate_state(1, np.uint64)
        return torch.Generator(self.device).manual_seed(int(state[0] >> 1))

    @contextmanager
    def clock(self, phase: str, seconds: dict[str, float]) -> Iterator[None]:
        """Add the wall time of what happens inside to `seconds[phase]`, and say what to set lower if memory ends."""
        start = self.now()
        with self.memory_advice(phase):
            yield
        seconds[phase] = seconds.get(phase, 0.0) + self.now() - start
