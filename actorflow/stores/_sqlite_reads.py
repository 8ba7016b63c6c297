"""What is read from a SQLite store: functions of a connection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from actorflow.errors import WorkflowRuntimeError
from actorflow.storage import Entry, Message, Page, RunInfo, RunQuery, Snapshot, Status, StoreStats
from actorflow.stores._sqlite_db import Database, rows

__all__ = ["RUN", "get", "inbox", "read", "run_info", "runs", "snapshot", "stats"]

RUN = (
    "id, workflow, version, status, owner, epoch, head, tail, inbox_n, seen, snap_seq, wake_at, parent, key, forked_from,"
    " created_at, closed_at, trouble"
)


def run_info(row: Sequence[Any]) -> RunInfo:
    """A row of the columns `RUN`."""
    run_id, workflow, version, status, owner, epoch, head, tail, inbox_n, seen, snap_seq, *rest = row
    wake_at, parent, key, forked_from, created_at, closed_at, trouble = rest
    return RunInfo(
        run_id=run_id,
        workflow=workflow,
        version=version,
        status=Status(status),
        owner=owner,
        epoch=epoch,
        head=head,
        tail=tail,
        inbox_n=inbox_n,
        seen=seen,
        snap_seq=snap_seq,
        wake_at=wake_at,
        parent=parent,
        key=key,
        forked_from=forked_from,
        created_at=created_at,
        closed_at=closed_at,
        trouble=trouble,
    )


def get(db: Database, run_id: str) -> RunInfo | None:
    """What is known of a run."""
    found = rows(db, f"SELECT {RUN} FROM runs WHERE id = ?", (run_id,))  # noqa: S608 - a constant
    return run_info(found[0]) if found else None


_RUNS = f"""
SELECT {RUN}, n FROM runs WHERE n < :after
    AND (:workflow IS NULL OR workflow = :workflow)
    AND (:status IS NULL OR status IN (SELECT value FROM json_each(:status)))
    AND substr(id, 1, length(:prefix)) = :prefix
    AND (:since IS NULL OR created_at >= :since)
    AND (:until IS NULL OR created_at < :until)
"""  # noqa: S608 - a constant
_ALL = _RUNS + "ORDER BY n DESC LIMIT :limit"
_CHILDREN = _RUNS + "AND parent = :parent AND parent <> '' ORDER BY n DESC LIMIT :limit"
_LAST = 2**62  # no run has a greater number


def runs(db: Database, query: RunQuery) -> Page:
    """A page of the list of runs."""
    if query.after and not query.after.isdecimal():
        raise WorkflowRuntimeError(
            f"RunQuery(after={query.after!r}) is no place in a list of runs; give `next` of the page before",
            code="AF235",
        )
    values = {
        "after": int(query.after or _LAST),
        "workflow": query.workflow,
        "status": None if query.status is None else json.dumps([int(status) for status in query.status]),
        "parent": query.parent,
        "prefix": query.prefix,
        "since": query.since,
        "until": query.until,
        "limit": query.limit + 1,
    }
    found = rows(db, _ALL if query.parent is None else _CHILDREN, values)
    page = found[: query.limit]
    more = bool(page) and len(found) > query.limit
    return Page(tuple(run_info(row[:-1]) for row in page), str(page[-1][-1]) if more else "")


def read(db: Database, run_id: str, after: int, until: int | None, limit: int) -> list[Entry]:
    """Records of a run; none of one whose removal has begun."""
    found = rows(
        db,
        "SELECT kind, coalesce(j.body, b.body), seq, epoch, at FROM journal j LEFT JOIN blobs b ON b.hash = j.blob"
        " WHERE run = :run AND seq > :after AND (:until IS NULL OR seq <= :until)"
        " AND EXISTS(SELECT 1 FROM runs WHERE id = :run) ORDER BY seq LIMIT :limit",
        {"run": run_id, "after": after, "until": until, "limit": limit},
    )
    return [Entry(*row) for row in found]


def inbox(db: Database, run_id: str, after: int, limit: int) -> list[Message]:
    """Messages of a run."""
    found = rows(
        db,
        "SELECT event_id, coalesce(i.body, b.body), kind, n, at FROM inbox i LEFT JOIN blobs b ON b.hash = i.blob"
        " WHERE run = :run AND n > :after AND EXISTS(SELECT 1 FROM runs WHERE id = :run) ORDER BY n LIMIT :limit",
        {"run": run_id, "after": after, "limit": limit},
    )
    return [
        Message(run_id=run_id, event_id=event_id, body=body, kind=kind, n=n, at=at)
        for event_id, body, kind, n, at in found
    ]


def snapshot(db: Database, run_id: str, at: int | None) -> Snapshot | None:
    """The newest snapshot made at record `at` or before."""
    found = rows(
        db,
        "SELECT codec, body, seq FROM snapshots WHERE run = :run AND (:at IS NULL OR seq <= :at)"
        " AND EXISTS(SELECT 1 FROM runs WHERE id = :run) ORDER BY seq DESC LIMIT 1",
        {"run": run_id, "at": at},
    )
    return Snapshot(*found[0]) if found else None


def stats(db: Database) -> StoreStats:
    """How many of everything; what a store object has done is for the store to say."""
    counts = rows(db, "SELECT workflow, version, status, count(*) FROM runs GROUP BY 1, 2, 3 ORDER BY 1, 2, 3")
    homeless = rows(
        db,
        "SELECT workflow, version, count(*) FROM runs WHERE owner = '' AND status = 0"
        " AND (workflow, version) NOT IN (SELECT workflow, version FROM caps) GROUP BY 1, 2 ORDER BY 1, 2",
    )
    troubled = rows(db, "SELECT id, workflow, trouble FROM runs WHERE trouble <> '' ORDER BY n LIMIT 100")
    return StoreStats(
        runs=tuple((workflow, version, Status(status), n) for workflow, version, status, n in counts),
        homeless=tuple((workflow, version, n) for workflow, version, n in homeless),
        hosts=rows(db, "SELECT count(*) FROM hosts")[0][0],
        size=db.pragma("page_count") * db.pragma("page_size"),
        groups=0,
        requests=0,
        failures=0,
        failure="",
        troubled=tuple((run_id, workflow, trouble) for run_id, workflow, trouble in troubled),
    )
