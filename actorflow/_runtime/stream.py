"""The events that a run publishes: one buffer, many readers, each with a cursor of its own."""

from __future__ import annotations

import itertools
import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Generic

import anyio
import anyio.lowlevel

from actorflow import handle
from actorflow.errors import StreamLagged
from actorflow.events import Event, InternalEvent
from actorflow.handle import E_co

__all__ = ["Hub", "Stream"]

KEEP = 1_024
"""How many events are kept for readers to come."""

STREAM_LIMIT = 65_536
"""How many unread events an attached reader holds before it loses the oldest."""

SLACK = 256
"""While readers are attached, old events are dropped so many at a time: where the readers are is not asked per event."""


class Hub:
    """Buffer of a run's published events.

    What the slowest attached reader has not read is held up to `STREAM_LIMIT`; with no reader the last `KEEP` are.

    Attributes:
        first: Number of the oldest event that is kept.
        closed: Whether the terminal event has been published; it is the last one and never dropped.
        resume: Where readers left off that broke out of their loops, by the types that they asked for: the next reader
            that asks for the same goes on there.
    """

    __slots__ = ("_events", "_full", "_readers", "_wake", "closed", "first", "resume")

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._full = KEEP
        self._readers: weakref.WeakSet[_Reader[Any]] | None = None
        self._wake: anyio.Event | None = None
        self.first = 0
        self.closed = False
        self.resume: dict[tuple[type[Event], ...], int] | None = None

    @classmethod
    def restored(cls, first: int, events: Iterable[Event], resume: int | None) -> Hub:
        """A buffer that goes on where another one was."""
        hub = cls()
        hub.first = first
        hub._events.extend(events)
        hub.resume = None if resume is None else {(): min(max(resume, first), hub.end)}
        return hub

    def unread(self) -> tuple[int, Sequence[Event], int | None]:
        """What is kept and some reader has not read, or anybody, where there is no reader.

        Returns:
            The number of the first, all of it, and where a reader of all types is, or left off.
        """
        readers = list(self._readers or ())
        places = [*(self.resume or {}).values(), *(reader.cursor for reader in readers)]
        whole = [reader.cursor for reader in readers if not reader.types]
        if self.resume is not None and () in self.resume:
            whole.append(self.resume[()])
        first = max(self.first, min(places, default=0))
        kept = list(itertools.islice(self._events, first - self.first, None))
        return first, kept, min(whole, default=None)

    @property
    def end(self) -> int:
        """Number that the next published event gets."""
        return self.first + len(self._events)

    def publish(self, event: Event) -> None:
        """Adds an event and wakes the readers that wait."""
        events = self._events
        events.append(event)
        if len(events) > self._full:
            self._drop()
        if self._wake is not None:
            self._wake.set()
            self._wake = None

    def _drop(self) -> None:
        end = self.first + len(self._events)
        needed = end - KEEP
        if self._readers:
            slowest = min(reader.cursor for reader in self._readers)
            needed = min(needed, max(slowest, end - STREAM_LIMIT))
            if slowest < needed:
                for reader in self._readers:
                    reader.lose(needed)
        while self.first < needed:
            self._events.popleft()
            self.first += 1
        if self._readers:
            self._full = max(min(len(self._events) + SLACK, STREAM_LIMIT), KEEP)

    def detach(self) -> None:
        """A reader has left: the next event finds out what is still held for the others."""
        self._full = KEEP

    def close(self, event: Event) -> None:
        """Publishes the terminal event."""
        self.closed = True
        self.publish(event)

    def attach(self, reader: _Reader[Any]) -> None:
        """Counts a reader among those whose unread events are held."""
        if self._readers is None:
            self._readers = weakref.WeakSet()
        self._readers.add(reader)

    def get(self, number: int) -> Event:
        """The event with this number."""
        return self._events[number - self.first]

    @property
    def kept(self) -> Sequence[Event]:
        """All that is kept, from number `first` on."""
        return self._events

    async def wait(self) -> None:
        """Returns when something has been published."""
        if self._wake is None:
            self._wake = anyio.Event()
        await self._wake.wait()


