"""Options of the commands that ask a model behind an endpoint."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from lightning_sal.errors import UsageError


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
