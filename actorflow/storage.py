"""The contract of a store: what runs are kept in, as plain values that go in and come out.

Bodies are opaque bytes to a store; what they say is the business of whoever writes them. Three rules carry everything:
an answer means that what was asked is durable; a `Commit` counts only if its run is still at the epoch and the head
that it names; and a request that is refused has changed nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

import attrs

__all__ = [
    "Beat",
    "Claim",
    "Claimed",
    "Collect",
    "Collected",
    "Commit",
    "Committed",
    "Created",
    "Delete",
    "Entry",
    "Fork",
    "Host",
    "Leave",
    "Message",
    "NewRun",
    "Page",
    "Pending",
    "Receipt",
    "Register",
    "Request",
    "RunInfo",
    "RunQuery",
    "Snapshot",
    "Status",
    "Store",
    "StoreStats",
    "Topic",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Status(enum.IntEnum):
    """Where a run stands. Everything from `COMPLETED` on is an end.

    Example:
        >>> Status.WAITING.closed, Status.FAILED.closed
        (False, True)
    """

    RUNNABLE = 0
    """It has something to do: a host works on it, or may claim it."""
    WAITING = 1
    """It has nothing to do before a message comes, or its `wake_at`."""
    COMPLETED = 2
    FAILED = 3
    TIMED_OUT = 4
    CANCELLED = 5

    @property
    def closed(self) -> bool:
        """Whether the run is over."""
        return self >= Status.COMPLETED


class Receipt(enum.Enum):
    """What became of a message."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    """The run has a message of this id already."""
    CLOSED = "closed"
    """The run is over."""
    UNKNOWN = "unknown"
    """There is no such run."""


class Topic(enum.Enum):
    """What a hint is about."""

    WORK = "work"
    """Some run may have become one to claim, or have got a message or a permit."""
    JOURNAL = "journal"
    """Some journal may have grown."""


NOTHING: frozenset[Topic] = frozenset()


class Request(Generic[T_co]):
    """Something that changes a store, with the type of its answer. Requests are values; engines carry them out."""

    __slots__ = ()
    hints: ClassVar[frozenset[Topic]] = NOTHING
    """What other hosts and readers may want to look at once it is done."""


# ------------------------------------------------------------------------------------------------ what goes in and out


@attrs.frozen(slots=True)
class Entry:
    """One record of a run's journal.

    Attributes:
        kind: Its kind, a word.
        body: What it says.
        seq: Its number in the run's journal, counted from 1 without a gap; given by the store.
        epoch: Under which claim it was written; given by the store.
        at: When, in seconds of the store's clock; given by the store.

    Example:
        >>> Entry("done", b"{}")
        Entry(kind='done', body=b'{}', seq=0, epoch=0, at=0.0)
    """

    kind: str
    body: bytes
    seq: int = 0
    epoch: int = 0
    at: float = 0.0


@attrs.frozen(slots=True)
class Created:
    """Answer to a `NewRun`.

    Attributes:
        run_id: The run: the one asked for, or the one that the key stands for.
        fresh: Whether it was made by this request, and had not been there before.
    """

    run_id: str
    fresh: bool


@attrs.frozen(slots=True, kw_only=True)
class NewRun(Request[Created]):
    """Asks for a run. Asked again with the same id or key and the same digest, it is the same run.

    Attributes:
        run_id: Its id.
        workflow: Name of the workflow.
        version: Fingerprint of the workflow that it is for; hosts claim only versions that they can run.
        body: Body of the first record, of kind ``created``.
        digest: What must be equal when it is asked for again; by default the body itself.
        key: A second name that must be unique too, "" for none (an idempotency key of a caller who gives no run id).
        parent: The run that it is a child of, "" for none.

    Raises:
        RunConflict: By the store, when the id or the key stands for a run with another workflow or digest.

    Example:
        >>> NewRun(run_id="A-1", workflow="OrderFlow", version="v1", body=b"{}").key
        ''
    """

    hints: ClassVar[frozenset[Topic]] = frozenset({Topic.WORK, Topic.JOURNAL})
    run_id: str
    workflow: str
    version: str
    body: bytes
    digest: bytes = b""
    key: str = ""
    parent: str = ""


@attrs.frozen(slots=True, kw_only=True)
class Message(Request[Receipt]):
    """A message to a run, consumed once per `event_id` however often it is sent.

    Attributes:
        run_id: To whom.
        event_id: Its id; unique within the run.
        body: What it says.
        kind: ``event``, or a word of control such as ``cancel``.
        n: Its number in the run's inbox, counted from 1 without a gap; given by the store.
        at: When it came, in seconds of the store's clock; given by the store.

    Example:
        >>> Message(run_id="A-1", event_id="paid", body=b"{}").kind
        'event'
    """

    hints: ClassVar[frozenset[Topic]] = frozenset({Topic.WORK})
    run_id: str
    event_id: str
    body: bytes
    kind: str = "event"
    n: int = 0
    at: float = 0.0


@attrs.frozen(slots=True)
class Snapshot:
    """A run as data, as it was after a record.

    Attributes:
        codec: How the body is written.
        body: The run.
        seq: Number of the last record that it contains; in a `Commit` 0 stands for the last record of the commit.
    """

    codec: str
    body: bytes
    seq: int = 0


@attrs.frozen(slots=True)
class Committed:
    """Answer to a `Commit`.

    Attributes:
        head: Number of the run's last record.
        status: Where the run stands now: `Status.RUNNABLE` instead of `Status.WAITING` if a message has come in.
        inbox_n: How many messages the run has got so far.
        owned: Whether the host still has the run.
        granted: For each name of `take`, whether the permit was there; none is for a run that is let go of.
        sent: For each item of `outbox`, what became of it; a child that exists counts as `Receipt.DUPLICATE`.
    """

    head: int
    status: Status
    inbox_n: int
    owned: bool
    granted: tuple[bool, ...] = ()
    sent: tuple[Receipt, ...] = ()


@attrs.frozen(slots=True, kw_only=True)
class Commit(Request[Committed]):
    """All that a run does in one step of its life, atomically; refused unless epoch and head are what they are.

    Attributes:
        run_id: The run.
        epoch: Of the claim under which the host works on it.
        head: Number of the last record that the host knows of.
        entries: Records to append.
        seen: Number of the last message that the host has taken out of the inbox.
        status: Where the run stands afterwards. `Status.WAITING` counts only if there is no message after `seen`.
        wake_at: When a waiting run has something to do again, in seconds of the store's clock; None for never.
        release: Give the run back. A waiting run stays the host's if a message has come in.
        outbox: Messages to other runs, and runs to make.
        take: Permits to take: pairs of a limit's name and how many permits it has in all.
        free: Names of limits whose permit is given back, one each. All are, with `release` or when the run closes.
        snapshot: The run as it is after these records, or as it was after the earlier one that its `seq` names.
        trouble: Why the host cannot work on the run and gives it back; kept with the run until the next commit.

    Raises:
        Fenced: By the store, when another host has had the run since.

    Example:
        >>> Commit(run_id="A-1", epoch=1, head=1, entries=[Entry("done", b"{}")], seen=0).status.name
        'RUNNABLE'
    """

    run_id: str
    epoch: int
    head: int
    seen: int
    entries: Sequence[Entry] = ()
    status: Status = Status.RUNNABLE
    wake_at: float | None = None
    release: bool = False
    outbox: Sequence[Message | NewRun] = ()
    take: Sequence[tuple[str, int]] = ()
    free: Sequence[str] = ()
    snapshot: Snapshot | None = None
    trouble: str = ""

    @property
    def gives_work(self) -> bool:
        """Whether somebody else may have something to do because of it."""
        return bool(self.outbox or self.free or self.release or self.status.closed)


@attrs.frozen(slots=True)
class Host:
    """A process that works on runs of a store.

    Attributes:
        id: Its id; a new one for each registration.
        ttl: How long its lease lasts without a `Beat`, in seconds.
    """

    id: str
    ttl: float


@attrs.frozen(slots=True, kw_only=True)
class Register(Request[Host]):
    """Makes a host known.

    Attributes:
        caps: Which runs it can work on: pairs of workflow and version.
        ttl: How long its lease lasts without a `Beat`, in seconds. It matters when the process hangs; when it dies the
            kernel says so at once.
    """

    caps: Sequence[tuple[str, str]] = ()
    ttl: float = 10.0


@attrs.frozen(slots=True)
class Beat(Request[None]):
    """Renews a host's lease. Due every third of its `ttl`.

    Attributes:
        host: Id of the host.

    Raises:
        Fenced: By the store, when the lease had run out: the host must drop its runs and register anew.
    """

    host: str


@attrs.frozen(slots=True)
class Leave(Request[None]):
    """Makes a host unknown and gives its runs back.

    Attributes:
        host: Id of the host.
    """

    hints: ClassVar[frozenset[Topic]] = frozenset({Topic.WORK})
    host: str


@attrs.frozen(slots=True, kw_only=True)
class RunInfo:
    """What a store knows of a run without reading its journal.

    Attributes:
        run_id: Its id.
        workflow: Name of its workflow.
        version: Fingerprint of the workflow that it is for.
        status: Where it stands.
        owner: Id of the host that works on it, "" for none.
        epoch: How often it has changed hands.
        head: Number of its last record.
        tail: Number of the last record that retention has taken away, 0 for none.
        inbox_n: How many messages it has got.
        seen: How many of these its hosts have taken.
        snap_seq: After which record its newest snapshot was made, 0 for none.
        wake_at: When it has something to do by itself, in seconds of the store's clock.
        parent: The run that it is a child of, "" for none.
        key: Its second name, "" for none.
        forked_from: The run that it was forked from, "" for none.
        created_at: In seconds of the store's clock.
        closed_at: In seconds of the store's clock; None while it is not over.
        trouble: Why the last host could not work on it, "" where it could.
    """

    run_id: str
    workflow: str
    version: str
    status: Status
    owner: str
    epoch: int
    head: int
    tail: int
    inbox_n: int
    seen: int
    snap_seq: int
    wake_at: float | None
    parent: str
    key: str
    forked_from: str
    created_at: float
    closed_at: float | None
    trouble: str = ""


@attrs.frozen(slots=True)
class Claimed:
    """Answer to a `Claim`.

    Attributes:
        runs: Runs that are the host's now, each under the epoch that it carries.
        news: Runs that were the host's already and have messages that it has not seen: id and number of messages.
        wake_in: Seconds until a run that nobody has is due; None if there is none.
    """

    runs: tuple[RunInfo, ...] = ()
    news: tuple[tuple[str, int], ...] = ()
    wake_in: float | None = None


@attrs.frozen(slots=True)
class Claim(Request[Claimed]):
    """Gives a host runs that it can work on and that nobody has; takes them from hosts that are dead.

    Attributes:
        host: Id of the host.
        limit: How many runs at most.
        skip: Ids of runs that it does not want, and is not woken for: it has tried, and cannot work on them.

    Raises:
        Fenced: By the store, when the host's lease has run out.
    """

    host: str
    limit: int
    skip: Sequence[str] = ()


@attrs.frozen(slots=True, kw_only=True)
class Fork(Request[RunInfo]):
    """Makes a run that goes on from an earlier moment of another one.

    Attributes:
        run_id: The run to copy; it may be over.
        at: Number of the last record to copy.
        seen: Number of the last message to copy.
        new_id: Id of the new run.
        last: What the last record is to say in the new run; None for what it says.

    Raises:
        WorkflowRuntimeError: By the store, when the run is unknown or has no such record.
        RunConflict: By the store, when there is a run of that id.
    """

    hints: ClassVar[frozenset[Topic]] = frozenset({Topic.WORK})
    run_id: str
    at: int
    seen: int
    new_id: str
    last: bytes | None = None


@attrs.frozen(slots=True)
class Delete(Request[bool]):
    """Removes a run that is over, and all that belongs to it. Answers whether there was such a run.

    A long one is gone at once for all who look; the last of its rows leave with the next `Collect`.

    Attributes:
        run_id: The run.

    Raises:
        WorkflowRuntimeError: By the store, when the run is not over.
    """

    run_id: str


@attrs.frozen(slots=True)
class Collected:
    """Answer to a `Collect`.

    Attributes:
        runs: How many runs are gone.
        rows: How many records, messages and snapshots are gone.
        more: Whether there was more to do than `limit` allowed.
    """

    runs: int
    rows: int
    more: bool


@attrs.frozen(slots=True, kw_only=True)
class Collect(Request[Collected]):
    """Removes runs that are over, and records behind a snapshot, once they are old: one batch.

    A child stays as long as its parent is not over: a body of that may read again how it ended.

    Attributes:
        older_than: Seconds since the run closed, or since the record was written.
        limit: How many rows one batch removes, about.
        every: Does nothing where a batch with `every` was done less than so many seconds ago, by whomever: of many hosts
            one goes on. 0 to do it now.
    """

    older_than: float
    limit: int = 1000
    every: float = 0.0


@attrs.frozen(slots=True, kw_only=True)
class RunQuery:
    """Which runs to list, newest first. What is left out is not asked about.

    Attributes:
        workflow: Of this workflow.
        status: With one of these.
        parent: Children of this run.
        prefix: Whose id begins so.
        since: Created at this moment or later, in seconds of the store's clock.
        until: Created before this moment.
        limit: How many on a page.
        after: `Page.next` of the page before.

    Example:
        >>> RunQuery(status=[Status.FAILED], limit=20).after
        ''
    """

    workflow: str | None = None
    status: Sequence[Status] | None = None
    parent: str | None = None
    prefix: str = ""
    since: float | None = None
    until: float | None = None
    limit: int = 100
    after: str = ""


@attrs.frozen(slots=True)
class Page:
    """Some runs of a list.

    Attributes:
        runs: Newest first.
        next: Where the next page begins; "" where there is none.
    """

    runs: tuple[RunInfo, ...]
    next: str


@attrs.frozen(slots=True, kw_only=True)
class StoreStats:
    """How a store is.

    Attributes:
        runs: How many runs there are: workflow, version, status and count.
        homeless: Runs with something to do whose version no host can run: workflow, version and count.
        troubled: Runs that the last host could not work on: id, workflow and why, 100 at most.
        hosts: How many hosts are registered, dead ones included that nobody has noticed.
        size: Bytes that the data takes up.
        groups: Transactions that this store object has committed.
        requests: Requests in them.
        failures: Transactions that failed.
        failure: What the last of them failed of, "" while the last transaction is well.
    """

    runs: tuple[tuple[str, str, Status, int], ...]
    homeless: tuple[tuple[str, str, int], ...]
    hosts: int
    size: int
    groups: int
    requests: int
    failures: int
    failure: str
    troubled: tuple[tuple[str, str, str], ...] = ()


# ------------------------------------------------------------------------------------------------------- the contract


class Pending(Protocol[T_co]):
    """An answer that is on its way."""

    @property
    def done(self) -> bool:
        """Whether it is here."""
        ...

    async def wait(self) -> T_co:
        """The answer; cancelled, the request is carried out nevertheless.

        Raises:
            StoreError: The group that the request was in has failed.
            ActorflowError: The request was refused.
        """
        ...


class Store(Protocol):
    """Where runs are kept: journals, inboxes, snapshots, permits, and who works on what.

    Every answer to something that changes the store means that it is durable. An error of the engine fails all requests
    of its group and drops the claims of every host registered here: register anew, claim, read. Requests of one task
    are carried out in the order in which they were made.

    Whoever is cancelled while waiting for an answer has asked: what became of it is learnt by reading.
    """

    async def open(self) -> None:
        """Makes the store ready in the running event loop. Opened twice, it is closed with the second `close`.

        Raises:
            StoreError: It cannot be opened; the message says why.
        """
        ...

    async def close(self) -> None:
        """Lets go of everything. Hosts that have not left are dead from now on."""
        ...

    def now(self) -> float:
        """The store's clock in seconds: one for all hosts, never set back; about the time of day."""
        ...

    def ask(self, request: Request[T], /, then: Callable[[T | Exception], object] | None = None) -> Pending[T]:
        """Puts a request into the queue without waiting; requests are carried out in this order.

        Args:
            request: What to do.
            then: Called in the event loop with the answer or the error, before anyone who waits goes on.
        """
        ...

    async def create(self, run: NewRun, /) -> Created:
        """Makes a run, or finds the one that this request has made before."""
        ...

    async def deliver(self, message: Message, /) -> Receipt:
        """Puts a message into a run's inbox, once."""
        ...

    async def commit(self, commit: Commit, /) -> Committed:
        """Appends to a run's journal, with all that belongs to it."""
        ...

    async def register(self, caps: Sequence[tuple[str, str]], /, *, ttl: float = 10.0) -> Host:
        """Makes a host known."""
        ...

    async def beat(self, host: Host, /) -> None:
        """Renews a host's lease."""
        ...

    async def leave(self, host: Host, /) -> None:
        """Makes a host unknown and gives its runs back."""
        ...

    async def claim(self, host: Host, /, limit: int, *, skip: Sequence[str] = ()) -> Claimed:
        """Gives a host runs to work on."""
        ...

    async def fork(self, fork: Fork, /) -> RunInfo:
        """Makes a run out of the beginning of another one."""
        ...

    async def delete(self, run_id: str, /) -> bool:
        """Removes a run that is over; whether there was one."""
        ...

    async def gc(self, older_than: float, /, *, limit: int = 1000, every: float = 0.0) -> Collected:
        """Removes one batch of what is older than `older_than` seconds and no longer needed."""
        ...

    async def get(self, run_id: str, /) -> RunInfo | None:
        """What is known of a run; None if there is none."""
        ...

    async def runs(self, query: RunQuery, /) -> Page:
        """A page of the list of runs."""
        ...

    async def read(
        self, run_id: str, /, *, after: int = 0, until: int | None = None, limit: int = 10_000
    ) -> list[Entry]:
        """Records of a run in order: those numbered above `after` and up to `until`, `limit` at most.

        Only durable records, without a gap: ``after=entries[-1].seq`` goes on where this ended, now or later.
        """
        ...

    async def inbox(self, run_id: str, /, *, after: int = 0, limit: int = 10_000) -> list[Message]:
        """Messages of a run in order, those numbered above `after`."""
        ...

    async def snapshot(self, run_id: str, /, *, at: int | None = None) -> Snapshot | None:
        """The newest snapshot of a run, of those made at record `at` or before."""
        ...

    async def wake(self, topic: Topic, seen: int, timeout: float, /) -> int:
        """Waits until something of this kind may have changed since hint number `seen`, or for `timeout` seconds.

        Hints only: one may come for nothing, and one may be missing; look again at the end of the timeout.

        Returns:
            Number of the last hint; 0 is before the first one.
        """
        ...

    async def stats(self) -> StoreStats:
        """How the store is."""
        ...
