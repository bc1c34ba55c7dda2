"""Responses that an earlier command has written, so that methods and policies are compared on the same ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from lightning_sal.files.reading import parse_object, read_text
from lightning_sal.policy.policy import Policy
from lightning_sal.samples import ImageGroup, Rollout

LISTS = ("predictions.jsonl", "responses.jsonl")
Sample = tuple[str, ...]  # a task, and the files of the images or the key


def read_responses_of(path: Path) -> dict[Sample, str]:
    """Sample -> its response.

    Args:
        path: A JSONL whose lines have `task`, `key`, `images` and `response`; or a folder that holds one, of `segment`,
            `predict` or `explain`.

    Raises:
        FileNotFoundError: There is none.
        ValueError: A line is none, or a sample has two responses.
    """
    found = [path / name for name in LISTS if (path / name).is_file()] if path.is_dir() else [path]
    if not found or not found[0].is_file():
        raise FileNotFoundError(
            f"{path}: no responses there: give a folder that holds {' or '.join(LISTS)}, or a JSONL"
        )
    responses: dict[Sample, str] = {}
    for number, line in enumerate(read_text(found[0]).split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = parse_object(line)
            task, key, response = (fields.get(name) for name in ("task", "key", "response"))
            images: Any = fields.get("images")
            if not (isinstance(task, str) and isinstance(key, str) and isinstance(response, str)) or not isinstance(
                images, list
            ):
                raise ValueError("`task`, `key`, `images` or `response` is missing")
            if responses.setdefault(sample := _sample(task, key, map(str, images)), response) != response:
                raise ValueError(f"a second response to {sample[1]}: keep one")
        except ValueError as error:
            raise ValueError(f"{found[0]}:{number}: {error}") from None
    return responses


def response_to(group: ImageGroup, responses: Mapping[Sample, str]) -> str:
    """The response to a group.

    Raises:
        ValueError: There is none.
    """
    try:
        return responses[_sample(group.task, group.key, group.paths)]
    except KeyError:
        raise ValueError("there is no response to it among those that are given") from None


def _sample(task: str, key: str, images: Iterable[str]) -> Sample:
    paths = tuple(str(Path(name).resolve()) for name in images)
    return (task, *(paths or (key,)))


def as_rollout(policy: Policy, text: str) -> Rollout:
    """A response in the tokens that a policy has for it."""
    tokens, mask = policy.encode_responses([text])
    nothing = torch.zeros_like(tokens, dtype=torch.float32)
    return policy.rollout((text,), tokens, mask, nothing, torch.zeros(1, dtype=torch.bool))
