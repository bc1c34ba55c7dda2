"""How long the prompts of samples are for a model, by its processor alone: no weight is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from lightning_sal.policy.config import PolicyConfig
from lightning_sal.policy.general.policy import fitted, named_prompts, prompt_text
from lightning_sal.policy.loading import load_processor, model_type, read_instructions
from lightning_sal.samples import ImageGroup
from lightning_sal.tasks import get_task, task_of
from lightning_sal.tiny.scratch import SCRATCH_POLICIES
from lightning_sal.tiny.weights import EMBEDDED_POLICIES


class PromptCheck:
    """Counts the tokens of prompts.

    Args:
        config: The policy.

    Raises:
        OSError: If there is neither a folder nor a model on the hub of that name.
    """

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config
        self.processor, self.stated = _processor(config)
        self._lengths: list[tuple[int, str]] = []  # and of which sample

    def faults(self, name: str, group: ImageGroup) -> Iterator[str]:
        """A line where the prompt of a sample is refused; and takes it into the summary.

        Args:
            name: What lines name it by.
            group: The sample.
        """
        most = self.config.max_prompt_tokens
        try:
            length = self.length(group)
        except ValueError as error:  # of a family that takes no such prompt
            yield str(error)
            return
        self._lengths.append((length, name))
        if length > most:
            yield f"{name}: a prompt of {length:,} tokens, and policy.max_prompt_tokens is {most:,}: it would be refused"

    def length(self, group: ImageGroup) -> int:
        """Tokens of a prompt, those of its images included.

        Raises:
            ValueError: If the processor takes no such prompt, as one of several images.
        """
        task = task_of(group, self.config.look)
        messages = task.messages(group, self.stated.get(task.label), self.stated.get("look"))
        shown = [fitted(get_task(group.task).view(image), self.processor, self.config) for image in group.images]
        text, name = prompt_text(self.processor, messages), ", ".join(group.paths) or group.key
        return named_prompts(self.processor, [text], [shown], [name], torch.device("cpu")).lengths[0]

    def summary(self) -> Iterator[str]:
        """How long prompts are."""
        if self._lengths:
            (least, _), (most, name) = min(self._lengths), max(self._lengths)
            yield f"prompts of {self.config.model} have {least:,} to {most:,} tokens, the longest that of {name}"


def _processor(config: PolicyConfig) -> tuple[Any, dict[str, str]]:
    """The processor of a policy, and a mapping task -> instruction, where its folder states it."""
    if config.model in SCRATCH_POLICIES:
        _, processor, stated = SCRATCH_POLICIES[config.model]()
        return processor, stated
    model_type(config)  # refuses what is no such model
    source = str(EMBEDDED_POLICIES.get(config.model, config.model))
    return load_processor(source, config), read_instructions(Path(source))
