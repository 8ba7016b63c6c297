"""What is SQLite's own in the embedded store: its file, its neighbours, its clock, its log."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from actorflow.errors import Fenced, StoreError
from actorflow.storage import Register, Status, Topic
from actorflow.stores import SqliteStore, store_from_url
from actorflow.stores._hosts import HostLocks, file_system, is_remote
from actorflow.stores._sqlite_db import connect
from actorflow.stores._sqlite_schema import MIGRATIONS
from actorflow.stores._writer import Question
from actorflow.stores.sqlite import CHECKPOINT_BUSY, LONELY_POLL, POLL, SqliteEngine
from tests.durability.engines import BACKENDS, CAPS, Backend, bodies, claimed, message, moved, new_run, step

both = pytest.mark.parametrize("backend", BACKENDS)


def process(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a program of its own."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)  # noqa: S603 - ours


def opened(path: Path, **options: Any) -> None:
    async def main() -> None:
        async with SqliteStore(path, **options):
            pass

    anyio.run(main)


# -------------------------------------------------------------------------------------------------------------- the file


@pytest.mark.parametrize(("durability", "level"), [("strict", 2), ("relaxed", 1)])
def test_how_much_is_synced(tmp_path: Path, durability: Any, level: int) -> None:
    """Strict syncs the log at every commit, relaxed leaves that to checkpoints; no part of the file is mapped."""
    engine = SqliteEngine(str(tmp_path / "runs.db"), durability, inline=False, vfs=None)
    engine.open()
    db = engine._db
    assert db is not None
    assert (db.pragma("synchronous"), db.pragma("journal_mode"), db.pragma("mmap_size")) == (level, "wal", 0)
    engine.close()


def test_durability_is_one_of_two_words() -> None:
    """A third one is refused by name."""
    wrong: Any = "sometimes"
    with pytest.raises(StoreError, match=r"^durability is 'sometimes'; give 'strict' or 'relaxed' \[AF225\]$"):
        SqliteStore(":memory:", durability=wrong)


def test_a_file_of_a_newer_actorflow_is_left_alone(tmp_path: Path) -> None:
    """One sentence, and not a byte changed."""
    path = tmp_path / "runs.db"
    opened(path)
    db = connect(str(path), None)
    db.pragma("user_version", len(MIGRATIONS) + 1)
    db.pragma("journal_mode", "delete")
    db.close()
    before = path.read_bytes()
    with pytest.raises(
        StoreError, match=r"runs\.db was written by a newer actorflow \(schema 3, .*\); update actorflow \[AF224\]$"
    ):
        opened(path)
    assert path.read_bytes() == before


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """Another program's tables, another program's mark, or no database at all."""
    path = tmp_path / "other.db"
    db = connect(str(path), None)
    db.execute("CREATE TABLE bees(name)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"other\.db is a database of something else than actorflow; .* \[AF223\]$"):
        opened(path)
    assert path.read_bytes() == before
    text = tmp_path / "notes.txt"
    text.write_text("bees " * 1000)
    for wrong in (text, tmp_path, tmp_path / "missing" / "runs.db"):
        with pytest.raises(StoreError, match=r"cannot be opened .* \[AF226\]$"):
            opened(wrong)


def test_a_half_made_file_is_made_whole(tmp_path: Path) -> None:
    """The tables come all at once, or not at all: an empty database becomes a store."""
    path = tmp_path / "runs.db"
    connect(str(path), None).close()
    opened(path)
    db = connect(str(path), None)
    assert db.pragma("user_version") == len(MIGRATIONS)
    db.close()


def test_many_processes_may_make_the_file_at_once(tmp_path: Path) -> None:
    """One makes the tables, the others find them."""
    code = (
        "import sys, anyio\nfrom actorflow.stores import SqliteStore\nfrom actorflow.storage import NewRun\n"
        "async def main():\n    async with SqliteStore(sys.argv[1]) as store:\n"
        "        await store.create(NewRun(run_id=sys.argv[2], workflow='F', version='1', body=b''))\n"
        "anyio.run(main)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "runs.db")]
    started = [subprocess.Popen([*command, str(i)], stderr=subprocess.PIPE, text=True) for i in range(6)]  # noqa: S603 - ours
    assert [one.communicate()[1] for one in started] == [""] * 6
    db = connect(str(tmp_path / "runs.db"), None)
    assert db.execute("SELECT count(*) FROM runs").fetchall() == [(6,)]
    db.close()


def test_without_apsw_the_extra_is_named() -> None:
    """Importing works without it; making a store says what to install."""
    done = process(
        "import sys; sys.modules['apsw'] = None\nfrom actorflow.stores import SqliteStore\n"
        "try:\n    SqliteStore('runs.db')\nexcept Exception as error:\n    print(error)"
    )
    assert done.stdout == "SqliteStore needs apsw, which is not installed; pip install 'actorflow[sqlite]' [AF222]\n"


MOUNTS = """\
22 1 253:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / /home rw - nfs4 server:/home rw
31 30 0:41 / /home/me/local\\040disk rw - xfs /dev/vdb rw
32 22 0:42 / /mnt/win rw - fuse.sshfs me@there rw
33 22 0:43 / /mnt/two rw - nfs server:/x rw
34 22 0:44 / /mnt/two rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind", "remote"),
    [
        ("/var/lib", "ext4", False),
        ("/home/me", "nfs4", True),
        ("/home/me/local disk/a", "xfs", False),
        ("/homeless", "ext4", False),
        ("/mnt/win/x", "fuse.sshfs", True),
        ("/mnt/two", "tmpfs", False),
    ],
)
def test_a_network_file_system_is_known(path: str, kind: str, remote: bool) -> None:
    """By the mount that is on top of the path."""
    assert (file_system(Path(path), MOUNTS), is_remote(kind)) == (kind, remote)


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the file is made. The mount is the test's word: there is no server here."""
    monkeypatch.setattr("actorflow.stores.sqlite.file_system", MOUNTED_NFS)
    with pytest.raises(StoreError, match=r"runs\.db is on a network file system \(nfs4\), .* \[AF227\]$"):
        opened(tmp_path / "runs.db")
    assert list(tmp_path.iterdir()) == []


