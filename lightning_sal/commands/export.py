"""write a trained policy as a plain transformers folder, its adapters merged into the base model"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sal.files.reading import parse_yaml, read_text

if TYPE_CHECKING:
    from lightning_sal.policy.config import PolicyConfig


def main(argv: list[str]) -> int:
    """Write the model that a checkpoint or a folder of adapters makes of its base model."""
    parser = argparse.ArgumentParser(
        prog="lightning-sal export",
        description="Merge what was trained into its base model, in float32, and write a folder that transformers, vLLM "
        "and model.policy.model take. It loads the base model in float32: 4 bytes a weight of main memory.",
    )
    parser.add_argument(
        "source", type=Path, help="a folder of adapters that SaveAdapter or peft has written, or a checkpoint file"
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="the base model, a folder or hub name; by default the one that adapters, checkpoint or config name",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the config.yaml that a run writes beside its logs, of which model.init_args.policy is used: for a "
        "checkpoint that does not say what its policy was",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the folder to write, new or empty")
    parser.add_argument(
        "--dtype",
        default="bfloat16",
        choices=("bfloat16", "float16", "float32"),
        help="of the weights that are written; by default bfloat16",
    )
    arguments = parser.parse_args(argv)
    policy = None if arguments.config is None else read_policy(arguments.config)

    from lightning_sal.policy.export import export

    model = arguments.model or (policy and policy.model)
    export(arguments.source, arguments.out, model, policy and policy.lora, arguments.dtype)
    print(f"{arguments.out}: {arguments.source} merged into {model or 'its base model'}, in {arguments.dtype}")
    return 0


def read_policy(path: Path) -> PolicyConfig:
    """The policy of a config; its other parts are not looked at.

    Raises:
        ValueError: If there is none in it.
    """

    from lightning_sal.policy.config import parse_policy

    config = parse_yaml(read_text(path), path)
    try:
        values = config["model"]["init_args"]["policy"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: there is no model.init_args.policy in it") from error
    return parse_policy(values, str(path))
