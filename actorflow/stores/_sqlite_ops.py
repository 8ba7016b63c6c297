"""What a SQLite store does for each request: functions of an open transaction.

Each decides whether it refuses before its first write: what is refused has changed nothing, and the rest of its group
goes on.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from actorflow.errors import Fenced, RunConflict, WorkflowRuntimeError
from actorflow.storage import (
    Beat,
    Claim,
    Claimed,
    Collect,
    Collected,
    Commit,
    Committed,
    Created,
    Delete,
    Entry,
    Fork,
    Host,
    Leave,
    Message,
    NewRun,
    Receipt,
    Register,
    Request,
    RunInfo,
    Status,
)
from actorflow.stores._hosts import HostLocks
from actorflow.stores._sqlite_db import Database, rows
from actorflow.stores._sqlite_reads import RUN, get, run_info
from actorflow.stores._writer import Question

__all__ = ["OPERATIONS", "Transaction"]

LONG = 64 * 1024  # bytes; longer bodies go to the blobs


@attrs.frozen(slots=True)
class Transaction:
    """What an operation may touch.

    Attributes:
        db: The connection, inside of a transaction that writes.
        now: The store's clock at its beginning, in seconds.
        locks: Which hosts are alive.
    """

    db: Database
    now: float
    locks: HostLocks


# ------------------------------------------------------------------------------------------------------------- bodies


def put(tx: Transaction, body: bytes) -> tuple[bytes | None, bytes | None]:
    """A body as it stands in a row: itself, or the hash that it is kept under."""
    if len(body) <= LONG:
        return body, None
    digest = hashlib.sha256(body).digest()
    tx.db.execute("INSERT INTO blobs VALUES(?, 1, ?) ON CONFLICT(hash) DO UPDATE SET refs = refs + 1", (digest, body))
    return None, digest


def unput(tx: Transaction, removed: list[tuple[Any, ...]]) -> int:
    """Lets go of the blobs of rows that were deleted (their column `blob`); returns how many rows these were."""
    for (digest,) in removed:
        if digest is not None:
            tx.db.execute("UPDATE blobs SET refs = refs - 1 WHERE hash = ?", (digest,))
            tx.db.execute("DELETE FROM blobs WHERE hash = ? AND refs = 0", (digest,))
    return len(removed)


# ------------------------------------------------------------------------------------------------ runs, messages, commits


def create(tx: Transaction, run: NewRun) -> Created:
    """Makes a run with its first record, or finds it."""
    digest = hashlib.sha256(run.digest or run.body).digest()
    found = rows(
        tx.db,
        "SELECT id, workflow, digest FROM runs WHERE id = ?"
        " UNION SELECT id, workflow, digest FROM runs WHERE key <> '' AND key = ?",
        (run.run_id, run.key),
    )
    if found:
        if any(row[1:] != (run.workflow, digest) for row in found) or len(found) > 1:
            asked = (
                f"idempotency key {run.key!r}" if run.run_id not in {row[0] for row in found} else f"id {run.run_id!r}"
            )
            raise RunConflict(
                f"there is a run with the {asked}, of {found[0][1]}, that was started with something else; start the new one "
                "under another id, or ask for the old one with what it was started with",
                code="AF230",
            )
        return Created(str(found[0][0]), fresh=False)
    _insert(tx, run, digest)
    return Created(run.run_id, fresh=True)


def _insert(tx: Transaction, run: NewRun, digest: bytes) -> None:
    if rows(tx.db, "SELECT 1 FROM trash WHERE run = ?", (run.run_id,)):
        _erase(tx, run.run_id, -1)
    tx.db.execute(
        "INSERT INTO runs(id, workflow, version, head, parent, key, digest, created_at) VALUES(?, ?, ?, 1, ?, ?, ?, ?)",
        (run.run_id, run.workflow, run.version, run.parent, run.key, digest, tx.now),
    )
    _append(tx, run.run_id, 0, 0, (Entry("created", run.body),))


def _append(tx: Transaction, run_id: str, head: int, epoch: int, entries: Any) -> None:
    for seq, entry in enumerate(entries, start=head + 1):
        tx.db.execute(
            "INSERT INTO journal VALUES(?, ?, ?, ?, ?, ?, ?)",
            (run_id, seq, entry.kind, epoch, tx.now, *put(tx, entry.body)),
        )


def deliver(tx: Transaction, message: Message) -> Receipt:
    """Puts a message into an inbox."""
    found = rows(
        tx.db,
        "SELECT status, EXISTS(SELECT 1 FROM inbox WHERE run = runs.id AND event_id = ?) FROM runs WHERE id = ?",
        (message.event_id, message.run_id),
    )
    if not found:
        return Receipt.UNKNOWN
    if found[0][1]:
        return Receipt.DUPLICATE
    if found[0][0] >= Status.COMPLETED:
        return Receipt.CLOSED
    # The number is the run's own counter: whoever goes idle compares it, and so misses no message.
    ((n,),) = rows(
        tx.db, "UPDATE runs SET inbox_n = inbox_n + 1, status = 0 WHERE id = ? RETURNING inbox_n", (message.run_id,)
    )
    tx.db.execute(
        "INSERT INTO inbox VALUES(?, ?, ?, ?, ?, ?, ?)",
        (message.run_id, n, message.event_id, message.kind, tx.now, *put(tx, message.body)),
    )
    return Receipt.ACCEPTED


_COMMIT = """
UPDATE runs SET
    head = head + :appended,
    seen = max(seen, :seen),
    status = CASE WHEN :status = 1 AND inbox_n > :seen THEN 0 ELSE :status END,
    owner = CASE WHEN :status > 1 OR :release AND NOT (:status = 1 AND inbox_n > :seen) THEN '' ELSE owner END,
    wake_at = :wake_at,
    closed_at = CASE WHEN :status > 1 THEN :now END,
    snap_seq = max(snap_seq, CASE WHEN :snapshot = 0 THEN head + :appended ELSE coalesce(:snapshot, 0) END),
    trouble = :trouble
