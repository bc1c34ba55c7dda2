"""What to do where a training step runs out of memory: which setting to lower, and to what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def memory_advice(phase: str, setting: Callable[[str], str]) -> Iterator[None]:
    """Inside, running out of memory is answered by the setting that helps in this phase, and how far to lower it.

    Args:
        phase: What the step does inside, for the message.
        setting: Phase -> what to set lower, and to what.

    Raises:
        MemoryError: In place of torch's own error.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise MemoryError(f"out of memory while the step does its {phase}: {setting(phase)}") from error


def update_setting(micro_batch_size: int | None, gradient_checkpointing: bool) -> str:
    """What to set lower, and to what, where a forward and backward pass needs too much memory.

    Args:
        micro_batch_size: Responses that go through at once; None for all.
        gradient_checkpointing: Whether activations are recomputed already.
    """
    if micro_batch_size is None:
        return "set model.micro_batch_size (now null, all responses at once), which does not change the gradient"
    if micro_batch_size > 1:
        half = micro_batch_size // 2
        return f"set model.micro_batch_size {half} (now {micro_batch_size}), which does not change the gradient"
    if not gradient_checkpointing:
        return "set model.policy.gradient_checkpointing true, since model.micro_batch_size is 1 already"
    return "halve the images: set model.policy.max_pixels lower, or data.group_size for CoSOD"
