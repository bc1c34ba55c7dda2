"""Text, JSON and YAML as other people's tools write them; what is wrong is one line that names the file.

Nothing in a file makes reading it take more than in proportion to its size: not an alias, not nesting, not a number.
"""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import yaml

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
MAX_DEPTH = 100  # lists and mappings in each other, in YAML
MAX_NODES = 100_000  # values of a YAML file with every alias written out


def read_text(path: Path) -> str:
    """What a file of text holds, which is something: UTF-8 with or without a byte order mark, lines that end in "\\n".

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no file, holds no line, or is not UTF-8.
    """
    if not path.is_file():  # a pipe or a device would be waited for
        raise ValueError(f"{path}: not a file") if path.exists() else FileNotFoundError(f"{path}: no such file")
    content = path.read_bytes()
    if content.startswith(UTF16) or b"\0" in content[:4]:
        raise ValueError(f"{path}: written in UTF-16, and UTF-8 is read here: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: not UTF-8 ({error.reason}): save it as UTF-8") from error
    if not text.strip():
        raise ValueError(f"{path}: holds no line")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path) -> Any:
    """What a file holds that is one JSON value.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not JSON, and where; or as for `read_text`.
    """
    return parse_json(read_text(path), path)


def parse_json(text: str, path: Path | None = None) -> Any:
    """The value of a JSON text.

    Args:
        text: The text.
        path: Its file, for the message, where it is all of one.

    Raises:
        ValueError: It is not JSON, or nested more deeply than Python's stack.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}: " if path else ""
        raise ValueError(f"{place}not JSON: {error.msg} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{f'{path}: ' if path else ''}not JSON that can be read: {reason}") from None


def read_items(path: Path) -> list[tuple[str, Any]]:
    """The values of a file that holds them as one JSON array, or as JSON one a line.

    Returns:
        (where it stands, as messages name it; the value, or the text of its line, which may be no JSON).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As for `read_json`, where it is an array.
    """
    text = read_text(path)
    if not text.lstrip().startswith("["):
        return [(f"{path}:{n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [(f"{path}: item {n}", item) for n, item in enumerate(parse_json(text, path), 1)]


def parse_object(text: str) -> dict[str, Any]:
    """The object of a JSON text.

    Raises:
        ValueError: As for `parse_json`, or it is another value.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As for `read_json`, or it holds another value.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__} in JSON, and not an object with names")
    return value


def compose_yaml(text: str, source: str | Path) -> yaml.Node | None:
    """The nodes of a YAML text, which know their lines; None where it holds none.

    Args:
        text: The text.
        source: Its file, for messages.

    Raises:
        ValueError: It is not YAML, nested too deeply, an anchor holds itself, or its aliases stand for too much.
    """
    import yaml

    try:
        _bound(text, source)
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _not_yaml(error, source) from error


def parse_yaml(text: str, source: str | Path) -> Any:
    """The values of a YAML text: numbers, texts, lists and mappings alone.

    Args:
        text: The text.
        source: Its file, for messages.

    Raises:
        ValueError: As for `compose_yaml`, or it holds other values.
    """
    import yaml

    compose_yaml(text, source)
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # of a date that no calendar has
        raise _not_yaml(error, source) from error


def _not_yaml(error: Exception, source: str | Path) -> ValueError:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or " ".join(str(error).split())
    return ValueError(f"{source}{f':{mark.line + 1}' if mark else ''}: not valid YAML: {reason}")


def _bound(text: str, source: str | Path) -> None:
    """Refuse what would grow without bound, by the parser's events, before anything is built of them."""
    import yaml

    sizes: dict[str, int] = {}  # anchor -> values that its node holds, aliases written out
    within: list[tuple[str | None, int]] = [(None, 0)]  # anchor of each collection around, and what it holds so far
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = f"{source}:{event.start_mark.line + 1}"
        size, anchor = 1, getattr(event, "anchor", None)
        match event:
            case yaml.AliasEvent() if any(anchor == around for around, _ in within):
                raise ValueError(f"{place}: *{anchor} stands within &{anchor}, which would have no end")
            case yaml.AliasEvent():
                size, anchor = sizes.get(anchor or "", 1), None
            case yaml.CollectionStartEvent():
                within.append((anchor, 1))
                if len(within) > MAX_DEPTH:
                    raise ValueError(f"{place}: lists and mappings in each other, more than {MAX_DEPTH} deep")
                continue
            case yaml.CollectionEndEvent():
                anchor, size = within.pop()
            case yaml.ScalarEvent():
                pass
            case _:
                continue
        if anchor is not None:
            sizes[anchor] = size
        around, count = within[-1]
        within[-1] = (around, count + size)
        if count + size > MAX_NODES:
            raise ValueError(f"{place}: its aliases stand for more than {MAX_NODES} values")