WHERE id = :run AND epoch = :epoch AND head = :head AND owner <> ''
RETURNING head, status, inbox_n, owner
"""


def commit(tx: Transaction, request: Commit) -> Committed:
    """Moves a run on, if it is where the host believes it to be."""
    values = {
        "run": request.run_id,
        "epoch": request.epoch,
        "head": request.head,
        "appended": len(request.entries),
        "seen": request.seen,
        "status": int(request.status),
        "release": request.release,
        "wake_at": None if request.status.closed else request.wake_at,
        "now": tx.now,
        "snapshot": None if request.snapshot is None else request.snapshot.seq,
        "trouble": request.trouble,
    }
    moved = rows(tx.db, _COMMIT, values)
    if not moved:
        raise _fenced(tx, request)
    ((head, status, inbox_n, owner),) = moved
    _append(tx, request.run_id, request.head, request.epoch, request.entries)
    if request.snapshot is not None:
        tx.db.execute(
            "INSERT OR REPLACE INTO snapshots VALUES(?, ?, ?, ?, ?)",
            (request.run_id, request.snapshot.seq or head, tx.now, request.snapshot.codec, request.snapshot.body),
        )
    for name in request.free:
        tx.db.execute(
            "DELETE FROM permits WHERE rowid = (SELECT rowid FROM permits WHERE name = ? AND run = ? LIMIT 1)",
            (name, request.run_id),
        )
    if not owner:
        tx.db.execute("DELETE FROM permits WHERE run = ?", (request.run_id,))
    granted = tuple(bool(owner) and _take(tx, request, name, capacity) for name, capacity in request.take)
    sent = tuple(_send(tx, item) for item in request.outbox)
    if sent and any(isinstance(item, Message) and item.run_id == request.run_id for item in request.outbox):
        ((status, inbox_n),) = rows(tx.db, "SELECT status, inbox_n FROM runs WHERE id = ?", (request.run_id,))
    return Committed(int(head), Status(status), int(inbox_n), bool(owner), granted, sent)


def _fenced(tx: Transaction, request: Commit) -> Fenced:
    info = get(tx.db, request.run_id)
    if info is None:
        there = "there is no such run"
    elif info.status.closed:
        there = f"it is {info.status.name.lower()}"
    else:
        there = f"it is at epoch {info.epoch}, record {info.head}, with {info.owner or 'nobody'}"
    return Fenced(
        f"run {request.run_id!r} is no longer this host's at epoch {request.epoch}, record {request.head}: {there}; "
        "drop it, and claim again",
        code="AF231",
    )


def _take(tx: Transaction, request: Commit, name: str, capacity: int) -> bool:
    ((taken,),) = rows(tx.db, "SELECT count(*) FROM permits WHERE name = ?", (name,))
    if taken >= capacity:
        return False
    tx.db.execute("INSERT INTO permits VALUES(?, ?, ?)", (name, request.run_id, request.epoch))
    return True


def _send(tx: Transaction, item: Message | NewRun) -> Receipt:
    if isinstance(item, Message):
        return deliver(tx, item)
    try:
        return Receipt.ACCEPTED if create(tx, item).fresh else Receipt.DUPLICATE
    except RunConflict:
        return Receipt.DUPLICATE


# --------------------------------------------------------------------------------------------------------------- hosts


def register(tx: Transaction, request: Register) -> Host:
    """Makes a host known, alive from before anybody can see it."""
    host = Host(f"host-{uuid.uuid4().hex[:12]}", request.ttl)
    tx.locks.take(host.id)
    tx.db.execute("INSERT INTO hosts VALUES(?, ?, ?)", (host.id, tx.now + host.ttl, host.ttl))
    tx.db.executemany(
        "INSERT OR IGNORE INTO caps VALUES(?, ?, ?)",
        [(host.id, workflow, version) for workflow, version in request.caps],
    )
    return host


def beat(tx: Transaction, request: Beat) -> None:
    """Renews a lease that has not run out."""
    _require(tx, request.host)
    tx.db.execute("UPDATE hosts SET lease_until = ? + ttl WHERE id = ?", (tx.now, request.host))
    tx.db.execute("UPDATE clock SET latest = ?", (tx.now,))  # where the clock goes on after the machine was off


def _require(tx: Transaction, host: str) -> None:
    held = tx.locks.holds(host)
    found = rows(tx.db, "SELECT lease_until FROM hosts WHERE id = ?", (host,))
    if not held or not found or found[0][0] <= tx.now:
        why = "the store had failed" if not held else "its lease had run out"
        raise Fenced(
            f"{host} is not a host of this store any more: {why}; drop its runs, register again and claim", code="AF232"
        )


def leave(tx: Transaction, request: Leave) -> None:
    """Takes a host out, dead or alive."""
    _remove_host(tx, request.host)


def _remove_host(tx: Transaction, host: str) -> None:
    tx.db.execute("DELETE FROM permits WHERE run IN (SELECT id FROM runs WHERE owner = ?)", (host,))
    # A new epoch at once: who only hung must not find his runs as he left them.
    tx.db.execute("UPDATE runs SET owner = '', epoch = epoch + 1 WHERE owner = ? AND owner <> ''", (host,))
    tx.db.execute("DELETE FROM caps WHERE host = ?", (host,))
    tx.db.execute("DELETE FROM hosts WHERE id = ?", (host,))
    tx.locks.drop(host)


def _remove_dead_hosts(tx: Transaction, me: str) -> None:
    for host, lease_until in rows(tx.db, "SELECT id, lease_until FROM hosts WHERE id <> ?", (me,)):
        if lease_until <= tx.now or not tx.locks.alive(str(host)):
            _remove_host(tx, str(host))


_READY = """
SELECT id FROM (
    SELECT id, n FROM runs WHERE owner = '' AND status = 0
        AND (workflow, version) IN (SELECT workflow, version FROM caps WHERE host = :host)
        AND id NOT IN (SELECT value FROM json_each(:skip))
    UNION ALL
    SELECT id, n FROM runs WHERE owner = '' AND status = 1 AND wake_at IS NOT NULL AND wake_at <= :now
        AND (workflow, version) IN (SELECT workflow, version FROM caps WHERE host = :host)
        AND id NOT IN (SELECT value FROM json_each(:skip))
) ORDER BY n LIMIT :limit
"""
_DUE = """
SELECT wake_at FROM runs WHERE owner = '' AND status = 1 AND wake_at IS NOT NULL
    AND (workflow, version) IN (SELECT workflow, version FROM caps WHERE host = :host)
    AND id NOT IN (SELECT value FROM json_each(:skip))
