"""Show which room imports which, and that imports run downwards only.

    python scripts/imports.py [FOLDER]

Reads the package and the order of its rooms from FOLDER/pyproject.toml (default: this repository): `root_package` and
the contract of type `layers` in `[tool.importlinter]`. Prints the rooms from top to bottom, each with the rooms that it
imports and with its modules in order, each above those that it imports. Imports inside functions count; those for type
checkers alone do not. A module's full name in a string counts as an import too ("module" or "module:attribute"), for so
modules are loaded by name.

What must not be is marked with "!!" and listed again at the end: an import of a room that is not below, a circle of
modules, a room without a place in the order. Ends with 1 if there is any.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent

Imports = dict[str, set[str]]
"""For each module those that it imports, of the same package."""


def layout(root: Path) -> tuple[str, dict[str, int]]:
    """The package, and the level of each of its rooms: 0 is the top. Rooms of one level do not know each other."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(contract["layers"] for contract in settings["contracts"] if contract["type"] == "layers")
    levels = {room.strip(): level for level, layer in enumerate(layers) for room in layer.split("|")}
    return settings["root_package"], levels


def imports_of(package: str) -> Imports:
    """All imports inside a package, which must be on the path."""
    graph = grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    return {
        module: (graph.find_modules_directly_imported_by(module) | _named(module, graph.modules)) - {module}
        for module in sorted(graph.modules)
    }


def _named(module: str, modules: set[str]) -> set[str]:
    """The modules whose names a module holds as strings."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    named = {string.partition(":")[0] for string in strings}
    # The package's own name is also that of loggers and meters.
    return {name for name in named if name in modules and "." in name}


def findings(package: str, levels: dict[str, int], imports: Imports) -> Iterator[tuple[str, str]]:
    """What must not be, each with the module that it is in."""
    for module, imported in imports.items():
        if module != package and _room(module) not in levels:
            yield module, f"{module}: the room {_room(module)} has no place among the layers"
        for other in sorted(imported):
            # The package itself holds the public names: it stands above all rooms, and none imports it.
            here, there = (-1 if name == package else levels.get(_room(name), -1) for name in (module, other))
            if _room(module) != _room(other) and there <= here:
                yield module, f"{module} imports {other}, which is not below it"
    rest = {module: sorted(imported) for module, imported in imports.items()}
    while True:
        try:
            TopologicalSorter(rest).prepare()
            return
        except CycleError as error:
            *circle, last = reversed(error.args[1])
            yield circle[0], f"circle: {' > '.join([*circle, last])}"
            rest[circle[0]].remove(circle[1])


def _room(module: str) -> str:
    """The first part of a module's name below the package; of the package itself, nothing."""
    return module.partition(".")[2].partition(".")[0]


def picture(package: str, levels: dict[str, int], imports: Imports, marked: set[str]) -> Iterator[str]:
    """The lines of the picture."""
    for room in sorted({_room(module) for module in imports}, key=lambda room: (levels.get(room, -1), room)):
        modules = [module for module in imports if _room(module) == room]
        below = {_room(other) for module in modules for other in imports[module]} - {room}
        yield f"{room or package} -> {', '.join(sorted(below, key=lambda r: levels.get(r, -1))) or 'nothing'}"
        inside = {module: imports[module] & set(modules) for module in modules}
        known = set().union(*inside.values())
        for module in _ordered(inside):
            own = ", ".join(sorted(_in_room(other) for other in inside[module]))
            if own or module in known or module in marked or _in_room(module) != "itself":
                yield f"{'!!' if module in marked else '  '}    {_in_room(module)}{' > ' if own else ''}{own}"


def _in_room(module: str) -> str:
    """A module's name inside its room; of a room's own file, "itself"."""
    return module.partition(".")[2].partition(".")[2] or "itself"


def _ordered(imports: Imports) -> list[str]:
    try:
        return list(TopologicalSorter({module: sorted(imports[module]) for module in imports}).static_order())[::-1]
    except CycleError:
        return sorted(imports)


def main(root: Path) -> int:
    sys.path.insert(0, str(root / "src"))
    package, levels = layout(root)
    imports = imports_of(package)
    found = list(findings(package, levels, imports))
    print("\n".join(picture(package, levels, imports, {module for module, _ in found})))
    for _, finding in found:
        print(f"!! {finding}", file=sys.stderr)
    if not found:
        print(f"Imports: {len(imports)} modules, no circle, no arrow upwards.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT))
