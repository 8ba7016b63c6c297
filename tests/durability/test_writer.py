"""The thread behind a store: groups, and what happens when the disk says no."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from actorflow.errors import Fenced, StoreError
from actorflow.storage import Receipt, Topic
from actorflow.stores import SqliteStore
from actorflow.stores._sqlite_db import connect, load_apsw
from actorflow.stores._writer import GROUP
from tests.durability.engines import BACKENDS, CAPS, Backend, bodies, claimed, message, moved, new_run, step
from tests.durability.files import fill_after

both = pytest.mark.parametrize("backend", BACKENDS)


@both
def test_requests_that_wait_go_together(tmp_path: Path, backend: Backend) -> None:
    """A thousand requests take a handful of transactions, each of a bounded size."""

    async def main() -> None:
        async with SqliteStore(tmp_path / "runs.db") as store:
            before = await store.stats()
            answers = [store.ask(new_run(f"r{i}")) for i in range(1000)]
            assert not answers[-1].done
            for answer in answers:
                await answer.wait()
            after = await store.stats()
            assert after.requests - before.requests == 1000
            assert 1000 / GROUP <= after.groups - before.groups <= 1000 / GROUP + 3

    anyio.run(main, backend=backend)


@attrs.frozen
class Disk:
    """A disk that can be filled.

    Attributes:
        folder: On it.
        vfs: Name of the file layer that plays it; None if it is a real one.
        fill: Leaves no room.
        free: Makes room.
    """

    folder: Path
    vfs: str | None
    fill: Callable[[], object]
    free: Callable[[], object]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    """A real file system of a megabyte where this user may mount one, a file layer that counts bytes where not."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0  # noqa: S603 - ours
    except FileNotFoundError:
        mounted = False
    if mounted:
        filler = folder / "filler"

        def fill() -> None:
            with filler.open("ab", buffering=0) as file:
                for size in (65536, 512, 1):
                    while True:
                        try:
                            file.write(bytes(size))
                        except OSError:
                            break

        yield Disk(folder, None, fill, filler.unlink)
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S603, S607 - ours
        return
    room = [10**9]
    layer = fill_after("small disk", lambda: room[0])
    yield Disk(folder, "small disk", lambda: room.__setitem__(0, 0), lambda: room.__setitem__(0, 10**9))
    del layer


@both
@pytest.mark.parametrize("played", [False, True])
def test_a_full_disk_fails_the_group_and_drops_the_claims(
    small_disk: Disk, tmp_path: Path, backend: Backend, played: bool
) -> None:
    """Nobody is acknowledged; the host is none any more; with room again everything acknowledged is there."""
    room = [10**9]
    layer = fill_after("played disk", lambda: room[0])
    disk = small_disk
    if played:
        disk = Disk(tmp_path, "played disk", lambda: room.__setitem__(0, 0), lambda: room.__setitem__(0, 10**9))
    path = disk.folder / "runs.db"
    body = bytes(20_000)

    async def main() -> None:
        async with SqliteStore(path, vfs=disk.vfs) as store:
            host = await store.register(CAPS)
            runs = await claimed(store, host, "a", "b")
            here = moved(runs["a"], await store.commit(step(runs["a"], b"kept")))
            assert await store.deliver(message("b", "kept")) is Receipt.ACCEPTED
            hint = await store.wake(Topic.WORK, 0, 60)
            disk.fill()
            lost = 0
            for i in range(60):
                asked = [store.ask(step(here, body)), store.ask(message("b", f"e{i}"))]
                outcomes: list[Any] = []
                for answer in asked:
                    try:
                        outcomes.append(await answer.wait())
                    except StoreError as error:
                        outcomes.append(error)
                if type(outcomes[0]) is StoreError:
                    lost += 1
                    assert outcomes[0].code == "AF220"
                    assert isinstance(outcomes[0].__cause__, load_apsw().Error)
                    break
                here = moved(here, outcomes[0])
            assert lost == 1
            with pytest.raises(StoreError):  # the disk is full, or the claims are gone
                await store.beat(host)
            disk.free()
            with pytest.raises(Fenced, match="the store had failed"):
                await store.beat(host)
            stats = await store.stats()
            assert (stats.failures > 0, stats.failure) == (True, "")
            assert await store.wake(Topic.WORK, hint, 60) > hint
            again = await store.register(CAPS)
            there = {run.run_id: run for run in (await store.claim(again, 10)).runs}
            assert there.keys() == {"a", "b"}
            assert there["a"].head == here.head
            assert await bodies(store, "a") == [b"start", b"kept", *[body] * (here.head - 2)]
            kept = [m.event_id for m in await store.inbox("b")]
            assert kept[0] == "kept"
            with pytest.raises(Fenced):
                await store.commit(step(here, b"from the life before"))
            await store.commit(step(there["a"], b"on"))

    anyio.run(main, backend=backend)
    db = connect(str(path), None)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()
    del layer


