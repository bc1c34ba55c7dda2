"""What the rows are given: photographs on the CPU as users have them, and a policy of random weights with adapters."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest import mock


def photographs(count: int, height: int, width: int) -> list[Any]:
    """Noise, `count` tensors (H, W, 3) uint8 on the CPU, where a data loader leaves them."""
    import torch

    draw = torch.Generator().manual_seed(0)
    return [torch.randint(256, (height, width, 3), dtype=torch.uint8, generator=draw) for _ in range(count)]


def groups(given: Namespace, *, images: int, heights: Sequence[int] = ()) -> list[Any]:
    """P groups of K photographs; one image makes an SOD prompt, more make a CoSOD prompt.

    Args:
        given: The size.
        images: K.
        heights: Of the photographs of each group, so that their prompts differ in length; all alike where it is empty.
    """
    from workload import groups_of

    wanted = Namespace(**{**vars(given), "images": images, "steps": given.repeats})
    heights = heights or [given.height]
    return [
        replace(group, images=tuple(photographs(images, heights[number % len(heights)], given.width)))
        for number, group in enumerate(groups_of(wanted))
    ]


def random_policy(given: Namespace, **options: Any) -> Any:
    """A policy of random weights on the device with LoRA of rank 16, whose responses never end before their limit."""
    from workload import build

    from lightning_sal.policy import LoRA, PolicyConfig
    from lightning_sal.policy.fast import FastPolicy

    with mock.patch("lightning_sal.policy.policy.load_model", return_value=build(given)):
        policy = FastPolicy(PolicyConfig("tiny-scratch", lora=LoRA(rank=16), **options)).to(given.device)
    policy.suppressed[list(policy.eos_ids)] = True
    return policy


def mixed(given: Namespace) -> Any:
    """bf16-mixed on a GPU, as Lightning has it; nothing on a CPU."""
    import torch

    return torch.autocast(given.device, torch.bfloat16, enabled=given.device == "cuda", cache_enabled=False)
