"""The config files of a command line: where they are, and where each of their keys stands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sal.errors import UsageError
from lightning_sal.files.reading import compose_yaml, read_text
from lightning_sal.internals.parser import did_you_mean, plain_key

if TYPE_CHECKING:
    import yaml

PACKAGE = Path(__file__).parents[1]
CONFIG_OPTIONS = ("-c", "--config")
YAML = (".yaml", ".yml")


def read_configs(argv: list[str]) -> tuple[list[str], dict[str, str]]:
    """Find the config files and check that they are YAML, before anything heavy is imported.

    A file `conf/...` that is not there is taken from the package.

    Returns:
        The arguments with the paths of the files; and where each key is set last, as `plain_key` key, and key=value, ->
        "file:line: ", what is set last behind all others.
    """
    words: list[str] = []
    for word in argv:
        option, equals, value = word.partition("=")
        words += [option, value] if equals and option in CONFIG_OPTIONS else [word]
    places: dict[str, str] = {}
    for at, word in enumerate(words):
        if word in CONFIG_OPTIONS:
            path = find_config(words[at + 1] if at + 1 < len(words) else "")
            words[at + 1] = str(path)
            _put(places, _key_places(path))
            continue
        option, _, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if option:
            key = plain_key(option[2:])
            value = value if "=" in word or at + 1 == len(words) else words[at + 1]
            _put(places, {key: "command line: ", f"{key}={value}": "command line: "})
        if value.endswith(YAML) and at and words[at - 1] not in CONFIG_OPTIONS and Path(value).is_file():
            _compose(Path(value))  # a part of a config, as in --trainer FILE
    return words, places


def find_config(name: str) -> Path:
    """The config file of a name, which may be one of the package: `conf/...`."""
    path = Path(name)
    if path.is_file():
        return path
    if path.parts[:1] == ("conf",) and (PACKAGE / path).is_file():
        return PACKAGE / path
    if not name:
        raise UsageError("--config needs a file")
    packaged = [found.relative_to(PACKAGE).as_posix() for found in (PACKAGE / "conf").rglob("*.yaml")]
    raise UsageError(f"config file {name} does not exist{did_you_mean(name, packaged)}")


def _key_places(path: Path, prefix: str = "", within: tuple[Path, ...] = ()) -> dict[str, str]:
    """The places of the keys of a config file and of the files that its values name."""
    import yaml

    places: dict[str, str] = {}

    def walk(node: yaml.Node | None, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                place = f"{path}:{key.start_mark.line + 1}: "
                if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                    raise UsageError(f"{place}{plain_key(str(key.value))} is there twice, or no key at all")
                seen.add(key.value)
                name = plain_key(f"{prefix}.{key.value}")
                if name != prefix:
                    # Of several in a list it is unclear which one is meant.
                    _put(places, {name: f"{path}: " if name in places else place})
                if isinstance(value, yaml.ScalarNode):
                    _put(places, {f"{name}={value.value}": place})
                walk(value, name)
        elif isinstance(node, yaml.SequenceNode):
            for child in node.value:
                walk(child, prefix)
        elif isinstance(node, yaml.ScalarNode):
            file = path.parent / node.value
            if file.suffix in YAML and file not in (path, *within) and file.is_file():
                _put(places, _key_places(file, prefix, (path, *within)))

    root = _compose(path)
    if not prefix and not isinstance(root, yaml.MappingNode):
        raise UsageError(f"{path}: a config file holds `key: value` lines, and this one holds none")
    walk(root, prefix)
    return places


def _put(places: dict[str, str], new: dict[str, str]) -> None:
    for key, place in new.items():
        places.pop(key, None)  # so that it comes last
        places[key] = place


def _compose(path: Path) -> yaml.Node | None:
    try:
        return compose_yaml(read_text(path), path)
    except ValueError as error:
        raise UsageError(str(error)) from error
