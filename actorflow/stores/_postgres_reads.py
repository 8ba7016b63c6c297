"""What is read from a PostgreSQL store: functions of a connection."""

from __future__ import annotations

from actorflow.errors import WorkflowRuntimeError
from actorflow.storage import Entry, Message, Page, RunInfo, RunQuery, Snapshot, Status, StoreStats
from actorflow.stores._postgres_db import Database
from actorflow.stores._sqlite_reads import RUN, run_info

__all__ = ["get", "inbox", "read", "runs", "snapshot", "stats"]


def get(db: Database, run_id: str) -> RunInfo | None:
    """What is known of a run."""
    found = db.rows(f"SELECT {RUN} FROM @runs WHERE id = %s", (run_id,))  # noqa: S608 - a constant
    return run_info(found[0]) if found else None


_RUNS = f"""
SELECT {RUN}, n FROM @runs WHERE n < %(after)s
    AND (%(workflow)s::text IS NULL OR workflow = %(workflow)s)
    AND (%(status)s::int[] IS NULL OR status = ANY(%(status)s::int[]))
    AND starts_with(id, %(prefix)s)
    AND (%(since)s::float8 IS NULL OR created_at >= %(since)s)
    AND (%(until)s::float8 IS NULL OR created_at < %(until)s)
"""  # noqa: S608 - a constant
_ALL = _RUNS + "ORDER BY n DESC LIMIT %(limit)s"
_CHILDREN = _RUNS + "AND parent = %(parent)s AND parent <> '' ORDER BY n DESC LIMIT %(limit)s"
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
        "status": None if query.status is None else [int(status) for status in query.status],
        "parent": query.parent,
        "prefix": query.prefix,
        "since": query.since,
        "until": query.until,
        "limit": query.limit + 1,
    }
    found = db.rows(_ALL if query.parent is None else _CHILDREN, values)
    page = found[: query.limit]
    more = bool(page) and len(found) > query.limit
    return Page(tuple(run_info(row[:-1]) for row in page), str(page[-1][-1]) if more else "")


def read(db: Database, run_id: str, after: int, until: int | None, limit: int) -> list[Entry]:
    """Records of a run; none of one whose removal has begun."""
    found = db.rows(
        "SELECT kind, body, seq, epoch, at FROM @journal"
        " WHERE run = %(run)s AND seq > %(after)s AND (%(until)s::int8 IS NULL OR seq <= %(until)s)"
        " AND EXISTS(SELECT 1 FROM @runs WHERE id = %(run)s) ORDER BY seq LIMIT %(limit)s",
        {"run": run_id, "after": after, "until": until, "limit": limit},
    )
    return [Entry(*row) for row in found]


def inbox(db: Database, run_id: str, after: int, limit: int) -> list[Message]:
    """Messages of a run."""
    found = db.rows(
        "SELECT event_id, body, kind, n, at FROM @inbox"
        " WHERE run = %(run)s AND n > %(after)s AND EXISTS(SELECT 1 FROM @runs WHERE id = %(run)s) ORDER BY n LIMIT %(limit)s",
        {"run": run_id, "after": after, "limit": limit},
    )
    return [
        Message(run_id=run_id, event_id=event_id, body=body, kind=kind, n=n, at=at)
        for event_id, body, kind, n, at in found
    ]


def snapshot(db: Database, run_id: str, at: int | None) -> Snapshot | None:
    """The newest snapshot made at record `at` or before."""
    found = db.rows(
        "SELECT codec, body, seq FROM @snapshots WHERE run = %(run)s AND (%(at)s::int8 IS NULL OR seq <= %(at)s)"
        " AND EXISTS(SELECT 1 FROM @runs WHERE id = %(run)s) ORDER BY seq DESC LIMIT 1",
        {"run": run_id, "at": at},
    )
    return Snapshot(*found[0]) if found else None


def stats(db: Database) -> StoreStats:
    """How many of everything; what a store object has done is for the store to say."""
    counts = db.rows("SELECT workflow, version, status, count(*) FROM @runs GROUP BY 1, 2, 3 ORDER BY 1, 2, 3")
    homeless = db.rows(
        "SELECT workflow, version, count(*) FROM @runs WHERE owner = '' AND status = 0"
        " AND (workflow, version) NOT IN (SELECT workflow, version FROM @caps) GROUP BY 1, 2 ORDER BY 1, 2"
    )
    troubled = db.rows("SELECT id, workflow, trouble FROM @runs WHERE trouble <> '' ORDER BY n LIMIT 100")
    ((hosts,),) = db.rows("SELECT count(*) FROM @hosts")
    ((size,),) = db.rows(
        "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::int8 FROM pg_class c"
        " WHERE c.relkind = 'r' AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = '@runs'::regclass)"
    )
    return StoreStats(
        runs=tuple((workflow, version, Status(status), n) for workflow, version, status, n in counts),
        homeless=tuple((workflow, version, n) for workflow, version, n in homeless),
        hosts=int(hosts),
        size=int(size),
        groups=0,
        requests=0,
        failures=0,
        failure="",
        troubled=tuple((run_id, workflow, trouble) for run_id, workflow, trouble in troubled),
    )
