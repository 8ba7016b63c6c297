"""Where a coroutine is: its frames down to what it waits for, on any event loop."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["stack_of"]

_MACHINERY = ("contextlib", "actorflow.")


def stack_of(coroutine: object) -> str:
    """The stack of a suspended coroutine as a traceback shows it, from the user's first frame on.

    Args:
        coroutine: A coroutine or a generator, async or not; not the running one.
    """
    frames = list(_frames(coroutine))
    while len(frames) > 1 and str(frames[0].f_globals.get("__name__", "")).startswith(_MACHINERY):
        frames.pop(0)
    summary = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames)
    return "".join(summary.format()).rstrip() or "  (it has no frame: it has not begun, or is over)"


def _frames(awaitable: object) -> Iterator[FrameType]:
    while awaitable is not None:
        frame: FrameType | None = _first(awaitable, "cr_frame", "ag_frame", "gi_frame")
        if frame is None:
            return
        yield frame
        inner = _first(awaitable, "cr_await", "ag_await", "gi_yieldfrom")
        if inner is not None and not any(hasattr(inner, name) for name in ("cr_frame", "ag_frame", "gi_frame")):
            # A step of an async generator does not show the generator; contextlib's frame knows it.
            inner = getattr(frame.f_locals.get("self"), "gen", None)
        awaitable = inner


def _first(thing: object, *names: str) -> Any:  # Any: frames and awaitables have no type in common
    return next((value for name in names if (value := getattr(thing, name, None)) is not None), None)
