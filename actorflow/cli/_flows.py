"""Commands about workflows: run them, check them, draw them."""

from __future__ import annotations

import importlib.util
import json
import sys
import traceback
from pathlib import Path
from typing import Any, Literal, cast

import anyio

from actorflow.cli._refusals import CommandError, one_line
from actorflow.cli._targets import class_of, classes_of, target_of, workflow_of
from actorflow.errors import WorkflowValidationError
from actorflow.events import Event, StopEvent
from actorflow.graph import Graph
from actorflow.workflow import Workflow

__all__ = ["check", "graph", "run"]


def run(
    target: str,
    /,
    *,
    input_: str = "{}",
    backend: Literal["asyncio", "trio"] = "asyncio",
    traceback_: bool = False,
) -> int:
    """Run a workflow: print the events it streams as they come, then its result.

    Args:
        target: Which workflow: flow.py:Writer, path/to/flow.py, package.module:Writer or package.module. The name may
            be left out where there is only one; it may also be that of a ready instance.
        input_: Fields of the start event, a JSON object.
        backend: Event loop to run in.
        traceback_: Show the whole traceback of a failed run.
    """
    if backend == "trio" and importlib.util.find_spec("trio") is None:
        raise CommandError('--backend trio needs trio, which is not installed: pip install "actorflow[trio]"')
    fields = _fields(input_)
    workflow = workflow_of(target)
    start = _start_event(workflow, fields)
    try:
        anyio.run(_show, workflow, start, backend=backend)
    except Exception as error:  # noqa: BLE001 - whatever the user's steps raise is what is shown
        lines = traceback.format_exception(error) if traceback_ else traceback.format_exception_only(error)
        sys.stderr.write("".join(lines))
        return 1
    return 0


def check(target: str, /) -> int:
    """Check workflows without running them: one line for each, or all of its problems.

    Args:
        target: Which workflow: flow.py:Writer, path/to/flow.py, package.module:Writer or package.module. Without a name
            all workflows of the module are checked, except for classes whose names begin with an underscore.
    """
    try:
        classes = classes_of(target)
    except WorkflowValidationError as error:  # the module makes an instance of one that cannot work
        sys.stdout.write(f"{error}\n")
        return 1
    failed = 0
    for cls in classes:
        try:
            cls.validate()
        except WorkflowValidationError as error:
            failed += 1
            sys.stdout.write(f"{error}\n")
        else:
            sys.stdout.write(f"ok {_summary(cls._actorflow_graph())}\n")
    if len(classes) > 1:
        sys.stdout.write(f"{failed or 'none'} of {len(classes)} workflows {'have' if failed > 1 else 'has'} problems\n")
    return 1 if failed else 0


def graph(target: str, /, *, to: Path | None = None) -> int:
    """Draw a workflow, as a Mermaid flowchart unless a file is named.

    Args:
        target: Which workflow: flow.py:Writer, path/to/flow.py, package.module:Writer or package.module. The name may
            be left out where there is only one.
        to: File to write: .html (a page that needs no network), .dot, .json or .mmd.
    """
    if to is None:
        sys.stdout.write(class_of(target_of(target)).mermaid())
        return 0
    try:
        from actorflow.pictures import draw  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as missing:
        raise CommandError(str(missing).partition(": ")[2]) from None
    draw(workflow_of(target), to)
    return 0


def _summary(compiled: Graph) -> str:
    steps = f"{len(compiled.steps)} step{'s' if len(compiled.steps) > 1 else ''}"
    stops = " or ".join(stop.__name__ for stop in compiled.stop_events)
    outside = ", with events to or from outside" if compiled.is_interactive else ""
    return f"{compiled.name}: {steps}, from {compiled.start_event.__name__} to {stops}{outside}"


async def _show(workflow: Workflow[Any, Any], start: Event) -> None:
    from rich.console import Console  # noqa: PLC0415 - an extra

    # Every event is one line, however wide the terminal: lines are for grep too.
    console = Console(soft_wrap=True, markup=False, emoji=False)
    running = workflow.run(start_event=start)
    # The last StopEvent is the end, shown as the result; one before it was published by a step.
    ending: Event | None = None
    async for event in running.stream_events():
        if ending is not None:
            console.print(repr(ending))
        ending = event if _is_stop(event) else None
        if ending is None:
            console.print(repr(event))
    result = await running
    console.print(result if isinstance(result, str) else repr(result), highlight=not isinstance(result, str))


def _is_stop(event: Event) -> bool:
    return isinstance(event, StopEvent)


def _fields(text: str) -> dict[str, Any]:
    try:
        data: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise CommandError(
            f"--input is not JSON: {error.msg} at line {error.lineno}, column {error.colno}; "
            """it looks like '{"topic": "bees"}'"""
        ) from None
    if not isinstance(data, dict):
        raise CommandError(f"""--input is {_kind(data)}; it must be a JSON object like '{{"topic": "bees"}}'""")
    return cast("dict[str, Any]", data)


def _kind(data: object) -> str:
    match data:
        case list():
            return "a list"
        case str():
            return "a string"
        case bool() | None:
            return json.dumps(data)
        case _:
            return "a number"


def _start_event(workflow: Workflow[Any, Any], fields: dict[str, Any]) -> Event:
    kind: type[Event] = workflow._actorflow_graph().start_event
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:
        raise CommandError(f"--input does not fit {kind.__name__}: {one_line(error)}") from None
