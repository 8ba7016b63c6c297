"""The tables of a PostgreSQL store, and how a schema comes to have them."""

from __future__ import annotations

from actorflow.errors import StoreError
from actorflow.stores._postgres_db import Database, lock_number

__all__ = ["MIGRATIONS", "migrate"]

_FIRST = """
CREATE TABLE @hosts(
    id text PRIMARY KEY,
    lock bigint, -- held by the host's session for as long as its process lives; NULL behind a pooler
    lease_until float8 NOT NULL,
    ttl float8 NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE @caps(host text, workflow text, version text, PRIMARY KEY(host, workflow, version));

-- Half of each page is left free, and no index has head, epoch, seen or inbox_n in it: a commit writes its row beside the
-- old one and touches no index.
CREATE TABLE @runs(
    n bigint GENERATED ALWAYS AS IDENTITY, -- the order in which they were made
    id text PRIMARY KEY,
    workflow text NOT NULL,
    version text NOT NULL,
    status smallint NOT NULL DEFAULT 0,
    owner text NOT NULL DEFAULT '',
    epoch bigint NOT NULL DEFAULT 0,
    head bigint NOT NULL,
    tail bigint NOT NULL DEFAULT 0,
    inbox_n bigint NOT NULL DEFAULT 0,
    seen bigint NOT NULL DEFAULT 0,
    snap_seq bigint NOT NULL DEFAULT 0,
    wake_at float8,
    parent text NOT NULL DEFAULT '',
    key text NOT NULL DEFAULT '',
    forked_from text NOT NULL DEFAULT '',
    digest bytea NOT NULL,
    created_at float8 NOT NULL,
    closed_at float8,
    trouble text NOT NULL DEFAULT ''
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
CREATE UNIQUE INDEX runs_n ON @runs(n);
CREATE UNIQUE INDEX runs_key ON @runs(key) WHERE key <> '';
CREATE INDEX runs_parent ON @runs(parent, n) WHERE parent <> '';
CREATE INDEX runs_ready ON @runs(workflow, version, n) WHERE owner = '' AND status = 0;
CREATE INDEX runs_due ON @runs(wake_at) WHERE owner = '' AND status = 1 AND wake_at IS NOT NULL;
CREATE INDEX runs_owned ON @runs(owner) WHERE owner <> '';
CREATE INDEX runs_closed ON @runs(closed_at) WHERE closed_at IS NOT NULL;
CREATE INDEX runs_troubled ON @runs(n) WHERE trouble <> '';
CREATE INDEX runs_prunable ON @runs(id) WHERE snap_seq > tail;

-- What is long PostgreSQL itself keeps outside of the row, compressed.
CREATE TABLE @journal(
    run text, seq bigint, kind text NOT NULL, epoch bigint NOT NULL, at float8 NOT NULL, body bytea NOT NULL,
    PRIMARY KEY(run, seq)
);
CREATE TABLE @inbox(
    run text, n bigint, event_id text NOT NULL, kind text NOT NULL, at float8 NOT NULL, body bytea NOT NULL,
    PRIMARY KEY(run, n)
);
CREATE UNIQUE INDEX inbox_once ON @inbox(run, event_id);
CREATE TABLE @snapshots(
    run text, seq bigint, at float8 NOT NULL, codec text NOT NULL, body bytea NOT NULL, PRIMARY KEY(run, seq)
);

CREATE TABLE @permits(name text, run text, epoch bigint NOT NULL, slots bigint NOT NULL, PRIMARY KEY(name, run));
CREATE INDEX permits_run ON @permits(run);

-- Runs that are gone whose other rows are still being removed.
CREATE TABLE @trash(run text PRIMARY KEY);
-- When somebody last looked for what is old.
CREATE TABLE @collected(one bool PRIMARY KEY DEFAULT true CHECK (one), at float8 NOT NULL);
"""

MIGRATIONS: tuple[str, ...] = (_FIRST,)
"""Each makes a schema of its index's version one of the next version. What is written here is never changed."""


def migrate(db: Database, schema: str, name: str) -> None:
    """Brings a schema to the newest version: once, however many processes open it.

    Raises:
        StoreError: It is not a store's, or that of a newer actorflow, or the user may not make it.
    """
    if _version(db, schema, name) == len(MIGRATIONS):
        return

    def make(tx: Database) -> None:
        tx.execute(f"SELECT pg_advisory_xact_lock({lock_number('%s')})", (f"migrate {schema}",))
        if not tx.rows("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)):
            tx.execute(f'CREATE SCHEMA "{schema}"')
        version = _version(tx, schema, name)  # again: somebody else may have done it meanwhile
        for script in MIGRATIONS[version:]:
            tx.execute(script)
        tx.execute("CREATE TABLE IF NOT EXISTS @actorflow(version int NOT NULL)")
        tx.execute("DELETE FROM @actorflow")
        tx.execute("INSERT INTO @actorflow VALUES(%s)", (len(MIGRATIONS),))

    db.transaction(make)


def _version(db: Database, schema: str, name: str) -> int:
    tables = {
        str(table) for (table,) in db.rows("SELECT tablename::text FROM pg_tables WHERE schemaname = %s", (schema,))
    }
    if not tables:
        return 0
    if "actorflow" not in tables:
        raise StoreError(
            f"schema {schema} of {name} is of something else than actorflow; give another one: schema=…", code="AF339"
        )
    ((version,),) = db.rows("SELECT version FROM @actorflow")
    if version > len(MIGRATIONS):
        raise StoreError(
            f"schema {schema} of {name} was written by a newer actorflow (version {version}, this one knows "
            f"{len(MIGRATIONS)}); update actorflow",
            code="AF339",
        )
    return int(version)
