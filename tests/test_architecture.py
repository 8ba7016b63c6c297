"""The house stands as the floor table says: imports point down, never in a circle; loops stay in their two rooms."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.floors import PAGE, cycle, height, imports, loop_imports, page, purpose, rooms, title, upward

PATHS = rooms()
SOURCES = {room: path.read_text(encoding="utf-8") for room, path in PATHS.items()}
PACKAGES = [room for room, path in PATHS.items() if path.name == "__init__.py"]
GRAPH = imports(SOURCES, PACKAGES)


def test_every_room_is_in_the_table() -> None:
    """No module stands outside of the floor table."""
    assert [title(room) for room in PATHS if height(room) is None] == []


def test_imports_point_down() -> None:
    """No room imports a higher one, wherever the import stands."""
    assert upward(GRAPH) == []


def test_no_circle() -> None:
    """No two rooms import each other, however far round."""
    assert [title(room) for room in cycle(GRAPH)] == []


def test_event_loops_stay_in_their_rooms() -> None:
    """asyncio and trio are imported by the two backend rooms alone."""
    assert loop_imports(SOURCES, PACKAGES) == []


@pytest.mark.parametrize("room", PATHS, ids=title)
def test_every_room_says_what_it_is_for(room: str) -> None:
    """Each module's docstring opens with a sentence of one line."""
    assert purpose(SOURCES[room]).endswith(".")


def test_the_page_is_drawn_from_the_table() -> None:
    """docs/architecture.md is what the table and the docstrings say today."""
    assert PAGE.read_text(encoding="utf-8") == page(PATHS), "run: python -m tests.floors --write"


@pytest.mark.parametrize("module", ["trio", "tenacity", "cattrs", "cyclopts", "rich"])
def test_importing_actorflow_is_light(module: str) -> None:
    """`import actorflow` leaves alone what not every program needs."""
    code = f"import actorflow, sys; actorflow.Workflow; sys.exit({module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)  # noqa: S603 - ours
    assert (done.returncode, done.stderr) == (0, "")


# The watchman is watched: each rule above is shown a house that breaks it.


@pytest.mark.parametrize(
    "source",
    [
        "import actorflow.workflow",
        "from actorflow import workflow",
        "from actorflow.workflow import Workflow",
        "from .workflow import Workflow",
        "from . import workflow",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from actorflow.workflow import Workflow",
        "def late():\n    from actorflow.workflow import Workflow",
        "import importlib\nimportlib.import_module('actorflow.workflow')",
    ],
)
def test_an_upward_import_is_seen_in_every_form(source: str) -> None:
    """A word that imports a declaration is found, however it is written."""
    line = source.count("\n") + 1
    graph = imports({"": "", "events": source, "workflow": ""})
    assert upward(graph) == [f"actorflow.events:{line} imports actorflow.workflow, which stands above it"]


def test_a_name_of_the_package_is_an_import_of_the_package() -> None:
    """A room that takes a re-exported name goes over the roof."""
    graph = imports({"": "", "events": "from actorflow import Workflow"})
    assert upward(graph) == ["actorflow.events:1 imports actorflow, which stands above it"]


def test_shelves_count_among_the_words() -> None:
    """Within the words each room knows only those before it."""
    graph = imports({"": "", "retry": "from actorflow.state import StateStore", "state": "import actorflow.retry"})
    assert upward(graph) == ["actorflow.retry:1 imports actorflow.state, which stands above it"]


def test_a_package_stands_above_its_rooms() -> None:
    """A room inside a package does not import the package's `__init__`, which re-exports it."""
    sources = {"": "", "_runtime": "from . import run", "_runtime.run": "from actorflow._runtime import Runtime"}
    graph = imports(sources, ["", "_runtime"])
    assert graph["_runtime"] == {"_runtime.run": 1}
    assert upward(graph) == ["actorflow._runtime.run:1 imports actorflow._runtime, which stands above it"]


def test_a_circle_is_named() -> None:
    """Rooms of one shelf may import each other, but not in a circle."""
    sources = {
        "graph": "import actorflow.validation",
        "validation": "import actorflow.states",
        "states": "def late():\n    import actorflow.graph",
    }
    graph = imports(sources)
    assert upward(graph) == []
    found = cycle(graph)
    assert found[0] == found[-1]
    assert all(target in graph[room] for room, target in itertools.pairwise(found))
    assert set(found) == set(sources)


@pytest.mark.parametrize(
    "source", ["import trio", "import trio.lowlevel", "from trio import abc", "def f():\n    __import__('trio')"]
)
def test_a_loop_import_is_seen_in_every_form(source: str) -> None:
    """A room that imports an event loop is found, unless it is one of the two."""
    line = source.count("\n") + 1
    assert loop_imports({"retry": source, "_runtime._backend": source}) == [f"actorflow.retry:{line} imports trio"]


def test_an_unknown_room_has_no_height(tmp_path: Path) -> None:
    """A file that the table does not name is found, and has no place."""
    (tmp_path / "attic.py").write_text("", encoding="utf-8")
    assert [room for room in rooms(tmp_path) if height(room) is None] == ["attic"]
