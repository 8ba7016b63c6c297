"""The floor table: which room of actorflow stands on which floor, and the page that is drawn from it.

    python -m tests.floors --write      draws docs/architecture.md anew

Pure functions over source text; tests/test_architecture.py holds the package to them.
"""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "actorflow"
PAGE = ROOT / "docs" / "architecture.md"

FLOORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "words": (
        ("errors",),
        ("_fields", "_foreign"),
        ("events",),
        ("retry", "flow", "collect"),
        ("supervision", "resources", "_recipes"),
        ("_fits",),
        ("state",),
        ("_image",),
        ("abc", "storage"),
        ("asking", "_mapped"),
        ("context",),
        ("handle",),
    ),
    "declare": (("_annotations", "_options", "_spec", "_signature", "wiring", "workflow"),),
    "compile": (
        ("_edges", "_ways", "graph", "validation", "states", "visualize"),
        ("_shapes", "_loaded", "_atoms", "_places", "_json"),
        ("_imaged",),
        ("registry", "schema"),
        ("_raised", "_plans"),
        ("_annotated",),
        ("_codec",),
        ("serialization",),
        ("snapshots",),
        ("_records",),
    ),
    "run": (("_runtime.*",), ("_runtime",)),
    "keep and watch": (
        ("stores.*",),
        ("stores",),
        ("_stored", "_journals"),
        ("_children",),
        ("_durable", "_replayed", "telemetry", "trace"),
    ),
    "face": (("retry_policy", "resource"), ("",)),
    "edges": (("server.*", "_remote"), ("server", "client"), ("pictures",), ("cli.*",), ("cli",), ("__main__",)),
    "test kit": (("testing.*",), ("testing",)),
}
"""Floors from the lowest to the highest, each with its shelves from the lowest to the highest.

A room may import rooms of its own shelf and of everything below it. ``""`` is ``actorflow/__init__.py``; ``name.*`` are
the rooms inside a package, which the package's own ``__init__`` stands above.
"""

PURPOSES: dict[str, str] = {
    "words": "What the words mean: values and contracts. Each shelf of it knows only the shelves before it.",
    "declare": "What a user writes down.",
    "compile": "What is decided once per class, in pure functions.",
    "run": "The one dispatcher. Private.",
    "keep and watch": "What outlives a run, and what looks on. Imported when it is asked for.",
    "face": "What `import actorflow` gives, where the ports are bound, and the names that ported programs import.",
    "edges": "How the world outside the process gets in.",
    "test kit": "Tools for tests of workflows, ours and other people's. Public.",
}
"""What each floor is for."""

EVENT_LOOPS = frozenset({"asyncio", "trio"})
"""Modules that only `LOOP_ROOMS` may import."""

LOOP_ROOMS = frozenset({"_runtime._backend", "testing._backends"})
"""The rooms that may know which event loop they run on."""


def rooms(package: Path = ROOT / PACKAGE) -> dict[str, Path]:
    """Every module of the package by its dotted name inside it; ``""`` is the package itself."""
    found: dict[str, Path] = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def height(room: str) -> tuple[int, int] | None:
    """Where a room stands, floor and shelf; None where the table does not know it."""
    names = {room, f"{room.partition('.')[0]}.*"} if "." in room else {room}
    for floor, shelves in enumerate(FLOORS.values()):
        for shelf, shelved in enumerate(shelves):
            if names.intersection(shelved):
                return floor, shelf
    return None


def imported(source: str, room: str, *, is_package: bool) -> Iterator[tuple[str, int]]:
    """Every absolute dotted name that a module imports, wherever in it, with its line.

    ``from a import b`` gives ``a.b``: whether ``b`` is a module is for the reader to say.
    """
    here = [PACKAGE, *room.split(".")] if room else [PACKAGE]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            # One dot is the package that the module is in; a package's `__init__` is in itself.
            drop = node.level - (1 if is_package else 0)
            base = here[: len(here) - drop] if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            for alias in node.names:
                yield f"{module}.{alias.name}", node.lineno
        elif isinstance(node, ast.Call):
            name = _dynamic(node)
            if name is not None:
                yield name, node.lineno


