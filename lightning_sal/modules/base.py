"""What every training of a policy shares: the model, its optimiser, micro-batches, and checkpoints of what is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lightning_sal.evaluation.metrics import Evaluation
from lightning_sal.inference.predictor import Predictor
from lightning_sal.modules import agreement
from lightning_sal.modules.exact_resume import ExactResume
from lightning_sal.modules.stopping import SaveAtEnd, StopAtSigterm
from lightning_sal.modules.strategies import OneDevice, average_gradients, strategy_of, whole
from lightning_sal.objectives import sft_loss, token_confidence
from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.policy import Policy
from lightning_sal.rewards import Reward, RewardBatch
from lightning_sal.samples import Batch, ImageGroup, Prediction, Rollout
from lightning_sal.segmenters.base import Segmenter
from lightning_sal.segmenters.tiny import embedded_segmenter

_NOTHING = ImageGroup("nothing", "sod", (torch.zeros(112, 112, 3, dtype=torch.uint8),))


class PolicyModule(L.LightningModule):
    """A policy under training; `SFT` and the RL modules say what one step is.

    Args:
        policy: The multimodal LLM to train.
        segmenter: Turns expressions into masks, for rewards, validation and prediction; null takes the embedded small
            EVF-SAM2. It is frozen.
        reward: What a response is worth; null takes 0.5 correctness + 0.5 format.
        optimizer: Called with the trainable parameters.
        lr_scheduler: Called with the optimizer, stepped once an optimisation step; null keeps the rate constant.
        max_new_tokens: Limit of response tokens, > 0; a response that reaches it is truncated.
        micro_batch_size: Responses that go through a forward and backward pass at once; null takes all of a step. The
            gradient is the same whatever it is.
        seed: Seed of sampling, >= 0.
    """

    def __init__(
        self,
        policy: PolicyConfig,
        segmenter: Segmenter | None = None,
        reward: Reward | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        max_new_tokens: int = 512,
        micro_batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.strict_loading = False  # checkpoints hold what is trained, and `on_load_checkpoint` checks that
        self.policy_config = policy
        self.segmenter: Any = segmenter
        self.reward = Reward() if reward is None else reward
        self.max_new_tokens = max_new_tokens
        self.seed = seed
        if max_new_tokens < 1 or seed < 0 or (micro_batch_size is not None and micro_batch_size < 1):
            raise ValueError(
                "max_new_tokens and micro_batch_size must be at least 1 and seed at least 0, not "
                f"{max_new_tokens}, {micro_batch_size} and {seed}"
            )
        self.make_optimizer = optimizer
        self.make_lr_scheduler = lr_scheduler
        self.micro_batch_size = micro_batch_size
        self._averages_after_backward = True

    def setup(self, stage: str) -> None:
        self.strategy.check(self.policy_config)
        self.strategy.before_setup(self, ("segmenter", "reward", "evaluation"))

    def configure_model(self) -> None:
        if not hasattr(self, "policy"):
            self.policy = self._make_policy()
            self.segmenter = embedded_segmenter() if self.segmenter is None else self.segmenter
            if isinstance(self.segmenter, torch.nn.Module):
                self.segmenter.requires_grad_(False).eval()
            self.evaluation = Evaluation()

    def _make_policy(self) -> Policy:
        if self._trainer is None:  # made without one, in Python
            return Policy(self.policy_config)
        return self.strategy.make_policy(self.policy_config, self.device_mesh)

    @property
    def strategy(self) -> OneDevice:
        """What the trainer's strategy asks of the policy."""
        return strategy_of(self.trainer)

    def configure_callbacks(self) -> list[L.Callback]:
        return [ExactResume(), StopAtSigterm(), SaveAtEnd()]

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        if self.make_lr_scheduler is None:
            return optimizer
        scheduler = {"scheduler": self.make_lr_scheduler(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def on_fit_start(self) -> None:
        if self.trainer.accumulate_grad_batches != 1:
            raise ValueError(
                "accumulate_grad_batches must be 1: token counts would be averaged wrongly over unequal batches; raise "
                "data.batch_size and set model.micro_batch_size, which gives the exact gradient"
            )
        if self.strategy.averages_by_hand:  # the others do so themselves
            for parameter in self._whole_trainable():
                torch.distributed.broadcast(parameter.detach(), src=0)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate_batch(batch)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val")

    def on_test_start(self) -> None:
        benchmarks = getattr(self.trainer.datamodule, "benchmarks", None)  # type: ignore[attr-defined]
        self.evaluation = Evaluation(benchmarks).to(self.device)

    def test_step(self, batch: Batch, batch_idx: int) -> tuple[list[dict[str, Any]], list[Prediction]]:
        """Greedy responses: one row of values an image, and one prediction a group."""
        return self._evaluate_batch(batch)

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Prediction]:
        """Greedy responses and their masks, one prediction a group."""
        return Predictor(self.policy, self.segmenter, self.max_new_tokens).predict(batch.groups)

    def respond(self, groups: Sequence[ImageGroup]) -> Rollout:
        """Greedy responses."""
        with torch.no_grad():
            return self.policy.sample(self.policy.encode(groups), self.max_new_tokens, temperature=0)

    def evaluate(self, groups: Sequence[ImageGroup]) -> tuple[RewardBatch, list[Prediction]]:
        """Greedy responses to B groups: their rewards, and the predictions."""
        rollout = self.respond(groups)
        judged = self.reward(groups, rollout.texts, rollout.truncated, self.segmenter)
        confidence = token_confidence(rollout.logp, rollout.mask).tolist()
        parts = zip(groups, rollout.texts, judged.answers, judged.masks, confidence, strict=True)
        return judged, [Prediction(g, text, a.expressions, a.reason, masks, c) for g, text, a, masks, c in parts]

    def _evaluate_batch(self, batch: Batch) -> tuple[list[dict[str, Any]], list[Prediction]]:
        if not len(batch):  # of a rank that has no sample left, while others still gather weights for theirs
            self.respond([_NOTHING])
            return [], []
        judged, predictions = self.evaluate(batch.groups)
        return self.evaluation.update(judged, predictions), predictions

    def _log_evaluation(self, stage: str) -> None:
        values = self.evaluation.compute()
        self.log_dict({f"{stage}/{name}": value for name, value in values.items()}, sync_dist=True)  # equal already

    def sft_step(self, batch: Batch) -> Tensor:
        """One step of supervised fine-tuning, back-propagated but for its last micro-batch, which is returned."""
        with self.memory_advice("update"):
            return self.accumulate(
                self.sft_losses(batch), self.max_over_ranks(len(self.micro_batches(len(batch.groups))))
            )

    def sft_losses(self, batch: Batch) -> Iterator[Tensor]:
        """Token cross-entropy of the annotated responses, a micro-batch at a time; their sum is the loss of the step."""
        groups = batch.groups
        for group in groups:
            if group.response is None:
                raise ValueError(
                    f"{group.key}: SFT needs a response and this sample has none; give a JSONL with responses"
                )
        ids, mask = self.policy.encode_responses([group.response or "" for group in groups])
        total = self.all_reduce(mask.sum().float())
        parts = self.micro_batches(len(groups))
        for number in range(self.max_over_ranks(len(parts))):
            part = parts[min(number, len(parts) - 1)]
            counts = mask[part] & (number < len(parts))
            logp = self.policy.score(self.policy.encode(groups[part]), ids[part], counts)
            yield sft_loss(logp, counts, total_tokens=total)

    def micro_batches(self, rows: int) -> list[slice]:
        """The rows of a step in slices of at most `micro_batch_size`."""
        size = self.micro_batch_size or rows
        return [slice(start, start + size) for start in range(0, rows, size)]

    def accumulate(self, losses: Iterable[Tensor], count: int) -> Tensor:
        """Back-propagate all losses of a step but the last, which Lightning propagates itself.

        Each loss is already divided by counts over the whole step and all ranks; since data-parallel strategies average
        gradients over ranks, it is multiplied by their number.

        Args:
            losses: One a micro-batch, computed when its turn comes.
            count: How many there are, >= 1.

        Returns:
            The last loss, its value replaced by the sum of all so that the log shows the loss of the step.
        """
        for optimizer in self.trainer.optimizers:
            optimizer.zero_grad()
        world, strategy, done, pending = self.trainer.world_size, self.strategy, 0.0, None
        for number, loss in enumerate(losses, 1):
            strategy.before_backward()
            if number < count:  # at once, so that no two micro-batches hold their activations
                self._backward_locally(loss * world)
                done = done + loss.detach() * world
            else:
                pending = loss * world
        if pending is None:
            raise ValueError("a training step got an empty batch: is the data folder empty?")
        self.log("train/loss", (pending.detach() + done), prog_bar=True, sync_dist=True)
        return pending

    def optimizer_zero_grad(self, *_: Any) -> None:
        """Gradients are cleared at the start of a step by `accumulate`, not between its micro-batches."""

    def all_reduce(self, value: Tensor, operation: Literal["sum", "max"] = "sum") -> Tensor:
        """The sum, or the largest, of a tensor over all ranks."""
        return self.trainer.strategy.reduce(value, reduce_op=operation)  # type: ignore[return-value]

    @contextmanager
    def memory_advice(self, phase: str) -> Iterator[None]:
        """Inside, running out of memory is answered by the knob that helps in this phase, and how far to turn it.

        Raises:
            MemoryError: In place of torch's own error.
        """
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            raise MemoryError(f"out of memory while the step does its {phase}: {self.memory_knob(phase)}") from error

    def memory_knob(self, phase: str) -> str:
        """What to set lower, and to what, where a phase of a step needs too much memory."""
        rows = self.micro_batch_size
        if rows is None:
            return "set model.micro_batch_size (now null, all responses at once), which does not change the gradient"
        if rows > 1:
            return f"set model.micro_batch_size {rows // 2} (now {rows}), which does not change the gradient"
        if not self.policy_config.gradient_checkpointing:
            return "set model.policy.gradient_checkpointing true, since model.micro_batch_size is 1 already"
        return "halve the images: set model.policy.max_pixels lower, or data.group_size for CoSOD"

    def any_rank(self, condition: bool) -> bool:
        """Whether a condition holds on any rank."""
        return bool(self.max_over_ranks(int(condition)))

    def max_over_ranks(self, count: int) -> int:
        """The largest of a count over all ranks."""
        if self.trainer.world_size == 1:
            return count
        return int(self.all_reduce(torch.tensor(count, device=self.device), "max"))

    def extra_optimizer_step(self, loss: Tensor) -> None:
        """An optimisation step in the midst of a training step, clipped like the one that Lightning does at its end.

        Args:
            loss: What `accumulate` returned.
        """

        def closure() -> Tensor:
            with self._averaging_put_off():
                self.strategy.last_backward(loss, self._average_gradients)
            return loss  # without a loss, 16-mixed precision and DeepSpeed would take the step for skipped

        self.optimizers().step(closure)  # type: ignore[union-attr]

    def on_after_backward(self) -> None:
        """Average gradients of weights that FSDP2 left whole, since no one else does, before anyone looks at them."""
        if self._averages_after_backward and self.strategy.averages_by_hand:
            self._average_gradients()

    def _backward_locally(self, loss: Tensor) -> None:
        """Back-propagate a loss that is not the last of an update: what can be averaged later is not averaged now."""
        with self._averaging_put_off(), self.strategy.unsynchronised():
            self.trainer.strategy.backward(loss, None)

    @contextmanager
    def _averaging_put_off(self) -> Iterator[None]:
        self._averages_after_backward = False
        try:
            yield
        finally:
            self._averages_after_backward = True

    def _average_gradients(self) -> None:
        average_gradients(self._whole_trainable(), self.trainer.strategy)

    def _whole_trainable(self) -> list[Tensor]:
        """What is trained and stands on each rank as a whole, not in shards, whose gradients FSDP2 averages itself."""
        return whole([p for p in self.parameters() if p.requires_grad])

    def trainable_names(self) -> list[str]:
        """Names of the parameters that are trained, which are those that a checkpoint holds."""
        return [name for name, parameter in self.named_parameters() if parameter.requires_grad]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["policy"] = asdict(self.policy_config)  # plain values, of which `lightning-sal export` makes a model
        checkpoint["run"] = agreement.run_of(self.trainer)
        checkpoint["buffers"] = self._buffers_to_save()
        checkpoint["trained"] = self.trainable_names()
        keep = set(checkpoint["trained"])
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in keep}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "policy" in checkpoint:
            agreement.refuse_other_policy(checkpoint["policy"], self.policy_config)
        if self.trainer.training:
            agreement.refuse_other_run(checkpoint.get("run"), agreement.run_of(self.trainer))
        self.configure_model()
        own = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        given: Any = checkpoint.get("state_dict")
        if not given:  # FSDP2 and DeepSpeed load before they ask
            given = {name: own.get(name) for name in checkpoint["trained"]}
        elif self.trainer.training:
            agreement.refuse_weights_alone(checkpoint.get("optimizer_states"))
        agreement.refuse_other_weights(given, own, "policy")
        kept = checkpoint.get("buffers", {})
        for name, buffer in self._buffers_to_save().items():
            if name in kept:  # a checkpoint of another algorithm or reward has none of these, and they start anew
                buffer.copy_(kept[name])

    def on_train_start(self) -> None:
        agreement.refuse_streams(self.trainer.train_dataloader)
        agreement.refuse_other_optimizer(self.trainer.optimizers)

    def _buffers_to_save(self) -> dict[str, Tensor]:
        """What algorithm and reward remember from step to step: the buffers of this module itself and of the reward."""
        own = dict(self.named_buffers(recurse=False))
        return own | {f"reward.{name}": buffer for name, buffer in self.reward.named_buffers()}
