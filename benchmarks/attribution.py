"""What attribution maps cost: beside a scoring pass of the same responses, and a forward pass with `output_attentions`.

    uv run python benchmarks/attribution.py [--images 1 4 8] [--responses 8] [--repeats 5] [--rounds 3]
    uv run python benchmarks/attribution.py --model 7b --device cuda --pixels 200704

A prompt of K images with G responses of 128 tokens (80 of reasoning, 24 of answer) on a Qwen2.5-VL of random weights:
`small` has 8 layers of 512 channels. Images are of 336 x 336 pixels (144 visual tokens) unless `--pixels` says otherwise.
float32 on the CPU, bfloat16 on a GPU; no gradient anywhere.

- score: `FastPolicy.score`, log-probabilities.
- maps: `FastPolicy.attribute`, through the reasoning.
- attentions: transformers' own forward pass with eager attention and `output_attentions`, one response after the other,
  of which the attention rows of answer and reasoning are cut out of each layer at the end.

Each measurement is a process of its own; the three take turns. A row shows medians over processes of the median pass, and
the peak of memory over the passes above what was held before the first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from typing import Any

from meter import Meter

PASSES = ("score", "maps", "attentions")
TOKENS, REASONING, ANSWER = 128, (4, 83), (96, 119)


def build(given: argparse.Namespace) -> Any:
    """A policy of random weights at the size that is asked for."""
    from unittest import mock

    import workload

    from lightning_sal.policy import PolicyConfig
    from lightning_sal.policy.fast import FastPolicy

    made = workload.build(given) if given.model == "7b" else small(given)
    with mock.patch("lightning_sal.policy.policy.load_model", return_value=made):
        return FastPolicy(PolicyConfig("tiny-scratch"))


def small(given: argparse.Namespace) -> Any:
    """8 layers of 512 channels with the tokenizer and the vision tower of the embedded policies."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from lightning_sal.tiny.policy import scratch_policy

    tiny, processor, instructions = scratch_policy()
    side = {"shortest_edge": given.pixels, "longest_edge": given.pixels}
    processor.image_processor.size = type(processor.image_processor.size)(**side)
    settings = tiny.config.to_dict()
    settings["text_config"] |= dict(
        hidden_size=512, intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=2,
        layer_types=None, max_window_layers=8,
    )  # fmt: skip
    settings["vision_config"]["out_hidden_size"] = 512
    config = Qwen2_5_VLConfig(**settings)
    config.text_config.rope_parameters["mrope_section"] = [8, 12, 12]
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config).to(given.device).eval()
    model.generation_config = tiny.generation_config
    return model, processor, instructions


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds and bytes of one kind of pass, in this process."""
    import torch

    from lightning_sal.samples import ImageGroup

    torch.set_num_threads(given.threads)
    policy = build(given).eval()
    generator = torch.Generator().manual_seed(0)
    side = int(given.pixels**0.5)
    images = tuple(
        torch.randint(0, 256, (side, side, 3), dtype=torch.uint8, generator=generator) for _ in range(given.images[0])
    )
    group = ImageGroup("benchmark", "sod" if len(images) == 1 else "cosod", images)
    meter = Meter(given.device)
    with torch.no_grad():
        prompts = policy.encode([group])
        tokens = torch.randint(10, 200, (given.responses, TOKENS), generator=generator).to(policy.device)
        mask = torch.ones_like(tokens, dtype=torch.bool)
        run = {"score": score, "maps": maps, "attentions": attentions}[given.run]
        for _ in range(1 + given.repeats):
            meter.begin()
            run(policy, prompts, tokens, mask)
            meter.end()
    return {**meter.report(1), "prompt": prompts.ids.shape[1]}


def score(policy: Any, prompts: Any, tokens: Any, mask: Any) -> None:
    policy.score(prompts, tokens, mask)


def maps(policy: Any, prompts: Any, tokens: Any, mask: Any) -> None:
    policy.attribute(prompts, tokens, mask, [[ANSWER]] * len(tokens), [REASONING] * len(tokens))


def attentions(policy: Any, prompts: Any, tokens: Any, mask: Any) -> None:
    """Whole attention matrices of all layers, one response at a time, since those of all would not fit."""
    import torch

    backbone, length = policy.backbone, prompts.ids.shape[1]
    backbone.text_config._attn_implementation = "eager"
    for row in tokens[:, None]:
        embeds = torch.cat([backbone.prompt_embeds(prompts), backbone.embed(row)], dim=1)
        at = prompts.following[:, None] + torch.arange(TOKENS, device=row.device)
        positions = torch.cat([prompts.positions, at.expand(3, -1, -1)], dim=2)
        output = backbone.language_model(
            inputs_embeds=embeds, position_ids=positions, use_cache=False, output_attentions=True
        )
        kept = [each[:, :, length - 1 :].clone() for each in output.attentions]
        del output, kept


def main() -> None:
    """Run what was asked for and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--responses", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", choices=["small", "7b"], default="small")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--pixels", type=int, default=336 * 336)
    parser.add_argument("--run", choices=PASSES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        print(json.dumps(measure(given)))
        return
    print(f"{given.model}, {given.device}, {given.responses} responses of {TOKENS} tokens, {given.threads} threads")
    print(f"{'images':>6} {'prompt':>7} {'pass':>10} {'seconds':>8} {'of score':>8} {'MB':>7} {'of score':>8}")
    for images in given.images:
        found: dict[str, list[Any]] = {name: [] for name in PASSES}
        for _ in range(given.rounds):
            for name in PASSES:
                command = [sys.executable, __file__, *_arguments(given), "--images", str(images), "--run", name]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[name].append(json.loads(output.splitlines()[-1]))
        middle = {
            name: [statistics.median(each[key] for each in runs) for key in ("step", "memory")]
            for name, runs in found.items()
        }
        for name, (seconds, memory) in middle.items():
            base = middle["score"]
            print(
                f"{images:>6} {found[name][0]['prompt']:>7} {name:>10} {seconds:>8.3f} {seconds / base[0]:>8.2f} "
                f"{memory / 1e6:>7.0f} {memory / base[1]:>8.2f}",
                flush=True,
            )


def _arguments(given: argparse.Namespace) -> list[str]:
    names = ("responses", "repeats", "threads", "model", "device", "pixels")
    return [part for name in names for part in (f"--{name}", str(getattr(given, name)))]


if __name__ == "__main__":
    main()
