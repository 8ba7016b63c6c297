"""A store by its address, as it stands in a configuration."""

from __future__ import annotations

from typing import cast
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from actorflow.errors import StoreError
from actorflow.storage import Store
from actorflow.stores.postgres import Durability, PostgresStore
from actorflow.stores.sqlite import SqliteStore

__all__ = ["store_from_url"]


def store_from_url(url: str, *, inline: bool = False) -> Store:
    """The store at an address, not yet open.

    Args:
        url: ``sqlite:///runs.db`` for a file, ``sqlite:////var/lib/runs.db`` for one by its whole path,
            ``sqlite:///:memory:`` for none; or ``postgresql://user@host:5432/database`` with whatever libpq knows behind
            it, and ``?schema=name``. Both take ``?durability=relaxed``.
        inline: See `SqliteStore`.

    Raises:
        StoreError: There is no such kind of store, or what it needs is not installed.

    Example:
        >>> store_from_url("sqlite:///:memory:")
        <SqliteStore 'SQLite store :memory:', not open>
        >>> store_from_url("postgresql://db.example.org/app?schema=orders")
        <PostgresStore 'PostgreSQL store orders', not open>
    """
    parts = urlsplit(url)
    if parts.scheme in {"postgresql", "postgres"}:
        return _postgres(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.scheme != "sqlite" or parts.netloc or not path or parts.fragment:
        raise StoreError(
            f"{url!r} is no address of a store; give sqlite:///runs.db, sqlite:////an/absolute/runs.db, "
            "sqlite:///:memory: or postgresql://user@host/database",
            code="AF228",
        )
    match parts.query.split("&"):
        case [""] | ["durability=strict"]:
            return SqliteStore(path, inline=inline)
        case ["durability=relaxed"]:
            return SqliteStore(path, durability="relaxed", inline=inline)
        case _:
            raise StoreError(
                f"{url!r} has an option that a SQLite store does not know: {parts.query!r}; give durability=strict or "
                "durability=relaxed",
                code="AF229",
            )


def _postgres(url: str) -> Store:
    parts = urlsplit(url)
    options = parse_qsl(parts.query, keep_blank_values=True)
    ours = {name: value for name, value in options if name in {"schema", "durability"}}
    theirs = urlencode([(name, value) for name, value in options if name not in ours])
    dsn = parts._replace(scheme="postgresql", query=theirs).geturl()
    if not parts.netloc:
        dsn = dsn.replace("postgresql:/", "postgresql:///", 1) if not dsn.startswith("postgresql://") else dsn
    durability = cast("Durability", ours.get("durability", "strict"))  # another word is refused by the store
    return PostgresStore(dsn, schema=ours.get("schema", "actorflow"), durability=durability)
