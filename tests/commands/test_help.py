"""The help of every command names it as it is typed, explains every option, and states every default."""

import argparse

import pytest

from lightning_sal.commands import available


class Parsed(Exception):
    """Carries the parser of a command, instead of what it would parse."""


@pytest.fixture
def parser(request, monkeypatch) -> argparse.ArgumentParser:
    """The parser that the command makes."""

    def stop(self, *_):
        raise Parsed(self)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", stop)  # which parse_args calls
    with pytest.raises(Parsed) as stopped:
        available()[request.param].main([])
    return stopped.value.args[0]


@pytest.mark.parametrize(("parser", "name"), [(name, name) for name in available()], indirect=["parser"])
def test_help_explains_every_option_and_states_its_default(parser, name):
    assert parser.prog == f"lightning-sal {name}"
    assert parser.description
    for action in parser._actions:
        shown = (action.help or "") % {"default": action.default, "prog": parser.prog}
        assert shown or action.choices, f"{name}: {action.dest} is not explained"
        if action.default and action.default != argparse.SUPPRESS:
            assert str(action.default) in shown, f"{name}: {action.dest} does not say that it is {action.default}"
