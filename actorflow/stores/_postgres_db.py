"""Connections to PostgreSQL: what of psycopg is used, how long an answer may take, and what lies between."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import random
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

from actorflow.errors import ActorflowError, StoreError

__all__ = ["CLOCK", "Database", "check_name", "connect", "insist", "load_psycopg", "lock_number"]

T = TypeVar("T")
Values = Sequence[Any] | Mapping[str, Any]

logger = logging.getLogger("actorflow")

CLOCK = "extract(epoch FROM statement_timestamp())::float8"
"""The store's clock as SQL: the database's, one for all hosts."""

ATTEMPTS = 30  # at a transaction that collides with others
IDLE = 2000  # milliseconds that a transaction may be left open: whoever froze in one holds up the others for so long
SETTINGS = {
    "idle_in_transaction_session_timeout": f"'{IDLE}ms'",
    "jit": "off",
    # Plans are kept while tables grow: one that was made for an empty table must not read a full one.
    "enable_seqscan": "off",
}


def load_psycopg() -> Any:  # Any: an extra, whose types a checker need not have
    """The module psycopg, which is an extra: whoever imports our rooms need not have it.

    Raises:
        StoreError: It is not installed.
    """
    try:
        return importlib.import_module("psycopg")
    except ImportError as error:
        raise StoreError(
            "PostgresStore needs psycopg, which is not installed or finds no libpq; pip install 'actorflow[postgres]'",
            code="AF336",
        ) from error


class Database:
    """A connection, and the schema that ``@`` stands for in a statement.

    Attributes:
        pooled: Whether something between here and the server may give each transaction another session.
    """

    def __init__(self, connection: Any, schema: str, durability: str) -> None:
        self._connection = connection
        self._schema = schema
        self._durability = durability
        self.pooled: bool = False
        self._statements: dict[str, str] = {}

    @property
    def channel(self) -> str:
        """Where processes that share the schema tell each other."""
        return f"actorflow_{self._schema}"

    @property
    def pid(self) -> int:
        """Number of the server's process, as the server's first message had it."""
        number: int = self._connection.info.backend_pid
        return number

    def execute(self, statement: str, values: Values | None = None) -> Any:
        """Carries out a statement; within `pipeline`, later."""
        said = self._statements.get(statement)
        if said is None:
            said = self._statements[statement] = statement.replace("@", f'"{self._schema}".')
        return self._connection.execute(said, values)

    def rows(self, statement: str, values: Values | None = None) -> list[tuple[Any, ...]]:
        """All that a statement gives."""
        found: list[tuple[Any, ...]] = self.execute(statement, values).fetchall()
        return found

    @contextlib.contextmanager
    def pipeline(self) -> Generator[None]:
        """Statements inside are sent together, and answered together at its end."""
        block = self._connection.pipeline()
        block.__enter__()
        try:
            yield
        except BaseException:
            # Told of an error it would log what became of the statements behind the one that failed.
            with contextlib.suppress(load_psycopg().Error):
                block.__exit__(None, None, None)
            raise
        block.__exit__(None, None, None)

    def begin(self) -> None:
        """Begins a transaction."""
        self._connection.execute("BEGIN")
        if self.pooled:  # what is set for a session would be somebody else's with the next transaction
            for statement in self._settings():
                self._connection.execute(f"SET LOCAL {statement}")

    def settle(self) -> None:
        """Sets the session up."""
        if self.pooled:
            self._connection.prepare_threshold = None  # another session does not know it
        else:
            for statement in self._settings():
                self._connection.execute(f"SET {statement}")

    def _settings(self) -> list[str]:
        commits = "on" if self._durability == "strict" else "off"
        return [*(f"{name} = {value}" for name, value in SETTINGS.items()), f"synchronous_commit = {commits}"]

    def again(self, attempt: Callable[[], T]) -> T:
        """Carries out a transaction; once more where it has collided with another one, which the server has undone."""
        errors = load_psycopg().errors
        collisions = (
            errors.DeadlockDetected,
            errors.SerializationFailure,
            errors.UniqueViolation,
            errors.DivisionByZero,  # see `insist`
        )
        for number in range(ATTEMPTS):
            try:
                return attempt()
            except collisions:
                self._connection.execute("ROLLBACK")
                if number == ATTEMPTS - 1:
                    raise
                time.sleep(random.random() * 0.002 * 2 ** min(number, 5))  # noqa: S311 - to get out of step
        raise AssertionError

    def transaction(self, work: Callable[[Database], T]) -> T:
        """Carries out `work` in a transaction, which is undone where it raises."""

        def attempt() -> T:
            self.begin()
            try:
                outcome = work(self)
            except ActorflowError:
                self.rollback()
                raise
            self._connection.execute("COMMIT")
            return outcome

        return self.again(attempt)

    def rollback(self) -> None:
        """Ends a transaction as if it had not been."""
        self._connection.execute("ROLLBACK")

    def fileno(self) -> int:
        """The socket, for ``select``."""
        number: int = self._connection.fileno()
        return number

    def listen(self) -> None:
        """Hears from now on what is told."""
        self._connection.execute(f'LISTEN "{self.channel}"')

    def heard(self) -> list[tuple[int, str]]:
        """What was told since the last call, each with the process of the server that told it; waits for nothing."""
        return [(told.pid, told.payload) for told in self._connection.notifies(timeout=0)]

    def close(self) -> None:
        """Lets go of the connection, and of all that the server holds for it."""
        self._connection.close()


def insist(condition: str) -> str:
    """SQL that fails where a condition does not hold: the transaction is undone, and begun again by `Database.again`."""
    return f"SELECT 1 / ({condition})::int"


def lock_number(name: str) -> str:
    """SQL for the number of an advisory lock that a name stands for."""
    return f"hashtextextended({name}, 6373)"  # of our own: other programs may lock numbers too


def connect(dsn: str, schema: str, *, durability: str = "strict", patience: float, name: str) -> Database:
    """A connection in which each statement commits by itself; one without an answer for `patience` seconds is closed.

    Raises:
        StoreError: There is no server, or it cannot keep a store.
    """
    psycopg = load_psycopg()
    given: dict[str, Any] = {
        "connect_timeout": max(2, int(patience)),
        "application_name": "actorflow",
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": int(patience * 1000),
    }
    try:
        given |= psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise StoreError(
            f"{name} has no address of a PostgreSQL database ({str(error).strip()}); give one such as "
            "postgresql://user@host:5432/database",
            code="AF337",
        ) from error
    given |= {"autocommit": True, "client_encoding": "utf8"}
    try:
        connection: Any = _class(psycopg, patience).connect(**given)
    except psycopg.OperationalError as error:
        raise StoreError(
            f"{name} cannot be reached ({' '.join(str(error).split())}); look whether the server runs, and whether the "
            "address, the user and the password are right",
            code="AF337",
        ) from error
    db = Database(connection, schema, durability)
    try:
        db.pooled = _is_pooled(db)
        db.settle()
    except BaseException:
        connection.close()
        raise
    return db


def _is_pooled(db: Database) -> bool:
    """Whether the process that answers is not the one that the server's first message named: a pooler has its own."""
    ((pid,),) = db.rows("SELECT pg_backend_pid()")
    return bool(pid != db.pid)