def _dynamic(call: ast.Call) -> str | None:
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if called in {"import_module", "__import__"} and call.args and isinstance(call.args[0], ast.Constant):
        return str(call.args[0].value)
    return None


def imports(sources: Mapping[str, str], packages: Iterable[str] = ("",)) -> dict[str, dict[str, int]]:
    """Which rooms each room imports, with the line of the first such import."""
    inside = frozenset(packages)
    graph: dict[str, dict[str, int]] = {}
    for room, source in sources.items():
        found: dict[str, int] = {}
        for name, line in imported(source, room, is_package=room in inside):
            target = _room_of(name, sources)
            if target is not None and target != room:
                found.setdefault(target, line)
        graph[room] = found
    return graph


def _room_of(name: str, known: Iterable[str]) -> str | None:
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return None
    inner = parts[1:]
    names = frozenset(known)
    # The longest prefix that is a module: the rest are names in it.
    while ".".join(inner) not in names:
        if not inner:
            return None
        inner.pop()
    return ".".join(inner)


def upward(graph: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Every import of a room that stands higher than its reader, as ``reader:line imports room``."""
    wrong: list[str] = []
    for room, targets in graph.items():
        mine = height(room)
        for target, line in targets.items():
            theirs = height(target)
            if mine is not None and theirs is not None and theirs > mine:
                wrong.append(f"{title(room)}:{line} imports {title(target)}, which stands above it")
    return wrong


def cycle(graph: Mapping[str, Mapping[str, int]]) -> list[str]:
    """One cycle of imports, its first room repeated at the end; [] where there is none."""
    try:
        graphlib.TopologicalSorter({room: set(targets) for room, targets in graph.items()}).prepare()
    except graphlib.CycleError as error:
        # graphlib lists each room before the one that imports it: turned round it reads "a imports b imports a".
        return list(reversed(error.args[1]))
    return []


def loop_imports(sources: Mapping[str, str], packages: Iterable[str] = ("",)) -> list[str]:
    """Every import of an event loop outside the rooms that may know one."""
    inside = frozenset(packages)
    return [
        f"{title(room)}:{line} imports {name.partition('.')[0]}"
        for room, source in sources.items()
        if room not in LOOP_ROOMS
        for name, line in imported(source, room, is_package=room in inside)
        if name.partition(".")[0] in EVENT_LOOPS
    ]


def title(room: str) -> str:
    """A room's full dotted name."""
    return f"{PACKAGE}.{room}" if room else PACKAGE


def purpose(source: str) -> str:
    """The first line of a module's docstring; "" where there is none."""
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def page(paths: Mapping[str, Path]) -> str:
    """docs/architecture.md: the floors from the top to the bottom, with what each room says that it is for."""
    loops = " and ".join(f"`{title(room)}`" for room in sorted(LOOP_ROOMS))
    lines = [
        "# Architecture",
        "",
        "<!-- Drawn by `python -m tests.floors --write`: edit the floor table there, or a module's docstring. -->",
        "",
        "Data goes one way: declare → compile → run → keep → show. A room imports only rooms of its own shelf and of",
        "what lies below it, also under `TYPE_CHECKING` and inside functions, and never in a circle.",
        f"Only {loops} may import `asyncio` and `trio`.",
        "Floors and shelves are counted from the lowest, and listed from the highest.",
        "",
    ]
    for number, (floor, shelves) in reversed(list(enumerate(FLOORS.items(), start=1))):
        rows = [
            f"| {shelf + 1} | `{title(room)}` | {purpose(paths[room].read_text(encoding='utf-8'))} |"
            for shelf in reversed(range(len(shelves)))
            for room in sorted(paths)
            if height(room) == (number - 1, shelf)
        ]
        if rows:
            lines += [
                f"## {number}. {floor}",
                "",
                PURPOSES[floor],
                "",
                "| shelf | room | what it is for |",
                "|---|---|---|",
            ]
            lines += [*rows, ""]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(rooms()), encoding="utf-8")
    else:
        sys.exit("usage: python -m tests.floors --write")
