"""Pools: resources are opened once, shared, and closed in reverse, whatever fails and whoever is cancelled."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import copy_context
from typing import Annotated, Any

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from actorflow._recipes import Need, Recipe, read_recipe
from actorflow._runtime import _backend
from actorflow._runtime.opening import settle
from actorflow._runtime.resources import Pool, StepPool
from actorflow._runtime.timers import Timers
from actorflow.errors import InternalError, ResourceError
from actorflow.resources import Resource, Scope, override
from actorflow.testing import Random, current_turns, simulate

pytestmark = pytest.mark.anyio

BACKENDS: list[Any] = ["asyncio", "trio"]


class House:
    """What a runtime does for its pools."""

    def __init__(self, group: TaskGroup) -> None:
        self.group = group
        self.timers = Timers(self.watch)
        self.timers.clock = _backend.clock()
        self.start = _backend.spawner()
        self.variables = copy_context()
        self.broken: list[BaseException] = []

    def watch(self) -> None:
        self.group.start_soon(self.timers.watch)

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        turns = current_turns()
        if turns is None:
            self.start(self.variables, work)
        else:
            ticket = turns.ticket()

            async def gated() -> None:
                await turns.drive(ticket, work())

            self.start(self.variables, gated)

    def pool(self, scope: Scope = "run", parent: Pool | None = None, owner: str = "run r-1") -> Pool:
        return Pool(scope, owner, spawn=self.spawn, timers=self.timers, parent=parent, broken=self.broken.append)


@asynccontextmanager
async def house() -> AsyncGenerator[House]:
    finished = False
    async with anyio.create_task_group() as group:
        made = House(group)
        yield made
        finished = True
        assert made.broken == []
        group.cancel_scope.cancel()
    assert finished, "a cancellation that is nobody's came out of the block"


def recipe(factory: Callable[..., object], scope: Scope = "run") -> Recipe:
    read = read_recipe(Annotated[Any, Resource(factory, scope=scope)])
    assert read is not None
    return read


def needs(**factories: Callable[..., object] | Resource) -> list[Need]:
    found: list[Need] = []
    for name, factory in factories.items():
        read = read_recipe(Annotated[Any, factory if isinstance(factory, Resource) else Resource(factory)])
        assert read is not None
        found.append(Need(name, read))
    return found


class Log(list[str]):
    """Makes factories that write down what happens to what they make."""

    def resource(self, name: str, *, opening: float = 1.0, closing: float = 1.0) -> Callable[..., AsyncGenerator[str]]:
        async def make() -> AsyncGenerator[str]:
            self.append(f"opening {name}")
            try:
                await anyio.sleep(opening)
            except BaseException:
                self.append(f"gave up {name}")
                raise
            self.append(f"opened {name}")
            yield name
            await anyio.sleep(closing)
            self.append(f"closed {name}")

        make.__qualname__ = name
        return make


# -- opening


def connect() -> str:
    return "value"


async def connect_later() -> str:
    await anyio.sleep(1)
    return "value"


def generate() -> Generator[str]:
    yield "value"


async def generate_later() -> AsyncGenerator[str]:
    await anyio.sleep(1)
    yield "value"
    await anyio.sleep(1)


@contextmanager
def manage() -> Generator[str]:
    yield "value"


@asynccontextmanager
async def manage_later() -> AsyncGenerator[str]:
    yield "value"


def plainly_later() -> Coroutine[Any, Any, str]:
    return connect_later()


FACTORIES: list[Callable[..., object]] = [
    connect, connect_later, generate, generate_later, manage, manage_later, plainly_later,
]  # fmt: skip


@pytest.mark.parametrize("factory", FACTORIES)
async def test_every_kind_of_factory(factory: Callable[..., object]) -> None:
    """Whatever the kind, it gives the value, the same one to the next who asks, and closes without a word."""
    async with house() as made:
        for pool in (made.pool(), made.pool()):
            assert await pool.get(recipe(factory)) == "value"
            assert pool.get_nowait(recipe(factory)) == "value"
            assert await pool.close() == ()
            assert pool.empty


@pytest.mark.parametrize("factory", FACTORIES)
async def test_every_kind_of_factory_for_a_step(factory: Callable[..., object]) -> None:
    """The same in the task of an execution."""
    async with house() as made, StepPool(made.pool(), "W.s") as pool:
        given = needs(a=Resource(factory, scope="step"), b=Resource(factory, scope="step"))
        assert await pool.arguments(given) == {"a": "value", "b": "value"}


async def test_opened_once_for_all_who_ask() -> None:
    """Executions that ask at the same moment share one opening, and so do those that come later."""
    log = Log()
    db = recipe(log.resource("db"))
    async with house() as made:
        pool, got = made.pool(), list[object]()

        async def ask(delay: float) -> None:
            await anyio.sleep(delay)
            got.append(await pool.get(db))

        async with anyio.create_task_group() as tasks:
            for delay in (0, 0, 0.5, 1.0, 3.0):
                tasks.start_soon(ask, delay)
        assert (got, log) == (["db"] * 5, ["opening db", "opened db"])
        await pool.close()


async def test_the_first_to_ask_may_leave() -> None:
    """Who asked first is cancelled while it opens: the opening goes on for the next one."""
    log = Log()
    db = recipe(log.resource("db", opening=3))
    async with house() as made:
        pool = made.pool()

        async def ask_shortly() -> None:
            with anyio.move_on_after(1):
                await pool.get(db)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask_shortly)
            await anyio.wait_all_tasks_blocked()
            assert await pool.get(db) == "db"
        assert anyio.current_time() == 3
        await pool.close()
        assert log == ["opening db", "opened db", "closed db"]


async def test_the_last_to_leave_takes_it_along() -> None:
    """Nobody waits for it any more: the opening is cancelled. Who asks meanwhile waits for that, and opens it anew."""
    log = Log()

    async def slow() -> AsyncGenerator[str]:
        log.append("opening")
        try:
            await anyio.sleep(5)
            yield "slow"
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(1)
            log.append("over")

    async with house() as made:
        pool = made.pool()
        for patience in (1, 0.5):
            with anyio.move_on_after(patience):
                await pool.get(recipe(slow))
        assert (log, anyio.current_time()) == (["opening"], 1.5)
        assert await pool.get(recipe(slow)) == "slow"
        assert (log, anyio.current_time()) == (["opening", "over", "opening"], 7)
        await pool.close()


async def test_an_opening_that_is_done_before_it_can_be_cancelled() -> None:
    """A factory that holds against the cancellation has opened something: it is kept for the next one, and closed."""
    log = Log()

    async def stubborn() -> AsyncGenerator[str]:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(2)
        yield "stubborn"
        await anyio.sleep(1)
        log.append("closed")

    async with house() as made:
        pool = made.pool()
        with anyio.move_on_after(1):
            await pool.get(recipe(stubborn))
        assert await pool.get(recipe(stubborn)) == "stubborn"
        assert anyio.current_time() == 2
        await pool.close()
    assert log == ["closed"]


async def test_a_failing_factory_fails_everyone_who_waits() -> None:
    """They get the very exception; the next to ask calls the factory again."""
    calls = 0

    async def flaky() -> str:
        nonlocal calls
        calls += 1
        await anyio.sleep(1)
        if calls == 1:
            raise OSError("down")
        return "up"

    async with house() as made:
        pool, errors = made.pool(), list[OSError]()

        async def ask() -> None:
            with pytest.raises(OSError, match=r"^down$") as caught:
                await pool.get(recipe(flaky))
            errors.append(caught.value)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
        assert (calls, len(errors), len(set(map(id, errors)))) == (1, 3, 1)
        assert await pool.get(recipe(flaky)) == "up"
        await pool.close()


async def test_a_plain_function_that_fails() -> None:
    """Without a task the same holds."""
    calls = 0

    def flaky() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("down")
        return "up"

    async with house() as made:
        pool = made.pool()
        with pytest.raises(OSError, match=r"^down$"):
            await pool.get(recipe(flaky))
        assert await pool.get(recipe(flaky)) == "up"


async def test_nested_resources() -> None:
    """What a factory needs is opened before it, once for all that need it, and closed after it."""
    log = Log()
    db = log.resource("db")

    async def users(db: Annotated[str, Resource(db)]) -> AsyncGenerator[str]:
        log.append("opened users")
        yield f"users of {db}"
        log.append("closed users")

    async def orders(db: Annotated[str, Resource(db)], users: Annotated[str, Resource(users)]) -> str:
        return f"orders of {users} and {db}"

    for function, annotation in ((users, {"db": db}), (orders, {"db": db, "users": users})):
        function.__annotations__.update({name: Annotated[str, Resource(f)] for name, f in annotation.items()})
    async with house() as made:
        pool = made.pool()
        given = await pool.arguments(needs(orders=orders, users=users))
        assert given == {"orders": "orders of users of db and db", "users": "users of db"}
        assert await pool.close() == ()
        assert log == ["opening db", "opened db", "opened users", "closed users", "closed db"]


async def test_scopes() -> None:
    """A resource is opened in the pool of its scope: the same for two runs of a runtime, another one for each run."""
    count = 0

    def number() -> int:
        nonlocal count
        count += 1
        return count

    async with house() as made:
        runtime = made.pool("runtime", owner="the runtime")
        actors = [made.pool("actor", made.pool("run", runtime)) for _ in range(2)]
        shared = [actor.get_nowait(recipe(number, "runtime")) for actor in actors]
        own = [actor.get_nowait(recipe(number, "run")) for actor in actors for _ in range(2)]
        assert (shared, own) == ([1, 1], [2, 2, 3, 3])
        async with StepPool(actors[0], "W.s") as first, StepPool(actors[0], "W.s") as second:
            given = [await pool.arguments(needs(n=Resource(number, cache=False))) for pool in (first, first, second)]
            assert given == [{"n": 4}, {"n": 4}, {"n": 5}]
        message = "run r-1 has no place for resources of scope 'runtime'; this is a bug in actorflow, please report it [AF001]"
        with pytest.raises(InternalError, match=f"^{re.escape(message)}$"):
            await made.pool().get(recipe(number, "runtime"))


async def test_without_waiting() -> None:
    """What is open or made by plain functions is there at once; else `arguments` is to be awaited."""

    def session(db: Annotated[str, Resource(connect_later)]) -> str:
        return f"session of {db}"

    async with house() as made:
        pool = made.pool()
        assert pool.arguments_nowait(needs(a=connect)) == {"a": "value"}
        given = needs(a=connect, b=session)
        with pytest.raises(anyio.WouldBlock):
            pool.arguments_nowait(given)
        assert pool.empty, "asking without waiting has started nothing"
        assert await pool.arguments(given) == pool.arguments_nowait(given) == {"a": "value", "b": "session of value"}


async def test_overrides_are_not_shared() -> None:
    """A pool that serves a test and others gives each what it asks for."""

    def session(db: Annotated[str, Resource(connect, scope="runtime")]) -> str:
        return f"session of {db}"

    async with house() as made:
        pool = made.pool("runtime")
        with override(connect, lambda: "fake"):
            assert await pool.get(recipe(session, "runtime")) == "session of fake"
        assert await pool.get(recipe(session, "runtime")) == "session of value"
        with override(connect, lambda: "fake"):
            async with StepPool(pool, "W.s") as step:
                assert await step.arguments(needs(a=Resource(connect, scope="step"))) == {"a": "fake"}


# -- closing


async def test_closing_in_reverse() -> None:
    """What was opened last is closed first, one after the other."""
    log = Log()
    async with house() as made:
        pool = made.pool()
        for name, opening in (("a", 3), ("b", 1), ("c", 2)):
            await pool.get(recipe(log.resource(name, opening=opening)))
        assert not pool.empty
        log.clear()
        assert await pool.close() == ()
        assert (log, anyio.current_time()) == (["closed c", "closed b", "closed a"], 9)
        assert await pool.close() == ()


async def test_errors_while_closing() -> None:
    """Each is kept with a note of its resource; the others are closed all the same."""
    log = Log()

    async def bad() -> AsyncGenerator[str]:
        yield "bad"
        raise OSError("cannot close")

    @contextmanager
    def worse() -> Generator[str]:
        yield "worse"
        raise ValueError("not either")

    async with house() as made:
        pool = made.pool()
        for factory in (log.resource("first"), bad, worse):
            await pool.get(recipe(factory))
        errors = await pool.close()
    assert [(repr(error), error.__notes__) for error in errors] == [
        ("ValueError('not either')", [f"while resource {worse.__qualname__.rpartition('.')[2]} was closed"]),
        ("OSError('cannot close')", ["while resource bad was closed"]),
    ]
    assert log == ["opening first", "opened first", "closed first"]


async def test_what_a_resource_is_told() -> None:
    """A decorated factory is left with the error, which it cannot make undone; a plain generator is just resumed."""
    told: list[str] = []

    @asynccontextmanager
    async def transaction() -> AsyncGenerator[str]:
        try:
            yield "transaction"
        except ValueError as error:
            told.append(f"rolled back after {error}")

    async def plain() -> AsyncGenerator[str]:
        yield "plain"
        told.append("closed")

    error = ValueError("no")
    async with house() as made:
        pool = made.pool()
        await pool.arguments(needs(a=transaction, b=plain))
        assert await pool.close(error) == ()
        assert told == ["closed", "rolled back after no"]
        with pytest.raises(ValueError, match=r"^no$") as caught:
            async with StepPool(made.pool(), "W.s") as step:
                await step.arguments(needs(a=Resource(transaction, scope="step"), b=Resource(plain, scope="step")))
                raise error
        assert caught.value is error
        assert told == ["closed", "rolled back after no"] * 2


async def test_a_closed_pool_opens_nothing() -> None:
    """Who asks too late is told so; who waits for an opening when it is closed, too."""
    log = Log()
    message = "resource db was asked for after run r-1 had ended; ask while it goes on [AF066]"
    db = recipe(log.resource("db", opening=60))
    async with house() as made:
        pool = made.pool()

        async def ask() -> None:
            with pytest.raises(ResourceError, match=f"^{re.escape(message)}$"):
                await pool.get(db)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.sleep(1)
            assert not pool.empty
            assert await pool.close() == ()
        await ask()
        assert (log, anyio.current_time()) == (["opening db", "gave up db"], 1)


async def test_closing_is_not_cancelled() -> None:
    """Whoever closes may be cancelled before and meanwhile: everything is closed."""
    log = Log()
    async with house() as made:
        pool = made.pool()
        await pool.get(recipe(log.resource("db", closing=9)))
        with anyio.move_on_after(1) as scope:
            scope.cancel()
            await pool.close()
        assert log[-1] == "closed db"
        with anyio.move_on_after(1):
            async with StepPool(made.pool(), "W.s") as step:
                await step.arguments(needs(a=Resource(log.resource("own", opening=0, closing=9), scope="step")))
                await anyio.sleep(60)
        assert log[-1] == "closed own"
        assert anyio.current_time() == 1 + 9 + 1 + 9


async def hang_here() -> None:
    await anyio.sleep(12)


async def hanging() -> AsyncGenerator[str]:
    yield "hanging"
    await hang_here()


async def test_a_closing_that_hangs_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Each time that the grace has passed the log says where it hangs, from the user's own line on."""
    async with house() as made:
        pool = made.pool()
        await pool.get(recipe(hanging))
        await pool.close()
        async with StepPool(made.pool(), "W.s") as step:
            await step.arguments(needs(a=Resource(hanging, scope="step")))
        await anyio.sleep(60)
    messages = [record.getMessage() for record in caplog.records]
    assert [message.partition(";")[0] for message in messages] == [
        "resource hanging of run r-1 is still closing after 5 s",
        "resource hanging of run r-1 is still closing after 10 s",
        "resource hanging of W.s is still closing after 5 s",
        "resource hanging of W.s is still closing after 10 s",
    ]
    for message in messages:
        lines = message.splitlines()
        assert re.fullmatch(r'  File ".*test_resources\.py", line \d+, in hanging', lines[1])
        assert lines[2:3] == ["    await hang_here()"]
        assert "await anyio.sleep(12)" in message


