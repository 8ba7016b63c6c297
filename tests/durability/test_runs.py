"""Runs on a store, in processes that are killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from actorflow.storage import Receipt
from actorflow.stores import SqliteStore
from tests.durability import runs
from tests.durability.runs import QUESTIONS, Workers, all_closed, answer, chaos, judge, make


@pytest.mark.parametrize("seed", range(2))
def test_kills_at_random_change_nothing(tmp_path: Path, seed: int) -> None:
    """Two workers on one file (F3), killed at any moment, with started again ones beside those that live."""
    report = anyio.run(chaos, tmp_path / "runs.db", 8, seed)
    assert report["wrong"] == []
    assert report["kills"] >= 8


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_restart_goes_on_at_once_with_the_state_that_it_had(tmp_path: Path, backend: str) -> None:
    """F1 and F2: killed in the middle of a run, started again, the run ends, and no change of its state is made twice."""

    async def main() -> None:
        workers = Workers(tmp_path / "runs.db")
        async with SqliteStore(tmp_path / "runs.db") as store:
            try:
                await make(store, ["A-1"])
                workers.start(backend)
                with anyio.fail_after(30):
                    while len(await store.read("A-1")) < 8:
                        await anyio.sleep(0.002)
                workers.kill()
                assert not await all_closed(store)
                workers.start(backend)
                for n in range(QUESTIONS):
                    assert await answer(store, "A-1", n) is Receipt.ACCEPTED
                with anyio.fail_after(30):
                    while not await all_closed(store):
                        await anyio.sleep(0.01)
            finally:
                workers.end()
            assert await judge(store, ["A-1"]) == []

    anyio.run(main)


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    """F4: events that people were told of are taken, each once, though everything was killed right behind them."""
    ids = [f"run-{n}" for n in range(20)]

    async def main() -> None:
        workers = Workers(tmp_path / "runs.db")
        async with SqliteStore(tmp_path / "runs.db") as store:
            try:
                await make(store, ids)
                workers.start("asyncio")
                with anyio.fail_after(30):
                    while len(await store.read(ids[0])) < 3:
                        await anyio.sleep(0.002)
                receipts = [await answer(store, run_id, n) for run_id in ids for n in range(QUESTIONS)]
                workers.kill()
                again = [await answer(store, run_id, n) for run_id in ids for n in range(QUESTIONS)]
                workers.start("trio")
                with anyio.fail_after(30):
                    while not await all_closed(store):
                        await anyio.sleep(0.01)
            finally:
                workers.end()
            assert receipts == [Receipt.ACCEPTED] * 60
            assert set(again) <= {Receipt.DUPLICATE, Receipt.CLOSED}
            assert await judge(store, ids) == []

    anyio.run(main)


def test_the_judge_sees_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that came to something else than is expected does not pass."""

    async def main() -> None:
        workers = Workers(tmp_path / "runs.db")
        async with SqliteStore(tmp_path / "runs.db") as store:
            try:
                await make(store, ["A-1"])
                workers.start("asyncio")
                for n in range(QUESTIONS):
                    await answer(store, "A-1", n)
                with anyio.fail_after(30):
                    while not await all_closed(store):
                        await anyio.sleep(0.01)
            finally:
                workers.end()
            assert await judge(store, ["A-1"]) == []
            monkeypatch.setattr(runs, "RESULT", [])
            assert await judge(store, ["A-1"]) != []

    anyio.run(main)


def test_without_a_store_nothing_of_it_is_imported() -> None:
    code = (
        "import actorflow, sys; print(sorted(m for m in sys.modules if 'apsw' in m or 'stores' in m or 'durable' in m))"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)  # noqa: S603
    assert said.stdout == "[]\n"
