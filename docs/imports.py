"""What each file of the package imports, and the rules that these imports keep.

`python docs/imports.py` names the imports that break a rule, and exits with 1 where there are any. An import counts wherever
it stands: at the head of a file, in a function, or under TYPE_CHECKING. A room is a folder of the package, or a file beside
them.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "lightning_sal"

ALONE = {  # Room -> all that it may import, beside itself and the standard library
    "objectives": {"torch", "scipy"},  # scipy for one function, the assignment problem
    "formulas": {"array_api_compat", "numpy", "scipy", "skimage"},  # the last one takes a while: in functions
    "maps": {"formulas", "numpy"},
    "metrics": {
        "formulas",
        "run_lengths",
        "torch",
        "torchmetrics",
        "numpy",
        "scipy",
        "matplotlib",
    },  # the last one only to draw
    "samples": {"torch", "frames"},
    "frames": set(),
    "run_lengths": {"numpy"},
}
STRANGERS = (  # Rooms of which none may import another
    {"policy", "segmenters", "metrics"},
    {"callbacks", "datamodules", "modules"},
)
NAMED_IN_YAML = {"callbacks", "datamodules"}  # Rooms that nothing may import
WITHOUT_LIGHTNING = {"tasks", "policy", "segmenters"}  # Rooms that may not know the Trainer

Graph = Mapping[str, Set[str]]


def read_imports(package: Path) -> dict[str, set[str]]:
    """Module -> what it imports: modules of the package by their full names, other libraries by their top-level names.

    Args:
        package: Its folder; links to folders, such as `callbacks`, are followed.
    """
    files = {_module(path, package): path for path in _python_files(package)}
    return {module: set(_imported(path, files)) - {module, *sys.stdlib_module_names} for module, path in files.items()}


def rooms(imports: Graph) -> dict[str, set[str]]:
    """Room -> the other rooms that its files import."""
    graph: dict[str, set[str]] = {room_of(module): set() for module in imports}
    for module, targets in imports.items():
        graph[room_of(module)] |= {room_of(target) for target in targets & imports.keys()} - {room_of(module)}
    return graph


def room_of(module: str) -> str:
    """`lightning_sal.policy.cache` -> `policy`."""
    return module.split(".")[1] if "." in module else "__init__"


def reached(graph: Graph) -> dict[str, set[str]]:
    """Node -> all that it reaches by one arrow or more."""
    below: dict[str, set[str]] = {}
    for node in graph:
        found, waiting = set[str](), [node]
        while waiting:
            new = graph[waiting.pop()] & graph.keys() - found
            found |= new
            waiting += new
        below[node] = found
    return below


def circles(graph: Graph) -> list[list[str]]:
    """The groups of nodes that all reach each other."""
    below = reached(graph)
    groups = {
        frozenset(other for other in below[node] if node in below[other]) for node in graph if node in below[node]
    }
    return sorted(sorted(group) for group in groups)


def broken(imports: Graph) -> Iterator[str]:
    """A line for each circle of files or rooms, and for each import that a room may not have."""
    for circle in circles(imports):
        yield f"these files import each other in a circle: {', '.join(circle)}"
    for circle in circles(rooms(imports)):
        arrows = [f"{module} -> {target}" for module, target, *ends in _outward(imports) if {*ends} <= {*circle}]
        yield f"the rooms {', '.join(circle)} import each other: {'; '.join(arrows)}"
    for module, target, room, other in _outward(imports):
        if other not in ALONE.get(room, {other}):
            yield f"{module} imports {target}: {room} may import {', '.join(sorted(ALONE[room]))} alone"
        if any({room, other} <= strangers for strangers in STRANGERS):
            yield f"{module} imports {target}: {room} and {other} know nothing of each other"
        if other in NAMED_IN_YAML:
            yield f"{module} imports {target}: {other} is named in YAML alone"
        if room in WITHOUT_LIGHTNING and other == "lightning":
            yield f"{module} imports {target}: {room} knows nothing of the Trainer"


def _outward(imports: Graph) -> Iterator[tuple[str, str, str, str]]:
    """For each import that leaves its room: module, what it imports, its room, and that of the other or a library."""
    for module in sorted(imports):
        for target in sorted(imports[module]):
            room, other = room_of(module), room_of(target) if target in imports else target
            if room != other:
                yield module, target, room, other


def _python_files(package: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(package, followlinks=True):
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


def _module(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    """The modules that a file names; `from a import b` names a.b where that is a file, else a."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level or not node.module:
                raise ValueError(f"{path}:{node.lineno}: a relative import: give the full name of the module")
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in files else node.module for name in inner]
        yield from (name if name in files else name.partition(".")[0] for name in names)


if __name__ == "__main__":
    lines = list(broken(read_imports(PACKAGE)))
    print("\n".join(lines))
    sys.exit(bool(lines))
