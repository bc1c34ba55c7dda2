"""Code of the user's own, by the place where it stands: a file, or a module that Python finds."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def import_place(place: str) -> ModuleType:
    """The module of a dotted name or of a file; a file that is imported already, under whatever name, is not run twice.

    Args:
        place: `package.module`, or a path that ends in .py. It is code, and it is run.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: There is no such module.
    """
    if not place.endswith(".py"):
        try:
            return import_module(place)
        except ModuleNotFoundError as error:
            raise ValueError(f"no module {error.name!r}: give a file, as FILE.py:NAME, or set PYTHONPATH") from error
    path = Path(place)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    for module in list(sys.modules.values()):
        if (own := getattr(module, "__file__", None)) and Path(own).resolve() == path.resolve():
            return module
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None  # of any name that ends in .py
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[path.stem] = module  # so that classes of the file find themselves, in copies and in other processes
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module
