"""write a trained policy as a plain transformers folder with a model card, and send it to the hub"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sal.errors import UsageError
from lightning_sal.files.reading import parse_yaml, read_text

if TYPE_CHECKING:
    from lightning_sal.policy.config import PolicyConfig

CARD = "README.md"


def main(argv: list[str]) -> int:
    """Write the model that a checkpoint or a folder of adapters makes of its base model."""
    parser = argparse.ArgumentParser(
        prog="lightning-sal export",
        description="Merge what was trained into its base model, in float32, and write a folder that transformers, vLLM "
        "and model.policy.model take, with a model card, README.md. It loads the base model in float32: 4 bytes a weight "
        "of main memory. --push sends the folder to the Hugging Face Hub, under the account of `hf auth login` or HF_TOKEN.",
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
    parser.add_argument(
        "--results",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="what `lightning test` wrote of this model, for the table of the card",
    )
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="the repository of the hub to send it to; made where it is not there, and else given one more commit",
    )
    parser.add_argument("--private", action="store_true", help="make a new repository that its owner alone sees")
    arguments = parser.parse_args(argv)
    if arguments.private and not arguments.push:
        raise UsageError("--private is of the repository that --push names")

    from lightning_sal.evaluation.model_card import model_card
    from lightning_sal.evaluation.results import read_summary

    results = [read_summary(folder) for folder in arguments.results]
    stated = arguments.config or find_config(arguments.source)
    config = None if stated is None else parse_yaml(read_text(stated), stated)
    policy = None if arguments.config is None else read_policy(arguments.config)

    from lightning_sal.files import hub
    from lightning_sal.policy.export import export

    repository = hub.open_repository(arguments.push, arguments.private) if arguments.push else None
    model = arguments.model or (policy and policy.model)
    base = export(arguments.source, arguments.out, model, policy and policy.lora, arguments.dtype)
    (arguments.out / CARD).write_text(model_card(repository or str(arguments.out), base, config, results))
    print(f"{arguments.out}: {arguments.source} merged into {base}, in {arguments.dtype}, with its card, {CARD}")
    if repository:
        print(f"Sent to {hub.push(arguments.out, repository, 'Exported by lightning-sal')}")
    return 0


def find_config(source: Path) -> Path | None:
    """The config.yaml of the run that wrote a checkpoint or adapters: the newest in its folder, or in the one above."""
    for folder in list(source.absolute().parents)[:2]:
        if found := list(folder.glob("config*.yaml")):
            return max(found, key=lambda path: path.stat().st_mtime_ns)
    return None


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
