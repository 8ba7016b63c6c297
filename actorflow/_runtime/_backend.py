"""The one module of the runtime that may import asyncio or trio: what anyio does not offer on both."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context as Variables
from typing import Any, TypeVar

import anyio
from anyio.abc import TaskGroup

__all__ = ["clock", "is_cancelled", "loop_key", "no_loop", "run_in_new_loop", "spawner", "start_detached"]

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, None]]


def _in_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_run()


def loop_key() -> object | None:
    """The event loop that runs here, as a weakly referable key; None where none does."""
    if _in_trio():
        import trio

        return trio.lowlevel.current_trio_token()
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def no_loop() -> bool:
    """Whether this thread is outside of any event loop."""
    return loop_key() is None


def clock() -> Callable[[], float]:
    """The running loop's clock, monotonic, in seconds: looked up once, because anyio's own look-up costs 0.5 µs a call."""
    if _in_trio():
        import trio

        return trio.current_time
    return asyncio.get_running_loop().time


def spawner(group: TaskGroup) -> Callable[[Variables, Work], object]:
    """How a run's tasks are started: each in a copy of given context variables.

    On asyncio without `group`, whose bookkeeping costs 8 µs a task, half of a fresh run: a runtime waits for its runs by
    itself. Never eagerly, whatever the loop's task factory: a task that began inside of the send that it is started by
    would run the receiver in the middle of the sender.
    """
    if _in_trio():
        return lambda variables, work: variables.run(group.start_soon, work)
    loop = asyncio.get_running_loop()
    task: Any = asyncio.Task
    return lambda variables, work: task(work(), loop=loop, context=variables.copy())


def start_detached(main: Callable[[], Awaitable[None]]) -> object:
    """Starts a task that belongs to the loop and ends with it; keep what is returned for as long as it is to run."""
    if _in_trio():
        import trio

        return trio.lowlevel.spawn_system_task(main, name="actorflow runtime")
    return asyncio.get_running_loop().create_task(main(), name="actorflow runtime")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def is_cancelled() -> bool:
    """Whether the running task is being cancelled by someone: a scope around it or, on asyncio, ``task.cancel()``.

    Tells a real cancellation from a body that raises its backend's cancellation exception by itself.
    """
    if anyio.current_effective_deadline() == -float("inf"):
        return True
    if _in_trio():
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def run_in_new_loop(main: Callable[[], Awaitable[T]], backend: str) -> T:
    """Runs `main` in a new event loop of `backend`."""
    options: dict[str, Any] = {}
    return anyio.run(main, backend=backend, backend_options=options)
