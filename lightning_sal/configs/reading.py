"""A config as the commands read it that look at one without running it: its values, its model, and its samples."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from pydoc import locate
from typing import TYPE_CHECKING, Any

from lightning_sal.configs.running import run

if TYPE_CHECKING:
    from lightning_sal.clients.endpoint_config import EndpointConfig
    from lightning_sal.datasets import Record
    from lightning_sal.policy.config import PolicyConfig
    from lightning_sal.samples import ImageGroup

GROUP_SIZE = 8  # photographs of a sample of several where the data module does not say
Config = Mapping[str, Any]


def read_config(argv: list[str]) -> dict[str, Any]:
    """The values of a config, every default in it, as `lightning fit` reads them.

    Args:
        argv: `--config FILE` and options.

    Raises:
        UsageError: As `lightning fit` refuses it.
    """
    import yaml

    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            run(["fit", *argv, "--print_config"])
    except SystemExit as stop:  # how --print_config ends
        if stop.code:
            raise
    return yaml.safe_load(printed.getvalue())


def model_of(given: Config) -> EndpointConfig | PolicyConfig:
    """The model that a config names: behind an endpoint, or with weights.

    Raises:
        ValueError: It names none.
    """
    from lightning_sal.clients.endpoint_config import EndpointConfig
    from lightning_sal.modules import Endpoint
    from lightning_sal.policy.config import parse_policy

    kind: Any = locate(given["model"]["class_path"])
    if "policy" not in given["model"].get("init_args", {}):
        raise ValueError(f"{given['model']['class_path']} has no policy: give a config with one")
    options = given["model"]["init_args"]["policy"]
    return EndpointConfig(**options) if issubclass(kind, Endpoint) else parse_policy(options, "the config")


def asked_groups(given: Config) -> Iterator[tuple[ImageGroup, Any]]:
    """The samples that `lightning test` asks about, or `lightning validate` where there are none for it.

    Gives:
        Each as a group with blank images, which takes no file, and what reads the true one.

    Raises:
        ValueError: The data module is of another kind, or has none.
        FileNotFoundError: They are not where the config says.
    """
    data = datamodule_of(given)
    found = (data.evaluation_dataset(split) for split in ("test", "val"))
    if (dataset := next((each for each in found if each is not None), None)) is None:
        raise ValueError(f"{given['data']['class_path']} has no samples to evaluate on")
    records = getattr(dataset, "records", None)
    for number in range(len(dataset)):

        def read(number: int = number) -> ImageGroup:
            return replace(dataset[number], reasoning=data.reasoning)

        yield (replace(blank_of(records[number]), reasoning=data.reasoning) if records else read()), read


def datamodule_of(given: Config) -> Any:
    """The data module that a config names.

    Raises:
        ValueError: It is none of image groups.
    """
    import lightning as L
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(L.LightningDataModule, "data")
    data = parser.instantiate(parser.parse_object({"data": given["data"]})).data
    if not hasattr(data, "evaluation_dataset"):
        raise ValueError(f"{given['data']['class_path']} does not say which samples it has: give --samples")
    return data


def blank_of(record: Record) -> ImageGroup:
    """The group of a record, its images blank."""
    return replace(
        blank_group(record.task, len(record.photographs)),
        key=record.key, benchmark=record.benchmark, question=record.question,
    )  # fmt: skip


def blank_group(task: str, images: int, size: tuple[int, int] = (1, 1)) -> ImageGroup:
    """A group of so many blank images of (H, W) pixels."""
    import torch

    from lightning_sal.samples import ImageGroup

    return ImageGroup("", task, (torch.zeros(*size, 3, dtype=torch.uint8),) * images)
