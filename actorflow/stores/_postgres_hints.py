"""A thread that hears what other processes tell through the database, and lets the event loop know."""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence

from actorflow.errors import StoreError
from actorflow.storage import Topic
from actorflow.stores._postgres_db import Database, load_psycopg

__all__ = ["Listener"]

logger = logging.getLogger("actorflow")

PAUSE = 1.0  # seconds between two attempts to connect
LOOK = 5.0  # seconds between two looks whether the connection is there still


class Listener:
    """Hears notifications. They are hints: whoever hears none looks by himself now and then.

    Args:
        connect: Makes a connection.
        mine: Which hosts live here, and the number of the session that writes.
        call: How the event loop is made to call something.
        give: Takes hints, in the event loop.
    """

    def __init__(
        self,
        connect: Callable[[], Database],
        mine: Callable[[], tuple[frozenset[str], int]],
        call: Callable[[Callable[[], object]], object],
        give: Callable[[Sequence[Topic]], object],
    ) -> None:
        self._connect = connect
        self._mine = mine
        self._call = call
        self._give = give
        self._ours, self._theirs = socket.socketpair()
        self._over: bool = False
        self.hearing: bool = False
        """Whether it is connected."""
        self._thread = threading.Thread(target=self._run, name="actorflow PostgreSQL hints", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._over = True
        self._ours.send(b"x")
        self._thread.join()
        self._ours.close()
        self._theirs.close()

    def _run(self) -> None:
        errors: tuple[type[Exception], ...] = (load_psycopg().Error, StoreError, OSError)
        while not self._over:
            try:
                db = self._connect()
            except errors as error:
                logger.debug("notifications cannot be heard, which is tried again in %g s: %s", PAUSE, error)
                select.select([self._theirs], [], [], PAUSE)
                continue
            try:
                self._listen(db)
            except errors as error:
                logger.debug("notifications are not heard any more, which is mended: %s", error)
            finally:
                self.hearing = False
                with contextlib.suppress(*errors):
                    db.close()

    def _listen(self, db: Database) -> None:
        if db.pooled:
            self._over = True
            return
        db.listen()
        self.hearing = True
        self._tell((Topic.WORK, Topic.JOURNAL))  # what was told before
        looked = time.monotonic()
        while not self._over:
            select.select([self._theirs.fileno(), db.fileno()], [], [], LOOK)
            if time.monotonic() - looked >= LOOK:
                looked = time.monotonic()
                db.rows("SELECT 1")  # a link that was cut says nothing
            topics: set[Topic] = set()
            hosts, writer = self._mine()
            for pid, words in db.heard():
                if pid != writer:  # what is done here is known here
                    topics.add(Topic.JOURNAL)
                    if words == "*" or not hosts.isdisjoint(words.split(",")):
                        topics.add(Topic.WORK)
            self._tell(tuple(topics))

    def _tell(self, topics: Sequence[Topic]) -> None:
        if topics:
            try:
                self._call(lambda: self._give(topics))
            except RuntimeError:
                self._over = True  # the loop is over
