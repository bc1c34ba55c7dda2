"""Each test says in words which message of jsonargparse changed when it fails; tests/test_cli.py has whole commands."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from jsonargparse import ArgumentError, ArgumentParser

from lightning_sal.internals.parser import explain, keep_known_keys, raised_by_class

WORDS = "jsonargparse says it in other words: see lightning_sal/internals/parser.py"


@dataclass
class Part:
    size: int = 1
    ratio: float | None = None

    def __post_init__(self):
        if self.size < 0:
            raise ValueError(f"size {self.size} must be at least 0")


class Parser(ArgumentParser):
    def error(self, message, ex=None):
        ex = ex or ValueError(message)
        keep_known_keys(self, ex)
        super().error(message, ex)


@pytest.fixture
def parser():
    parser = Parser(exit_on_error=False)
    parser.add_argument("--part", type=Part)
    return parser


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"part": {"sise": 2}}, "part.sise: unknown key; did you mean size?"),
        ({"part": {"size": "x"}}, "file:3: part.size: expected int, got 'x'"),
        ({"other": 1}, "other: unknown key; known are part"),
    ],
)
def test_a_wrong_config_is_one_line(parser, given, line):
    with pytest.raises(ArgumentError) as caught:
        parser.parse_object(given)
    assert explain(caught.value, {"part.size": "file:3: "}) == line, WORDS


def test_what_a_constructor_raised_is_told_alone(parser):
    with pytest.raises(ValueError, match="size") as caught:
        parser.instantiate(parser.parse_object({"part": {"size": -1}}))
    assert str(raised_by_class(caught.value)) == "size -1 must be at least 0", WORDS
