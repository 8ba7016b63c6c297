"""The `actorflow` command: runs, checks and draws workflows from a terminal.

Exit codes: 0 when it went well, 1 when the run failed or a check found problems, 2 when the command was wrong (one line
says what there is instead), 130 when it was interrupted.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NoReturn, TypeGuard, cast

import anyio

from actorflow.errors import WorkflowValidationError
from actorflow.events import Event, StopEvent
from actorflow.graph import Graph
from actorflow.workflow import Workflow

__all__ = ["main"]


class _CommandError(Exception):
    """The command cannot be carried out as it was given; the message is what its author reads."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Carries out a command line and exits with its code.

    Args:
        arguments: The words after ``actorflow``; None for those of this process.

    Example:
        >>> main(["run", "no_such_flow:Writer"])
        Traceback (most recent call last):
        SystemExit: 2
    """
    try:
        import cyclopts  # noqa: PLC0415 - an extra: whoever imports this room need not have it

        importlib.import_module("rich")
    except ModuleNotFoundError as missing:
        _refuse(f'the actorflow command needs {missing.name}, which is not installed: pip install "actorflow[cli]"')
    app = cyclopts.App(
        name="actorflow",
        help="Event-driven workflows on typed actors.",
        version=lambda: importlib.metadata.version("actorflow"),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for command in (run, check, graph):
        app.command(command)
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = app(words, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        _refuse(f"{_one_line(error)} See: actorflow --help")
    except _CommandError as error:
        _refuse(str(error))
    except WorkflowValidationError as error:
        _refuse(str(error))  # several lines: each problem of the workflow is one
    except KeyboardInterrupt:
        _refuse("interrupted", code=130)
    sys.exit(code)


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
        raise _CommandError('--backend trio needs trio, which is not installed: pip install "actorflow[trio]"')
    fields = _fields(input_)
    workflow = _workflow(target)
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
        classes = _classes(target)
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


def graph(target: str, /) -> int:
    """Draw a workflow as a Mermaid flowchart.

    Args:
        target: Which workflow: flow.py:Writer, path/to/flow.py, package.module:Writer or package.module. The name may
            be left out where there is only one.
    """
    sys.stdout.write(_class_of(_target(target)).mermaid())
    return 0


def _classes(target: str) -> list[type[Workflow[Any, Any]]]:
    module, place, name = _place(target)
    if name is not None:
        return [_class_of(_named(module, place, name))]
    public = {word: value for word, value in _workflows(module).items() if not word.startswith("_")}
    if not public:
        raise _CommandError(f"no workflow in {place}; {_has(module)}")
    return list(dict.fromkeys(_class_of(value) for value in public.values()))


def _class_of(found: object) -> type[Workflow[Any, Any]]:
    return type(found) if _is_workflow(found) else cast("type[Workflow[Any, Any]]", found)


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
        raise _CommandError(
            f"--input is not JSON: {error.msg} at line {error.lineno}, column {error.colno}; "
            """it looks like '{"topic": "bees"}'"""
        ) from None
    if not isinstance(data, dict):
        raise _CommandError(f"""--input is {_kind(data)}; it must be a JSON object like '{{"topic": "bees"}}'""")
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
        raise _CommandError(f"--input does not fit {kind.__name__}: {_one_line(error)}") from None


def _workflow(target: str) -> Workflow[Any, Any]:
    found = _target(target)
    if _is_workflow(found):
        return found
    cls = _class_of(found)
    try:
        return cls()
    except TypeError as error:
        raise _CommandError(
            f"{cls.__name__} cannot be made without arguments ({_one_line(error)}); "
            f"make one in {_split(target)[0]} and give its name instead"
        ) from None


def _target(target: str) -> object:
    """The workflow class or instance that a target names."""
    module, place, name = _place(target)
    return _only(module, place) if name is None else _named(module, place, name)


def _named(module: ModuleType, place: str, name: str) -> object:
    found: object = vars(module).get(name)
    if not _is_workflow(found) and not _is_workflow_class(found):
        raise _CommandError(f"no workflow {name!r} in {place}; {_has(module)}")
    return found


def _place(target: str) -> tuple[ModuleType, str, str | None]:
    place, name = _split(target)
    return _module(place), place, name


def _split(target: str) -> tuple[str, str | None]:
    place, colon, name = target.rpartition(":")
    is_named = bool(colon) and "\\" not in name  # C:\flow.py names a drive
    return (place, name) if is_named else (target, None)


def _only(module: ModuleType, place: str) -> object:
    names = _workflows(module)
    if len(names) > 1:
        raise _CommandError(f"{place} has several workflows: {', '.join(names)}; name one: {place}:{next(iter(names))}")
    if not names:
        raise _CommandError(f"no workflow in {place}; {_has(module)}")
    return next(iter(names.values()))


def _has(module: ModuleType) -> str:
    names = ", ".join(_workflows(module))
    return f"it has: {names}" if names else "it has none: a workflow is a class derived from actorflow.Workflow"


def _workflows(module: ModuleType) -> dict[str, object]:
    """The module's workflow classes and instances by name; those it imported only where it has none of its own."""
    instances: dict[str, object] = {name: value for name, value in vars(module).items() if _is_workflow(value)}
    classes = {name: value for name, value in vars(module).items() if _is_workflow_class(value)}
    own = instances | {name: value for name, value in classes.items() if value.__module__ == module.__name__}
    return own or dict[str, object](classes)


