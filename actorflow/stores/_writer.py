"""One thread that owns an engine: requests in, groups of them carried out in one transaction each, answers out.

The event loop is woken once per group. What an engine cannot do fails the whole group, and the engine drops its claims:
nobody is told that something was done that may not have been. With `inline`, the caller's own thread does the work at
once, one request a group: the same results in the same order under any schedule, for simulations.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar, cast

import anyio
import anyio.lowlevel
import attrs

from actorflow._runtime._backend import caller
from actorflow.errors import ActorflowError, StoreError
from actorflow.storage import Commit, Request, Topic

__all__ = ["Answer", "Engine", "Hints", "Question", "Writer"]

logger = logging.getLogger("actorflow")

T = TypeVar("T")
GROUP = 256
EVERYTHING = (Topic.WORK, Topic.JOURNAL)


@attrs.frozen(slots=True)
class Question(Request[T]):
    """A request that reads: what to ask the engine's connection."""

    ask: Callable[[Any], T]


class Engine(Protocol):
    """What a store of one kind is made of. All of it is called in one thread, and never by two at once."""

    name: str
    """Which store it is, for messages."""

    def open(self) -> None:
        """Connects; called again after `fail`."""
        ...

    def close(self) -> None:
        """Lets go of everything."""
        ...

    def perform(self, group: Sequence[Request[Any]]) -> list[Any]:
        """Carries out requests in one transaction.

        Returns:
            For each request its answer, or an `ActorflowError` if it is refused; a refused one has changed nothing.

        Raises:
            Exception: Nothing of the group is done, or nobody can tell.
        """
        ...

    def fail(self) -> None:
        """Called after `perform` or `tidy` raised: drops all claims, and the connection."""
        ...

    def tidy(self, *, idle: bool) -> None:
        """Called after each group, once it is answered; `idle` says that nothing is in the queue."""
        ...

    def patience(self) -> float | None:
        """For how many seconds the thread may sleep before `look`; None if nobody else writes to this store."""
        ...

    def look(self) -> Sequence[Topic]:
        """What others may have changed since the last call."""
        ...


class Answer(Generic[T]):
    """An answer that is on its way; see `actorflow.storage.Pending`."""

    __slots__ = ("_event", "_outcome", "done", "then")

    def __init__(self, then: Callable[[T | Exception], object] | None) -> None:
        self.done = False
        self.then = then
        self._outcome: Any = None
        self._event: anyio.Event | None = None

    def settle(self, outcome: Any) -> None:
        """The answer is here. In the event loop's thread."""
        self._outcome = outcome
        self.done = True
        try:
            if self.then is not None:
                self.then(outcome)
        finally:
            if self._event is not None:
                self._event.set()

    async def wait(self) -> T:
        """The answer, or the error instead."""
        if self.done:
            await anyio.lowlevel.checkpoint()
        else:
            if self._event is None:
                self._event = anyio.Event()
            await self._event.wait()
        if isinstance(self._outcome, Exception):
            try:
                raise self._outcome
            finally:
                del self  # or the traceback holds its own exception
        return cast("T", self._outcome)


class Hints:
    """Counts what may have changed, and wakes who waits for it."""

    def __init__(self) -> None:
        self._counts: Counter[Topic] = Counter()
        self._changed: dict[Topic, anyio.Event] = {}

    def give(self, topics: Sequence[Topic]) -> None:
        """Something may have changed."""
        for topic in topics:
            self._counts[topic] += 1
            changed = self._changed.pop(topic, None)
            if changed is not None:
                changed.set()

    async def wait(self, topic: Topic, seen: int, timeout: float) -> int:
        """Waits for a hint after number `seen`, for `timeout` seconds; returns the number of the last one."""
        if self._counts[topic] > seen:
            await anyio.lowlevel.checkpoint()
            return self._counts[topic]
        changed = self._changed.setdefault(topic, anyio.Event())
        with anyio.move_on_after(timeout):
            await changed.wait()
        return self._counts[topic]


Work = tuple[Request[Any], "Answer[Any]"]


