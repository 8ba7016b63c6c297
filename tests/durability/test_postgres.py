"""What is PostgreSQL's own in the store for many machines: its sessions, locks, notifications, and how these break."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from typing import Any

import anyio
import pytest

from actorflow.errors import Fenced, StoreError, WorkflowRuntimeError
from actorflow.storage import Claim, Host, Receipt, Register, Status, Topic
from actorflow.stores import PostgresStore, store_from_url
from actorflow.stores._postgres_db import Database, connect
from actorflow.stores._postgres_hosts import beat, claim, register
from actorflow.stores._postgres_schema import MIGRATIONS
from tests.durability.engines import (
    BACKENDS,
    CAPS,
    Backend,
    accepted,
    bodies,
    claimed,
    message,
    moved,
    new_run,
    step,
)
from tests.durability.links import link
from tests.durability.servers import Server, fresh_schema, needs_postgres, server, the_server

pytestmark = needs_postgres
both = pytest.mark.parametrize("backend", BACKENDS)


def a_store(schema: str | None = None, **options: Any) -> PostgresStore:
    return PostgresStore(the_server().dsn, schema=schema or fresh_schema(), **options)


def plain(schema: str = "public") -> Database:
    """A connection of the test's own."""
    return connect(the_server().dsn, schema, patience=10, name="the test")


def expire(schema: str, host: Host) -> None:
    """Time passes for a host that hangs."""
    db = plain(schema)
    db.execute("UPDATE @hosts SET lease_until = lease_until - 1e6 WHERE id = %s", (host.id,))
    db.close()


# ------------------------------------------------------------------------------------------------- addresses and schemas


