"""No test sleeps in real time: what waits in the suite waits on virtual time."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = sorted(Path(__file__).parent.glob("*.py"))
RUNNERS = {("asyncio", "run"), ("trio", "run"), ("anyio", "run"), ("", "run_sync")}
SLEEPERS = {"sleep", "sleep_until", "fail_after", "fail_at", "move_on_after", "move_on_at", "timeout"}


def real_sleeps(source: str) -> Iterator[int]:
    """The lines on which a test may sleep for real.

    That is `time.sleep` anywhere, and a sleep or time limit of more than nothing in a test that starts an event loop
    whose time is real; where a helper starts one, in every test of the module that does not call `simulate`.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "time" and any(n.name == "sleep" for n in node.names):
            yield node.lineno
        if isinstance(node, ast.Attribute) and (_name(node.value), node.attr) == ("time", "sleep"):
            yield node.lineno
    for function in tree.body:
        if any(_starts_a_real_loop(node) for node in ast.walk(function)):
            suspects = [function] if _is_test(function) else [f for f in tree.body if _is_test(f) and not _simulates(f)]
            for node in (node for suspect in suspects for node in ast.walk(suspect)):
                if isinstance(node, ast.Call) and _sleeps(node):
                    yield node.lineno


def _is_test(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")


def _simulates(function: ast.AST) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "simulate" for node in ast.walk(function))


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _starts_a_real_loop(node: ast.AST) -> bool:
    if not isinstance(node, ast.Attribute):
        return False
    module = _name(node.value)
    if (module, node.attr) not in RUNNERS and node.attr != "run_sync":
        return False
    # Threads are not loops; a loop with options is on virtual time.
    return not (isinstance(node.value, ast.Attribute) and node.value.attr in {"to_thread", "from_thread"})


def _sleeps(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else _name(call.func)
    if name not in SLEEPERS or not call.args:
        return False
    return not (isinstance(call.args[0], ast.Constant) and call.args[0].value == 0)


def _virtual(source: str) -> str:
    """The source without the calls that start a loop on virtual time."""

    class Leave(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.AST:
            self.generic_visit(node)
            return ast.Constant(0) if any(k.arg == "backend_options" for k in node.keywords) else node

    return ast.unparse(Leave().visit(ast.parse(source)))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_no_test_sleeps(path: Path) -> None:
    """Whoever wants to wait uses `simulate`, or a loop with `virtual_backend_options`."""
    source = _virtual(path.read_text(encoding="utf-8"))
    assert [source.splitlines()[line - 1] for line in real_sleeps(source)] == []


# The watchman is watched.


@pytest.mark.parametrize(
    "source",
    [
        "import time\ndef test_it():\n    time.sleep(1)",
        "from time import sleep",
        "def test_it():\n    f = time.sleep",
        "def test_it():\n    async def main():\n        await anyio.sleep(1)\n    anyio.run(main)",
        "def test_it():\n    async def main():\n        with anyio.fail_after(1): ...\n    asyncio.run(main())",
        "def test_it():\n    Flow(anyio.sleep(3)).run_sync()",
        "def helper(main):\n    trio.run(main)\nasync def test_it():\n    await trio.sleep(0.1)",
    ],
)
def test_a_sleep_is_seen_in_every_form(source: str) -> None:
    """However it is written."""
    assert list(real_sleeps(_virtual(source))) != []


@pytest.mark.parametrize(
    "source",
    [
        "def test_it():\n    async def main():\n        await anyio.sleep(1)\n    simulate(main)",
        "def test_it():\n    anyio.run(anyio.sleep, 1, backend_options=virtual_backend_options('trio'))",
        "def test_it():\n    async def main():\n        await anyio.sleep(0)\n    anyio.run(main)",
        "def test_one():\n    anyio.run(main)\ndef test_two():\n    simulate(lambda: anyio.sleep(1))",
        "def test_it():\n    anyio.from_thread.run_sync(int)\n    simulate(lambda: anyio.sleep(1))",
    ],
)
def test_virtual_time_is_left_alone(source: str) -> None:
    """A test that sleeps a day in a simulation is what we want."""
    assert list(real_sleeps(_virtual(source))) == []
