"""What one RL step costs: TRL's GRPOTrainer, our GRPO and our CGPO on the same Qwen2.5-VL and the same prompts.

    uv run python benchmarks/rl_step.py [--images 1 4 8] [--prompts 4 16] [--lora off on] [--micro-batch 8]
    uv run python benchmarks/rl_step.py --model 7b --device cuda --pixels 200704 --lora on

Every system gets the same random weights with the vision tower frozen, the same scenes and instruction, the same forced
response length, AdamW without weight decay and clipped gradients, and a reward that costs nothing: no segmenter is
timed. float32 on the CPU, bfloat16 on a GPU. GRPO has no KL term on either side, so no reference policy is asked.

Each measurement is a process of its own, which takes a few steps to warm up and then those that count; the systems take
turns, since processes differ by up to 30 %. A row shows the medians over processes of the median step. Leave the machine
alone meanwhile: two threads that wait for each other beside one busy core are ten times as slow.

A step runs from the prompts to the updated weights; what the data loader does before it is left out. Phases add up to
the step (TRL's `prepare` is its chat templates and its processor, which runs twice). Memory is the peak during all steps
above what was held before the first: resident memory on the CPU (Linux), allocated memory on a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

SYSTEMS = ("trl", "grpo", "cgpo")
NAMES = {"trl": "TRL GRPO", "grpo": "our GRPO", "cgpo": "our CGPO"}
LORA_RANK, LEARNING_RATE, CLIP = 8, 1e-6, 1.0


class Meter:
    """Seconds of each step and of its phases, and the memory that the steps took above idle.

    Args:
        device: "cpu" or "cuda".
    """

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"
        self.steps: list[float] = []
        self.phases: list[Any] = []
        self.idle = 0
        self._inner = 0.0

    def now(self) -> float:
        if self.cuda:
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()

    def begin(self) -> None:
        if not self.steps:
            self.idle = self._memory("VmRSS")
            self._reset_peak()
        self.phases.append(Counter())
        self._start = self.now()

    def end(self) -> None:
        self.steps.append(self.now() - self._start)

    def clock(self, owner: Any, method: str, phase: str) -> None:
        """Count what a method takes as a phase; a phase inside another counts as itself alone."""
        inner = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start, before = self.now(), self._inner
            self._inner = 0.0
            try:
                return inner(*args, **kwargs)
            finally:
                took = self.now() - start
                self.phases[-1][phase] += took - self._inner
                self._inner = before + took

        setattr(owner, method, timed)

    def report(self, warmup: int) -> dict[str, Any]:
        """Medians over the steps after the first `warmup`, and the peak over all."""
        steps, phases = self.steps[warmup:], self.phases[warmup:]
        for step, phase in zip(steps, phases, strict=True):
            phase["rest"] = step - sum(phase.values())
        middle = {name: statistics.median(phase[name] for phase in phases) for name in phases[0]}
        return {"step": statistics.median(steps), "phases": middle, "memory": self._memory("VmHWM") - self.idle}

    def _memory(self, kind: str) -> int:
        """Bytes held now (VmRSS) or at the peak since the last reset (VmHWM)."""
        if self.cuda:
            import torch

            return torch.cuda.memory_allocated() if kind == "VmRSS" else torch.cuda.max_memory_allocated()
        status = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith(kind))

    def _reset_peak(self) -> None:
        if self.cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")


def build(given: argparse.Namespace) -> tuple[Any, Any, dict[str, str]]:
    """Model, processor and instructions, as `scratch_policy` returns them, at the size and on the device asked for."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from lightning_sal.tiny.policy import scratch_policy

    tiny, processor, instructions = scratch_policy()
    side = {"shortest_edge": given.pixels, "longest_edge": given.pixels}
    processor.image_processor.size = type(processor.image_processor.size)(**side)
    dtype = torch.bfloat16 if given.device == "cuda" else torch.float32
    if given.model == "tiny":
        return tiny.to(given.device, dtype), processor, instructions
    special = {name: value for name, value in tiny.config.to_dict().items() if name.endswith("_token_id")}
    config = Qwen2_5_VLConfig(
        text_config=dict(
            vocab_size=152064,
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
            max_position_embeddings=128000,
            rms_norm_eps=1e-6,
            rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[16, 24, 24]),
        ),
        vision_config=dict(
            depth=32,
            hidden_size=1280,
            intermediate_size=3420,
            num_heads=16,
            out_hidden_size=3584,
            patch_size=14,
            spatial_merge_size=2,
            temporal_patch_size=2,
            window_size=112,
            fullatt_block_indexes=[7, 15, 23, 31],
        ),
        tie_word_embeddings=False,
        **special,
    )
    standard = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(given.device):
            model = Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(standard)
    model.generation_config = tiny.generation_config
    return model.eval(), processor, instructions


