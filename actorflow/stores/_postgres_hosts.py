"""What a PostgreSQL store does for hosts: who is alive, and who works on what."""

from __future__ import annotations

import uuid
from typing import Any

from actorflow.errors import Fenced
from actorflow.storage import Claim, Claimed, Host, Leave, Register
from actorflow.stores._postgres_db import CLOCK, Database, lock_number
from actorflow.stores._postgres_runs import Told, notify
from actorflow.stores._sqlite_reads import RUN, run_info

__all__ = ["beat", "claim", "dead", "fenced", "leave", "register", "remove", "unlock"]


def register(db: Database, request: Register) -> Host:
    """Makes a host known, alive from before anybody can see it."""
    host = Host(f"host-{uuid.uuid4().hex[:12]}", request.ttl)
    lock = "NULL" if db.pooled else lock_number("%(host)s")
    with db.pipeline():
        db.begin()
        if not db.pooled:  # for the session: it ends with the process
            db.execute(f"SELECT pg_advisory_lock({lock_number('%s')})", (host.id,))
        db.execute(
            f"INSERT INTO @hosts VALUES(%(host)s, {lock}, {CLOCK} + %(ttl)s, %(ttl)s)",
            {"host": host.id, "ttl": host.ttl},
        )
        caps = sorted(set(request.caps))
        db.execute(
            "INSERT INTO @caps SELECT %s, * FROM unnest(%s::text[], %s::text[])",
            (host.id, [workflow for workflow, _ in caps], [version for _, version in caps]),
        )
        db.execute("COMMIT")
    return host


def fenced(host: str, *, held: bool) -> Fenced:
    """A host that is none any more."""
    why = "its lease had run out" if held else "the store had failed"
    return Fenced(
        f"{host} is not a host of this store any more: {why}; drop its runs, register again and claim", code="AF232"
    )


def beat(db: Database, host: str) -> None:
    """Renews a lease that has not run out."""
    statement = f"UPDATE @hosts SET lease_until = {CLOCK} + ttl WHERE id = %s AND lease_until > {CLOCK} RETURNING 1"  # noqa: S608
    if not db.rows(statement, (host,)):
        raise fenced(host, held=True)


def leave(db: Database, request: Leave) -> None:
    """Takes a host out, dead or alive, and gives its runs back."""

    def work(tx: Database) -> None:
        tx.execute("SELECT 1 FROM @hosts WHERE id = %s FOR UPDATE", (request.host,))
        _free(tx, [request.host], "")
        notify(tx, Told(everybody=True))

    db.transaction(work)


def unlock(db: Database, host: str) -> None:
    """Lets go of the lock of a host of this session."""
    if not db.pooled:
        db.execute(f"SELECT pg_advisory_unlock({lock_number('%s')})", (host,))


def dead(db: Database, mine: list[str]) -> list[str]:
    """Hosts that hang, or whose session has ended; `mine` are those of this session, which hold their locks here."""
    # Shared: two who look at the same time do not take each other for the host.
    found = db.rows(
        f"SELECT id FROM @hosts WHERE CASE WHEN lease_until <= {CLOCK} THEN true WHEN lock IS NULL OR id = ANY(%s) THEN false"  # noqa: S608
        " ELSE pg_try_advisory_xact_lock_shared(lock) END",
        (mine,),
    )
    return [str(host) for (host,) in found]


def remove(db: Database, hosts: list[str], me: str) -> None:
    """Takes dead hosts out and frees their runs, as far as nobody else is doing it."""

    def work(tx: Database) -> None:
        found = tx.rows(
            "SELECT id FROM @hosts WHERE id = ANY(%s) AND id <> %s ORDER BY id FOR UPDATE SKIP LOCKED", (hosts, me)
        )
        if found:
            _free(tx, [str(host) for (host,) in found], "SKIP LOCKED")
            notify(tx, Told(everybody=True))

    db.transaction(work)