class Stream(handle.Stream[E_co]):
    """One reader's view of a `Hub`; the public contract is `actorflow.handle.Stream`.

    Attributes:
        types: What it shows; empty for all.
    """

    __slots__ = ("__weakref__", "_cursor", "_hub", "_internal", "types")

    def __init__(
        self, hub: Hub, types: tuple[type[Event], ...] = (), *, after: int | None = None, internal: bool = False
    ) -> None:
        self._hub = hub
        self.types = types
        if after is not None:
            self._cursor = after + 1
        else:
            self._cursor = hub.first if hub.resume is None else hub.resume.get(types, hub.first)
        # Who names a type of the runtime's own events wants to see it.
        named = tuple(kind for kind in types if issubclass(kind, InternalEvent))
        self._internal: tuple[type[Event], ...] = (InternalEvent,) if internal else named

    @property
    def cursor(self) -> int:
        """Number of the next event to be read."""
        return self._cursor

    def moved(self, cursor: int) -> None:
        """Told by its iterator where the reader is now."""
        self._cursor = cursor

    def shows(self, event: Event) -> bool:
        """Whether the reader is to see the event."""
        if self.types and not isinstance(event, self.types):
            return False
        return not isinstance(event, InternalEvent) or isinstance(event, self._internal)

    def __aiter__(self) -> AsyncIterator[E_co]:
        hub = self._hub
        if hub.closed and self._cursor == hub.end:
            self._cursor = hub.first
        if hub.resume is not None:
            hub.resume.pop(self.types, None)
        return _Reader(hub, self)


class _Reader(Generic[E_co]):
    """One ``async for`` over a stream.

    The loop alone holds it, so it is gone at the moment of a ``break``: that is how a reader that left is told from one
    that is busy in the body of its loop.
    """

    __slots__ = ("__weakref__", "_hub", "_lost", "_stream", "cursor")

    def __init__(self, hub: Hub, stream: Stream[E_co]) -> None:
        self._hub = hub
        self._stream = stream
        self._lost = 0
        self.cursor = stream.cursor
        # What was dropped before it came can only be counted, not looked at.
        if self.cursor < hub.first:
            self._lost, self.cursor = hub.first - self.cursor, hub.first
        hub.attach(self)

    @property
    def types(self) -> tuple[type[Event], ...]:
        """The types of events that it was asked for; () for all."""
        return self._stream.types

    def lose(self, end: int) -> None:
        """The events before number `end` are about to be dropped: counts those that it would have shown."""
        while self.cursor < end:
            self._lost += self._stream.shows(self._hub.get(self.cursor))
            self.cursor += 1

    def __aiter__(self) -> AsyncIterator[E_co]:
        return self

    async def __anext__(self) -> E_co:
        hub, stream = self._hub, self._stream
        kept, types = hub.kept, stream.types
        while True:
            if not self.cursor & 31:
                # A reader that is always behind would otherwise never let anyone run, nor be cancelled.
                await anyio.lowlevel.checkpoint()
            while self.cursor - hub.first >= len(kept) and not self._lost:
                if hub.closed:
                    stream.moved(self.cursor)
                    raise StopAsyncIteration
                await hub.wait()
            if self._lost:
                missed, self._lost = self._lost, 0
                stream.moved(self.cursor)
                raise StreamLagged(missed)
            event = kept[self.cursor - hub.first]
            self.cursor += 1
            # What nearly every event is, looked at here: a call for each is dear.
            if (not types and not isinstance(event, InternalEvent)) or stream.shows(event):
                stream._cursor = self.cursor
                # It is of the types that the stream was asked for. No cast: a call for each event.
                return event  # type: ignore[return-value] # pyright: ignore[reportReturnType]

    def __del__(self) -> None:
        hub = self._hub
        hub.detach()
        if not (hub.closed and self.cursor == hub.end):
            if hub.resume is None:
                hub.resume = {}
            hub.resume[self._stream.types] = self.cursor