@functools.cache
def _class(psycopg: Any, patience: float) -> Any:
    """A connection class that does not wait for ever: a link may be cut without a word, and acknowledge what is sent."""

    class Bounded(psycopg.Connection):  # type: ignore[misc] # pyright: ignore[reportUntypedBaseClass]
        def wait(self, gen: Any, *args: Any, **options: Any) -> object:
            parent: Any = super()
            return parent.wait(bounded(self, gen), *args, **options)

    def bounded(connection: Any, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        until = time.monotonic() + patience
        try:
            state = next(gen)
            while True:
                ready = yield state
                if not ready and time.monotonic() >= until:
                    connection.close()
                    raise psycopg.OperationalError(f"the server has not answered for {patience:g} s")
                state = gen.send(ready)
        except StopIteration as stop:
            return stop.value

    return Bounded


_NAME = re.compile(r"[a-z_][a-z0-9_]{0,47}")


def check_name(schema: str) -> None:
    """Refuses what would need quoting.

    Raises:
        StoreError: The name is not of small letters, digits and underscores.
    """
    if not _NAME.fullmatch(schema) or schema.startswith("pg_"):
        raise StoreError(
            f"schema is {schema!r}; give a name of small letters, digits and underscores, 48 at most, that does not begin "
            "with pg_",
            code="AF338",
        )
