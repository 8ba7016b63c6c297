"""The tables of a SQLite store, and how a file comes to have them."""

from __future__ import annotations

from actorflow.errors import StoreError
from actorflow.stores._sqlite_db import Database, rows

__all__ = ["MIGRATIONS", "check", "migrate"]

APPLICATION = 0x61637466  # "actf": what `file` and this module know the database by

_FIRST = """
CREATE TABLE clock(boot TEXT NOT NULL, zero REAL NOT NULL, latest REAL NOT NULL);

CREATE TABLE hosts(id TEXT PRIMARY KEY, lease_until REAL NOT NULL, ttl REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE caps(host TEXT, workflow TEXT, version TEXT, PRIMARY KEY(host, workflow, version)) WITHOUT ROWID;

CREATE TABLE runs(
    n INTEGER PRIMARY KEY, -- the order in which they were made
    id TEXT NOT NULL UNIQUE,
    workflow TEXT NOT NULL,
    version TEXT NOT NULL,
    status INTEGER NOT NULL DEFAULT 0,
    owner TEXT NOT NULL DEFAULT '',
    epoch INTEGER NOT NULL DEFAULT 0,
    head INTEGER NOT NULL,
    tail INTEGER NOT NULL DEFAULT 0,
    inbox_n INTEGER NOT NULL DEFAULT 0,
    seen INTEGER NOT NULL DEFAULT 0,
    snap_seq INTEGER NOT NULL DEFAULT 0,
    wake_at REAL,
    parent TEXT NOT NULL DEFAULT '',
    key TEXT NOT NULL DEFAULT '',
    forked_from TEXT NOT NULL DEFAULT '',
    digest BLOB NOT NULL,
    created_at REAL NOT NULL,
    closed_at REAL
);
-- None of these contains head, epoch or seen themselves: a commit leaves them all alone.
CREATE UNIQUE INDEX runs_key ON runs(key) WHERE key <> '';
CREATE INDEX runs_parent ON runs(parent, n) WHERE parent <> '';
CREATE INDEX runs_ready ON runs(workflow, version, n) WHERE owner = '' AND status = 0;
CREATE INDEX runs_due ON runs(wake_at) WHERE owner = '' AND status = 1 AND wake_at IS NOT NULL;
CREATE INDEX runs_owned ON runs(owner) WHERE owner <> '';
CREATE INDEX runs_news ON runs(owner) WHERE owner <> '' AND inbox_n > seen;
CREATE INDEX runs_closed ON runs(closed_at) WHERE closed_at IS NOT NULL;
CREATE INDEX runs_prunable ON runs(id) WHERE snap_seq > tail;

-- Of `body` and `blob` one is set: what is long is kept once, under its hash.
CREATE TABLE journal(
    run TEXT, seq INTEGER, kind TEXT NOT NULL, epoch INTEGER NOT NULL, at REAL NOT NULL, body BLOB, blob BLOB,
    PRIMARY KEY(run, seq)
) WITHOUT ROWID;
CREATE TABLE inbox(
    run TEXT, n INTEGER, event_id TEXT NOT NULL, kind TEXT NOT NULL, at REAL NOT NULL, body BLOB, blob BLOB,
    PRIMARY KEY(run, n)
) WITHOUT ROWID;
CREATE UNIQUE INDEX inbox_once ON inbox(run, event_id);
CREATE TABLE snapshots(run TEXT, seq INTEGER, at REAL NOT NULL, codec TEXT NOT NULL, body BLOB, PRIMARY KEY(run, seq));
CREATE TABLE blobs(hash BLOB PRIMARY KEY, refs INTEGER NOT NULL, body BLOB NOT NULL);

CREATE TABLE permits(name TEXT NOT NULL, run TEXT NOT NULL, epoch INTEGER NOT NULL);
CREATE INDEX permits_name ON permits(name, run, epoch);
CREATE INDEX permits_run ON permits(run);

-- Runs that are gone whose other rows are still being removed.
CREATE TABLE trash(run TEXT PRIMARY KEY) WITHOUT ROWID;
"""

_SECOND = """
ALTER TABLE runs ADD COLUMN trouble TEXT NOT NULL DEFAULT '';
CREATE INDEX runs_troubled ON runs(n) WHERE trouble <> '';
-- When somebody last looked for what is old.
CREATE TABLE collected(at REAL NOT NULL);
"""

MIGRATIONS: tuple[str, ...] = (_FIRST, _SECOND)
"""Each makes a file of its index's version one of the next version. What is written here is never changed."""


def check(db: Database, name: str) -> int:
    """The schema version of a file; 0 for an empty one.

    Raises:
        StoreError: It is not a store, or one of a newer actorflow.
    """
    alone = not db.in_transaction
    if alone:
        db.execute("BEGIN")  # one look at all three: another process may be making the file right now
    try:
        application, version = db.pragma("application_id"), db.pragma("user_version")
        foreign = application != APPLICATION and (application or version or rows(db, "SELECT 1 FROM sqlite_schema"))
    finally:
        if alone and db.in_transaction:
            db.execute("ROLLBACK")
    if foreign:
        raise StoreError(f"{name} is a database of something else than actorflow; give another path", code="AF223")
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{name} was written by a newer actorflow (schema {version}, this one knows {len(MIGRATIONS)}); update actorflow",
            code="AF224",
        )
    return int(version)


def migrate(db: Database, name: str) -> None:
    """Brings a file to the newest version: once, however many processes open it."""
    if check(db, name) == len(MIGRATIONS):
        return
    db.execute("BEGIN IMMEDIATE")  # whoever fails closes the connection, which rolls back
    for script in MIGRATIONS[check(db, name) :]:  # again: somebody else may have done it meanwhile
        db.execute(script)
    db.pragma("application_id", APPLICATION)
    db.pragma("user_version", len(MIGRATIONS))
    db.execute("COMMIT")