class Writer:
    """Takes requests and carries them out in groups.

    A request stands in the queue for as long as somebody may wait for it: the queue is as long as there are tasks, and
    whoever asks without waiting bounds himself.

    Attributes:
        hints: Given by what others do and by what is done here.
        groups: Transactions carried out.
        requests: Requests in them.
        failures: Transactions that failed.
        failure: What the last of them failed of, "" while the last transaction is well.
    """

    def __init__(self, engine: Engine, *, inline: bool, hints: Hints) -> None:
        self.engine = engine
        self.hints = hints
        self.groups = self.requests = self.failures = 0
        self.failure = ""
        self._inline = inline
        self._queue: SimpleQueue[Work | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._call: Callable[[Callable[[], object]], object] = _at_once
        self._deserted = False
        self._broken = False
        self._open = False
        self._looked = 0.0

    async def start(self) -> None:
        """Opens the engine.

        Raises:
            StoreError: It cannot be opened.
        """
        opened: Answer[None] = Answer(None)
        if self._inline:
            opened.settle(self._opened())
        else:
            self._call = caller()
            # Of its own: a thread of anyio's pool would count against everybody's limit for as long as the store lives.
            self._thread = threading.Thread(
                target=self._run, args=(opened,), name=f"actorflow {self.engine.name}", daemon=True
            )
            self._thread.start()
        with anyio.CancelScope(shield=True):  # an engine opens or gives up by itself
            try:
                await opened.wait()
            except ActorflowError:
                self._thread = None
                raise
        self._open = True

    async def stop(self) -> None:
        """Carries out what was asked for, and closes the engine."""
        self._open = False
        if self._thread is None:
            self.engine.close()
            return
        ended: Answer[None] = Answer(None)
        self._queue.put((_STOP, ended))
        with anyio.CancelScope(shield=True):
            await ended.wait()
        self._thread.join()
        self._thread = None

    def ask(self, request: Request[T], then: Callable[[T | Exception], object] | None = None) -> Answer[T]:
        """Puts a request into the queue; `then` is called with the outcome before anyone who waits goes on."""
        answer: Answer[T] = Answer(then)
        if not self._open:
            raise StoreError(f"{self.engine.name} is not open; open it first: async with store", code="AF221")
        if self._inline:
            group: list[Work] = [(request, answer)]
            self._settle(group, self._outcomes(group))
            self._tidy(idle=True)
        else:
            self._queue.put((request, answer))
        return answer

    async def do(self, request: Request[T]) -> T:
        """Asks and waits. Cancelled before it asks, or after; what is asked is done."""
        await anyio.lowlevel.checkpoint_if_cancelled()
        return await self.ask(request).wait()

    # ------------------------------------------------------------------------------------------------- the thread's side

    def _run(self, opened: Answer[None]) -> None:
        problem = self._opened()
        self._tell(functools.partial(opened.settle, problem))
        while problem is None:
            group = self._next_group()
            stop = group.pop() if group and group[-1][0] is _STOP else None
            if group:
                outcomes = self._outcomes(group)
                self._tell(functools.partial(self._settle, group, outcomes))
                self._tidy(idle=self._queue.empty())
                patience = None if self._broken else self.engine.patience()
                if patience is not None and time.monotonic() - self._looked >= patience:
                    self._look()
            if stop is not None or self._deserted:
                self.engine.close()
            if self._deserted:
                return
            if stop is not None:
                self._tell(functools.partial(stop[1].settle, None))
                return

    def _next_group(self) -> list[Work]:
        """Waits for a request and takes those behind it; looks meanwhile at what others do."""
        first: Work | None = None
        while first is None:
            patience = None if self._broken else self.engine.patience()
            try:
                first = self._queue.get(timeout=patience)
            except Empty:
                self._look()
        group = [first]
        while len(group) < GROUP and group[-1][0] is not _STOP:
            try:
                work = self._queue.get_nowait()
            except Empty:
                break
            if work is not None:
                group.append(work)
        return group

    def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            topics = self.engine.look()
        except Exception as error:  # noqa: BLE001 - told to whoever asks next
            self._fail(error)
            topics = EVERYTHING
        if topics:
            self._tell(functools.partial(self.hints.give, topics))

    def _outcomes(self, group: Sequence[Work]) -> list[Any]:
        """Answers and refusals of a group; the same error for each where the engine failed."""
        try:
            if self._broken:
                self.engine.open()
                self._broken = False
            outcomes = self.engine.perform([request for request, _ in group])
        except BaseException as error:  # noqa: BLE001 - whatever it was, nobody may wait for ever
            self._fail(error)
            return [self._lost(error) for _ in group]
        self.groups += 1
        self.requests += len(group)
        self.failure = ""
        return outcomes

    def _settle(self, group: Sequence[Work], outcomes: Sequence[Any]) -> None:
        """Hands a group its answers. In the event loop's thread."""
        topics: set[Topic] = set()
        for (request, answer), outcome in zip(group, outcomes, strict=True):
            try:
                answer.settle(outcome)
            except Exception:  # the others wait too
                logger.exception(
                    "what was to happen with an answer of %s failed; this is a bug in actorflow, please report it",
                    self.engine.name,
                )
            if isinstance(request, Commit):
                topics.update(EVERYTHING if request.gives_work else (Topic.JOURNAL,))
            else:
                topics |= request.hints
        self.hints.give([topic for topic in EVERYTHING if topic in topics])

    def _tidy(self, *, idle: bool) -> None:
        if not self._broken:
            try:
                self.engine.tidy(idle=idle)
            except Exception as error:  # noqa: BLE001 - what is done stays done; the engine is opened anew
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.failures += 1
        self.failure = f"{type(error).__name__}: {error}"
        self._broken = True
        try:
            self.engine.fail()
        except Exception as another:  # noqa: BLE001 - the thread goes on, or whoever asks next would wait for ever
            self.failure += f"; then {type(another).__name__}: {another}"

    def _opened(self) -> Exception | None:
        try:
            self.engine.open()
        except Exception as error:  # noqa: BLE001 - handed to whoever opens
            self._fail(error)
            self._broken = False  # it was never whole
            return error if isinstance(error, ActorflowError) else self._lost(error)
        return None

    def _lost(self, error: BaseException) -> StoreError:
        lost = StoreError(
            f"{self.engine.name} could not do what it was asked ({type(error).__name__}: {error}); nothing of it counts as "
            "done. Register again, claim and read; look at the disk if it stays so",
            code="AF220",
        )
        lost.__cause__ = error
        return lost

    def _tell(self, what: Callable[[], object]) -> None:
        try:
            self._call(what)
        except RuntimeError:
            self._deserted = True  # the loop is over: nobody waits any more


def _at_once(call: Callable[[], object]) -> None:
    """Stands for the loop where there is no thread."""
    call()


class _Stop(Request[None]):
    __slots__ = ()


_STOP = _Stop()