def MOUNTED_NFS(_: Path) -> str:
    return "nfs4"


@pytest.mark.parametrize("url", ["mysql://x/y", "runs.db", "sqlite:", "sqlite:///", "sqlite://host/runs.db"])
def test_an_address_of_no_store_is_refused(url: str) -> None:
    """With the forms that there are."""
    with pytest.raises(StoreError, match=r"is no address of a store; give sqlite:///runs\.db, .* \[AF228\]$"):
        store_from_url(url)


def test_addresses_of_stores() -> None:
    """Relative, absolute, none; and an option."""
    assert repr(store_from_url("sqlite:///a%20b.db")) == "<SqliteStore 'SQLite store a b.db', not open>"
    assert repr(store_from_url("sqlite:////var/runs.db")) == "<SqliteStore 'SQLite store /var/runs.db', not open>"
    store_from_url("sqlite:///runs.db?durability=relaxed")
    store_from_url("sqlite:///runs.db?durability=strict")
    with pytest.raises(StoreError, match=r"\[AF229\]$"):
        store_from_url("sqlite:///runs.db?sync=no")


# ------------------------------------------------------------------------------------------------------------ neighbours


@both
def test_two_stores_on_one_file_see_each_other(tmp_path: Path, backend: Backend) -> None:
    """What one commits wakes who waits at the other, and is read there; a host that closes is dead at once."""
    path = tmp_path / "runs.db"

    async def main() -> None:
        async with SqliteStore(path) as one, SqliteStore(path) as two:
            assert abs(one.now() - two.now()) < 1e-3 or one.now() <= two.now()
            host, other = await one.register(CAPS), await two.register(CAPS)
            run_a = (await claimed(one, host, "a"))["a"]
            hint = await two.wake(Topic.WORK, 0, 0)
            await one.commit(step(run_a, b"1", status=Status.WAITING))
            while not await two.read("a", after=1):
                hint = await two.wake(Topic.JOURNAL, hint, 60)
            await two.deliver(message())
            hint = 0
            while not (await one.claim(host, 0)).news:
                hint = await one.wake(Topic.WORK, hint, 60)
            assert not (await two.claim(other, 10)).runs
            await one.close()
            (again,) = (await two.claim(other, 10)).runs
            assert (again.run_id, again.head) == ("a", 2)
            await one.open()
            with pytest.raises(Fenced):
                await one.commit(step(attrs.evolve(run_a, head=2), b"late"))

    anyio.run(main, backend=backend)


