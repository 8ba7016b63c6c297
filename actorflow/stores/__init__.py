"""Where runs are kept: stores behind the contract of `actorflow.storage`."""

from actorflow.stores._url import store_from_url
from actorflow.stores.postgres import PostgresStore
from actorflow.stores.sqlite import SqliteStore

__all__ = ["PostgresStore", "SqliteStore", "store_from_url"]
