"""Options of the commands that ask a model behind an endpoint."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from lightning_sal.clients import APIS, is_endpoint
from lightning_sal.errors import UsageError

ENDPOINT = {"base_url": "base_url", "per_minute": "per_minute", "budget": "budget", "cache": "cache"}
ENDPOINT |= {"price_in": "input_price", "price_out": "output_price"}
"""Options of models behind endpoints -> fields of `EndpointConfig`."""
LOADED = {name: name for name in ("dtype", "max_pixels")}
"""Options of models that are loaded here -> arguments of `Predictor.load`."""


def add_options(parser: Any) -> None:
    """Add what all of these commands take: where the model is, how fast it is asked, and what that may cost.

    Args:
        parser: A parser of argparse, or a group of its options.
    """
    add = parser.add_argument
    add("--base-url", help="address of the API, where it is not the provider's own")
    add("--per-minute", type=rate, help="most requests sent in a minute")
    add("--price-in", type=number, help="dollars a million input tokens")
    add("--price-out", type=number, help="dollars a million output tokens")
    add("--budget", type=number, help="dollars that this run never exceeds")


def add_endpoint(parser: argparse.ArgumentParser) -> None:
    """Add what commands take whose `--model` may be behind an endpoint."""
    parser.add_argument(
        "--reading",
        choices=("strict", "lenient"),
        help="how answers are read that are not in the form: as nothing, or for what they name; by default strict, and "
        "lenient behind an endpoint",
    )
    group = parser.add_argument_group(
        f"a model behind an endpoint: {' or '.join(f'{prefix}:NAME' for prefix in APIS)}",
        "It is sent the photographs. Keys are read from OPENAI_API_KEY, or GEMINI_API_KEY or GOOGLE_API_KEY, alone.",
    )
    add_options(group)
    group.add_argument(
        "--cache",
        metavar="FOLDER",
        help="keeps the answers, so that none is asked for and paid twice; by default runs/endpoints",
    )


def settings_of(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What was typed for a model and the kind of it: arguments of `lightning_sal.load_predictor`."""
    own = ENDPOINT if is_endpoint(model) else LOADED
    typed = {field: getattr(arguments, option) for option, field in own.items()}
    return {field: value for field, value in typed.items() if value is not None}


def check_models(models: Sequence[str], arguments: argparse.Namespace) -> None:
    """Check that each option of `add_endpoint`, and of models that are loaded here, is of one of some models.

    Raises:
        UsageError: One is not, or they do not go together.
    """
    check_options(arguments)
    kinds = {is_endpoint(model) for model in models}
    for behind, options in ((True, ENDPOINT), (False, LOADED)):
        typed = [option for option in options if getattr(arguments, option) is not None]
        if typed and behind not in kinds:
            where = "behind an endpoint" if behind else "that is loaded here"
            raise UsageError(
                f"--{typed[0].replace('_', '-')} is of a model {where}, and {models[0]} is none: leave it out"
            )


def check_options(arguments: argparse.Namespace) -> None:
    """Check that what `add_options` has added goes together.

    Raises:
        UsageError: It does not.
    """
    if (arguments.price_in is None) != (arguments.price_out is None):
        raise UsageError("give both --price-in and --price-out, dollars a million tokens, or neither")
    if arguments.budget is not None and arguments.price_in is None:
        raise UsageError("--budget needs --price-in and --price-out, dollars a million tokens")


def whole(least: int) -> Callable[[str], int]:
    """The type of an option that is a whole number from `least` on."""

    def convert(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}")
        return value

    convert.__name__ = "whole number"
    return convert


def number(text: str) -> float:
    """The type of an option that is a number from 0 on."""
    if not 0 <= (value := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 on")
    return value


number.__name__ = "number"


def rate(text: str) -> float:
    """The type of an option that is a number above 0."""
    if not (value := number(text)):
        raise argparse.ArgumentTypeError("0 is not above 0")
    return value


rate.__name__ = "number"
