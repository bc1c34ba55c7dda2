"""What every training of a policy shares: the model, how it responds, and the SFT step."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lightning_sal.inference.predictor import Predictor
from lightning_sal.inference.responses import MAPS, MASKS, Prediction, Reading, Response, gather
from lightning_sal.modules import agreement
from lightning_sal.modules.accumulation import AccumulatingModule
from lightning_sal.modules.evaluating import EvaluatingModule
from lightning_sal.modules.memory import memory_advice, update_setting
from lightning_sal.objectives import sft_loss
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.make import make_policy, require_attribution
from lightning_sal.policy.policy import Policy
from lightning_sal.rewards import Reward, RewardFunction
from lightning_sal.samplers import PolicySampler, Sampler
from lightning_sal.samples import Batch, ImageGroup, Usage
from lightning_sal.segmenters.base import Segmenter
from lightning_sal.tiny.notice import notice

_NOTHING = ImageGroup("nothing", "sod", (torch.full((112, 112, 3), 255, dtype=torch.uint8),), response="")


class PolicyModule(EvaluatingModule, AccumulatingModule):
    """A policy under training; `SFT` and the RL modules say what one step is.

    Args:
        policy: The multimodal LLM to train.
        segmenter: Makes masks of expressions, or of boxes and points, for rewards, validation and prediction; null takes
            the embedded small ones. It is frozen.
        reward: What a response is worth; null takes 0.5 correctness + 0.5 format. A function of a response, by its name as
            `mypkg.rewards.brevity`, is the whole reward; beside others it stands among a reward's terms.
        optimizer: Called with the trainable parameters.
        lr_scheduler: Called with the optimizer, stepped once an optimisation step; null keeps the rate constant.
        max_new_tokens: Limit of response tokens, > 0; a response that reaches it is truncated.
        micro_batch_size: Responses that go through a forward and backward pass at once; null takes all of a step. The
            gradient is the same whatever it is.
        seed: Seed of sampling, >= 0.
        evaluation_temperature: Of the responses that validation and test judge, >= 0: 0 takes the likeliest token. What is
            drawn for a sample depends on `seed` and its key alone, not on batches and ranks.
        evaluation_sampler: Where the responses come from that validation and test judge; null samples with the policy
            itself, `lightning_sal.samplers.Annotated` answers by the annotation, as an upper bound.
        evaluation_reading: How the answers that validation and test judge are read: strict, as the format has it; lenient,
            where that finds nothing to segment, as a model may write that has not learned the format. The share of responses
            that keep the format is the same either way.
    """

    weights_of = "policy"

    def __init__(
        self,
        policy: PolicyConfig,
        segmenter: Segmenter | None = None,
        reward: Reward | RewardFunction | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        max_new_tokens: int = 512,
        micro_batch_size: int | None = None,
        seed: int = 0,
        evaluation_temperature: float = 0.0,
        evaluation_sampler: Sampler | None = None,
        evaluation_reading: Reading = "strict",
    ) -> None:
        super().__init__(
            segmenter, reward, max_new_tokens, evaluation_reading,
            micro_batch_size=micro_batch_size, optimizer=optimizer, lr_scheduler=lr_scheduler,
        )  # fmt: skip
        self.policy_config = policy
        self.seed = seed
        self.evaluation_temperature = evaluation_temperature
        self.evaluation_sampler: Sampler = PolicySampler() if evaluation_sampler is None else evaluation_sampler
        if evaluation_temperature < 0:
            raise ValueError(f"evaluation_temperature {evaluation_temperature} must be 0 or above")
        if seed < 0 or (micro_batch_size is not None and micro_batch_size < 1):
            raise ValueError(f"micro_batch_size {micro_batch_size} must be at least 1 and seed {seed} at least 0")

    def setup(self, stage: str) -> None:
        super().setup(stage)
        self.strategy.check(self.policy_config)
        if MAPS in self.reward.needs:
            require_attribution(self.policy_config)
        self.strategy.before_setup(self, ("segmenter", "reward", "evaluation"))

    def _notice(self, embedded_segmenter: bool) -> str | None:
        return notice(self.policy_config.model, None if embedded_segmenter else "its own")

    def configure_model(self) -> None:
        if not hasattr(self, "policy"):
            self.policy = self._make_policy()
        super().configure_model()

    def _make_policy(self) -> Policy:
        if self._trainer is None:  # made without one, in Python
            return make_policy(self.policy_config)
        return self.strategy.make_policy(self.policy_config, self.device_mesh)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        """Greedy responses and their masks, one prediction a group."""
        return Predictor(self.policy, self.segmenter, self.max_new_tokens).predict(batch.groups)

    def respond(self, groups: Sequence[ImageGroup]) -> list[Response]:
        """Responses for evaluation, with their masks and what else the reward needs."""
        start = self.now()
        with torch.no_grad():
            prompts = self.policy.encode(groups)
            rollout = self.evaluation_sampler.sample(
                self.policy, groups, prompts,
                max_new_tokens=self.max_new_tokens, responses=1,
                temperature=self.evaluation_temperature, generator=[self._generator_of(group) for group in groups],
            )  # fmt: skip
            seconds = (self.now() - start) / len(groups)  # of each of those that are sampled together
            needs = self.reward.needs | {MASKS}
            responses = gather(
                groups, rollout, self.segmenter, needs,
                policy=self.policy, prompts=prompts, micro_batch_size=self.micro_batch_size,
                reading=self.evaluation_reading,
            )  # fmt: skip
        return [
            replace(each, usage=replace(each.usage or Usage(), seconds=seconds, input_tokens=length))
            for each, length in zip(responses, prompts.lengths, strict=True)
        ]

    def _respond(self, groups: Sequence[ImageGroup]) -> list[Response]:
        """Responses to B >= 0 groups: a rank that has no sample left samples all the same, while others gather weights."""
        return self.respond(groups) if groups else self.respond([_NOTHING])[:0]

    @property
    def evaluation_settings(self) -> dict[str, Any]:
        """How the responses that evaluation judges come about, for the file of results."""
        sampler = type(self.evaluation_sampler).__name__
        settings = {"sampler": sampler, "temperature": self.evaluation_temperature, **super().evaluation_settings}
        return settings | ({"seed": self.seed} if self.evaluation_temperature else {})

    def _generator_of(self, group: ImageGroup) -> torch.Generator:
        """A generator that depends on the seed and the sample alone."""
        name = f"{self.seed}/{group.benchmark}/{group.key}".encode(errors="surrogateescape")
        seed = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()) >> 1
        return torch.Generator(self.policy.device).manual_seed(seed)

    def now(self) -> float:
        """Seconds on a clock, read once the device has done all that it was given."""
        torch.get_device_module(self.device).synchronize()
        return time.perf_counter()

    def sft_step(self, batch: Batch, weight: float = 1.0) -> Tensor:
        """One step of supervised fine-tuning, back-propagated but for its last micro-batch, which is returned.

        Args:
            batch: Annotated samples.
            weight: What the loss is multiplied by.
        """
        with self.memory_advice("update"):
            losses = (weight * loss for loss in self.sft_losses(batch))
            return self.accumulate(losses, self.max_over_ranks(len(self.micro_batches(len(batch.groups)))))

    def sft_losses(self, batch: Batch) -> Iterator[Tensor]:
        """Token cross-entropy of the annotated responses, a micro-batch at a time; their sum is the loss of the step."""
        groups = batch.groups
        for group in groups:
            if group.response is None:
                raise ValueError(
                    f"{group.key}: SFT needs a response and this sample has none; give a JSONL with responses"
                )
        ids, mask = self.policy.encode_responses(self.policy.annotated(groups))
        total = self.all_reduce(mask.sum().float())
        parts = self.micro_batches(len(groups))
        for number in range(self.max_over_ranks(len(parts))):
            part = parts[min(number, len(parts) - 1)]
            counts = mask[part] & (number < len(parts))
            logp = self.policy.score(self.policy.encode(groups[part]), ids[part], counts)
            yield sft_loss(logp, counts, total_tokens=total)

    def memory_advice(self, phase: str) -> AbstractContextManager[None]:
        """Inside, running out of memory is a MemoryError that says what to set lower."""
        return memory_advice(phase, self.memory_setting)

    def memory_setting(self, phase: str) -> str:
        """What to set lower, and to what, where a phase of a step needs too much memory."""
        return update_setting(self.micro_batch_size, self.policy_config.gradient_checkpointing)

    def saved_buffers(self) -> dict[str, Tensor]:
        """What algorithm and reward keep from step to step: the buffers of this module itself and of the reward."""
        own = dict(self.named_buffers(recurse=False))
        return own | {f"reward.{name}": buffer for name, buffer in self.reward.named_buffers()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["policy"] = asdict(self.policy_config)  # plain values, of which `lightning-sal export` makes a model
        checkpoint["run"] = agreement.run_of(self.trainer)
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "policy" in checkpoint:
            agreement.refuse_other_policy(checkpoint["policy"], self.policy_config)
        if self.trainer.training:
            agreement.refuse_other_run(checkpoint.get("run"), agreement.run_of(self.trainer))
        self.configure_model()
        saved: dict[str, Tensor] = checkpoint.get("buffers", {})
        own = {name.removeprefix("reward."): saved[name] for name in saved if name.startswith("reward.")}
        self.reward.refuse_other_state(own)
        super().on_load_checkpoint(checkpoint)

    def on_train_start(self) -> None:
        agreement.refuse_streams(self.trainer.train_dataloader)
        agreement.refuse_other_optimizer(self.trainer.optimizers)
