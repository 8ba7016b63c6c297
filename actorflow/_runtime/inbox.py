"""An actor's bounded queue, and the lanes in which senders' events wait for room in it.

The queue is an anyio memory object stream that nobody ever waits inside: anyio's ``send()`` checkpoints before it
offers the item, which would leave order and custody to the loop. All waiting is ours: an event that finds no room is
parked in its sender's lane, and whoever takes an event out of the inbox moves the oldest parked one in. An event is
in a lane or in the inbox, never in both or neither, because every move is one synchronous block.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import anyio
from anyio import create_memory_object_stream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

__all__ = ["Inbox", "Lane", "Outbox", "Room"]


class Holder(Protocol):
    """Who waits for room: told at the moment it need not wait any more, not when its task gets to run."""

    def released(self) -> None: ...


class Room:
    """One task's wait for room."""

    __slots__ = ("event", "holder", "over")

    def __init__(self, holder: Holder | None) -> None:
        self.event = anyio.Event()
        self.holder = holder
        self.over = False

    def open(self) -> None:
        if not self.over:
            self.over = True
            self.event.set()
            if self.holder is not None:
                self.holder.released()


class Lane:
    """The events of one sender that wait for room in one inbox, oldest first."""

    __slots__ = ("inbox", "items", "outbox")

    def __init__(self, outbox: Outbox, inbox: Inbox) -> None:
        self.outbox = outbox
        self.inbox = inbox
        self.items: deque[tuple[Any, Room | None]] = deque()

    def move(self) -> None:
        """Moves the oldest event into the inbox, which has room or is being grown."""
        item, room = self.items.popleft()
        outbox = self.outbox
        self.inbox.push(item)
        outbox.parked -= 1
        if not self.items:
            del outbox.lanes[self.inbox]
        if room is not None:
            room.open()
        if not outbox.parked:
            outbox.settle()

    def take_out(self, wanted: Callable[[Any], bool]) -> list[Any]:
        """Takes out the events that are not to wait any more."""
        taken: list[Any] = []
        for _ in range(len(self.items)):
            item, room = entry = self.items.popleft()
            if not wanted(item):
                self.items.append(entry)
                continue
            taken.append(item)
            if room is not None:
                room.open()
        if taken:
            outbox = self.outbox
            outbox.parked -= len(taken)
            if not self.items:
                del outbox.lanes[self.inbox]
            outbox.settle()
        return taken


class Outbox:
    """What one sender has sent and no inbox had room for: one lane per receiver.

    Attributes:
        parked: How many events wait in all lanes.
        drained: Opened when the last of them has moved.
    """

    __slots__ = ("drained", "lanes", "parked")

    def __init__(self) -> None:
        self.lanes: dict[Inbox, Lane] = {}
        self.parked = 0
        self.drained: Room | None = None

    def park(self, inbox: Inbox, item: Any, room: Room | None = None) -> None:
        """Lets an event wait in the lane to `inbox`."""
        lane = self.lanes.get(inbox)
        if lane is None:
            lane = self.lanes[inbox] = Lane(self, inbox)
            if inbox.lanes is None:
                inbox.lanes = deque()
            inbox.lanes.append(lane)
        lane.items.append((item, room))
        self.parked += 1

    def settle(self) -> None:
        """Wakes who waits for all of it to have moved, if it has."""
        if not self.parked and self.drained is not None:
            drained, self.drained = self.drained, None
            drained.open()


class Inbox:
    """A bounded queue of events in front of one actor, made when the first event has to queue.

    Attributes:
        capacity: How many events it takes; the bound that `@step(inbox=)` names.
        n: How many it holds. More than `capacity` only while a cycle of full inboxes is being resolved.
        high: The most that it ever held.
        lanes: Senders that wait for room, in turn. Never non-empty while there is room.
    """

    __slots__ = ("_receive", "_send", "_size", "capacity", "high", "lanes", "n")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.n: int = 0
        self.high: int = 0
        self.lanes: deque[Lane] | None = None
        self._size = 0
        self._send: MemoryObjectSendStream[Any]
        self._receive: MemoryObjectReceiveStream[Any]

    def push(self, item: Any) -> None:
        """Puts an event in; whether there is room is the caller's business."""
        if self.n == self._size:
            self._resize()
        self._send.send_nowait(item)
        self.n += 1
        if self.n > self.high:  # noqa: PLR1730 - max() costs a call on the hot path
            self.high = self.n

    def pop(self) -> Any:
        """Takes the oldest event out and lets parked ones in."""
        item = self._receive.receive_nowait()
        self.n -= 1
        if self.lanes:
            self.admit()
        return item

    def take(self) -> Any:
        """Takes the oldest event out; `admit` is to follow, in the same breath."""
        self.n -= 1
        return self._receive.receive_nowait()

    def admit(self) -> None:
        """Moves parked events in while there is room, one of each sender in turn."""
        lanes = self.lanes
        while lanes and self.n < self.capacity:
            lane = lanes.popleft()
            lane.move()
            if lane.items:
                lanes.append(lane)

    def grow(self, lane: Lane) -> None:
        """Takes one event of `lane` above the capacity, to resolve a cycle of full inboxes."""
        lane.move()
        if not lane.items and self.lanes is not None:
            self.lanes.remove(lane)

    def take_out(self, wanted: Callable[[Any], bool]) -> list[Any]:
        """Takes out, wherever they stand, the events that nobody is to get any more; the others keep their order."""
        taken = self.take_out_queued(wanted)
        self.n -= len(taken)
        for lane in list(self.lanes or ()):
            taken += lane.take_out(wanted)
            if not lane.items and self.lanes is not None:
                self.lanes.remove(lane)
        self.admit()
        return taken

    def listed(self) -> list[Any]:
        """All that is queued or waits in a lane, in order; it stays where it is."""
        found: list[Any] = []

        def look(item: Any) -> bool:
            found.append(item)
            return False

        self.take_out(look)
        return found

    def take_out_queued(self, wanted: Callable[[Any], bool]) -> list[Any]:
        """Takes such events out of the queue."""
        taken: list[Any] = []
        for _ in range(self.n):
            item = self._receive.receive_nowait()
            if wanted(self.content(item)):
                taken.append(self.content(item))
            else:
                self._send.send_nowait(item)
        return taken

    def content(self, item: Any) -> Any:
        """The event in what the queue holds: the same, but for inboxes that wrap it."""
        return item

    def _resize(self) -> None:
        """A stream of the right size: the declared bound at first, twice as much when a cycle made it grow.

        Nobody waits inside the stream, so moving its items without an await in between is safe.
        """
        size = self._size * 2 if self._size else self.capacity
        send, receive = create_memory_object_stream[Any](size)
        if self._size:
            for _ in range(self.n):
                send.send_nowait(self._receive.receive_nowait())
            self._send.close()
            self._receive.close()
        self._send, self._receive, self._size = send, receive, size

    def close(self) -> Iterator[Any]:
        """Ends the queue and yields what it and its lanes still hold."""
        if self._size:
            while self.n:
                self.n -= 1
                yield self._receive.receive_nowait()
            self._send.close()
            self._receive.close()
            self._size = 0
        while self.lanes:
            for item, _ in self.lanes.popleft().items:
                yield item
