"""The events that a run publishes: one buffer, many readers, each with a cursor of its own."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import AsyncIterator, Iterable

import anyio
import anyio.lowlevel

from actorflow import handle
from actorflow.errors import StreamLagged
from actorflow.events import Event, InternalEvent

__all__ = ["Hub", "Stream"]

KEEP = 1_024
"""How many events are kept for readers to come."""

STREAM_LIMIT = 65_536
"""How many unread events an attached reader holds before it loses the oldest."""


class Hub:
    """Buffer of a run's published events.

    What the slowest attached reader has not read is held up to `STREAM_LIMIT`; with no reader the last `KEEP` are.

    Attributes:
        first: Number of the oldest event that is kept.
        closed: Whether the terminal event has been published; it is the last one and never dropped.
        resume: Where a reader left off that broke out of its loop: the next reader goes on there.
    """

    __slots__ = ("_events", "_readers", "_wake", "closed", "first", "resume")

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._readers: weakref.WeakSet[_Reader] | None = None
        self._wake: anyio.Event | None = None
        self.first = 0
        self.closed = False
        self.resume: int | None = None

    @classmethod
    def restored(cls, first: int, events: Iterable[Event], resume: int | None) -> Hub:
        """A buffer that goes on where another one was."""
        hub = cls()
        hub.first = first
        hub._events.extend(events)
        hub.resume = resume
        return hub

    @property
    def events(self) -> Iterable[Event]:
        """What is kept, from `first` on."""
        return self._events

    @property
    def end(self) -> int:
        """Number that the next published event gets."""
        return self.first + len(self._events)

    def publish(self, event: Event) -> None:
        """Adds an event and wakes the readers that wait."""
        events = self._events
        events.append(event)
        if len(events) > KEEP:
            self._drop()
        if self._wake is not None:
            self._wake.set()
            self._wake = None

    def _drop(self) -> None:
        end = self.first + len(self._events)
        needed = end - KEEP
        if self._readers:
            needed = min(needed, max(min(reader.cursor for reader in self._readers), end - STREAM_LIMIT))
        while self.first < needed:
            self._events.popleft()
            self.first += 1

    def close(self, event: Event) -> None:
        """Publishes the terminal event."""
        self.closed = True
        self.publish(event)

    def attach(self, reader: _Reader) -> None:
        """Counts a reader among those whose unread events are held."""
        if self._readers is None:
            self._readers = weakref.WeakSet()
        self._readers.add(reader)

    def get(self, number: int) -> Event:
        """The event with this number."""
        return self._events[number - self.first]

    async def wait(self) -> None:
        """Returns when something has been published."""
        if self._wake is None:
            self._wake = anyio.Event()
        await self._wake.wait()


class Stream(handle.Stream):
    """One reader's view of a `Hub`; the public contract is `actorflow.handle.Stream`."""

    __slots__ = ("__weakref__", "_cursor", "_hub", "internal")

    def __init__(self, hub: Hub, cursor: int, *, internal: bool = False) -> None:
        self._hub = hub
        self._cursor = cursor
        self.internal = internal

    @property
    def cursor(self) -> int:
        """Number of the next event to be read."""
        return self._cursor

    def moved(self, cursor: int) -> None:
        """Told by its iterator where the reader is now."""
        self._cursor = cursor

    def __aiter__(self) -> AsyncIterator[Event]:
        hub = self._hub
        if hub.closed and self._cursor == hub.end:
            self._cursor = hub.first
        hub.resume = None
        return _Reader(hub, self)


class _Reader:
    """One ``async for`` over a stream.

    The loop alone holds it, so it is gone at the moment of a ``break``: that is how a reader that left is told from one
    that is busy in the body of its loop.
    """

    __slots__ = ("__weakref__", "_hub", "_stream", "cursor")

    def __init__(self, hub: Hub, stream: Stream) -> None:
        self._hub = hub
        self._stream = stream
        self.cursor = stream.cursor
        hub.attach(self)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        hub = self._hub
        if not self.cursor & 31:
            # A reader that is always behind would otherwise never let anyone run, nor be cancelled.
            await anyio.lowlevel.checkpoint()
        internal = self._stream.internal
        while True:
            while self.cursor >= hub.end:
                if hub.closed:
                    raise StopAsyncIteration
                await hub.wait()
            if internal or self.cursor < hub.first or not isinstance(hub.get(self.cursor), InternalEvent):
                break
            self.cursor += 1
        if self.cursor < hub.first:
            missed, self.cursor = hub.first - self.cursor, hub.first
            self._stream.moved(self.cursor)
            raise StreamLagged(missed)
        event = hub.get(self.cursor)
        self.cursor += 1
        self._stream.moved(self.cursor)
        return event

    def __del__(self) -> None:
        hub = self._hub
        if not (hub.closed and self.cursor == hub.end):
            hub.resume = self.cursor