def test_settling() -> None:
    """Errors of closing come out, unless there is one before them: then they are noted on it."""
    one, two, first = OSError("one"), ValueError("two"), KeyError("first")
    one.add_note("while resource db was closed")
    assert settle(None, (), "W.s") is None
    assert settle(None, (one,), "W.s") is one
    group = settle(None, (one, two), "W.s")
    assert repr(group) == (
        "ExceptionGroup('2 resources of W.s failed while they were closed', [OSError('one'), ValueError('two')])"
    )
    assert settle(first, (one,), "W.s") is first
    assert first.__notes__ == ["besides, OSError: one (while resource db was closed)"]


# -- task groups in resources


class Worker:
    def __init__(self, group: TaskGroup) -> None:
        self.group = group
        self.fail = anyio.Event()
        self.beats = 0

    async def beat(self) -> None:
        while True:
            with anyio.move_on_after(1):
                await self.fail.wait()
                raise OSError("the worker died")
            self.beats += 1


async def worker() -> AsyncGenerator[Worker]:
    async with anyio.create_task_group() as group:
        made = Worker(group)
        group.start_soon(made.beat)
        yield made
        group.cancel_scope.cancel()


@asynccontextmanager
async def managed_worker() -> AsyncGenerator[Worker]:
    async with anyio.create_task_group() as group:
        made = Worker(group)
        group.start_soon(made.beat)
        yield made
        group.cancel_scope.cancel()