def _free(tx: Database, hosts: list[str], locked: str) -> None:
    """Whoever froze in the middle of a transaction has locked some of his runs: these are freed when the server ends it."""
    found = tx.rows(
        f"SELECT id FROM @runs WHERE owner = ANY(%s) AND owner <> '' ORDER BY id FOR NO KEY UPDATE {locked}",  # noqa: S608
        (hosts,),
    )
    runs = [run for (run,) in found]
    # A new epoch at once: who only hung must not find his runs as he left them.
    tx.execute("UPDATE @runs SET owner = '', epoch = epoch + 1 WHERE id = ANY(%s)", (runs,))
    tx.execute("DELETE FROM @permits WHERE run = ANY(%s)", (runs,))
    # Not while it has runs: nobody would look for them any more.
    tx.execute(
        "DELETE FROM @hosts AS h WHERE h.id = ANY(%s) AND NOT EXISTS(SELECT 1 FROM @runs AS r WHERE r.owner = h.id)",
        (hosts,),
    )
    tx.execute(
        "DELETE FROM @caps AS c WHERE c.host = ANY(%s) AND NOT EXISTS(SELECT 1 FROM @hosts AS h WHERE h.id = c.host)",
        (hosts,),
    )


_MINE = f"SELECT lease_until > {CLOCK}, {CLOCK} FROM @hosts WHERE id = %s FOR SHARE"  # noqa: S608
_TAKE = f"""
WITH can AS (
    SELECT workflow, version FROM @caps WHERE host = %(host)s
        AND EXISTS(SELECT 1 FROM @hosts WHERE id = %(host)s AND lease_until > {CLOCK})
), due AS (
    SELECT id FROM @runs WHERE owner = '' AND status = 1 AND wake_at IS NOT NULL AND wake_at <= {CLOCK}
        AND (workflow, version) IN (SELECT workflow, version FROM can) AND id <> ALL(%(skip)s)
    ORDER BY wake_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
), ready AS (
    SELECT id FROM @runs WHERE owner = '' AND status = 0
        AND (workflow, version) IN (SELECT workflow, version FROM can) AND id <> ALL(%(skip)s)
    ORDER BY n LIMIT greatest(%(limit)s - (SELECT count(*) FROM due), 0) FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE @runs SET owner = %(host)s, epoch = epoch + 1, status = 0
WHERE id IN (SELECT id FROM due UNION ALL SELECT id FROM ready) AND owner = ''
RETURNING {RUN}, n
"""  # noqa: S608 - constants
_NEWS = "SELECT id, inbox_n FROM @runs WHERE owner = %s AND owner <> '' AND inbox_n > seen"
_DUE = f"""
SELECT greatest(0, wake_at - {CLOCK}) FROM @runs WHERE owner = '' AND status = 1 AND wake_at IS NOT NULL
    AND (workflow, version) IN (SELECT workflow, version FROM @caps WHERE host = %(host)s) AND id <> ALL(%(skip)s)
ORDER BY wake_at LIMIT 1
"""  # noqa: S608 - constants


def claim(db: Database, request: Claim) -> tuple[Claimed, float]:
    """Gives a host what nobody has; and the time."""
    asked = {"host": request.host, "limit": request.limit, "skip": list(request.skip)}

    def attempt() -> tuple[list[Any], ...]:
        with db.pipeline():
            db.begin()
            answers = [
                db.execute(_MINE, (request.host,)),  # nobody takes it out meanwhile
                db.execute(_TAKE, asked),
                db.execute(_NEWS, (request.host,)),
                db.execute(_DUE, asked),
            ]
            db.execute("COMMIT")
            return tuple(answer.fetchall() for answer in answers)

    mine, taken, news, due = db.again(attempt)
    if not mine or not mine[0][0]:
        raise fenced(request.host, held=True)
    runs = tuple(run_info(row[:-1]) for row in sorted(taken, key=lambda row: row[-1]))
    fresh = {run.run_id for run in runs}
    return (
        Claimed(
            runs,
            tuple((str(run), int(n)) for run, n in news if run not in fresh),
            float(due[0][0]) if due else None,
        ),
        float(mine[0][1]),
    )
