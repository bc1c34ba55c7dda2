"""What one RL step costs: TRL's GRPOTrainer, our GRPO and our CGPO on the same Qwen2.5-VL and the same prompts.

    uv run python benchmarks/rl_step.py [--images 1 4 8] [--prompts 4 16] [--lora off on] [--micro-batch 8]
    uv run python benchmarks/rl_step.py --systems grpo cgpo --path fast general
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
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

from meter import Meter
from trl_step import run_trl
from workload import CLIP, LEARNING_RATE, LORA_RANK, build, groups_of

SYSTEMS = ("trl", "grpo", "cgpo")
NAMES = {"trl": "TRL GRPO", "grpo": "our GRPO", "cgpo": "our CGPO"}


class System(NamedTuple):
    """What is measured, by which path of our policy; TRL has one of its own."""

    name: str
    path: str

    def __str__(self) -> str:
        return NAMES[self.name] + (", general path" if self.path == "general" and self.name != "trl" else "")


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

    lengths: list[int] = []

    class Steps(L.Callback):
        def on_train_start(self, trainer: Any, module: Any) -> None:
            module.policy.suppressed[list(module.policy.eos_ids)] = True  # so that no response ends early
            with (
                torch.no_grad(),
                trainer.precision_plugin.forward_context(),
            ):  # here, since fit leaves the policy on the CPU
                lengths.extend(module.policy.encode(groups[:1]).lengths)

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
            path=given.path[0],
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
    return lengths[0]


def work(given: argparse.Namespace) -> None:
    """One measurement; prints it as a line of JSON."""
    import torch

    meter = Meter(given.device)
    with tempfile.TemporaryDirectory() as given.folder:
        prompt_tokens = (run_trl if given.worker == "trl" else run_ours)(given, meter)
    report = meter.report(given.warmup)
    print(json.dumps({**report, "prompt_tokens": prompt_tokens, "threads": torch.get_num_threads()}))


def measure(system: System, case: dict[str, Any]) -> dict[str, Any]:
    """What a fresh process of its own measures."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in case.items() if value not in (None, False, True)]
    flags += [f"--{name.replace('_', '-')}" for name, value in case.items() if value is True]
    run = subprocess.run(
        [sys.executable, __file__, "--worker", system.name, "--path", system.path, *flags],
        capture_output=True,
        text=True,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"},
    )
    if run.returncode:
        sys.exit(f"{system} with {' '.join(flags)} failed:\n{run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def compare(case: dict[str, Any], systems: list[System], rounds: int) -> None:
    """Measure the systems in turn and print a table of their medians."""
    from rich.console import Console
    from rich.table import Table

    trl = next((system for system in systems if system.name == "trl"), None)
    found: dict[System, list[dict[str, Any]]] = {system: [] for system in systems}
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
    if trl:
        table.add_column("time / TRL", justify="right")
        table.add_column("memory / TRL", justify="right")

    def middle(system: System, value: Callable[[dict[str, Any]], float]) -> float:
        return statistics.median(value(report) for report in found[system])

    for system in systems:
        steps = [report["step"] for report in found[system]]
        step, memory = statistics.median(steps), middle(system, lambda report: report["memory"])
        responses = case["prompts"] * (1 if system.name == "cgpo" else case["responses"])
        phases = {
            name: middle(system, lambda report, name=name: report["phases"][name])
            for name in found[system][0]["phases"]
        }
        cells = [
            str(system),
            f"{step:.3f} ({min(steps):.3f}-{max(steps):.3f})",
            ", ".join(f"{name} {seconds:.3f}" for name, seconds in phases.items()),
            f"{1000 * step / case['prompts']:.1f}",
            f"{1000 * step / responses:.1f}",
            f"{responses * case['tokens'] / step:.0f}",
            f"{memory / 2**20:.0f}",
        ]
        if trl:
            cells.append(f"{step / middle(trl, lambda report: report['step']):.3f}")
            cells.append(f"{memory / middle(trl, lambda report: report['memory']):.3f}")
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
    parser.add_argument("--path", nargs="+", choices=("fast", "general"), default=["fast"], help="of our policy")
    parser.add_argument("--rounds", type=int, default=3, help="processes a system")
    parser.add_argument("--steps", type=int, default=5, help="timed steps a process")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--model", choices=("tiny", "7b"), default="tiny")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--pixels", type=int, default=112 * 112, help="pixels that an image is resized to")
    parser.add_argument("--worker", choices=SYSTEMS, help="measure one system in this process and print JSON")
    given = parser.parse_args()
    grid = {name: getattr(given, name) for name in ("images", "prompts", "lora")}
    rest = {
        name: value for name, value in vars(given).items() if name not in (*grid, "systems", "path", "rounds", "worker")
    }
    cases = [{**dict(zip(grid, values, strict=True)), **rest} for values in itertools.product(*grid.values())]
    if given.worker:
        work(argparse.Namespace(**cases[0], worker=given.worker, path=given.path))
    else:
        for case in cases:
            systems = [
                System(name, path)
                for name in given.systems
                for path in given.path
                if name != "trl" or path == given.path[0]
            ]
            compare(case, systems, given.rounds)