WORKERS: list[Callable[..., object]] = [worker, managed_worker]


@pytest.mark.parametrize("factory", WORKERS)
async def test_a_task_group_in_a_shared_resource(factory: Callable[..., object]) -> None:
    """It is entered and left in one task, whoever asks, and works in between."""
    async with house() as made:
        pool = made.pool()
        got: list[Worker] = []

        async def ask() -> None:
            got.append(await pool.get(recipe(factory)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            tasks.start_soon(ask)
        await anyio.sleep(2.5)
        assert got[0] is got[1]
        assert got[0].beats == 2
        assert await pool.close() == ()
        assert anyio.current_time() == 2.5


@pytest.mark.parametrize("factory", WORKERS)
async def test_a_shared_task_group_that_fails(factory: Callable[..., object]) -> None:
    """Its owner is told at once; the others live on; who asks again gets a new one."""
    log = Log()
    async with house() as made:
        pool = made.pool()
        await pool.get(recipe(log.resource("db", opening=0)))
        first: Worker = await pool.get(recipe(factory))
        await pool.get(recipe(log.resource("cache", opening=0)))
        first.fail.set()
        await anyio.sleep(1)
        assert [repr(error) for error in made.broken] == [
            "ExceptionGroup('unhandled errors in a TaskGroup', [OSError('the worker died')])"
        ] or [repr(error) for error in made.broken] == [
            "ExceptionGroup('Exceptions from Trio nursery', [OSError('the worker died')])"
        ]
        made.broken.clear()
        second: Worker = await pool.get(recipe(factory))
        assert second is not first
        assert await pool.close() == ()
        assert log[-2:] == ["closed cache", "closed db"]


@pytest.mark.parametrize("factory", WORKERS)
async def test_a_task_group_of_a_step(factory: Callable[..., object]) -> None:
    """It is around the body: its failure cancels the body and is what the step raises; cancelling goes through it."""
    log = Log()
    for inner in (False, True):
        given = {"a": Resource(factory, scope="step")}
        if inner:
            given["b"] = Resource(log.resource("inner", opening=0, closing=0), scope="step")
        async with house() as made:
            pool = made.pool()
            async with StepPool(pool, "W.s") as step:
                one = (await step.arguments(needs(**given)))["a"]
                await anyio.sleep(2.5)
                assert one.beats == 2
            with pytest.raises(ExceptionGroup) as caught:
                async with StepPool(pool, "W.s") as step:
                    one = (await step.arguments(needs(**given)))["a"]
                    one.fail.set()
                    await anyio.sleep(60)
            assert "OSError('the worker died')" in repr(caught.value)
            await checkpoint()
            with anyio.move_on_after(1) as scope:
                async with StepPool(pool, "W.s") as step:
                    await step.arguments(needs(**given))
                    await anyio.sleep(60)
            assert scope.cancelled_caught
            await checkpoint()
            task = asyncio.current_task() if _is_asyncio() else None
            assert task is None or task.cancelling() == 0


def _is_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def mute() -> AsyncGenerator[anyio.CancelScope]:
    with anyio.CancelScope() as scope:
        yield scope


@asynccontextmanager
async def managed_mute() -> AsyncGenerator[anyio.CancelScope]:
    with anyio.CancelScope() as scope:
        yield scope


@pytest.mark.parametrize("factory", [mute, managed_mute])
async def test_a_resource_that_cancels_without_a_word(factory: Callable[..., object]) -> None:
    """A scope of its own that is cancelled ends it: that is an error to those who use it."""
    async with house() as made:
        pool = made.pool()
        scope: anyio.CancelScope = await pool.get(recipe(factory))
        scope.cancel()
        await anyio.sleep(1)
        name = recipe(factory).name
        assert [str(error) for error in made.broken] == [
            (
                f"resource {name} of run r-1 ended by itself while it was in use; let its factory hold on to it until it "
                "is closed, or raise an error that says why it cannot [AF065]"
            )
        ]
        made.broken.clear()
        assert await pool.close() == ()
        message = (
            "a resource of W.s cancelled the body that used it and gave no reason; "
            "let its factory raise an error that says why [AF065]"
        )
        with pytest.raises(ResourceError, match=f"^{re.escape(message)}$"):
            async with StepPool(pool, "W.s") as step:
                own: Any = (await step.arguments(needs(a=Resource(factory, scope="step"))))["a"]
                own.cancel()
                await anyio.sleep(60)
        await checkpoint()


async def test_a_failure_that_nobody_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Without an owner who wants to know, it is in the log."""
    async with house() as made:
        pool = Pool("run", "run r-1", spawn=made.spawn, timers=made.timers)
        scope: anyio.CancelScope = await pool.get(recipe(mute))
        scope.cancel()
        await anyio.sleep(1)
        await pool.close()
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [(logging.ERROR, "resource mute of run r-1 failed")]


# -- the end of the loop


async def test_the_end_of_the_task_group_waits_for_the_closing() -> None:
    """Tasks of resources that are open outlive the cancellation of their group: they end when the pool is closed."""
    log = Log()
    with anyio.CancelScope() as outer:
        async with anyio.create_task_group() as group:
            made = House(group)
            pool = made.pool()
            await pool.get(recipe(log.resource("db")))
            outer.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)
                assert log[-1] == "opened db"
                await pool.close()
    assert log[-1] == "closed db"


def test_the_end_of_an_asyncio_loop_waits_for_the_closing() -> None:
    """The same where asyncio cancels every task at its end: who uses the resource cleans up first."""
    log = Log()

    async def main() -> None:
        group: Any = None  # asyncio's tasks are native, see _backend.spawner
        made = House(group)
        pool = made.pool()
        keep = recipe(log.resource("db", opening=0, closing=0))

        async def use() -> None:
            try:
                await pool.get(keep)
                await anyio.sleep_forever()
            finally:
                for _ in range(9):
                    await asyncio.sleep(0)
                log.append("used")
                made.timers.watched = True
                await pool.close()

        task = asyncio.create_task(use())
        await anyio.wait_all_tasks_blocked()
        assert not task.done()

    asyncio.run(main())
    assert log == ["opening db", "opened db", "used", "closed db"]


def test_the_end_of_an_asyncio_loop_during_a_closing(caplog: pytest.LogCaptureFixture) -> None:
    """The closing that is cut off is reported, the others are done."""
    log = Log()

    async def main() -> None:
        group: Any = None
        made = House(group)
        made.timers.watched = True
        pool = made.pool()
        await pool.get(recipe(log.resource("first", opening=0, closing=0)))
        await pool.get(recipe(log.resource("second", opening=0, closing=60)))

        async def close() -> None:
            try:
                await pool.close()
            except asyncio.CancelledError:
                log.append("cancelled")
                raise

        task = asyncio.create_task(close())
        await anyio.wait_all_tasks_blocked()
        assert not task.done()

    asyncio.run(main())
    assert log == ["opening first", "opened first", "opening second", "opened second", "closed first", "cancelled"]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == (
        "the event loop of run r-1 ended while resource second was closing; "
        "let the program wait for its runs before it ends [AF067]"
    )


async def test_the_end_of_the_loop_during_an_opening() -> None:
    """Who waits for an opening that is cut off is told, even behind a shield."""
    message = (
        "the event loop of run r-1 ended while resource db was opening; "
        "let the program wait for its runs before it ends [AF067]"
    )
    log = Log()
    told: list[str] = []
    with anyio.CancelScope() as outer:
        async with anyio.create_task_group() as group:
            tasks: list[Any] = []
            made = House(group)
            if _is_asyncio():

                def start(_variables: object, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
                    tasks.append(asyncio.create_task(work()))

                made.start = start
            pool = made.pool()

            async def ask() -> None:
                with anyio.CancelScope(shield=True):
                    try:
                        await pool.get(recipe(log.resource("db", opening=60)))
                    except ResourceError as error:
                        told.append(str(error))

            group.start_soon(ask)
            await anyio.sleep(1)
            outer.cancel()
            for task in tasks:
                task.cancel()
    assert (told, log) == ([message], ["opening db", "gave up db"])


# -- laws


@pytest.mark.parametrize("backend", BACKENDS)
def test_cancelled_at_every_turn(backend: Any) -> None:
    """Whenever the users are cancelled: what has opened is closed, once, after everything that needs it."""

    def scenario(turn: int, seed: int) -> tuple[list[str], int]:
        log = Log()
        db = log.resource("db")
        own = log.resource("own")
        users: list[anyio.CancelScope] = []

        async def session(db: str) -> AsyncGenerator[str]:
            log.append("opened session")
            yield f"session of {db}"
            await anyio.sleep(1)
            log.append("closed session")

        session.__annotations__["db"] = Annotated[str, Resource(db)]
        given = needs(s=session, o=Resource(own, scope="step"))

        async def main() -> None:
            turns = current_turns()
            assert turns is not None
            async with house() as made:
                pool = made.pool()

                async def use() -> None:
                    with anyio.CancelScope() as scope:
                        users.append(scope)
                        async with StepPool(pool, "W.s") as step:
                            assert await step.arguments(given) == {"s": "session of db", "o": "own"}
                            await anyio.sleep(1)

                async with anyio.create_task_group() as tasks:
                    for _ in range(2):
                        tasks.start_soon(turns.drive, turns.ticket(), use())
                assert await pool.close() == ()
                assert pool.empty

        def at_turn(number: int) -> None:
            if number == turn:
                for scope in users[: 1 + seed % 2]:
                    scope.cancel()

        done = simulate(main, backend=backend, schedule=Random(seed), at_turn=at_turn)
        return log, done.turns

    seen: set[str] = set()
    for seed in range(6):
        turn, turns = 1, 99
        while turn <= turns:
            log, turns = scenario(turn, seed)
            seen.update(log)
            for name in ("db", "own", "session"):
                assert log.count(f"opened {name}") == log.count(f"closed {name}"), (turn, log)
            assert log.count("opened db") <= 1
            if "opened session" in log:
                assert log.index("opened db") < log.index("opened session"), (turn, log)
                assert log.index("closed session") < log.index("closed db"), (turn, log)
            turn += 1
    assert seen >= {f"{what} {name}" for what in ("opened", "closed", "gave up") for name in ("db", "own")}