ORDER BY wake_at LIMIT 1
"""


def claim(tx: Transaction, request: Claim) -> Claimed:
    """Gives a host what nobody has, after taking it from the dead."""
    _require(tx, request.host)
    _remove_dead_hosts(tx, request.host)
    asked = {"host": request.host, "now": tx.now, "limit": request.limit, "skip": json.dumps(list(request.skip))}
    ready = rows(tx.db, _READY, asked)
    runs: list[RunInfo] = []
    for (run,) in ready:
        row = rows(
            tx.db,
            f"UPDATE runs SET owner = ?, epoch = epoch + 1, status = 0 WHERE id = ? RETURNING {RUN}",  # noqa: S608 - a constant
            (request.host, run),
        )
        runs.append(run_info(row[0]))
    mine = {run.run_id for run in runs}
    news = rows(
        tx.db, "SELECT id, inbox_n FROM runs WHERE owner = ? AND owner <> '' AND inbox_n > seen", (request.host,)
    )
    due = rows(tx.db, _DUE, asked)
    return Claimed(
        tuple(runs),
        tuple((str(run), int(n)) for run, n in news if run not in mine),
        max(0.0, due[0][0] - tx.now) if due else None,
    )


# ------------------------------------------------------------------------------------------------------ fork, retention

_FORK = (
    """
    INSERT INTO runs(id, workflow, version, head, tail, inbox_n, seen, snap_seq, forked_from, digest, created_at)
    SELECT :new, workflow, version, :at, tail, :seen, :seen,
        coalesce((SELECT max(seq) FROM snapshots WHERE run = :run AND seq <= :snap), 0), id, digest, :now
    FROM runs WHERE id = :run
    """,
    "INSERT INTO journal SELECT :new, seq, kind, 0, at, body, blob FROM journal WHERE run = :run AND seq <= :at",
    "INSERT INTO inbox SELECT :new, n, event_id, kind, at, body, blob FROM inbox WHERE run = :run AND n <= :seen",
    "INSERT INTO snapshots SELECT :new, seq, :now, codec, body FROM snapshots WHERE run = :run AND seq <= :snap",
    """
    UPDATE blobs SET refs = refs + (SELECT count(*) FROM journal WHERE run = :new AND blob = hash)
        + (SELECT count(*) FROM inbox WHERE run = :new AND blob = hash)
    WHERE hash IN (SELECT blob FROM journal WHERE run = :new AND blob IS NOT NULL
        UNION SELECT blob FROM inbox WHERE run = :new AND blob IS NOT NULL)
    """,
)


def fork(tx: Transaction, request: Fork) -> RunInfo:
    """Copies the beginning of a run to a new one."""
    info = get(tx.db, request.run_id)
    edited = request.last is not None
    # The record that is to say something else must be there still, and in no snapshot.
    first = 1 if info is None else max(info.tail + edited, 1)
    if info is None or not first <= request.at <= info.head or not 0 <= request.seen <= info.inbox_n:
        there = "there is no such run" if info is None else f"it has records {info.tail + 1} to {info.head}"
        raise WorkflowRuntimeError(
            f"run {request.run_id!r} cannot be forked at record {request.at}, message {request.seen}: {there}; give a record "
            "that actorflow's history of the run shows",
            code="AF233",
        )
    if get(tx.db, request.new_id) is not None:
        raise RunConflict(f"there is a run {request.new_id!r}; give the fork another id", code="AF234")
    if rows(tx.db, "SELECT 1 FROM trash WHERE run = ?", (request.new_id,)):
        _erase(tx, request.new_id, -1)
    values = {
        "run": request.run_id, "new": request.new_id, "at": request.at, "snap": request.at - edited, "seen": request.seen,
        "now": tx.now,
    }  # fmt: skip
    for statement in _FORK:
        tx.db.execute(statement, values)
    if request.last is not None:
        _say_instead(tx, request.new_id, request.at, request.last)
    made = get(tx.db, request.new_id)
    assert made is not None  # noqa: S101 - just inserted
    return made


def _say_instead(tx: Transaction, run: str, seq: int, body: bytes) -> None:
    where = (run, seq)
    unput(tx, rows(tx.db, "SELECT blob FROM journal WHERE run = ? AND seq = ?", where))
    tx.db.execute("UPDATE journal SET body = ?, blob = ? WHERE run = ? AND seq = ?", (*put(tx, body), *where))
    if seq == 1:  # what it was started with is what it is asked for again with
        tx.db.execute("UPDATE runs SET digest = ? WHERE id = ?", (hashlib.sha256(body).digest(), run))


AT_ONCE = 10_000  # rows of a run that a `Delete` removes by itself


def delete(tx: Transaction, request: Delete) -> bool:
    """Removes a run that is over."""
    info = get(tx.db, request.run_id)
    if info is None:
        return False
    if not info.status.closed:
        raise WorkflowRuntimeError(
            f"run {request.run_id!r} of {info.workflow} is not over, and so cannot be deleted; cancel it first",
            code="AF316",
        )
    tx.db.execute("DELETE FROM runs WHERE id = ?", (request.run_id,))
    tx.db.execute("INSERT INTO trash VALUES(?)", (request.run_id,))
    _erase(tx, request.run_id, AT_ONCE)
    return True


_OLD = """
SELECT id FROM runs WHERE closed_at IS NOT NULL AND closed_at <= ?
    AND NOT EXISTS (SELECT 1 FROM runs AS other WHERE other.id = runs.parent AND other.closed_at IS NULL)
