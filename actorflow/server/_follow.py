"""What a run publishes, read from its journal once for all who look on.

Theory of operation. A run that is looked at has one `Follower`. It reads the journal as it grows, and keeps the newest
events, so that a thousand readers cost one reading. A reader is a place in that order and nothing else: no queue belongs
to it. One that is slower than the run falls out of what is kept, and reads on from the store by itself until it is back.
One task watches all followed runs; it asks the store only of runs that may have grown.
"""

from __future__ import annotations

import bisect
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Protocol

import anyio

from actorflow._records import load_record, record_serializer
from actorflow._stored import published_by
from actorflow.abc import Recorded
from actorflow.errors import ActorflowError, StoreError
from actorflow.events import Event
from actorflow.server.protocol import Vocabulary, dumped
from actorflow.storage import Store, Topic

__all__ = ["Follower", "Followers", "Item"]

logger = logging.getLogger("actorflow")

KEPT = 1_024  # events of a run in memory
KEPT_BYTES = 4 * 2**20  # about, of a run in memory
PAGE = 500  # records read at a time
BEHIND = 16  # records that are read at a time for readers who are behind what is kept
PAGES_BEHIND = 4  # of those, how many are kept at a time
POLL = 0.25  # seconds between two looks at a run that is at work elsewhere


class Item:
    """An event of a run's stream.

    Attributes:
        n: Its number, from 0.
        event: The event.
        names: Names of its class and of the classes that it derives from.
    """

    __slots__ = ("_line", "_sse", "_words", "event", "n", "names")

    def __init__(self, n: int, event: Event, words: Vocabulary) -> None:
        self.n = n
        self.event = event
        self.names = [cls.__name__ for cls in type(event).__mro__ if issubclass(cls, Event)]
        self._words = words
        self._line: bytes | None = None
        self._sse: bytes | None = None

    @property
    def line(self) -> bytes:
        """The event with its number as a line of JSON, written once for all readers."""
        if self._line is None:
            self._line = dumped({"n": self.n, "event": self._words.event(self.event)}) + b"\n"
        return self._line

    @property
    def sse(self) -> bytes:
        """The same as a Server-Sent Event."""
        if self._sse is None:
            self._sse = b"id: %d\nevent: %s\ndata: %s\n" % (self.n, self.names[0].encode(), self.line)
        return self._sse


class Local(Protocol):
    """What is known in this process of a run that is at work in it."""

    def durable(self, run_id: str, /) -> int | None:
        """Number of its last durable record; None where it is not at work here."""
        ...


