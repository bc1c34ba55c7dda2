"""The steps of TRL's GRPOTrainer, for `rl_step.py`."""

from __future__ import annotations

import argparse
from typing import Any

from meter import Meter
from workload import CLIP, LEARNING_RATE, LORA_RANK, build, groups_of

PHASES = {  # Methods of the trainer -> the phase that they are
    "_generate_and_score_completions": "prepare",
    "_generate_single_turn": "generate",
    "_calculate_rewards": "reward",
    "compute_loss": "forward",
}


def run_trl(given: argparse.Namespace, meter: Meter) -> int:
    """Time TRL; returns the tokens of a prompt."""
    from free import worth
    from transformers import TrainerCallback
    from trl.trainer.grpo_trainer import GRPOTrainer

    model, processor, instructions = build(given)

    def reward(completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        assert all(len(ids) == given.tokens for ids in completion_ids), "a response ended early"
        return [worth(completion[0]["content"]) for completion in completions]

    class Steps(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            meter.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.end()

    trainer = GRPOTrainer(
        model=_trainable(model, lora=given.lora == "on"),
        reward_funcs=reward,
        args=_config(given),
        train_dataset=_prompts(given, instructions),
        processing_class=processor,
        callbacks=[Steps()],
    )
    for method, phase in PHASES.items():
        meter.clock(trainer, method, phase)
    meter.clock(trainer.accelerator, "backward", "backward")
    trainer.train()
    responses = len(meter.steps) * given.prompts * given.responses
    return trainer.state.num_input_tokens_seen // responses - given.tokens


def _trainable(model: Any, *, lora: bool) -> Any:
    """The model with a frozen vision tower, and adapters if asked for."""
    from lightning_sal.policy import LoRA
    from lightning_sal.policy.adapters import add_lora
    from lightning_sal.policy.loading import freeze

    freeze(model, train_vision=False)
    return add_lora(model, LoRA(rank=LORA_RANK)) if lora else model


def _prompts(given: argparse.Namespace, instructions: dict[str, str]) -> Any:
    import datasets
    from PIL import Image

    rows = [
        {
            "prompt": [{"role": "user", "content": instructions[group.task]}],
            "images": [Image.fromarray(image.numpy()) for image in group.images],
        }
        for group in groups_of(given)
    ]
    return datasets.Dataset.from_list(rows)


def _config(given: argparse.Namespace) -> Any:
    from trl.trainer.grpo_config import GRPOConfig

    responses = given.prompts * given.responses
    size = min(given.micro_batch or responses, responses)
    return GRPOConfig(
        output_dir=given.folder,
        use_cpu=given.device == "cpu",
        bf16=given.device == "cuda",
        max_steps=given.warmup + given.steps,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=responses // size,
        num_generations=given.responses,
        max_completion_length=given.tokens,
        generation_kwargs={"min_new_tokens": given.tokens},
        loss_type="grpo",
        beta=0.0,
        num_iterations=1,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        max_grad_norm=CLIP,
        gradient_checkpointing=given.checkpointing,
        shuffle_dataset=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