LIMIT 1
"""


def collect(tx: Transaction, request: Collect) -> Collected:
    """Removes a batch of what is old."""
    if request.every:
        if rows(tx.db, "SELECT 1 FROM collected WHERE at > ?", (tx.now - request.every,)):
            return Collected(0, 0, more=False)
        tx.db.execute("DELETE FROM collected")
        tx.db.execute("INSERT INTO collected VALUES(?)", (tx.now,))
    removed = runs = 0
    before = tx.now - request.older_than
    while removed < request.limit:
        for (run,) in rows(tx.db, "SELECT run FROM trash LIMIT 1"):
            removed += _erase(tx, str(run), request.limit - removed)
            break
        else:
            gone = rows(tx.db, _OLD, (before,))
            if not gone:
                break
            tx.db.execute("DELETE FROM runs WHERE id = ?", gone[0])
            tx.db.execute("INSERT INTO trash VALUES(?)", gone[0])
            runs += 1
    while removed < request.limit:
        pruned = _prune(tx, before)
        if not pruned:
            return Collected(runs, removed, more=False)
        removed += pruned
    return Collected(runs, removed, more=True)


def _erase(tx: Transaction, run: str, limit: int) -> int:
    """Removes up to `limit` rows of a run in the trash, all for -1; and forgets the run when none is left."""
    removed = 0
    for statement in (
        "DELETE FROM journal WHERE run = :run AND seq IN (SELECT seq FROM journal WHERE run = :run LIMIT :left) RETURNING blob",
        "DELETE FROM inbox WHERE run = :run AND n IN (SELECT n FROM inbox WHERE run = :run LIMIT :left) RETURNING blob",
        "DELETE FROM snapshots WHERE rowid IN (SELECT rowid FROM snapshots WHERE run = :run LIMIT :left) RETURNING NULL",
    ):
        left = -1 if limit < 0 else limit - removed
        removed += unput(tx, rows(tx.db, statement, {"run": run, "left": left}))
    if removed < limit or limit < 0:
        tx.db.execute("DELETE FROM trash WHERE run = ?", (run,))
    return removed


def _prune(tx: Transaction, before: float) -> int:
    """Removes the records of one run behind its next snapshot that is old, and the snapshots before that one."""
    found = rows(
        tx.db,
        "SELECT id, (SELECT min(seq) FROM snapshots WHERE run = id AND seq > tail AND seq <= snap_seq AND at <= ?) AS next"
        " FROM runs WHERE snap_seq > tail AND next IS NOT NULL LIMIT 1",
        (before,),
    )
    if not found:
        return 0
    run, tail = found[0]
    tx.db.execute("UPDATE runs SET tail = ? WHERE id = ?", (tail, run))
    removed = unput(tx, rows(tx.db, "DELETE FROM journal WHERE run = ? AND seq <= ? RETURNING blob", (run, tail)))
    tx.db.execute("DELETE FROM snapshots WHERE run = ? AND seq < ?", (run, tail))
    return removed


def question(tx: Transaction, request: Question[Any]) -> Any:
    """Reads, where reading and writing share a connection."""
    return request.ask(tx.db)


OPERATIONS: Mapping[type[Request[Any]], Callable[[Transaction, Any], Any]] = {
    NewRun: create,
    Message: deliver,
    Commit: commit,
    Register: register,
    Beat: beat,
    Leave: leave,
    Claim: claim,
    Fork: fork,
    Delete: delete,
    Collect: collect,
    Question: question,
}
"""What to do for each kind of request."""
