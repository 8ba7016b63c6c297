"""Time that stands still while anything can run, and jumps to the next timer when nothing can.

Both event loops ask one `Pace` what to do at the moment when they would sleep. Time moves on a grid of 2**-20 s: sums
of such numbers are exact, so asyncio and trio see equal floats, and 0.3 s and 0.1 s + 0.2 s are the same moment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import PurePath
from types import FrameType
from typing import Any, Protocol

import anyio

from actorflow.errors import ActorflowError

__all__ = ["DeadlockError", "LivelockError", "VirtualClock"]

TICK = 2.0**-20
_EXACT = 2.0**33  # seconds, 272 years: from here on neighbouring floats are further apart than a tick
_GRACE = 0.01  # real seconds that open files get to speak before time jumps over them
MAX_PASSES = 100_000

# Where a task is shown to wait, these are not what the reader wrote.
_MACHINERY = ("anyio", "asyncio", "contextlib", "outcome", "trio", "actorflow.testing", "actorflow._runtime")
# Code in which the loop works for a thread that waits in `from_thread.run`: such a thread is not busy. Private names of
# anyio and trio; see test_a_thread_that_waits_on_the_loop_is_not_busy.
_FOR_A_THREAD = {
    ("anyio._backends._asyncio", "AsyncIOBackend.run_async_from_thread.<locals>.task_wrapper"),
    ("trio._threads", "Run.run"),
    ("trio._threads", "Run.run_system"),  # for a thread that may be abandoned
}
# Where a task waits for a subprocess: for its end, or for what it says. Private names; see
# test_time_waits_for_a_subprocess.
_FOR_A_PROCESS = {
    ("asyncio.subprocess", "Process.wait"),
    ("anyio._backends._asyncio", "StreamReaderWrapper.receive"),
    ("anyio._backends._asyncio", "StreamWriterWrapper.send"),
    ("trio._subprocess", "Process.wait"),
    ("trio._unix_pipes", "FdStream.receive_some"),
    ("trio._unix_pipes", "FdStream.send_all"),
}


class DeadlockError(ActorflowError):
    """Nothing can ever run again: no task is ready, and there is no timer, thread or I/O to wake one.

    Attributes:
        time: The virtual time at which everything stood still, in seconds.
        waiting: One line for each waiting task: which one, and the file:line where it waits.
    """

    def __init__(self, time: float, waiting: tuple[str, ...], *, code: str = "AF090") -> None:
        self.time = time
        self.waiting = waiting
        super().__init__(
            f"deadlock at virtual time {time:.12g} s: every task waits, and no timer, thread or I/O can wake one:"
            f"{_lines(waiting)}\nWake what they wait for, or put a time-out around the wait.",
            code=code,
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.time, self.waiting))


class LivelockError(ActorflowError):
    """Something runs on and on: the limit of turns, or of passes of the event loop between two turns, is used up.

    Attributes:
        time: The virtual time at that moment, in seconds.
        suspects: One line for each task that may be the cause.
    """

    def __init__(self, time: float, what: str, suspects: tuple[str, ...], *, code: str = "AF091") -> None:
        self.time = time
        self.what = what
        self.suspects = suspects
        super().__init__(f"no end at virtual time {time:.12g} s {what}:{_lines(suspects)}", code=code)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.time, self.what, self.suspects))


def _lines(items: tuple[str, ...]) -> str:
    return "".join(f"\n  {item}" for item in items)


class VirtualClock:
    """The time of one simulated event loop.

    Attributes:
        now: Seconds since the loop began; starts at 0.0.

    Example:
        >>> clock = VirtualClock()
        >>> with clock.hold():
        ...     clock.now
        0.0
    """

    __slots__ = ("_held", "now")

    def __init__(self) -> None:
        self.now: float = 0.0
        self._held = 0

    def __repr__(self) -> str:
        return f"<VirtualClock {self.now:.12g} s{', held' if self._held else ''}>"

    @property
    def held(self) -> bool:
        """Whether time stands still whatever happens."""
        return self._held > 0

    @contextmanager
    def hold(self) -> Generator[None]:
        """Time stands still inside.

        For work that the loop cannot see: a subprocess, a thread of your own. Timers do not fire inside; a task that
        does nothing but sleep inside its own `hold` never wakes.
        """
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    def jump(self, seconds: float) -> None:
        """Moves time on at once, as for a machine that was suspended: timers that it passes fire late, all together.

        Args:
            seconds: By how much.
        """
        self.now = on_grid(self.now + seconds)


def on_grid(seconds: float) -> float:
    """The first moment of the grid that is not before `seconds`."""
    return seconds if seconds >= _EXACT else math.ceil(seconds / TICK) * TICK


# ------------------------------------------------------------------------------------------------- where tasks wait


def await_frames(awaitable: object) -> Iterator[FrameType]:
    """The frames of a suspended coroutine, outermost first, seen through the gates on the way."""
    while awaitable is not None:
        frame = _first(awaitable, "cr_frame", "gi_frame", "ag_frame")
        if not isinstance(frame, FrameType):
            return
        yield frame
        if frame.f_code.co_qualname == "TurnGate._gate":
            awaitable = frame.f_locals["coro"]  # a gate awaits by hand, which cr_await does not show
        else:
            awaitable = _first(awaitable, "cr_await", "gi_yieldfrom", "ag_await")


def _first(thing: object, *names: str) -> object:
    for name in names:
        value: object = getattr(thing, name, None)
        if value is not None:
            return value
    return None


def where(frames: list[FrameType]) -> str:
    """``file.py:12 in inner < file.py:30 in outer``: the frames that are not event loop or test kit; may be empty."""
    return " < ".join(
        f"{PurePath(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"
        for frame in reversed(frames)
        if not _is_machinery(str(frame.f_globals.get("__name__", "")))
    )


def _is_machinery(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in _MACHINERY)


def waiting_tasks(main: int | None) -> tuple[str, ...]:
    """A line for each task of this loop that runs somebody's code, `main` first: ``task 3 at file.py:12 in f``.

    Gated tasks go by their ticket, others by their name: the same text on asyncio and trio.
    """
    found: list[tuple[float, str]] = []
    for task in anyio.get_running_tasks():
        frames = list(await_frames(task.coro))
        place = where(frames)
        if not place:
            continue
        ticket = next((f.f_locals["ticket"] for f in frames if f.f_code.co_qualname == "TurnGate._gate"), math.inf)
        name = "main" if task.id == main else f"task {task.name if ticket == math.inf else ticket}"
        found.append((-1 if name == "main" else ticket, f"{name} at {place}"))
    return tuple(line for _, line in sorted(found))


def _threads_waiting_on_the_loop() -> int:
    return _frames_in(_FOR_A_THREAD)


def _frames_in(places: set[tuple[str, str]]) -> int:
    """How many frames of suspended tasks are in these functions."""
    return sum(
        (frame.f_globals.get("__name__"), frame.f_code.co_qualname) in places
        for task in anyio.get_running_tasks()
        for frame in await_frames(task.coro)
    )


# --------------------------------------------------------------------------------------------- what an idle loop asks


class Gate(Protocol):
    """What a `Pace` knows of the turns that tasks wait for."""

    def release(self, now: float) -> bool:
        """Lets one task go; False if none waits for its turn."""
        ...

    def adopt(self, coro: Coroutine[Any, Any, Any], context: Mapping[ContextVar[Any], Any]) -> Coroutine[Any, Any, Any]:
        """What a new task is to run instead of `coro`."""
        ...

    def surrender(self) -> None:
        """From now on lets tasks go in order, asking nobody."""
        ...


class Pace:
    """Asked by an event loop at the moment when it would sleep: whose turn it is, or how far time moves.

    Attributes:
        clock: The loop's time.
        main: Id of the task that runs the program; None while there is none.
        scope: What to cancel when the program cannot go on, so that its ``finally`` blocks run. None: there is no
            program to stop (pytest's loop, idle between two tests), so a loop with nothing to do sleeps for real.
        failure: Why the program could not go on: a deadlock, a livelock, or what a schedule or a hook raised.
        broken: Set when the program did not end after that either: the loop itself must raise it.
        gate: Through which the program's tasks go; None without a schedule.
        idlers: Set when nothing can happen any more without time moving.
        more_waiting: Gives lines for a deadlock's report beside those of the tasks.
    """

    def __init__(self, gate: Gate | None = None, clock: VirtualClock | None = None) -> None:
        self.clock: VirtualClock = VirtualClock() if clock is None else clock
        self.main: int | None = None
        self.scope: anyio.CancelScope | None = None
        self.failure: BaseException | None = None
        self.broken: BaseException | None = None
        self.gate = gate
        self.idlers: list[anyio.Event] = []
        self.more_waiting: Callable[[], tuple[str, ...]] = tuple
        self._passes = 0

    def check(self) -> None:
        """Raises what broke the simulation."""
        if self.broken is not None:
            raise self.broken

    def passed(self) -> None:
        """Told of each pass of the loop with something to run; few in a row where tasks stop at a gate."""
        self._passes += 1
        if self.gate is not None and self._passes > MAX_PASSES:
            self._passes = 0
            what = f"after {MAX_PASSES} passes of the event loop without a pause; a task spins without taking turns"
            self._fail(LivelockError(self.clock.now, what, waiting_tasks(self.main)))

    def release(self) -> bool:
        """Lets one task take its turn; False if none waits for it."""
        self.check()
        self._passes = 0
        if self.gate is None:
            return False
        try:
            return self.gate.release(self.clock.now)
        except BaseException as error:  # noqa: BLE001 - raised again by `simulate`; a loop dies of what its clock raises
            self._fail(error)
            return True

    def idle(self, deadline: float, *, threads: int, files: bool, quiet: bool) -> float:
        """Moves time to `deadline` if nothing else can happen before.

        Args:
            deadline: When the next timer fires; ``inf`` if there is none.
            threads: How many worker threads are at work.
            files: Whether any task waits for a file, a socket or a subprocess.
            quiet: Whether nothing has happened since the last call returned a time greater than 0.

        Returns:
            For how many real seconds the loop may sleep: 0, a moment to let files speak, or ``inf`` until it is woken.
        """
        if self.clock.held or (threads and threads > _threads_waiting_on_the_loop()):
            return math.inf
        if files and _frames_in(_FOR_A_PROCESS):
            return math.inf
        if files and not quiet:
            return _GRACE
        if self.idlers:
            while self.idlers:
                self.idlers.pop().set()
            return 0
        if deadline < math.inf:
            self.clock.now = max(self.clock.now, on_grid(deadline))
            return 0
        if files or self.scope is None:
            return math.inf
        self._fail(DeadlockError(self.clock.now, (*waiting_tasks(self.main), *self.more_waiting())))
        return 0

    def _fail(self, error: BaseException) -> None:
        if self.failure is None and self.scope is not None:
            self.failure = error
            if self.gate is not None:
                self.gate.surrender()
            self.scope.cancel()
        else:  # its cleanup cannot go on either
            error.__cause__ = self.failure
            self.broken = error
