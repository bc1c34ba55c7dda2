"""take a training step again that was stopped for a NaN or infinite loss or gradient"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sal.files.reading import parse_yaml, read_text

if TYPE_CHECKING:
    import lightning as L


def main(argv: list[str]) -> int:
    """Replay a file of `FiniteGuard` and print what was not finite.

    Args:
        argv: The arguments after the command's name.

    Returns:
        1 where a loss or gradient is not finite again, 0 where all are finite.
    """
    parser = argparse.ArgumentParser(
        prog="lightning-sal replay",
        description="Take a saved step again, from the same weights and batch and with the same random numbers, and name "
        "the losses, gradients, rewards and log-probs that are not finite. Exits with 1 where there are any. The model is "
        "built from the config that the file holds, which names the classes to build: replay no file of a stranger. Paths "
        "in it count from the folder where the run was started.",
    )
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="step=<n>-rank=<r>.replay, which lightning_sal.callbacks.FiniteGuard wrote",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the config.yaml that a run writes beside its logs, of which `model` is used: for a file that holds none, "
        "or to try other settings on the same step",
    )
    parser.add_argument(
        "--accelerator",
        default="auto",
        metavar="NAME",
        help="as trainer.accelerator: cpu, gpu or auto; by default auto",
    )
    arguments = parser.parse_args(argv)

    import lightning as L

    from lightning_sal.modules.replay import read_replay, replay

    saved = read_replay(arguments.file)
    config = saved["config"] if arguments.config is None else read_text(arguments.config)
    if config is None:
        raise ValueError(
            f"{arguments.file} holds no config, since its run was not started by `lightning fit`: --config"
        )
    if saved["seed"] is not None:
        L.seed_everything(saved["seed"], verbose=False)
    module = build_module(config, str(arguments.config or arguments.file))
    print(
        f"{arguments.file}: {type(module).__name__}, step {saved['step']}, rank {saved['rank']} of {saved['world_size']}"
    )
    seen = replay(saved, module, arguments.accelerator)
    print(*seen.lines, sep="\n")
    if (device := module.device.type) != saved["device"]:
        print(f"recorded on {saved['device']}, replayed on {device}: what is sampled differs")
    print("not reproduced: every loss and gradient is finite here" if seen.finite else "reproduced: see above")
    return int(not seen.finite)


def build_module(config: str, source: str) -> L.LightningModule:
    """The module of the `model` section of a config, as LightningCLI builds it.

    Args:
        config: YAML.
        source: Where it comes from, for messages.

    Raises:
        ValueError: If it has no such section, or no module can be built from it.
    """
    import lightning as L
    from lightning.pytorch.cli import LightningArgumentParser

    values = parse_yaml(config, source)
    section = values.get("model") if isinstance(values, dict) else None
    if section is None:
        raise ValueError(f"{source}: there is no `model` in its config")
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(L.LightningModule, "model", subclass_mode=True)
    try:
        return parser.instantiate(parser.parse_object({"model": section})).model
    except argparse.ArgumentError as error:
        raise ValueError(f"{source}: {error}") from error