def test_a_process_that_is_killed_is_dead_at_once(tmp_path: Path) -> None:
    """Its lease of a day does not count: the kernel has taken its lock away."""
    path = tmp_path / "runs.db"
    done = process(
        "import os, sys, anyio, signal\nfrom tests.durability.engines import *\nfrom actorflow.stores import SqliteStore\n"
        "async def main():\n    async with SqliteStore(sys.argv[1]) as store:\n"
        "        host = await store.register(CAPS, ttl=86400)\n        await claimed(store, host, 'a')\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\nanyio.run(main)",
        path,
    )
    assert done.returncode == -9, done.stderr

    async def main() -> None:
        async with SqliteStore(path) as store:
            host = await store.register(CAPS)
            assert [run.run_id for run in (await store.claim(host, 10)).runs] == ["a"]
            assert (await store.stats()).hosts == 1

    anyio.run(main)
    assert list(Path(f"{path}-hosts").iterdir()) == []


def test_who_looks_how_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Often while there are others, who need not be hosts; seldom while there are none, never where nobody can be."""
    monkeypatch.setattr("actorflow.stores.sqlite.WATCH", 0.0)
    path = str(tmp_path / "runs.db")
    one, two = (SqliteEngine(path, "strict", inline=False, vfs=None) for _ in range(2))
    memory = SqliteEngine(":memory:", "strict", inline=False, vfs=None)
    for engine in (one, memory):
        engine.open()
    assert (one.patience(), memory.patience()) == (LONELY_POLL, None)
    assert list(one.look()) == []
    two.open()
    assert two.patience() == POLL
    assert list(one.look()) == []
    assert one.patience() == POLL
    two.perform([Register()])
    assert list(one.look()) == [Topic.WORK, Topic.JOURNAL]
    two.close()
    one.look()
    assert one.patience() == LONELY_POLL
    for engine in (one, memory):
        engine.close()


def test_a_host_that_dies_leaves_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told once, though nobody has written; and of dead guests nothing is left."""
    monkeypatch.setattr("actorflow.stores.sqlite.WATCH", 0.0)
    path = tmp_path / "runs.db"
    engine = SqliteEngine(str(path), "strict", inline=False, vfs=None)
    engine.open()
    code = (
        "import os, sys, signal\nfrom actorflow.stores.sqlite import SqliteEngine\nfrom actorflow.storage import Register\n"
        "engine = SqliteEngine(sys.argv[1], 'strict', inline=False, vfs=None)\nengine.open()\n"
        "engine.perform([Register()])\nprint('ready', flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:  # noqa: S603 - ours
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        assert list(engine.look()) == [Topic.WORK, Topic.JOURNAL]
        assert list(engine.look()) == []
        other.kill()
        other.wait()
    assert list(engine.look()) == [Topic.WORK]
    assert list(engine.look()) == []
    assert engine.patience() == LONELY_POLL
    left = sorted(one.name.partition("-")[0] for one in Path(f"{path}-hosts").iterdir())
    assert left == ["guest", "host"]
    engine.close()


def test_locks_of_hosts(tmp_path: Path) -> None:
    """Alive while it is held, by whoever; a child process of the holder does not keep it alive."""
    mine, theirs = HostLocks(tmp_path / "hosts"), HostLocks(tmp_path / "hosts")
    mine.take("a")
    assert (mine.alive("a"), theirs.alive("a"), theirs.alive("b"), theirs.holds("a")) == (True, True, False, False)
    mine.forked()  # as in a child: the copy is closed, here with it the lock
    assert not theirs.alive("a")
    mine.take("b")
    mine.drop_all()
    assert not theirs.alive("b")
    assert [path.name for path in (tmp_path / "hosts").iterdir()] == ["a"]
    theirs.drop("a")
    memory = HostLocks(None)
    memory.take("c")
    assert (memory.alive("c"), memory.alive("d")) == (True, False)


# ----------------------------------------------------------------------------------------------------- clock, log, blobs


def test_the_clock_goes_on_after_the_machine_was_off(tmp_path: Path) -> None:
    """Never back, also if the time of day was set back meanwhile; on the same start it is the same clock."""
    path = tmp_path / "runs.db"

    async def now(**sql: str) -> float:
        store = SqliteStore(path)
        async with store:
            await store.beat(await store.register(CAPS))
            return store.now()

    first = anyio.run(now)
    assert anyio.run(now) >= first
    db = connect(str(path), None)
    db.execute("UPDATE clock SET boot = 'another', latest = ?", (first + 1e6,))
    db.close()
    later = anyio.run(now)
    assert later >= first + 1e6
    assert anyio.run(now) >= later


def test_the_log_does_not_grow_for_ever(tmp_path: Path) -> None:
    """It is put into the database while commits go on, and begun anew."""
    path = tmp_path / "runs.db"

    async def main() -> None:
        async with SqliteStore(path, durability="relaxed") as store:
            host = await store.register(CAPS)
            here = (await claimed(store, host, "a"))["a"]
            for _ in range(90):
                here = moved(here, await store.commit(step(here, *[os.urandom(60_000)] * 10)))
            assert Path(f"{path}-wal").stat().st_size < 2 * CHECKPOINT_BUSY * 4096 < path.stat().st_size
            assert len(await bodies(store, "a")) == 901

    anyio.run(main)
    assert not Path(f"{path}-wal").exists()


def test_long_bodies_are_kept_once_and_let_go(tmp_path: Path) -> None:
    """However many records and messages of however many runs have one."""
    path = tmp_path / "runs.db"
    body = os.urandom(100_000)

    async def main() -> None:
        async with SqliteStore(path) as store:
            host = await store.register(CAPS)
            runs = await claimed(store, host, "a", "b")
            await store.deliver(message("b", body=body))
            for name in "ab":
                await store.commit(step(runs[name], body, body, status=Status.COMPLETED))
            reader = connect(str(path), None)
            blobs = "SELECT refs, length(body) FROM blobs"
            assert reader.execute(blobs).fetchall() == [(5, 100_000)]
            assert (await store.gc(0.0, limit=2)).more
            assert (await store.gc(0.0)).runs
            assert reader.execute(blobs).fetchall() == []
            tables = ("runs", "journal", "inbox", "snapshots", "permits", "trash")
            assert [reader.execute(f"SELECT * FROM {table}").fetchall() for table in tables] == [[]] * 6  # noqa: S608
            reader.close()

    anyio.run(main)


def test_a_store_belongs_to_one_loop(tmp_path: Path) -> None:
    """Left open in a loop that is over, it says so in the next one; a new store on the file is fine."""
    path = tmp_path / "runs.db"
    store = SqliteStore(path)

    async def leave_open() -> None:
        await store.open()

    anyio.run(leave_open)
    for writer in (store._writer, store._reader):
        writer.ask(Question(lambda _: None)) if writer is store._reader else writer.ask(new_run())
        assert writer._thread is not None
        writer._thread.join()  # it lets go of the file by itself, once it has something to say and nobody to say it to
    with pytest.raises(StoreError, match=r"is open in another event loop, or was not closed there; .* \[AF236\]$"):
        anyio.run(store.open)

    async def look() -> None:
        async with SqliteStore(path) as other:
            assert await other.get("a") is not None

    anyio.run(look)


def test_a_file_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """What an older actorflow has written is read, and written on."""
    path = tmp_path / "old.db"
    db = connect(str(path), None)
    db.execute(MIGRATIONS[0])
    db.pragma("application_id", 0x61637466)
    db.pragma("user_version", 1)
    db.execute(
        "INSERT INTO runs(id, workflow, version, head, digest, created_at) VALUES('a', 'Flow', 'v1', 1, x'00', 1)"
    )
    db.execute("INSERT INTO journal VALUES('a', 1, 'created', 0, 1, CAST('start' AS BLOB), NULL)")
    db.close()

    async def main() -> None:
        async with SqliteStore(path) as store:
            host = await store.register(CAPS)
            (run,) = (await store.claim(host, 10)).runs
            assert run.trouble == ""
            await store.commit(step(run, b"1", trouble="some"))
            assert await bodies(store, "a") == [b"start", b"1"]
            assert (await store.stats()).troubled == (("a", "Flow", "some"),)

    anyio.run(main)
