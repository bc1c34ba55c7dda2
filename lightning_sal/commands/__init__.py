"""What the command line offers beside fit, validate, test and predict: one module a command.

A module `check_data.py` here is the command `check-data`. The first line of its docstring is its line in the help; its
`main(argv: list[str]) -> int` runs it and gives the exit code. It is light to import: heavy libraries load in `main`.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType


def available() -> dict[str, ModuleType]:
    """Command name -> its module, in alphabetical order."""
    names = sorted(module.name for module in iter_modules(__path__))
    return {name.replace("_", "-"): import_module(f"{__name__}.{name}") for name in names}
