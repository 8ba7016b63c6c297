"""What a PostgreSQL store does for runs that are copied and removed."""

from __future__ import annotations

import hashlib

from actorflow.errors import RunConflict, WorkflowRuntimeError
from actorflow.storage import Collect, Collected, Delete, Fork, RunInfo
from actorflow.stores._postgres_db import CLOCK, Database
from actorflow.stores._postgres_reads import get
from actorflow.stores._postgres_runs import Told, notify

__all__ = ["collect", "delete", "fork"]

AT_ONCE = 10_000  # rows of a run that a `Delete` removes by itself
TABLES = ("journal", "inbox", "snapshots")

_FORK = (
    f"""
    INSERT INTO @runs(id, workflow, version, head, tail, inbox_n, seen, snap_seq, forked_from, digest, created_at)
    SELECT %(new)s, workflow, version, %(at)s, tail, %(seen)s, %(seen)s,
        coalesce((SELECT max(seq) FROM @snapshots WHERE run = %(run)s AND seq <= %(snap)s), 0), id, digest, {CLOCK}
    FROM @runs WHERE id = %(run)s
    """,  # noqa: S608 - constants
    "INSERT INTO @journal SELECT %(new)s, seq, kind, 0, at, body FROM @journal WHERE run = %(run)s AND seq <= %(at)s",
    "INSERT INTO @inbox SELECT %(new)s, n, event_id, kind, at, body FROM @inbox WHERE run = %(run)s AND n <= %(seen)s",
    f"""
    INSERT INTO @snapshots SELECT %(new)s, seq, {CLOCK}, codec, body FROM @snapshots
    WHERE run = %(run)s AND seq <= %(snap)s
    """,  # noqa: S608 - constants
)


def fork(db: Database, request: Fork) -> RunInfo:
    """Copies the beginning of a run to a new one."""
    return db.transaction(lambda tx: _fork(tx, request))


def _fork(tx: Database, request: Fork) -> RunInfo:
    tx.execute("SELECT 1 FROM @runs WHERE id = %s FOR NO KEY UPDATE", (request.run_id,))
    info = get(tx, request.run_id)
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
    if get(tx, request.new_id) is not None:
        raise RunConflict(f"there is a run {request.new_id!r}; give the fork another id", code="AF234")
    if tx.rows("SELECT 1 FROM @trash WHERE run = %s FOR UPDATE", (request.new_id,)):
        _erase(tx, request.new_id, None)
    values = {
        "run": request.run_id, "new": request.new_id, "at": request.at, "snap": request.at - edited, "seen": request.seen,
    }  # fmt: skip
    for statement in _FORK:
        tx.execute(statement, values)
    if request.last is not None:
        tx.execute(
            "UPDATE @journal SET body = %b WHERE run = %s AND seq = %s", (request.last, request.new_id, request.at)
        )
        if request.at == 1:  # what it was started with is what it is asked for again with
            digest = hashlib.sha256(request.last).digest()
            tx.execute("UPDATE @runs SET digest = %b WHERE id = %s", (digest, request.new_id))
    made = get(tx, request.new_id)
    assert made is not None  # noqa: S101 - just inserted
    notify(tx, Told(everybody=True))
    return made


def delete(db: Database, request: Delete) -> bool:
    """Removes a run that is over."""
    return db.transaction(lambda tx: _delete(tx, request.run_id))


def _delete(tx: Database, run: str) -> bool:
    tx.execute("SELECT 1 FROM @runs WHERE id = %s FOR UPDATE", (run,))
    info = get(tx, run)
    if info is None:
        return False
    if not info.status.closed:
        raise WorkflowRuntimeError(
            f"run {run!r} of {info.workflow} is not over, and so cannot be deleted; cancel it first", code="AF316"
        )
    tx.execute("DELETE FROM @runs WHERE id = %s", (run,))
    tx.execute("INSERT INTO @trash VALUES(%s)", (run,))
    _erase(tx, run, AT_ONCE)
    return True


_TURN = f"""
INSERT INTO @collected(at) VALUES({CLOCK})
ON CONFLICT(one) DO UPDATE SET at = excluded.at WHERE collected.at <= {CLOCK} - %s RETURNING 1
"""


def collect(db: Database, request: Collect) -> Collected:
    """Removes a batch of what is old. Several may do it at once."""
    return db.transaction(lambda tx: _collect(tx, request))


def _collect(tx: Database, request: Collect) -> Collected:
    if request.every and not tx.rows(_TURN, (request.every,)):
        return Collected(0, 0, more=False)
    removed = runs = 0
    while removed < request.limit:
        for (run,) in tx.rows("SELECT run FROM @trash LIMIT 1 FOR UPDATE SKIP LOCKED"):
            removed += _erase(tx, str(run), request.limit - removed)
            break
        else:
            gone = tx.rows(
                f"SELECT id FROM @runs AS r WHERE closed_at IS NOT NULL AND closed_at <= {CLOCK} - %s"  # noqa: S608
                " AND NOT EXISTS(SELECT 1 FROM @runs AS other WHERE other.id = r.parent AND other.closed_at IS NULL)"
                " LIMIT 1 FOR UPDATE OF r SKIP LOCKED",
                (request.older_than,),
            )
            if not gone:
                break
            tx.execute("DELETE FROM @runs WHERE id = %s", gone[0])
            tx.execute("INSERT INTO @trash VALUES(%s)", gone[0])
            runs += 1
    while removed < request.limit:
        pruned = _prune(tx, request.older_than)
        if not pruned:
            return Collected(runs, removed, more=False)
        removed += pruned
    return Collected(runs, removed, more=True)


def _erase(tx: Database, run: str, limit: int | None) -> int:
    """Removes up to `limit` rows of a run in the trash, all for None; and forgets the run when none is left."""
    removed = 0
    for table in TABLES:
        number = "n" if table == "inbox" else "seq"
        statement = (
            f"WITH gone AS (DELETE FROM @{table} WHERE run = %(run)s AND {number} IN"  # noqa: S608
            f" (SELECT {number} FROM @{table} WHERE run = %(run)s LIMIT %(left)s) RETURNING 1) SELECT count(*) FROM gone"
        )
        left = None if limit is None else limit - removed
        ((count,),) = tx.rows(statement, {"run": run, "left": left})
        removed += int(count)
    if limit is None or removed < limit:
        tx.execute("DELETE FROM @trash WHERE run = %s", (run,))
    return removed


def _prune(tx: Database, older_than: float) -> int:
    """Removes the records of one run behind its next snapshot that is old, and the snapshots before that one."""
    found = tx.rows(
        "SELECT id, next FROM (SELECT id, (SELECT min(seq) FROM @snapshots WHERE run = id AND seq > tail"  # noqa: S608
        f" AND seq <= snap_seq AND at <= {CLOCK} - %s) AS next FROM @runs WHERE snap_seq > tail) AS r"
        " WHERE next IS NOT NULL LIMIT 1",
        (older_than,),
    )
    if not found:
        return 0
    run, tail = found[0]
    if not tx.rows("UPDATE @runs SET tail = %s WHERE id = %s AND tail < %s RETURNING 1", (tail, run, tail)):
        return 0  # somebody else has done it
    ((count,),) = tx.rows(
        "WITH gone AS (DELETE FROM @journal WHERE run = %s AND seq <= %s RETURNING 1) SELECT count(*) FROM gone",
        (run, tail),
    )
    tx.execute("DELETE FROM @snapshots WHERE run = %s AND seq < %s", (run, tail))
    return int(count)
