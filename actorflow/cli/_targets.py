"""Finds the workflows that the words of a command name: in files and in modules."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard, cast

from actorflow.cli._refusals import CommandError, one_line
from actorflow.errors import WorkflowValidationError
from actorflow.workflow import Workflow

__all__ = ["class_of", "classes_of", "target_of", "workflow_of"]


def workflow_of(target: str) -> Workflow[Any, Any]:
    """An instance of the workflow that a target names."""
    found = target_of(target)
    if _is_workflow(found):
        return found
    cls = class_of(found)
    try:
        return cls()
    except TypeError as error:
        raise CommandError(
            f"{cls.__name__} cannot be made without arguments ({one_line(error)}); "
            f"make one in {_split(target)[0]} and give its name instead"
        ) from None


def target_of(target: str) -> object:
    """The workflow class or instance that a target names."""
    module, place, name = _place(target)
    return _only(module, place) if name is None else _named(module, place, name)


def _named(module: ModuleType, place: str, name: str) -> object:
    found: object = vars(module).get(name)
    if not _is_workflow(found) and not _is_workflow_class(found):
        raise CommandError(f"no workflow {name!r} in {place}; {_has(module)}")
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
        raise CommandError(f"{place} has several workflows: {', '.join(names)}; name one: {place}:{next(iter(names))}")
    if not names:
        raise CommandError(f"no workflow in {place}; {_has(module)}")
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
    except CommandError:
        raise
    except WorkflowValidationError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's module raises is what is told
        raise CommandError(f"cannot import {place}: {type(error).__name__}: {one_line(error)}{_where(error)}") from None


def _load(path: Path) -> ModuleType:
    if not path.is_file():
        if path.is_dir():
            raise CommandError(f"{path} is a folder; name a file in it{_listing(path)}")
        around = path.parent if path.parent.is_dir() else Path()
        raise CommandError(f"no file {str(path)!r}{_listing(around)}")
    # As `python flow.py` would: the files beside it can be imported, and it is known by its name.
    sys.path.insert(0, str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise CommandError(f"{path} is not a Python file{_listing(path.parent)}")
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
            raise CommandError(f"no module {name!r}{_listing(Path())}") from None
        raise
    except (ValueError, TypeError):  # "", or dots where there is no package
        raise CommandError(f"no module {name!r}{_listing(Path())}") from None


def _listing(folder: Path) -> str:
    files = sorted(path.name for path in folder.glob("*.py"))
    shown = ", ".join(files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "")
    place = "this folder" if folder == Path() else str(folder)
    return f"; {place} has: {shown}" if files else f"; {place} has no Python files"


def _where(error: BaseException) -> str:
    """File and line of the user's code that an import failed at."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({_short(error.filename)}:{error.lineno})"
    others = (str(Path(__file__).parent.parent), sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "<")
    own = [at for at in traceback.extract_tb(error.__traceback__) if not at.filename.startswith(others)]
    return f" ({_short(own[-1].filename)}:{own[-1].lineno})" if own else ""


def _short(filename: str) -> str:
    shorter = os.path.relpath(filename)
    return filename if shorter.startswith("..") else shorter


def classes_of(target: str) -> list[type[Workflow[Any, Any]]]:
    """The workflow class that a target names, or all public ones of its module."""
    module, place, name = _place(target)
    if name is not None:
        return [class_of(_named(module, place, name))]
    public = {word: value for word, value in _workflows(module).items() if not word.startswith("_")}
    if not public:
        raise CommandError(f"no workflow in {place}; {_has(module)}")
    return list(dict.fromkeys(class_of(value) for value in public.values()))


def class_of(found: object) -> type[Workflow[Any, Any]]:
    """The class of a workflow that was found as a class or as an instance."""
    return type(found) if _is_workflow(found) else cast("type[Workflow[Any, Any]]", found)