class Follower:
    """A run that is looked at.

    Attributes:
        head: Number of the last record that was read.
        count: How many events it has published by then.
        closed: Whether the run is over and all of it was read.
        failed: Whether it cannot be read.
        readers: How many look on.
    """

    def __init__(self, store: Store, run_id: str, words: Vocabulary) -> None:
        self.store = store
        self.run_id = run_id
        self.words = words
        self.head = 0
        self.count = 0
        self.closed = False
        self.failed = False
        self.readers = 0
        self.asked_at = -POLL
        self._serializer = record_serializer(words.workflow)
        self._recent: deque[Item] = deque()
        self._sizes: deque[int] = deque()
        self._size = 0
        self._starts: list[int] = []
        """How many events were published before each page of records."""
        self._pages: OrderedDict[int, list[Item]] = OrderedDict()
        self._changed = anyio.Event()
        self._reading = anyio.Lock()
        self._turning = anyio.Lock()

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.closed or self.failed

    async def read_on(self) -> None:
        """Reads what the journal has got since."""
        async with self._reading:
            while not self.over:
                entries = await self.store.read(self.run_id, after=self.head, limit=PAGE)
                if not entries:
                    return
                for entry in entries:
                    if not (entry.seq - 1) % BEHIND:
                        self._starts.append(self.count)
                    try:
                        record = load_record(self.run_id, entry.kind, entry.body, self._serializer)
                    except ActorflowError:
                        logger.exception("run %s of %s cannot be shown", self.run_id, self.words.name)
                        self.failed = True
                        break
                    for event in published_by(record):
                        self._keep(Item(self.count, event, self.words), len(entry.body))
                    self.head = entry.seq
                    self.closed = entry.kind == "closed"
                self.tell()

    def _keep(self, item: Item, size: int) -> None:
        self.count += 1
        self._recent.append(item)
        self._sizes.append(size)
        self._size += size
        while len(self._recent) > KEPT or (self._size > KEPT_BYTES and len(self._recent) > 1):
            self._recent.popleft()
            self._size -= self._sizes.popleft()

    def tell(self) -> None:
        """Wakes those who look on."""
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def grown(self, timeout: float) -> bool:
        """Waits until there is more to read; False where that took too long."""
        with anyio.move_on_after(timeout) as scope:
            await self._changed.wait()
        return not scope.cancelled_caught

    async def items(self, after: int, types: Iterable[str], heartbeat: float) -> AsyncGenerator[Item | None]:
        """The events behind number `after`, as they come; None now and then where none does.

        Raises:
            StoreError: The store fails.
        """
        wanted = frozenset(types)
        cursor = after + 1
        while True:
            first = self.count - len(self._recent)
            if cursor < self.count:
                item = self._recent[cursor - first] if cursor >= first else await self._behind(cursor)
                cursor += 1
                if not wanted or wanted.intersection(item.names):
                    yield item
                del item  # what a reader that stalls holds is what it was given
            elif self.over:
                return
            elif not await self.grown(heartbeat):
                yield None

    async def _behind(self, cursor: int) -> Item:
        """An event that is not kept any more, read again with those around it, for whoever else is there."""
        place = bisect.bisect_right(self._starts, cursor) - 1
        within = cursor - self._starts[place]
        async with self._turning:
            page = self._pages.get(place)
            if page is None or within >= len(page):
                page, number = list[Item](), self._starts[place]
                for entry in await self.store.read(self.run_id, after=place * BEHIND, limit=BEHIND):
                    for event in published_by(load_record(self.run_id, entry.kind, entry.body, self._serializer)):
                        page.append(Item(number, event, self.words))
                        number += 1
                self._pages[place] = page
        self._pages.move_to_end(place)
        while len(self._pages) > PAGES_BEHIND:
            self._pages.popitem(last=False)
        return page[within]

    async def recorded(self, after: int, until: int | None = None) -> AsyncGenerator[list[Recorded]]:
        """The records behind number `after`, page by page."""
        while entries := await self.store.read(self.run_id, after=after, until=until, limit=PAGE):
            after = entries[-1].seq
            yield [
                Recorded(one.seq, load_record(self.run_id, one.kind, one.body, self._serializer), one.at)
                for one in entries
            ]


class Followers:
    """The runs that are looked at.

    Args:
        store: Where they are kept.
        local: Who knows of those at work here.
    """

    def __init__(self, store: Store, local: Local) -> None:
        self._store = store
        self._local = local
        self._of: dict[str, Follower] = {}
        self._more = anyio.Event()

    def __iter__(self) -> Iterator[Follower]:
        return iter(self._of.values())

    async def enter(self, run_id: str, words: Vocabulary) -> Follower:
        """Looks on; to be left with `leave`."""
        follower = self._of.get(run_id)
        if follower is None or follower.failed:
            follower = self._of[run_id] = Follower(self._store, run_id, words)
            self._more.set()
        follower.readers += 1
        try:
            await follower.read_on()
        except BaseException:
            self.leave(follower)
            raise
        return follower

    def leave(self, follower: Follower) -> None:
        """Does not look on any more."""
        follower.readers -= 1
        if not follower.readers and self._of.get(follower.run_id) is follower:
            del self._of[follower.run_id]

    async def watch(self) -> None:
        """Reads on in the runs that may have grown, for as long as it is not cancelled."""
        seen = 0
        while True:
            if not self._of:
                self._more = anyio.Event()
                await self._more.wait()
            try:
                for follower in list(self._of.values()):
                    if not follower.over and self._may_have_grown(follower):
                        await follower.read_on()
                seen = await self._store.wake(Topic.JOURNAL, seen, POLL)
            except StoreError as error:
                logger.warning("the store cannot be read by those who look on, which is tried again: %s", error)
                await anyio.sleep(1)

    def _may_have_grown(self, follower: Follower) -> bool:
        durable = self._local.durable(follower.run_id)
        if durable is not None:
            return durable > follower.head
        now = anyio.current_time()
        if now - follower.asked_at < POLL:
            return False
        follower.asked_at = now
        return True
