"""Classes that the program has, found by name: nothing is imported for it, and none is kept alive by it."""

from __future__ import annotations

import gc
import inspect
import sys
from collections import deque
from collections.abc import Iterable
from typing import Any, cast

from actorflow.errors import RegistrationError
from actorflow.events import Event

__all__ = ["classes_below", "declared", "loaded_class", "place_name", "place_of"]


def declared() -> int:
    """Counts event classes: equal as long as none was declared meanwhile."""
    return Event.__event_count__


def loaded_class(root: type[Any], name: str) -> type[Any] | None:
    """The class below `root` that the program calls ``module:qualname`` now; it is not imported.

    Of a class that was defined again, in a cell of a notebook say, the later one.

    Raises:
        RegistrationError: More than one is in use, made by functions.
    """
    found = [cls for cls in classes_below(root) if place_name(cls) == name]
    if len(found) < 2:
        return found[0] if found else None
    module, _, path = name.partition(":")
    if "<locals>" not in path:
        current: Any = sys.modules.get(module)
        for part in path.split("."):
            current = getattr(current, part, None)
        return cast("type[Any]", current) if current in found else found[-1]
    # Classes are let go by the garbage collector only.
    found.clear()
    gc.collect()
    found = [cls for cls in classes_below(root) if place_name(cls) == name]
    if len(found) > 1:
        message = (
            f"{len(found)} classes are {name!r}, the first from {place_of(found[0])}, the last from {place_of(found[-1])}; "
            "give them names of their own: @register(name=…)"
        )
        found.clear()  # the traceback would keep them in use
        raise RegistrationError(message, code="AF205")
    return found[0] if found else None


def classes_below(root: type[Any]) -> Iterable[type[Any]]:
    """A class and all that derive from it, each once."""
    found: dict[type[Any], None] = {}
    todo: deque[type[Any]] = deque([root])
    while todo:
        cls = todo.popleft()
        if cls not in found:
            found[cls] = None
            todo.extend(type.__subclasses__(cls))
    return found


def place_name(thing: Any) -> str:
    """A class or a function as ``module:qualname``."""
    return f"{thing.__module__}:{thing.__qualname__}"


def place_of(thing: Any) -> str:
    """A class or a function as module, name, and, where there is source, file and line.

    Example:
        >>> place_of(int)
        'builtins.int'
    """
    name = f"{thing.__module__}.{thing.__qualname__}"
    try:
        return f"{name} ({inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]})"
    except (OSError, TypeError):
        return name
