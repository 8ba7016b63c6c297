"""The one module of the runtime that may import asyncio or trio: what anyio does not offer on both."""

from __future__ import annotations

import contextlib
import functools
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import Context as Variables
from typing import Any, TypeVar

import anyio

__all__ = [
    "caller",
    "clock",
    "event_class",
    "is_cancelled",
    "loop_key",
    "no_loop",
    "run_in_new_loop",
    "spawner",
    "start_detached",
]

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
    asyncio = sys.modules.get("asyncio")  # where nobody has imported it, none of its loops runs
    try:
        return None if asyncio is None else asyncio.get_running_loop()
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
    import asyncio

    return asyncio.get_running_loop().time


def event_class() -> Callable[[], anyio.Event]:
    """How the running loop's own events are made: anyio's look the backend up each time, and wrap one of these."""
    made: Any
    if _in_trio():
        import trio

        made = trio.Event
    else:
        import asyncio

        made = asyncio.Event
    return made  # type: ignore[no-any-return] # it has what is used of anyio.Event: set, is_set and wait


def caller() -> Callable[[Callable[[], object]], object]:
    """How another thread makes the running loop call something, without waiting for it.

    What is returned raises `RuntimeError` once the loop is over.
    """
    if _in_trio():
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon
    import asyncio

    variables = Variables()
    with contextlib.suppress(ImportError):  # without it anyio takes every running loop for asyncio's
        import sniffio

        # Outside of a task it cannot tell by itself, and what is called may start one.
        variables.run(sniffio.current_async_library_cvar.set, "asyncio")
    return functools.partial(asyncio.get_running_loop().call_soon_threadsafe, context=variables)


def spawner() -> Callable[[Variables, Work], object]:
    """How a run's tasks are started, by the task that has just opened its group: each in a copy of given context variables.

    On asyncio without the group, whose bookkeeping costs 8 µs a task, half of a fresh run: a runtime waits for its runs by
    itself. Never eagerly, whatever the loop's task factory: a task that began inside of the send that it is started by
    would run the receiver in the middle of the sender. On trio in the nursery that the group is made of: what anyio's group
    adds, a handle for each task, costs as much as the task.
    """
    if _in_trio():
        import trio

        start_soon = trio.lowlevel.current_task().child_nurseries[-1].start_soon
        return lambda variables, work: variables.run(start_soon, work)
    import asyncio

    loop = asyncio.get_running_loop()
    task: Any = asyncio.Task
    return lambda variables, work: task(work(), loop=loop, context=variables.copy())


def start_detached(main: Callable[[], Awaitable[None]]) -> object:
    """Starts a task that belongs to the loop and ends with it; keep what is returned for as long as it is to run."""
    if _in_trio():
        import trio

        return trio.lowlevel.spawn_system_task(main, name="actorflow runtime")
    import asyncio

    return asyncio.get_running_loop().create_task(main(), name="actorflow runtime")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def is_cancelled() -> bool:
    """Whether the running task is being cancelled by someone: a scope around it or, on asyncio, ``task.cancel()``.

    Tells a real cancellation from a body that raises its backend's cancellation exception by itself.
    """
    if anyio.current_effective_deadline() == -float("inf"):
        return True
    if _in_trio():
        return False
    import asyncio

    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def stack_of(owner: object) -> str:
    """Where the task is whose coroutine is a method of `owner`, as a traceback shows it; outermost call first."""
    for coroutine in _coroutines():
        lines: list[str] = []
        mine = False
        inner = coroutine
        while inner is not None:
            frame = getattr(inner, "cr_frame", None) or getattr(inner, "gi_frame", None)
            if frame is None:
                break
            mine = mine or frame.f_locals.get("self") is owner
            lines += traceback.format_list(traceback.extract_stack(frame, limit=1))
            inner = getattr(inner, "cr_await", None) or getattr(inner, "gi_yieldfrom", None)
        if mine:
            return "".join(lines).rstrip()
    return "  (a place that cannot be seen)"


def _coroutines() -> Iterator[Any]:
    """The coroutines of all tasks of the running loop."""
    if not _in_trio():
        import asyncio

        yield from (task.get_coro() for task in asyncio.all_tasks())
        return
    import trio

    tasks = [trio.lowlevel.current_root_task()]
    while tasks:
        task = tasks.pop()
        if task is not None:
            yield task.coro
            tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]


def run_in_new_loop(main: Callable[[], Awaitable[T]], backend: str) -> T:
    """Runs `main` in a new event loop of `backend`."""
    options: dict[str, Any] = {}
    return anyio.run(main, backend=backend, backend_options=options)