def test_without_psycopg_the_extra_is_named() -> None:
    """Importing works without it; making a store says what to install."""
    code = (
        "import sys; sys.modules['psycopg'] = None\nfrom actorflow.stores import PostgresStore\n"
        "try:\n    PostgresStore('postgresql://localhost/a')\nexcept Exception as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603 - ours
    assert done.stdout.endswith("pip install 'actorflow[postgres]' [AF336]\n")


def test_addresses() -> None:
    """libpq's options are libpq's; ours are taken out."""
    assert repr(store_from_url("postgresql://me@db/app")) == "<PostgresStore 'PostgreSQL store actorflow', not open>"
    assert (
        repr(store_from_url("postgres:///app?schema=a_b&host=/run"))
        == "<PostgresStore 'PostgreSQL store a_b', not open>"
    )
    store_from_url("postgresql:///app?durability=relaxed&sslmode=disable")
    with pytest.raises(StoreError, match=r"\[AF225\]$"):
        store_from_url("postgresql:///app?durability=no")
    for name in ("Upper", "a b", 'a"b', "", "pg_mine", "x" * 49):
        with pytest.raises(StoreError, match=r"\[AF338\]$"):
            PostgresStore("postgresql:///app", schema=name)


@pytest.mark.parametrize(
    "dsn", ["postgresql://postgres@127.0.0.1:1/x", "host=127.0.0.1 port=1", "no = address = at all"]
)
def test_who_is_not_there_is_told(dsn: str) -> None:
    """In one line, with what to look at."""

    async def main() -> None:
        with pytest.raises(StoreError, match=r"\[AF337\]$"):
            await PostgresStore(dsn).open()

    anyio.run(main)


def test_a_schema_is_made_once_however_many_open_it() -> None:
    """Eight at a time; then it is there, with its version."""
    schema = fresh_schema()

    async def one() -> None:
        async with a_store(schema) as store:
            await store.create(new_run())

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(one)
        async with a_store(schema) as store:
            assert await bodies(store, "a") == [b"start"]

    anyio.run(main)
    db = plain(schema)
    assert db.rows("SELECT version FROM @actorflow") == [(len(MIGRATIONS),)]
    db.close()


def test_schemas_of_others_are_left_alone() -> None:
    """One that has tables of its own, and one that a newer actorflow has written."""
    foreign, newer = fresh_schema(), fresh_schema()
    db = plain()
    for schema in (foreign, newer):
        db.execute(f"CREATE SCHEMA {schema}")
    db.execute(f"CREATE TABLE {foreign}.things(n int)")
    db.execute(f"CREATE TABLE {newer}.actorflow AS SELECT 1000 AS version")
    db.close()

    async def main() -> None:
        for schema, why in ((foreign, "of something else"), (newer, "newer actorflow")):
            with pytest.raises(StoreError, match=rf"{why}.* \[AF339\]$"):
                await a_store(schema).open()

    anyio.run(main)


def test_names_that_it_cannot_keep_harm_nobody() -> None:
    """They are refused one by one, and the rest of their group is done."""

    async def main() -> None:
        async with a_store() as store:
            host = await store.register(CAPS)
            asked = [store.ask(new_run(name)) for name in ("a", "nul\0", "long" * 400, "\ud800", "b")]
            for k, answer in enumerate(asked):
                if k in {0, 4}:
                    assert (await answer.wait()).fresh
                else:
                    with pytest.raises(WorkflowRuntimeError, match=r"\[AF340\]$"):
                        await answer.wait()
            with pytest.raises(WorkflowRuntimeError, match=r"\[AF340\]$"):
                await store.deliver(message("a", "\0"))
            await store.beat(host)

    anyio.run(main)


# ------------------------------------------------------------------------------------------------------- many at a time


def test_strict_waits_for_the_disk() -> None:
    """Whatever the database's own setting is; relaxed does not."""
    db = plain()
    db.execute("ALTER ROLE postgres SET synchronous_commit = off")
    try:
        for durability, setting in (("strict", "on"), ("relaxed", "off")):
            other = connect(the_server().dsn, "public", durability=durability, patience=10, name="the test")
            assert other.rows("SHOW synchronous_commit") == [(setting,)]
            other.close()
    finally:
        db.execute("ALTER ROLE postgres RESET synchronous_commit")
        db.close()


@both
def test_nobody_misses_a_message_of_another_process(backend: Backend) -> None:
    """One goes idle over and over while another sends: each message is seen, by the answer or by a claim."""
    schema = fresh_schema()

    async def main() -> None:
        async with a_store(schema) as one, a_store(schema) as two:
            host = await one.register(CAPS)
            here = (await claimed(one, host, "a"))["a"]

            async def send(part: int) -> None:
                for i in range(25):
                    await accepted(two if part else one, message(event_id=f"{part}/{i}"))

            seen = 0
            async with anyio.create_task_group() as group:
                group.start_soon(send, 0)
                group.start_soon(send, 1)
                while seen < 50:
                    answer = await one.commit(step(here, status=Status.WAITING, release=True, seen=seen))
                    assert answer.owned == (answer.inbox_n > seen)
                    if not answer.owned:
                        with anyio.fail_after(60):
                            hint = 0
                            while not (runs := (await one.claim(host, 1)).runs):
                                hint = await one.wake(Topic.WORK, hint, 60)
                        here = runs[0]
                    got = await one.inbox("a", after=seen)
                    assert [m.n for m in got] == list(range(seen + 1, seen + 1 + len(got)))
                    seen += len(got)

    anyio.run(main, backend=backend)


def test_two_processes_that_write_to_each_other_do_not_stand_in_each_others_way() -> None:
    """Groups that lock the same runs from both ends: none is undone for good, no claim is dropped."""
    schema = fresh_schema()

    async def main() -> None:
        async with a_store(schema) as one, a_store(schema) as two:
            hosts = [await one.register(CAPS), await two.register(CAPS)]
            names = [f"r{i}" for i in range(20)]
            for name in names:
                await one.create(new_run(name))
            runs = [(await one.claim(hosts[0], 10)).runs, (await two.claim(hosts[1], 10)).runs]

            async def work(store: PostgresStore, k: int) -> None:
                here = {run.run_id: run for run in runs[k]}
                for i in range(15):
                    to = names if k else names[::-1]
                    asked = {
                        n: store.ask(step(run, b"%d" % i, outbox=[message(to[i], f"{n}/{i}")]))
                        for n, run in here.items()
                    }
                    for name, answer in asked.items():
                        here[name] = moved(here[name], await answer.wait())

            async with anyio.create_task_group() as group:
                group.start_soon(work, one, 0)
                group.start_soon(work, two, 1)
            for store, host in zip((one, two), hosts, strict=True):
                await store.beat(host)
                assert (await store.stats()).failures == 0
            assert sum([len(await one.inbox(name)) for name in names]) == 300

    anyio.run(main)


def test_commits_touch_no_index() -> None:
    """A run's row is written beside its old one: what does not change is in no index."""
    schema = fresh_schema()

    async def main() -> None:
        async with a_store(schema) as store:
            host = await store.register(CAPS)
            here = (await claimed(store, host, "a"))["a"]
            for i in range(200):
                here = moved(here, await store.commit(step(here, b"%d" % i)))

    anyio.run(main)
    db = plain(schema)
    updated = hot = 0
    for _ in range(600):  # the session's numbers are there when it has ended
        ((updated, hot),) = db.rows(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_all_tables WHERE relid = '@runs'::regclass"
        )
        if updated >= 200:
            break
        time.sleep(0.05)
    assert hot > 0.9 * updated
    db.close()


def test_of_many_hosts_one_collects() -> None:
    """Where it was done lately nothing is done, whoever asks."""
    schema = fresh_schema()

    async def main() -> None:
        async with a_store(schema) as one, a_store(schema) as two:
            host = await one.register(CAPS)
            assert (await one.gc(0.0, every=1e6)).runs == 0
            runs = await claimed(one, host, "a")
            await one.commit(step(runs["a"], status=Status.COMPLETED))
            assert (await two.gc(0.0, every=1e6)).runs == 0
            assert (await two.gc(0.0, every=1e-6)).runs == 1

    anyio.run(main)


# ------------------------------------------------------------------------------------------------------ who lives, who hears


WORKER = """
import anyio, sys
from actorflow.stores import PostgresStore
async def main():
    async with PostgresStore(sys.argv[1], schema=sys.argv[2]) as store:
        host = await store.register([("Flow", "v1")], ttl=1e6)
        print([run.run_id for run in (await store.claim(host, 10)).runs], flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


def test_a_process_that_is_killed_is_dead_at_once() -> None:
    """Its session ends with it, and who watches is told; until then its runs are its own."""
    schema = fresh_schema()

    async def main() -> None:
        async with a_store(schema) as store:
            await store.create(new_run())
            host = await store.register(CAPS)
            command = [sys.executable, "-c", WORKER, the_server().dsn, schema]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:  # noqa: ASYNC220, S603 - ours
                assert worker.stdout is not None
                assert worker.stdout.readline() == "['a']\n"
                for _ in range(3):
                    await store.wake(Topic.JOURNAL, 10**9, 0.15)
                    assert not (await store.claim(host, 1)).runs
                os.kill(worker.pid, signal.SIGKILL)
            hint = 0
            with anyio.fail_after(30):
                while not (runs := (await store.claim(host, 1)).runs):
                    hint = await store.wake(Topic.WORK, hint, 60)
            assert (runs[0].run_id, runs[0].epoch) == ("a", 3)
            assert (await store.stats()).hosts == 1

    anyio.run(main)


def test_a_host_that_hangs_loses_its_runs() -> None:
    """When its lease has run out by the database's clock, though its session is there."""
    schema = fresh_schema()

    async def main() -> None:
        async with a_store(schema) as one, a_store(schema) as two:
            host, other = await one.register(CAPS), await two.register(CAPS)
            here = (await claimed(one, host, "a"))["a"]
            expire(schema, host)
            hint = 0
            with anyio.fail_after(30):
                while not (runs := (await two.claim(other, 1)).runs):
                    hint = await two.wake(Topic.WORK, hint, 60)
            for ask in (one.beat(host), one.claim(host, 1)):
                with pytest.raises(Fenced, match="its lease had run out"):
                    await ask
            with pytest.raises(Fenced, match=f"with {other.id}"):
                await one.commit(step(here, b"late"))
            await two.commit(step(runs[0], b"on"))

    anyio.run(main)


def test_a_lease_that_has_run_out_is_not_renewed() -> None:
    """Whether or not somebody has taken the host out yet."""
    schema = fresh_schema()

    async def main() -> None:
        async with a_store(schema):
            pass

    anyio.run(main)
    db = plain(schema)
    host = register(db, Register(caps=CAPS))
    beat(db, host.id)
    expire(schema, host)
    for ask in (lambda: beat(db, host.id), lambda: claim(db, Claim(host.id, 1))):
        with pytest.raises(Fenced, match="its lease had run out"):
            ask()
    db.close()


def test_a_run_that_is_locked_when_its_host_is_taken_out_is_freed_later() -> None:
    """Whoever froze in the middle of a transaction holds up nobody, and nothing of his is forgotten."""
    schema = fresh_schema()

    async def main() -> None:
        async with a_store(schema) as store:
            old, host = await store.register(CAPS), await store.register(CAPS)
            await claimed(store, old, "a", "b")
            db = plain(schema)
            db.begin()
            db.execute("SELECT 1 FROM @runs WHERE id = 'a' FOR UPDATE")
            expire(schema, old)
            got: list[str] = []
            hint = 0
            with anyio.fail_after(30):
                while len(got) < 2:
                    got += [run.run_id for run in (await store.claim(host, 10)).runs]
                    if got == ["b"]:
                        assert (await store.stats()).hosts == 2
                        db.close()
                    hint = await store.wake(Topic.WORK, hint, 1)
            assert got == ["b", "a"]
            assert (await store.stats()).hosts == 1

    anyio.run(main)


@both
def test_others_are_told(backend: Backend) -> None:
    """A message wakes the process that has the run, and that one only."""
    schema = fresh_schema()

    async def main() -> None:
        async with a_store(schema) as one, a_store(schema) as two, a_store(schema) as three:
            assert abs(one.now() - two.now()) < 5
            host, _ = await one.register(CAPS), await two.register(CAPS)
            await claimed(one, host, "a")
            engines = [store._postgres for store in (one, two)]
            with anyio.fail_after(30):
                while not all(engine.listener and engine.listener.hearing for engine in engines):
                    await anyio.sleep(0.01)
                await anyio.sleep(0.3)  # what was told of the beginning
                hints = [await store.wake(Topic.WORK, 0, 0) for store in (one, two)]
                await three.deliver(message())
                assert await one.wake(Topic.WORK, hints[0], 60) > hints[0]
                assert (await one.claim(host, 0)).news == (("a", 1),)
            assert await two.wake(Topic.WORK, hints[1], 0) == hints[1]

    anyio.run(main, backend=backend)


# ------------------------------------------------------------------------------------------------------------ what breaks


def test_a_session_that_is_ended_drops_its_claims() -> None:
    """Nobody is acknowledged; the host is none any more; what was acknowledged before is there."""
    schema = fresh_schema()

    async def main() -> None:
        async with a_store(schema) as store:
            host = await store.register(CAPS)
            here = (await claimed(store, host, "a"))["a"]
            here = moved(here, await store.commit(step(here, b"kept")))
            db = plain()
            db.execute("SELECT pg_terminate_backend(%s)", (store._postgres.mine()[1],))
            db.close()
            with pytest.raises(StoreError):  # it failed, or has failed since and was opened anew
                await store.commit(step(here, b"lost"))
            with pytest.raises(Fenced, match="the store had failed"):
                await store.beat(host)
            again = await store.register(CAPS)
            hint = 0
            with anyio.fail_after(30):
                while not (runs := (await store.claim(again, 1)).runs):
                    hint = await store.wake(Topic.WORK, hint, 60)
            assert runs[0].head == 2
            await store.commit(step(runs[0], b"on"))
            assert await bodies(store, "a") == [b"start", b"kept", b"on"]

    anyio.run(main)


@pytest.mark.parametrize("done", [True, False])
def test_a_commit_of_which_nobody_heard(done: bool) -> None:
    """The link breaks while the server commits: it is never guessed, and read when the run is claimed again."""
    schema = fresh_schema()

    async def main() -> None:
        async with a_store(schema) as store:
            host = await store.register(CAPS)
            here = (await claimed(store, host, "a"))["a"]
            db: Any = store._postgres._db
            execute = db.execute

            def breaking(statement: str, values: Any = None) -> Any:
                if statement == "COMMIT":
                    if done:
                        execute(statement)
                        db.rows("SELECT 1")
                    raise ConnectionError("the link broke")
                return execute(statement, values)

            db.execute = breaking
            with pytest.raises(StoreError, match=r"nothing of it counts as done.* \[AF220\]$"):
                await store.commit(step(here, b"who knows"))
            again = await store.register(CAPS)
            hint = 0
            with anyio.fail_after(30):
                while not (runs := (await store.claim(again, 1)).runs):
                    hint = await store.wake(Topic.WORK, hint, 60)
            assert runs[0].head == 1 + done
            assert len(await bodies(store, "a")) == runs[0].head
            await store.commit(step(runs[0], b"on"))

    anyio.run(main)


@pytest.fixture(scope="module")
def own() -> Any:
    """A server that tests may crash."""
    with server() as made:
        yield made


def test_a_server_that_crashes_loses_nothing_that_was_acknowledged(own: Server) -> None:
    """Requests fail while it is down; when it is back, hosts register anew and go on."""

    async def main() -> None:
        async with PostgresStore(own.dsn, schema=fresh_schema()) as store:
            host = await store.register(CAPS)
            here = (await claimed(store, host, "a"))["a"]
            here = moved(here, await store.commit(step(here, b"kept")))
            assert await store.deliver(message()) is Receipt.ACCEPTED
            await anyio.to_thread.run_sync(own.crash)
            for ask in (store.deliver(message(event_id="f")), store.get("a")):
                with pytest.raises(StoreError):
                    await ask
            await anyio.to_thread.run_sync(own.start)
            again = await store.register(CAPS)
            hint = 0
            with anyio.fail_after(30):
                while not (runs := (await store.claim(again, 1)).runs):
                    hint = await store.wake(Topic.WORK, hint, 60)
            assert (runs[0].head, runs[0].inbox_n) == (2, 1)
            with pytest.raises(Fenced):
                await store.commit(step(here, b"from the life before"))

    anyio.run(main)


def test_a_link_that_is_cut_without_a_word_is_given_up() -> None:
    """Who waits is told after `patience`; others take the runs over when the lease has run out."""
    schema = fresh_schema()

    async def main() -> None:
        with link(the_server().port) as wire:
            dsn = f"postgresql://postgres@127.0.0.1:{wire.port}/postgres"
            async with PostgresStore(dsn, schema=schema, patience=2) as one, a_store(schema) as two:
                host, other = await one.register(CAPS), await two.register(CAPS)
                here = (await claimed(one, host, "a"))["a"]
                wire.cut()
                expire(schema, host)
                late = one.ask(step(here, b"late"))
                hint = 0
                with anyio.fail_after(30):
                    while not (runs := (await two.claim(other, 1)).runs):
                        hint = await two.wake(Topic.WORK, hint, 60)
                    await two.commit(step(runs[0], b"on"))
                    with pytest.raises(StoreError, match=r"has not answered for 2 s|timeout expired"):
                        await late.wait()
                wire.mend()
                assert await bodies(two, "a") == [b"start", b"on"]

    anyio.run(main)


def test_behind_a_pooler_it_looks_instead_of_hearing(caplog: pytest.LogCaptureFixture) -> None:
    """The log says so once; nothing of a session is used, and runs go on."""
    schema = fresh_schema()

    async def main() -> None:
        with link(the_server().port, mask=True) as wire:
            dsn = f"postgresql://postgres@127.0.0.1:{wire.port}/postgres"
            async with PostgresStore(dsn, schema=schema) as store, a_store(schema) as two:
                assert store._postgres.listener is None
                host = await store.register(CAPS)
                here = (await claimed(store, host, "a"))["a"]
                await store.commit(step(here, b"1"))
                hint = await store.wake(Topic.WORK, 0, 0)
                with anyio.fail_after(30):
                    assert await store.wake(Topic.WORK, hint, 60) > hint
                    other = await two.register(CAPS)
                    expire(schema, host)
                    hint = 0
                    while not (runs := (await two.claim(other, 1)).runs):
                        hint = await two.wake(Topic.WORK, hint, 60)
                assert runs[0].head == 2

    with caplog.at_level(logging.WARNING, "actorflow"):
        anyio.run(main)
    assert [record.message for record in caplog.records if "behind a pooler" in record.message] != []
    db = plain()
    assert (
        db.rows("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND NOT granted") == []
    )
    db.close()
