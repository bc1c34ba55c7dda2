"""Seconds and memory of a training step of SFT, CGPO and GRPO, beside those published for CGPO and GRPO and those
that `lightning-sal plan` estimates.

bf16-mixed on a GPU, LoRA of rank 16 in float32, gradient checkpointing, AdamW; every response has the same length, and the
reward costs nothing: no segmenter is in these steps. The batch and the images of the published numbers are not stated.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

from rows.inputs import groups
from rows.machine import data_sheet
from rows.row import Row, Values

PUBLISHED = {"CGPO": (50.6, 38.7), "GRPO": (213.8, 92.4)}  # s, GB


def measure(given: Namespace) -> Values:
    """Median seconds of a step, and the peak of memory over all, weights included."""
    import lightning as L
    import torch
    from free import NoSegmenter, Worth
    from meter import Meter
    from torch.utils.data import DataLoader
    from workload import build

    from lightning_sal import modules
    from lightning_sal.policy import LoRA, PolicyConfig
    from lightning_sal.rewards import Reward
    from lightning_sal.samples import Batch

    meter = Meter(given.device)
    prompts: list[Any] = []

    class Steps(L.Callback):
        def on_train_start(self, trainer: Any, module: Any) -> None:
            module.policy.suppressed[list(module.policy.eos_ids)] = True  # so that no response ends early
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                prompts.append(module.policy.encode(shown[:1]))

        def on_train_batch_start(self, *_: Any) -> None:
            meter.begin()

        def on_train_batch_end(self, *_: Any) -> None:
            meter.end()

    response = "0" * (given.tokens - 1)  # each digit is a token, and the end of turn is one more
    shown = [replace(group, response=response) for group in groups(given, images=1)]
    batches: Any = [Batch(tuple(shown[at : at + given.prompts])) for at in range(0, len(shown), given.prompts)]
    module = getattr(modules, given.algorithm)(
        **given.arguments,
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
        trainer.strategy.teardown = lambda: None  # it would move all weights to the CPU, for nothing
        with mock.patch("lightning_sal.policy.policy.load_model", return_value=build(given)):
            trainer.fit(module, DataLoader(batches, batch_size=None))
    report = meter.report(given.warmup)
    seconds, gigabytes = PUBLISHED.get(given.algorithm, ("not", "not"))
    planned = _planned(given, module.policy, prompts[0])
    return {
        "s a step": report["step"],
        "published s": seconds,
        "planned s": planned[0],
        "peak GB": (meter.idle + report["memory"]) / 1e9,
        "published GB": gigabytes,
        "planned GB": planned[1],
        "prompt tokens": prompts[0].lengths[0],
    }


def _planned(given: Namespace, policy: Any, prompt: Any) -> tuple[float | str, float]:
    """Seconds and GB of the step as `lightning-sal plan` estimates them."""
    from lightning_sal.policy.estimate import ON_CPU, ON_GPU, Sizes, Step, estimate
    from lightning_sal.policy.seconds import Matrices, work

    sizes = Sizes.of(policy.model, policy.config, autocast=given.device == "cuda")
    step = Step(
        given.prompts,
        1,
        len(prompt.visual[0]),
        prompt.lengths[0],
        given.tokens,
        given.arguments.get("responses_per_prompt", 1),
        given.micro_batch,
        sampled=given.algorithm != "SFT",
        padded=False,
    )
    phases, gpu = work(Matrices.of(policy.model, policy.config), sizes, step, checkpointing=True), data_sheet(given)
    seconds = "not known" if gpu is None else sum(phase.seconds(gpu) for phase in phases.values())
    buffers = ON_GPU if given.device == "cuda" else ON_CPU
    return seconds, estimate(sizes, step, checkpointing=True, buffers=buffers).peak / 1e9


def ratios(found: Mapping[str, Values]) -> list[str]:
    """CGPO over GRPO beside the same ratio of what is published, where both rows are there."""
    if not found.keys() >= {_name(kind) for kind in PUBLISHED}:
        return []
    lines = []
    for at, value in enumerate(("s a step", "peak GB")):
        ours, theirs = (float(found[_name(kind)][value]) for kind in ("CGPO", "GRPO"))
        published = PUBLISHED["CGPO"][at] / PUBLISHED["GRPO"][at]
        lines.append(f"CGPO / GRPO, {value}: {ours / theirs:.3f}, published {published:.3f}")
    return lines


def _name(algorithm: str) -> str:
    return f"{algorithm}{', G = 8' if algorithm == 'GRPO' else ''}, a step"


def _row(algorithm: str, seconds: float, gigabytes: float, **arguments: Any) -> Row:
    return Row(_name(algorithm), measure, seconds, gigabytes, {"algorithm": algorithm, "arguments": arguments})


ROWS = [
    _row("CGPO", 35, 50),
    _row("GRPO", 60, 80, responses_per_prompt=8, beta=0.0),
    _row("SFT", 28, 50),
]