def _is_workflow(value: object) -> TypeGuard[Workflow[Any, Any]]:
    return isinstance(value, Workflow)


def _is_workflow_class(value: object) -> TypeGuard[type[Workflow[Any, Any]]]:
    return isinstance(value, type) and issubclass(value, Workflow) and value is not Workflow


def _module(place: str) -> ModuleType:
    is_file = place.endswith(".py") or "/" in place or "\\" in place
    sys.path.insert(0, str(Path.cwd()))
    try:
        return _load(Path(place)) if is_file else _find(place)
    except _CommandError:
        raise
    except WorkflowValidationError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's module raises is what is told
        raise _CommandError(
            f"cannot import {place}: {type(error).__name__}: {_one_line(error)}{_where(error)}"
        ) from None


def _load(path: Path) -> ModuleType:
    if not path.is_file():
        if path.is_dir():
            raise _CommandError(f"{path} is a folder; name a file in it{_listing(path)}")
        around = path.parent if path.parent.is_dir() else Path()
        raise _CommandError(f"no file {str(path)!r}{_listing(around)}")
    # As `python flow.py` would: the files beside it can be imported, and it is known by its name.
    sys.path.insert(0, str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise _CommandError(f"{path} is not a Python file{_listing(path.parent)}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # postponed annotations are looked up there
    spec.loader.exec_module(module)
    return module


def _find(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A module that the user's own module misses is a failing import, not a wrong command word.
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise _CommandError(f"no module {name!r}{_listing(Path())}") from None
        raise
    except (ValueError, TypeError):  # "", or dots where there is no package
        raise _CommandError(f"no module {name!r}{_listing(Path())}") from None


def _listing(folder: Path) -> str:
    files = sorted(path.name for path in folder.glob("*.py"))
    shown = ", ".join(files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "")
    place = "this folder" if folder == Path() else str(folder)
    return f"; {place} has: {shown}" if files else f"; {place} has no Python files"


def _where(error: BaseException) -> str:
    """File and line of the user's code that an import failed at."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({_short(error.filename)}:{error.lineno})"
    others = (str(Path(__file__).parent), sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "<")
    own = [at for at in traceback.extract_tb(error.__traceback__) if not at.filename.startswith(others)]
    return f" ({_short(own[-1].filename)}:{own[-1].lineno})" if own else ""


def _short(filename: str) -> str:
    shorter = os.path.relpath(filename)
    return filename if shorter.startswith("..") else shorter


def _one_line(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return " ".join(text.split())


def _refuse(message: str, *, code: int = 2) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    sys.exit(code)
