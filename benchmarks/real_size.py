"""What SFT, CGPO and GRPO cost at real size, and how many masks EVF-SAM2-L makes a second: random weights, one GPU.

    uv run python benchmarks/real_size.py
    uv run python benchmarks/real_size.py --model tiny --device cpu --pixels 12544

The policy has the shape of Qwen2.5-VL-7B: bfloat16 weights, float32 LoRA of rank 16 on the language model, gradient
checkpointing, AdamW. Every response has the same length, and the reward costs nothing: no segmenter is in these steps.
Beside the ratio of CGPO to GRPO stands the published one: 38.7 / 92.4 GB and 50.6 / 213.8 s, whose batch and images are
not stated.

Each row is a process of its own, which takes one step to warm up and then those that count. Memory is the peak of
allocated tensors, weights included; on the CPU, of resident memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

from meter import Meter
from workload import build, groups_of

ROWS = ("sft", "cgpo", "grpo", "masks")
NAMES = {"sft": "SFT", "cgpo": "CGPO", "grpo": "GRPO", "masks": "EVF-SAM2-L"}
PUBLISHED = {"seconds": 50.6 / 213.8, "memory": 38.7 / 92.4}


def measure_steps(given: argparse.Namespace) -> dict[str, Any]:
    """Median seconds of a training step, and its peak of memory in bytes."""
    import lightning as L
    import torch
    from free import NoSegmenter, Worth
    from torch.utils.data import DataLoader

    from lightning_sal import modules
    from lightning_sal.policy import LoRA, PolicyConfig
    from lightning_sal.rewards import Reward
    from lightning_sal.samples import Batch

    meter = Meter(given.device)

    class Steps(L.Callback):
        def on_fit_start(self, trainer: Any, module: Any) -> None:
            module.policy.suppressed[list(module.policy.eos_ids)] = True  # so that no response ends early

        def on_train_batch_start(self, *_: Any) -> None:
            meter.begin()

        def on_train_batch_end(self, *_: Any) -> None:
            meter.end()

    response = "0" * (given.tokens - 1)  # each digit is a token, and the end of turn is one more
    groups = [replace(group, response=response) for group in groups_of(given)]
    batches: Any = [Batch(tuple(groups[at : at + given.prompts])) for at in range(0, len(groups), given.prompts)]
    kind, options = {
        "sft": (modules.SFT, {}),
        "cgpo": (modules.CGPO, {}),
        "grpo": (modules.GRPO, {"responses_per_prompt": given.responses, "beta": 0.0}),
    }[given.worker]
    module = kind(
        **options,
        policy=PolicyConfig(model="tiny-scratch", lora=LoRA(rank=16), gradient_checkpointing=True),
        segmenter=NoSegmenter(),
        reward=Reward([Worth()]),
        optimizer=partial(torch.optim.AdamW, lr=1e-6),
        max_new_tokens=given.tokens,
        micro_batch_size=given.micro_batch,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="gpu" if given.device == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed" if given.device == "cuda" else "32-true",
            max_steps=len(batches),
            gradient_clip_val=1.0,
            callbacks=[Steps()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        with mock.patch("lightning_sal.policy.policy.load_model", return_value=build(given)):
            trainer.fit(module, DataLoader(batches, batch_size=None))
    report = meter.report(given.warmup)
    prompt_tokens = int(module.policy.encode(groups[:1]).mask.sum())
    return {"seconds": report["step"], "memory": meter.idle + report["memory"], "prompt_tokens": prompt_tokens}


def measure_masks(given: argparse.Namespace) -> dict[str, Any]:
    """Masks a second of one expression an image, and the peak of memory in bytes."""
    import torch

    from lightning_sal.segmenters import EVFSAM2
    from lightning_sal.segmenters.tiny import embedded_evf_sam2

    with torch.device(given.device):
        segmenter: Any = embedded_evf_sam2().to(given.device) if given.model == "tiny" else EVFSAM2().eval()
    images = [torch.randint(256, (768, 1024, 3), dtype=torch.uint8, device=given.device) for _ in range(given.prompts)]
    words = [torch.tensor([0, 100, 101, 102, 2], device=given.device)]
    meter = Meter(given.device)
    precision = torch.autocast(given.device, torch.bfloat16, enabled=given.device == "cuda")
    with torch.no_grad(), precision:
        for _ in range(given.warmup + given.steps):
            meter.begin()
            for image in images:
                segmenter.mask_logits(image, words)
            meter.end()
    report = meter.report(given.warmup)
    return {"seconds": report["step"] / len(images), "memory": meter.idle + report["memory"]}


def in_process(row: str) -> dict[str, Any]:
    """What a process of its own measures."""
    run = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--worker", row], capture_output=True, text=True, check=False
    )
    if run.returncode:
        sys.exit(f"{NAMES[row]} failed:\n{run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def main(given: argparse.Namespace) -> None:
    """Measure all rows and print two tables."""
    from rich.console import Console
    from rich.table import Table

    found = {row: in_process(row) for row in ROWS}
    console = Console(width=120)
    console.print(
        f"{given.model} on {given.device}: {given.prompts} prompts of {given.images} images "
        f"({found['sft']['prompt_tokens']} tokens), {given.tokens} tokens a response, G = {given.responses} in GRPO, "
        f"micro-batches of {given.micro_batch}"
    )
    table = Table()
    for head in ("", "s a step", "peak GB"):
        table.add_column(head, justify="right" if head else "left")
    for row in ROWS[:3]:
        table.add_row(NAMES[row], f"{found[row]['seconds']:.2f}", f"{found[row]['memory'] / 1e9:.2f}")
    ratios = {key: found["cgpo"][key] / found["grpo"][key] for key in PUBLISHED}
    table.add_section()
    table.add_row("CGPO / GRPO", *(f"{ratios[key]:.3f}" for key in PUBLISHED))
    table.add_row("published", *(f"{PUBLISHED[key]:.3f}" for key in PUBLISHED))
    console.print(table)
    masks = found["masks"]
    which = "the embedded segmenter" if given.model == "tiny" else NAMES["masks"]
    console.print(f"{which}: {1 / masks['seconds']:.1f} masks a second, peak {masks['memory'] / 1e9:.2f} GB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "7b"), default="7b")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--prompts", type=int, default=8, help="prompts a step")
    parser.add_argument("--images", type=int, default=1, help="images a prompt")
    parser.add_argument("--pixels", type=int, default=784 * 1024, help="pixels that an image is resized to")
    parser.add_argument("--responses", type=int, default=8, help="G of GRPO")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of every response")
    parser.add_argument("--micro-batch", type=int, default=8, help="responses a backward pass")
    parser.add_argument("--steps", type=int, default=3, help="steps that count")
    parser.add_argument("--warmup", type=int, default=1, help="steps before them")
    parser.add_argument("--worker", choices=ROWS, help="measure one row in this process and print JSON")
    given = parser.parse_args()
    if given.worker:
        print(json.dumps((measure_masks if given.worker == "masks" else measure_steps)(given)))
    else:
        main(given)
