"""Enters and leaves one resource, and says what came of it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Sequence
from typing import Any, cast

from actorflow._recipes import Kind, Recipe
from actorflow._runtime.stacks import stack_of
from actorflow._runtime.timers import Timer, Timers

__all__ = ["Overdue", "enter", "leave", "settle", "with_place"]

logger = logging.getLogger("actorflow")


class Overdue(Timer):
    """Reports where a closing hangs, each time that the grace has passed."""

    __slots__ = ("_began", "_coroutine", "_grace", "_subject", "_timers")

    def __init__(self, timers: Timers, grace: float, subject: str, coroutine: object) -> None:
        super().__init__()
        self._timers = timers
        self._grace = grace
        self._subject = subject
        self._coroutine = coroutine
        self._began = timers.clock()

    def __enter__(self) -> None:
        self._timers.arm(self, self._began + self._grace)

    def __exit__(self, *_: object) -> None:
        self._timers.drop(self)

    def fire(self) -> None:
        now = self._timers.clock()
        logger.warning(
            "%s is still closing after %g s; it waits here:\n%s",
            self._subject,
            now - self._began,
            stack_of(self._coroutine),
        )
        self._timers.arm(self, now + self._grace)


def settle(error: BaseException | None, errors: Sequence[BaseException], owner: str) -> BaseException | None:
    """What a scope ends with whose resources raised while they were closed; none of it is lost.

    Args:
        error: What it would have ended with; keeps its place, the others are noted on it and logged.
        errors: What `Pool.close` returned.
        owner: Whose resources they were, for the log.

    Returns:
        `error` if there is one; else what closing raised, several as a group; None if there was nothing.
    """
    if error is None:
        if len(errors) > 1:
            return BaseExceptionGroup(f"{len(errors)} resources of {owner} failed while they were closed", list(errors))
        return errors[0] if errors else None
    for one in errors:
        error.add_note(f"besides, {type(one).__name__}: {one} ({'; '.join(getattr(one, '__notes__', ()))})")
        logger.error("a resource of %s failed while it was closed", owner, exc_info=one)
    return error


async def enter(recipe: Recipe, arguments: dict[str, Any]) -> tuple[Any, Any]:  # Any: whatever the factory makes
    """Calls a factory and enters what it made; the resource, and what is to be left, None for nothing."""
    made: Any = recipe.make(**arguments)
    if inspect.iscoroutine(made):
        made = await cast("Awaitable[Any]", made)
    # What a factory is for is seen in its definition; what it really gives, only now.
    if recipe.kind is Kind.ASYNC_CONTEXT and hasattr(made, "__aenter__"):
        return await made.__aenter__(), made
    if recipe.kind is Kind.CONTEXT and hasattr(made, "__enter__"):
        return made.__enter__(), made
    return made, None


async def leave(recipe: Recipe, manager: Any, error: BaseException | None) -> None:
    """Leaves a context manager; an error that it swallows is an error still."""
    told = error if recipe.tell else None
    what = (None, None, None) if told is None else (type(told), told, told.__traceback__)
    if recipe.kind is Kind.ASYNC_CONTEXT:
        await manager.__aexit__(*what)
    else:
        manager.__exit__(*what)


def with_place(recipe: Recipe, error: BaseException) -> BaseException:
    note = f"while resource {recipe.name} was closed"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return error
