"""A store by its address, as it stands in a configuration."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from actorflow.errors import StoreError
from actorflow.storage import Store
from actorflow.stores.sqlite import SqliteStore

__all__ = ["store_from_url"]


def store_from_url(url: str, *, inline: bool = False) -> Store:
    """The store at an address, not yet open.

    Args:
        url: ``sqlite:///runs.db`` for a file, ``sqlite:////var/lib/runs.db`` for one by its whole path,
            ``sqlite:///:memory:`` for none; ``?durability=relaxed`` behind it.
        inline: See `SqliteStore`.

    Raises:
        StoreError: There is no such kind of store, or what it needs is not installed.

    Example:
        >>> store_from_url("sqlite:///:memory:")
        <SqliteStore 'SQLite store :memory:', not open>
    """
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.scheme != "sqlite" or parts.netloc or not path or parts.fragment:
        raise StoreError(
            f"{url!r} is no address of a store; give sqlite:///runs.db, sqlite:////an/absolute/runs.db or "
            "sqlite:///:memory:",
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