def groups_of(given: argparse.Namespace) -> list[Any]:
    """A group of K scenes for each prompt of each step; one image makes an SOD prompt, more make a CoSOD prompt."""
    from lightning_sal.datasets.scenes import SceneGroups

    count = given.prompts * (given.warmup + given.steps)
    task = "sod" if given.images == 1 else "cosod"
    scenes = SceneGroups(0, {"sod": 1}, annotated=False)
    parts = [[scenes[at * given.images + k] for k in range(given.images)] for at in range(count)]
    return [replace(part[0], task=task, images=tuple(one.images[0] for one in part), masks=None) for part in parts]


def run_trl(given: argparse.Namespace, meter: Meter) -> int:
    """Time TRL; returns the tokens of a prompt."""
    import datasets
    from free import worth
    from PIL import Image
    from transformers import TrainerCallback
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from lightning_sal.policy import LoRA
    from lightning_sal.policy.adapters import add_lora
    from lightning_sal.policy.loading import freeze

    model, processor, instructions = build(given)
    freeze(model, train_vision=False)
    if given.lora == "on":
        model = add_lora(model, LoRA(rank=LORA_RANK))
    rows = [
        {
            "prompt": [{"role": "user", "content": instructions[group.task]}],
            "images": [Image.fromarray(image.numpy()) for image in group.images],
        }
        for group in groups_of(given)
    ]
    responses = given.prompts * given.responses
    size = min(given.micro_batch or responses, responses)
    config = GRPOConfig(
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

    def reward(completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float | None]:
        assert all(len(ids) == given.tokens for ids in completion_ids), "a response ended early"
        return [worth(completion[0]["content"]) for completion in completions]

    class Steps(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            meter.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.end()

    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=config,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=processor,
        callbacks=[Steps()],
    )
    for owner, method, phase in (
        (trainer, "_generate_and_score_completions", "prepare"),
        (trainer, "_generate_single_turn", "generate"),
        (trainer, "_calculate_rewards", "reward"),
        (trainer, "compute_loss", "forward"),
        (trainer.accelerator, "backward", "backward"),
    ):
        meter.clock(owner, method, phase)
    trainer.train()
    return trainer.state.num_input_tokens_seen // (len(meter.steps) * responses) - given.tokens


def run_ours(given: argparse.Namespace, meter: Meter) -> int:
    """Time our GRPO or CGPO; returns the tokens of a prompt."""
    import lightning as L
    import torch
    from free import NoSegmenter, Worth
    from torch.utils.data import DataLoader

    from lightning_sal import modules
    from lightning_sal.policy import LoRA, PolicyConfig
    from lightning_sal.rewards import Reward
    from lightning_sal.samples import Batch

    class Steps(L.Callback):
        def on_fit_start(self, trainer: Any, module: Any) -> None:
            module.policy.suppressed[list(module.policy.eos_ids)] = True  # so that no response ends early

        def on_train_batch_start(self, *_: Any) -> None:
            meter.begin()

        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            meter.end()
            assert module.record.rollout.mask.sum(1).eq(given.tokens).all(), "a response ended early"
            meter.phases[-1] = module.record.seconds  # the module adds the update right after this

    groups = groups_of(given)
    batches: Any = [Batch(tuple(groups[at : at + given.prompts])) for at in range(0, len(groups), given.prompts)]
    options = {"grpo": {"responses_per_prompt": given.responses, "beta": 0.0}, "cgpo": {}}[given.worker]
    module: Any = getattr(modules, given.worker.upper())(
        **options,
        policy=PolicyConfig(
            model="tiny-scratch",
            lora=LoRA(rank=LORA_RANK) if given.lora == "on" else None,
            gradient_checkpointing=given.checkpointing,
        ),
        segmenter=NoSegmenter(),
        reward=Reward([Worth()]),
        optimizer=partial(torch.optim.AdamW, lr=LEARNING_RATE, weight_decay=0.0),
        max_new_tokens=given.tokens,
        micro_batch_size=given.micro_batch,
    )
    trainer = L.Trainer(
        accelerator="gpu" if given.device == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if given.device == "cuda" else "32-true",
        max_steps=len(batches),
        gradient_clip_val=CLIP,
        callbacks=[Steps()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=given.folder,
    )
    with mock.patch("lightning_sal.policy.policy.load_model", return_value=build(given)):
        trainer.fit(module, DataLoader(batches, batch_size=None))
    return int(module.policy.encode(groups[:1]).mask.sum())


def work(given: argparse.Namespace) -> None:
    """One measurement; prints it as a line of JSON."""
    import torch

    meter = Meter(given.device)
    with tempfile.TemporaryDirectory() as given.folder:
        prompt_tokens = (run_trl if given.worker == "trl" else run_ours)(given, meter)
    report = meter.report(given.warmup)
    print(json.dumps({**report, "prompt_tokens": prompt_tokens, "threads": torch.get_num_threads()}))


def measure(system: str, case: dict[str, Any]) -> dict[str, Any]:
    """What a fresh process of its own measures."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in case.items() if value not in (None, False, True)]
    flags += [f"--{name.replace('_', '-')}" for name, value in case.items() if value is True]
    run = subprocess.run(
        [sys.executable, __file__, "--worker", system, *flags],
        capture_output=True,
        text=True,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"},
    )
    if run.returncode:
        sys.exit(f"{NAMES[system]} with {' '.join(flags)} failed:\n{run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def compare(case: dict[str, Any], systems: list[str], rounds: int) -> None:
    """Measure the systems in turn and print a table of their medians."""
    from rich.console import Console
    from rich.table import Table

    found: dict[str, list[dict[str, Any]]] = {system: [] for system in systems}
    for _ in range(rounds):
        for system in systems:
            found[system].append(measure(system, case))
    lengths = {report["prompt_tokens"] for reports in found.values() for report in reports}
    if len(lengths) != 1:
        sys.exit(f"the prompts differ: they have {sorted(lengths)} tokens")
    table = Table(
        title=f"{case['images']} images a prompt ({lengths.pop()} tokens), {case['prompts']} prompts, "
        f"G = {case['responses']}, {case['tokens']} tokens a response, LoRA {case['lora']}, "
        f"micro-batch {case['micro_batch'] or 'of all'}, {case['model']} on {case['device']}, "
        f"{found[systems[0]][0]['threads']} threads, {rounds} processes each"
    )
    for column in ("", "s a step (range)", "of which", "ms a prompt", "ms a response", "tokens/s", "MB above idle"):
        table.add_column(column, justify="left" if column in ("", "of which") else "right")
    if "trl" in systems:
        table.add_column("time / TRL", justify="right")
        table.add_column("memory / TRL", justify="right")

    def middle(system: str, value: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(value(report) for report in found[system])

    for system in systems:
        steps = [report["step"] for report in found[system]]
        step, memory = statistics.median(steps), middle(system, lambda report: report["memory"])
        responses = case["prompts"] * (1 if system == "cgpo" else case["responses"])
        phases = {
            name: middle(system, lambda report, name=name: report["phases"][name])
            for name in found[system][0]["phases"]
        }
        cells = [
            NAMES[system],
            f"{step:.3f} ({min(steps):.3f}-{max(steps):.3f})",
            ", ".join(f"{name} {seconds:.3f}" for name, seconds in phases.items()),
            f"{1000 * step / case['prompts']:.1f}",
            f"{1000 * step / responses:.1f}",
            f"{responses * case['tokens'] / step:.0f}",
            f"{memory / 2**20:.0f}",
        ]
        if "trl" in systems:
            cells.append(f"{step / middle('trl', lambda report: report['step']):.3f}")
            cells.append(f"{memory / middle('trl', lambda report: report['memory']):.3f}")
        table.add_row(*cells)
    Console(width=150).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1, 4, 8], help="images a prompt")
    parser.add_argument("--prompts", type=int, nargs="+", default=[4], help="prompts a step")
    parser.add_argument("--lora", nargs="+", choices=("off", "on"), default=["off"], help="LoRA of rank 8")
    parser.add_argument("--responses", type=int, default=8, help="G of the two GRPO; CGPO takes 1")
    parser.add_argument("--tokens", type=int, default=48, help="tokens of every response")
    parser.add_argument("--micro-batch", type=int, help="responses a backward pass; left out: all of a step")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing, on all sides")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=3, help="processes a system")
    parser.add_argument("--steps", type=int, default=5, help="timed steps a process")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--model", choices=("tiny", "7b"), default="tiny")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--pixels", type=int, default=112 * 112, help="pixels that an image is resized to")
    parser.add_argument("--worker", choices=SYSTEMS, help="measure one system in this process and print JSON")
    given = parser.parse_args()
    grid = {name: getattr(given, name) for name in ("images", "prompts", "lora")}
    rest = {name: value for name, value in vars(given).items() if name not in (*grid, "systems", "rounds", "worker")}
    cases = [{**dict(zip(grid, values, strict=True)), **rest} for values in itertools.product(*grid.values())]
    if given.worker:
        work(argparse.Namespace(**cases[0], worker=given.worker))
    else:
        for case in cases:
            compare(case, given.systems, given.rounds)
