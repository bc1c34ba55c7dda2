"""What jsonargparse does not promise: how it words what is wrong with a config, and what a class in another's place keeps.

What is wrong is told in one line.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from difflib import get_close_matches
from textwrap import shorten
from typing import Any

from lightning_sal.errors import one_line

UNKNOWN_KEYS = (
    re.compile("Group '(.+)' does not accept option '(.+)'"),
    re.compile("Subcommand '.+' does not accept option '(.+)'"),
    re.compile("Option '(.+)' is not accepted"),
    re.compile(r"unrecognized arguments: --([^\s=]+)"),
)
EXPECTED = re.compile(r"Expected an? .+?\. Got value: (?P<given>.*)")
EXPECTED_TYPE = re.compile(r"Expected an? (?:<class '(?:\w+\.)*|typing\.)?(.+?)(?:'>)?(?=\. Got value|$)", re.MULTILINE)
SUBCLASS = re.compile(r".*(?:subclass of|protocol) (?P<base>\w+)\. Got value: (?P<given>.*) Subclass types expect")
# Modules with classes that a config names, by where they stood before.
MOVED = {
    "lightning_sal.tiny.policy_training": "lightning_sal.modules.policy_pretraining",
    "lightning_sal.tiny.segmenter_training": "lightning_sal.modules.segmenter_pretraining",
}
REQUIRED = re.compile(r"the following arguments are required: (?P<keys>(?P<command>\w+\.).+)")


def keep_settings_by_name() -> None:
    """Let a class that a later config puts in another's place keep the settings that it has by name, and no others.

    jsonargparse by itself also drops, in silence, what it cannot check yet, such as a segmenter whose source holds
    `${paths.runs}`. And it keeps what stands inside of a group, such as `policy.lora`, where the new class has a group of
    that name without it.
    """
    from jsonargparse import _typehints

    _typehints.discard_init_args_on_class_path_change = _drop_unknown


def _drop_unknown(parser_or_action: Any, before: Any, now: Any) -> None:
    """Drop from the settings of a class what the one in its place does not know.

    Args:
        parser_or_action: Of the new class.
        before: The old one with its settings, which are changed.
        now: The new one.
    """
    from jsonargparse import Namespace
    from jsonargparse._subcommands import find_action
    from jsonargparse._typehints import ActionTypeHint

    if not before or "init_args" not in before or before["class_path"] == now["class_path"]:
        return
    parser = parser_or_action
    if isinstance(parser, ActionTypeHint):
        parser = ActionTypeHint.get_class_parser(now["class_path"], getattr(parser, "sub_add_kwargs", {}))
    settings = before["init_args"]
    for name, value in list(vars(settings).items()):
        action = find_action(parser, name)
        if action is None:
            settings.pop(name)
        elif isinstance(value, Namespace) and not isinstance(action, ActionTypeHint):  # a group
            for inner in [each for each in vars(value) if find_action(parser, f"{name}.{each}") is None]:
                value.pop(inner)


def keep_known_keys(parser: Any, error: Exception) -> None:
    """Note in an error of a parser which keys it knows, for `explain`; of the innermost one, whose error it is."""
    known = getattr(error, "subcommand_parser", parser)
    error.known_keys = [action.dest for action in known._actions]  # type: ignore[attr-defined]


def explain(error: BaseException, places: dict[str, str]) -> str:
    """One line for what jsonargparse says in many: file and line, key, what was given, what is allowed."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    links = dict.fromkeys(str(link) for link in chain if not isinstance(link, argparse.ArgumentError))
    key = ".".join(match[1] for link in links if (match := re.match('Parser key "(.+?)":\n', link)))
    root, problem, given = chain[-1], one_line(chain[-1]), ""
    if match := next(filter(None, (pattern.match(problem) for pattern in UNKNOWN_KEYS)), None):
        unknown, problem = _unknown_key(".".join(match.groups()), root)
        key = f"{key}.{unknown}"
    elif match := EXPECTED.match(problem):
        given = match["given"]
        allowed = " or ".join(dict.fromkeys(EXPECTED_TYPE.findall(str(chain[-2]))))  # of a union, all its types
        problem = f"expected {allowed.replace('NoneType', 'null')}, got {given!r}"
    elif match := SUBCLASS.match(problem):
        problem = f"expected class_path and init_args of a {match['base']}, got {shorten(match['given'], 80)}"
    elif match := REQUIRED.match(problem):
        problem = f"no {match['keys'].replace(match['command'], '')} given: put them in a file, --config FILE"
    elif isinstance(root, AttributeError):
        key, given = f"{key}.class_path", f"{getattr(root.obj, '__name__', '')}.{root.name}"
        problem += f"; it is {MOVED[given]} now" if given in MOVED else did_you_mean(root.name or "", dir(root.obj))
    elif isinstance(root, ImportError):
        key = f"{key}.class_path"
    problem = re.sub('^Parser key ".+?": ', "", problem)
    key = plain_key(key)
    place = places.get(f"{key}={given}") or places.get(key, "")
    return f"{place}{key}{': ' if key else ''}{problem}"


def raised_by_class(error: BaseException) -> BaseException:
    """What a constructor raised, out of the lines that jsonargparse wraps around it."""
    wrappers = ("Does not validate against", "Problem with given", "Parser key")
    if not str(error).startswith(wrappers):
        return error
    inner = raised_by_class(error.__cause__) if error.__cause__ else error
    if inner is not error and not str(inner).startswith("Expected a"):
        return inner
    # Of a union only what its first type said is chained, which may be a plain value; the text has all.
    told = re.findall(r"^ +- (?!Expected an? |Does not validate)(.+)", str(error), re.MULTILINE)
    return ValueError(told[0]) if told else inner


def plain_key(key: str) -> str:
    """A dotted key without what jsonargparse leaves out of it in its messages."""
    return ".".join(part for part in key.rstrip("+").split(".") if part not in ("", "init_args", "dict_kwargs"))


def _unknown_key(key: str, error: BaseException) -> tuple[str, str]:
    """The key as far as its first unknown part, and what is known there."""
    known = [name for name in getattr(error, "known_keys", []) if name not in ("help", "config", "print_config")]
    parent = ""
    for part in plain_key(key).split("."):
        there = {name.removeprefix(parent).partition(".")[0] for name in known if name.startswith(parent)}
        if part not in there:
            known_there = (
                f"; known are {', '.join(sorted(there))}" if there else "; a class is given by class_path and init_args"
            )
            return f"{parent}{part}", f"unknown key{did_you_mean(part, there) or known_there}"
        parent += f"{part}."
    return key, "unknown key"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    matches = get_close_matches(word, known, n=1)
    return f"; did you mean {matches[0]}?" if matches else ""
