"""Where runs are kept: stores behind the contract of `actorflow.storage`."""

from actorflow.stores._url import store_from_url
from actorflow.stores.sqlite import SqliteStore

__all__ = ["SqliteStore", "store_from_url"]
