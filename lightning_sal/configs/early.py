"""What can be known to be wrong with a run before anything heavy is imported, each in one line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from lightning_sal.clients.api import require_access
from lightning_sal.configs.places import PACKAGE
from lightning_sal.errors import UsageError
from lightning_sal.internals.gpus import without_gpu
from lightning_sal.internals.hub import is_hub_name, require_hub
from lightning_sal.internals.parser import MOVED, did_you_mean, plain_key
from lightning_sal.internals.shell import typed
from lightning_sal.paths import Paths

# Some are of some commands alone, which the parser knows
TOP = (
    "ckpt_path",
    "data",
    "model",
    "paths",
    "return_predictions",
    "seed_everything",
    "trainer",
    "verbose",
    "weights_only",
)
_ASKED = ("config", "help", "print_config", "print_shtab")
_ENDPOINT = "lightning_sal.modules.Endpoint"
_WEIGHTS = ("policy.model", "segmenter.source")
_READ_BY = {"fit": ("data.train", "data.sft"), "test": ("data.test", "data.root")}


def asks_alone(argv: Sequence[str]) -> bool:
    """Whether a command line asks for help or for the config alone, and runs nothing."""
    options = [word.partition("=")[0] for word in argv]
    return any(option in ("-h", "--help", "--print_config") or option.endswith(".help") for option in options)


def require_known(places: Mapping[str, str]) -> None:
    """Check that the keys at the top are known, and that the classes exist, as far as files tell.

    Args:
        places: As `read_configs` gives them.

    Raises:
        UsageError: One is not; what the parser refuses later is passed over.
    """
    for key, place in places.items():
        name, equals, value = key.partition("=")
        top = name.partition(".")[0]
        if top not in TOP and top not in _ASKED:
            raise UsageError(f"{place}{top}: unknown key{did_you_mean(top, TOP) or '; known are ' + ', '.join(TOP)}")
        if equals and name.endswith(".class_path") and (fault := missing_class(value)):
            raise UsageError(f"{place}{name}: {fault}")


def require_inputs(command: str, places: Mapping[str, str]) -> None:
    """Check that a run is given data, that what earlier stages write for it is there, and a GPU where one is asked for.

    Args:
        command: fit, validate, test or predict.
        places: As `read_configs` gives them.

    Raises:
        UsageError: Something is missing; the line says how to have it.
        OSError: The hub is asked for weights, and cannot be reached.
    """
    values = stated(places)
    if why := _unfed(command, values):
        raise UsageError(f"{places.get(why, '')}{why}: no data to {command} on: give them by --{_option(why)} FOLDER")
    missing = [part for part in ("data", "model") if all(key.partition(".")[0] != part for key in places)]
    if missing:
        raise UsageError(f"no {', '.join(missing)} given: put them in a file, --config FILE")
    for key, value in values.items():
        place = places.get(f"{key}={value}", "")
        if key == "trainer.accelerator" and (why := without_gpu(value)):
            raise UsageError(f"{place}{key}: {why}")
        found = _resolved(value, values)
        if found and key == "model.policy.model" and values.get("model.class_path") == _ENDPOINT:
            address = values.get("model.policy.base_url")
            require_access(found, None if _is_null(address) else address)
            continue
        if not found or Path(found).exists():
            continue
        if key.endswith(_WEIGHTS) and is_hub_name(found):
            require_hub(found)
        if _is_model(key, found) or _is_checkpoint(key, found) or _is_data(command, key, value):
            raise UsageError(f"{place}{key}: {found} is not there{_origin(key, value, found, values)}")


def stated(places: Mapping[str, str]) -> dict[str, str]:
    """Key -> the scalar that is stated last; nothing of what a later value or class has replaced."""
    values: dict[str, str] = {}
    for each in places:
        key, equals, value = each.partition("=")
        if not equals:
            continue
        above = key.removesuffix(".class_path") if values.get(key, value) != value else key
        for old in [old for old in values if old.startswith(f"{above}.")]:
            del values[old]
        values.pop(key, None)
        values[key] = value
    return values


def missing_class(path: str) -> str | None:
    """What is wrong with a dotted path; None where it may exist. Nothing is imported: words are looked for in files."""
    parts, below, module = path.split("."), None, None
    if len(parts) == 1 or not all(map(str.isidentifier, parts)):
        return None  # the parser knows some classes by their bare names
    for at, part in enumerate(parts):
        try:
            spec = find_spec(part) if at == 0 else PathFinder.find_spec(".".join(parts[: at + 1]), below)
        except ValueError:  # of a module that was made at run time
            return None
        if spec is None:
            break
        module, below = spec, spec.submodule_search_locations or []
    else:
        return None
    if module is None:
        return f"No module named '{parts[0]}'"
    if not module.origin or not module.origin.endswith(".py"):
        return None
    source = Path(module.origin).read_text(encoding="utf-8", errors="replace")
    stub = Path(module.origin).with_suffix(".pyi")
    if stub.is_file():
        source = stub.read_text(encoding="utf-8")
    elif "__getattr__" in source or "sys.modules" in source:
        return None
    words = set(re.findall(r"\b[A-Za-z_]\w+\b", source))
    if part in words or "import *" in source:
        return None
    inner = f"{module.name}.{part}"
    hint = f"; it is {MOVED[inner]} now" if inner in MOVED else did_you_mean(part, words)
    return f"module '{module.name}' has no attribute '{part}'{hint}"


def _is_null(value: str | None) -> bool:
    return value in ("null", "~", "")


def _unfed(command: str, values: Mapping[str, str]) -> str | None:
    """The key that should name the data of a run of ours, where nothing names any."""
    fed = (*_READ_BY.get(command, ()), "data.train")  # of which a share may be held out
    known = {key: _resolved(value, values) for key, value in values.items() if key.startswith(fed)}
    if command not in _READ_BY or not values.get("data.class_path", "").startswith("lightning_sal.datamodules."):
        return None
    if not known or not all(map(_is_null, known.values())):
        return None
    key = next(iter(known))
    return plain_key(values[key][2:-1]) if values[key].startswith("${") else key


def _option(key: str) -> str:
    return key.replace("data.", "data.init_args.", 1)


def _is_model(key: str, value: str) -> bool:
    """Whether a value is a file or folder of weights, and cannot be a name on the hub."""
    if not key.endswith(_WEIGHTS):
        return False
    path = Path(value)
    return len(path.parts) > 2 or path.is_absolute() or path.suffix in (".pt", ".safetensors")


def _is_checkpoint(key: str, value: str) -> bool:
    """Whether a value is a file of a checkpoint, and neither a word for one nor a place in the net."""
    return key == "ckpt_path" and ":" not in value and ("/" in value or "." in value)


def _is_data(command: str, key: str, value: str) -> bool:
    return "${paths.data}" in value and any(f"{key}.".startswith(f"{fed}.") for fed in _READ_BY.get(command, ()))


def _resolved(value: str, values: Mapping[str, str]) -> str | None:
    """A value with what its `${...}` stand for; None where that is not known here."""
    known = {f"paths.{name}": default for name, default in asdict(Paths()).items()} | dict(values)
    for _ in range(9):
        names = re.findall(r"\$\{([\w.]+)\}", value)
        if not names:
            return None if "${" in value else value
        for name in names:
            if (plain := plain_key(name)) not in known:
                return None
            value = value.replace(f"${{{name}}}", known[plain])
    return None


def _origin(key: str, value: str, found: str, values: Mapping[str, str]) -> str:
    """Where a path that is missing comes from: a run of one of our configs, or a folder that an option names."""
    option = re.match(r"\$\{(paths\.(?!runs)\w+)\}", value)
    if option:
        return f": say where it is, --{option[1]}"
    runs = _resolved("${paths.runs}", values) or ""
    name = found.removeprefix(runs).strip("/").partition("/")[0]
    for config in sorted((PACKAGE / "conf").rglob("*.yaml")) if found.startswith(runs) else ():
        text = config.read_text()
        if not re.search(rf"save_dir: .*\bname: {re.escape(name)}\b(?!-)", text):
            continue
        fit = typed("lightning", "fit", "--config", config.relative_to(PACKAGE))
        if key == "ckpt_path" or f"export: {value}" in text:
            return f": {fit} writes it"
        checkpoint = f"{runs}/{name}/version_0/checkpoints/last.ckpt"
        return f": run first {fit} and then {typed('lightning-sal', 'export', checkpoint, '--out', found)}"
    return ""