@both
def test_a_failing_request_takes_its_group_along(tmp_path: Path, backend: Backend) -> None:
    """Also one that only this library could have made wrong: nothing of the group stays, and the store goes on."""

    async def main() -> None:
        async with SqliteStore(tmp_path / "runs.db") as store:
            host = await store.register(CAPS)
            run_a = (await claimed(store, host, "a"))["a"]
            wrong: Any = object()
            asked = [store.ask(step(run_a, b"lost")), store.ask(new_run("b", body=wrong)), store.ask(message("a"))]
            failed: set[bool] = set()
            for answer in asked:
                with pytest.raises(StoreError, match=r"nothing of it counts as done\. Register again.* \[AF220\]$"):
                    await answer.wait()
                failed.add(answer.done)
            assert failed == {True}
            assert await bodies(store, "a") == [b"start"]
            assert await store.inbox("a") == []
            assert (await store.create(new_run("c"))).fresh

    anyio.run(main, backend=backend)


def test_in_memory_a_failure_leaves_what_was_there() -> None:
    """There is no file to open again: the group is undone, the claims are dropped."""

    async def main() -> None:
        async with SqliteStore(":memory:") as store:
            host = await store.register(CAPS)
            await claimed(store, host, "a")
            wrong: Any = object()
            asked = [store.ask(message("a")), store.ask(new_run("b", body=wrong))]
            for answer in asked:
                with pytest.raises(StoreError):
                    await answer.wait()
            with pytest.raises(Fenced):
                await store.beat(host)
            assert await bodies(store, "a") == [b"start"]
            assert await store.inbox("a") == []
            again = await store.register(CAPS)
            assert [run.run_id for run in (await store.claim(again, 10)).runs] == ["a"]

    anyio.run(main)


@both
def test_a_failing_question_harms_nobody_else(tmp_path: Path, backend: Backend) -> None:
    """A reader's connection is opened anew; claims stay."""

    async def main() -> None:
        async with SqliteStore(tmp_path / "runs.db") as store:
            host = await store.register(CAPS)
            await claimed(store, host, "a")
            wrong: Any = object()
            with pytest.raises(StoreError):
                await store.get(wrong)
            assert (await store.get("a")) is not None
            await store.beat(host)

    anyio.run(main, backend=backend)


@both
def test_an_answer_whose_use_fails_harms_nobody_else(
    tmp_path: Path, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, and the others of the group get theirs."""

    def fails(_: object) -> None:
        raise ValueError("in the caller's code")

    async def main() -> None:
        async with SqliteStore(tmp_path / "runs.db") as store:
            answers = [store.ask(new_run(f"r{i}"), fails if i == 1 else None) for i in range(4)]
            assert [(await answer.wait()).fresh for answer in answers] == [True] * 4

    anyio.run(main, backend=backend)
    assert [record.exc_info is not None for record in caplog.records] == [True]


@both
def test_whoever_is_told_may_start_tasks(tmp_path: Path, backend: Backend) -> None:
    """Answers come outside of any task, and anyio must know its event loop there all the same."""
    told: list[str] = []

    async def main() -> None:
        async with anyio.create_task_group() as group, SqliteStore(tmp_path / "runs.db") as store:

            async def work() -> None:
                told.append("worked")

            answer = store.ask(new_run(), lambda _: group.start_soon(work))
            await answer.wait()

    anyio.run(main, backend=backend)
    assert told == ["worked"]
