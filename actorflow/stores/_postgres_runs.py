"""What a PostgreSQL store does for many runs, messages and commits at once: reads and locks what they are about, decides, writes.

Two round trips for a group, however large: the first locks the rows of its runs, always in the order of their ids so that
hosts do not wait for each other in a circle; the second writes what the pure functions in the middle have come to, and
commits. The statement that appends to journals moves only runs that are where they were found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs

from actorflow.errors import ActorflowError, Fenced, RunConflict, WorkflowRuntimeError
from actorflow.storage import Commit, Committed, Created, Message, NewRun, Receipt, Request, Status
from actorflow.stores._postgres_db import CLOCK, Database, insist, lock_number

__all__ = ["Hot", "Told", "carry_out"]

Hot = NewRun | Message | Commit
"""What comes often, and is carried out many at a time."""


@attrs.define(slots=True)
class Told:
    """Who may have something to do afterwards.

    Attributes:
        everybody: Whether every host may.
        owners: Hosts whose runs have got messages.
        readers: Whether a run is over that others may wait for.
    """

    everybody: bool = False
    owners: set[str] = attrs.field(factory=set[str])
    readers: bool = False


@attrs.define(slots=True, eq=False)
class Row:
    """A run, as far as it is about here. `was` is the head that it was found with."""

    run_id: str
    workflow: str
    digest: bytes
    status: int
    owner: str
    epoch: int
    head: int
    inbox_n: int
    seen: int
    snap_seq: int
    wake_at: float | None
    trouble: str
    was: int
    new: NewRun | None = None
    changed: bool = False


@attrs.define(slots=True)
class Unit:
    """What was found, as it is after the requests so far; and what they have added."""

    rows: dict[str, Row] = attrs.field(factory=dict[str, Row])
    keys: dict[str, Row] = attrs.field(factory=dict[str, Row])
    known: set[tuple[str, str]] = attrs.field(factory=set[tuple[str, str]])
    permits: dict[tuple[str, str], int] = attrs.field(factory=dict[tuple[str, str], int])
    permits_changed: dict[tuple[str, str], int] = attrs.field(factory=dict[tuple[str, str], int])
    trash: set[str] = attrs.field(factory=set[str])
    entries: list[tuple[str, int, str, int, bytes]] = attrs.field(factory=list[tuple[str, int, str, int, bytes]])
    inbox: list[tuple[str, int, str, str, bytes]] = attrs.field(factory=list[tuple[str, int, str, str, bytes]])
    snapshots: dict[tuple[str, int], tuple[str, bytes]] = attrs.field(factory=dict[tuple[str, int], tuple[str, bytes]])
    let_go: set[str] = attrs.field(factory=set[str])
    told: Told = attrs.field(factory=Told)


def carry_out(db: Database, requests: Sequence[Hot]) -> tuple[list[Any], Told]:
    """Answers and refusals, in one transaction; and who is to be told."""
    refused: dict[int, ActorflowError] = {}
    for k, request in enumerate(requests):
        try:
            _check(request)
        except ActorflowError as error:
            refused[k] = error
    good = [request for k, request in enumerate(requests) if k not in refused]

    def attempt() -> tuple[list[Any], Told]:
        unit = _find(db, good)
        outcomes = [refused[k] if k in refused else _decide(unit, request) for k, request in enumerate(requests)]
        _write(db, unit)
        return outcomes, unit.told

    return db.again(attempt)


# --------------------------------------------------------------------------------------------------------- what is needed

LONGEST = 1000  # bytes of an id: an index has no room for more


def _parts(requests: Iterable[Hot]) -> Iterator[NewRun | Message]:
    for request in requests:
        if isinstance(request, Commit):
            yield from request.outbox
        else:
            yield request


def _check(request: Hot) -> None:
    """Refuses a name that PostgreSQL cannot hold: it would fail the whole group."""
    for part in _parts([request]):
        names = (part.run_id, part.event_id) if isinstance(part, Message) else (part.run_id, part.key, part.workflow)
        for name in names:
            try:
                long = len(name.encode()) > LONGEST
            except UnicodeEncodeError:
                long = True
            if long or "\0" in name:
                raise WorkflowRuntimeError(
                    f"{name[:40]!r} is no name that a PostgreSQL store can keep; give one of {LONGEST} bytes at most, "
                    "without NUL and halves of characters",
                    code="AF340",
                )


_LOCK = """
SELECT id, workflow, digest, status, owner, epoch, head, inbox_n, seen, snap_seq, wake_at, trouble, head FROM @runs
WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE
"""
_KNOWN = """
SELECT i.run, i.event_id FROM unnest(%s::text[], %s::text[]) AS a(run, event_id)
JOIN @inbox i ON i.run = a.run AND i.event_id = a.event_id
"""
_KEYS = """
SELECT id, workflow, digest, status, owner, epoch, head, inbox_n, seen, snap_seq, wake_at, trouble, head, key FROM @runs
WHERE key = ANY(%s) AND key <> ''
"""


def _find(db: Database, requests: Sequence[Hot]) -> Unit:
    """Locks what the requests are about, and reads it."""
    parts = list(_parts(requests))
    messages = [part for part in parts if isinstance(part, Message)]
    news = [part for part in parts if isinstance(part, NewRun)]
    commits = [request for request in requests if isinstance(request, Commit)]
    ids = sorted({part.run_id for part in parts} | {commit.run_id for commit in commits})
    keys = sorted({new.key for new in news if new.key})
    taken = sorted({name for commit in commits for name, _ in commit.take})
    limits = bool(taken) or any(commit.free for commit in commits)
    unit = Unit()
    with db.pipeline():
        db.begin()
        found = db.execute(_LOCK, (ids,))
        named = ([m.run_id for m in messages], [m.event_id for m in messages])
        known = db.execute(_KNOWN, named) if messages else None
        keyed = db.execute(_KEYS, (keys,)) if keys else None
        made = [new.run_id for new in news]
        trash = db.execute("SELECT run FROM @trash WHERE run = ANY(%s) FOR UPDATE", (made,)) if news else None
        for name in taken:  # counting them is for one at a time
            db.execute(f"SELECT pg_advisory_xact_lock({lock_number('%s')})", (f"permit {name}",))
        slots = "SELECT name, run, slots FROM @permits WHERE name = ANY(%s) OR run = ANY(%s)"
        permits = db.execute(slots, (taken, ids)) if limits else None
        unit.rows = {row[0]: Row(*row) for row in found.fetchall()}
        unit.known = set(known.fetchall()) if known else set()
        for row in keyed.fetchall() if keyed else ():
            unit.keys[row[-1]] = unit.rows.get(row[0]) or Row(*row[:-1])
        unit.trash = {run for (run,) in trash.fetchall()} if trash else set()
        unit.permits = {(name, run): n for name, run, n in permits.fetchall()} if permits else {}
    return unit


# --------------------------------------------------------------------------------------------------------- what is decided


def _decide(unit: Unit, request: Request[Any]) -> Any:
    try:
        if isinstance(request, Commit):
            return _commit(unit, request)
        if isinstance(request, Message):
            return _deliver(unit, request)
        assert isinstance(request, NewRun)  # noqa: S101
        return _create(unit, request)
    except ActorflowError as error:
        return error


def _create(unit: Unit, run: NewRun) -> Created:
    digest = hashlib.sha256(run.digest or run.body).digest()
    there = [row for row in (unit.rows.get(run.run_id), unit.keys.get(run.key) if run.key else None) if row is not None]
    if there:
        if any((row.workflow, row.digest) != (run.workflow, digest) for row in there) or there[0] is not there[-1]:
            asked = f"id {run.run_id!r}" if run.run_id in unit.rows else f"idempotency key {run.key!r}"
            raise RunConflict(
                f"there is a run with the {asked}, of {there[0].workflow}, that was started with something else; start the new "
                "one under another id, or ask for the old one with what it was started with",
                code="AF230",
            )
        return Created(there[0].run_id, fresh=False)
    row = Row(run.run_id, run.workflow, digest, 0, "", 0, 1, 0, 0, 0, None, "", 1, new=run)
    unit.rows[run.run_id] = row
    if run.key:
        unit.keys[run.key] = row
    unit.told.everybody = True
    return Created(run.run_id, fresh=True)


def _deliver(unit: Unit, message: Message) -> Receipt:
    row = unit.rows.get(message.run_id)
    if row is None:
        return Receipt.UNKNOWN
    if (message.run_id, message.event_id) in unit.known:
        return Receipt.DUPLICATE
    if row.status >= Status.COMPLETED:
        return Receipt.CLOSED
    unit.known.add((message.run_id, message.event_id))
    # The number is the run's own counter: whoever goes idle compares it, and so misses no message.
    row.inbox_n += 1
    row.status = 0
    row.changed = True
    unit.inbox.append((message.run_id, row.inbox_n, message.event_id, message.kind, message.body))
    if row.owner:
        unit.told.owners.add(row.owner)
    else:
        unit.told.everybody = True
    return Receipt.ACCEPTED


def _commit(unit: Unit, request: Commit) -> Committed:
    row = unit.rows.get(request.run_id)
    if row is None or not row.owner or row.epoch != request.epoch or row.head != request.head:
        raise _fenced(row, request)
    for entry in request.entries:
        row.head += 1
        unit.entries.append((row.run_id, row.head, entry.kind, row.epoch, entry.body))
    row.seen = max(row.seen, request.seen)
    busy = request.status is Status.WAITING and row.inbox_n > request.seen
    row.status = int(Status.RUNNABLE if busy else request.status)
    row.wake_at = None if request.status.closed else request.wake_at
    row.trouble = request.trouble
    row.changed = True
    if request.snapshot is not None:
        seq = request.snapshot.seq or row.head
        row.snap_seq = max(row.snap_seq, seq)
        unit.snapshots[row.run_id, seq] = (request.snapshot.codec, request.snapshot.body)
    for name in request.free:
        _give_back(unit, name, row.run_id, all_of_them=False)
    if request.status.closed or (request.release and not busy):
        row.owner = ""
        unit.let_go.add(row.run_id)
        for name, run in unit.permits:
            if run == row.run_id:
                _give_back(unit, name, run, all_of_them=True)
    unit.told.readers |= request.status.closed
    unit.told.everybody |= bool(request.free) or (not row.owner and row.status == Status.RUNNABLE)
    granted = tuple(bool(row.owner) and _take(unit, row.run_id, name, capacity) for name, capacity in request.take)
    sent = tuple(_send(unit, item) for item in request.outbox)
    return Committed(row.head, Status(row.status), row.inbox_n, bool(row.owner), granted, sent)


def _fenced(row: Row | None, request: Commit) -> Fenced:
    if row is None:
        there = "there is no such run"
    elif row.status >= Status.COMPLETED:
        there = f"it is {Status(row.status).name.lower()}"
    else:
        there = f"it is at epoch {row.epoch}, record {row.head}, with {row.owner or 'nobody'}"
    return Fenced(
        f"run {request.run_id!r} is no longer this host's at epoch {request.epoch}, record {request.head}: {there}; "
        "drop it, and claim again",
        code="AF231",
    )


def _give_back(unit: Unit, name: str, run: str, *, all_of_them: bool) -> None:
    slots = unit.permits.get((name, run), 0)
    if slots:
        unit.permits[name, run] = unit.permits_changed[name, run] = 0 if all_of_them else slots - 1


def _take(unit: Unit, run: str, name: str, capacity: int) -> bool:
    if sum(slots for (of, _), slots in unit.permits.items() if of == name) >= capacity:
        return False
    unit.permits[name, run] = unit.permits_changed[name, run] = unit.permits.get((name, run), 0) + 1
    return True


def _send(unit: Unit, item: Message | NewRun) -> Receipt:
    if isinstance(item, Message):
        return _deliver(unit, item)
    try:
        return Receipt.ACCEPTED if _create(unit, item).fresh else Receipt.DUPLICATE
    except RunConflict:
        return Receipt.DUPLICATE


# ---------------------------------------------------------------------------------------------------------- what is written

_MOVE = f"""
WITH c AS (
    SELECT * FROM unnest(
        %s::text[], %s::int8[], %s::int8[], %s::int8[], %s::int8[], %s::int2[], %s::text[], %s::float8[], %s::int8[], %s::int8[],
        %s::text[]
    ) AS c(id, epoch, was, head, seen, status, owner, wake_at, snap_seq, inbox_n, trouble)
), moved AS (
    UPDATE @runs r SET head = c.head, seen = c.seen, status = c.status, owner = c.owner, wake_at = c.wake_at,
        closed_at = CASE WHEN c.status > 1 THEN {CLOCK} END, snap_seq = c.snap_seq, inbox_n = c.inbox_n,
        trouble = c.trouble
    FROM c WHERE r.id = c.id AND r.epoch = c.epoch AND r.head = c.was
    RETURNING r.id
), kept AS (
    INSERT INTO @journal
    SELECT b.run, b.seq, b.kind, b.epoch, {CLOCK}, b.body
    FROM unnest(%s::text[], %s::int8[], %s::text[], %s::int8[], %b::bytea[]) AS b(run, seq, kind, epoch, body)
    JOIN moved ON moved.id = b.run
    RETURNING 1
)
{insist("(SELECT count(*) FROM moved) = %s AND (SELECT count(*) FROM kept) = %s")}
"""  # noqa: S608 - constants
_MAKE = f"""
WITH made AS (
    INSERT INTO @runs(id, workflow, version, status, head, inbox_n, parent, key, digest, created_at)
    SELECT id, workflow, version, 0, 1, inbox_n, parent, key, digest, {CLOCK}
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::int8[], %s::text[], %s::text[], %b::bytea[]) WITH ORDINALITY
        AS c(id, workflow, version, inbox_n, parent, key, digest, o) ORDER BY o
    ON CONFLICT DO NOTHING RETURNING 1
)
{insist("(SELECT count(*) FROM made) = %s")}
"""  # noqa: S608 - constants
_BEGIN = f"""
INSERT INTO @journal
SELECT run, 1, 'created', 0, {CLOCK}, body FROM unnest(%s::text[], %b::bytea[]) AS b(run, body)
"""  # noqa: S608 - constants
_INBOX = f"""
INSERT INTO @inbox SELECT run, n, event_id, kind, {CLOCK}, body
FROM unnest(%s::text[], %s::int8[], %s::text[], %s::text[], %b::bytea[]) AS b(run, n, event_id, kind, body)
"""  # noqa: S608 - constants
_SNAPSHOT = f"""
INSERT INTO @snapshots VALUES(%s, %s, {CLOCK}, %s, %b)
ON CONFLICT(run, seq) DO UPDATE SET at = excluded.at, codec = excluded.codec, body = excluded.body
"""
_PERMIT = """
INSERT INTO @permits SELECT %s, %s, epoch, %s FROM @runs WHERE id = %s
ON CONFLICT(name, run) DO UPDATE SET slots = excluded.slots, epoch = excluded.epoch
"""


def _columns(rows: Iterable[tuple[Any, ...]], width: int) -> list[list[Any]]:
    columns = [list(column) for column in zip(*rows, strict=True)]
    return columns or [[] for _ in range(width)]


def _write(db: Database, unit: Unit) -> None:
    """Writes what has come of it, and commits."""
    made = [row for row in unit.rows.values() if row.new is not None]
    moved = [row for row in unit.rows.values() if row.changed and row.new is None]
    with db.pipeline():
        if unit.trash:
            leftovers = sorted(unit.trash & {row.run_id for row in made})
            for table in ("journal", "inbox", "snapshots", "trash"):
                db.execute(f"DELETE FROM @{table} WHERE run = ANY(%s)", (leftovers,))  # noqa: S608 - constants
        if made:
            news = [(row, row.new) for row in made if row.new is not None]
            columns = _columns(
                [
                    (row.run_id, new.workflow, new.version, row.inbox_n, new.parent, new.key, row.digest)
                    for row, new in news
                ],
                7,
            )
            db.execute(_MAKE, (*columns, len(made)))
            db.execute(_BEGIN, ([row.run_id for row in made], [new.body for _, new in news]))
        if moved:
            columns = _columns(
                [
                    (
                        *(row.run_id, row.epoch, row.was, row.head, row.seen, row.status, row.owner, row.wake_at),
                        *(row.snap_seq, row.inbox_n, row.trouble),
                    )
                    for row in moved
                ],
                11,
            )
            db.execute(_MOVE, (*columns, *_columns(unit.entries, 5), len(moved), len(unit.entries)))
        if unit.inbox:
            db.execute(_INBOX, _columns(unit.inbox, 5))
        for (run, seq), (codec, body) in unit.snapshots.items():
            db.execute(_SNAPSHOT, (run, seq, codec, body))
        if unit.let_go:
            db.execute("DELETE FROM @permits WHERE run = ANY(%s)", (sorted(unit.let_go),))
        for (name, run), slots in sorted(unit.permits_changed.items()):
            if slots:
                db.execute(_PERMIT, (name, run, slots, run))
            else:
                db.execute("DELETE FROM @permits WHERE name = %s AND run = %s", (name, run))
        notify(db, unit.told)
        db.execute("COMMIT")


def notify(db: Database, told: Told) -> None:
    """Tells other processes, in the transaction that gives them something to do. Notifications hold up other commits."""
    if not (told.everybody or told.owners or told.readers):
        return
    owners = sorted(told.owners)
    words = "*" if told.everybody or len(owners) > 100 else ",".join(owners)
    db.execute("SELECT pg_notify(%s, %s)", (db.channel, words))
