"""Kills everything that works on a store behind any of its records, in virtual time, and starts it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

import anyio
import attrs

from actorflow import Runtime, Workflow
from actorflow.errors import StoreError
from actorflow.storage import Commit, RunQuery, Status
from actorflow.stores import SqliteStore
from actorflow.testing import simulate

Backend = Literal["asyncio", "trio"]


class MortalStore(SqliteStore):
    """A store whose process is dead behind a record: what is committed later is not, and nobody is told."""

    def __init__(self, path: str, dies_after: int | None) -> None:
        super().__init__(path, inline=True)
        self.dies_after = dies_after
        self.records = 0
        self.died = anyio.Event()

    def ask(self, request: Any, /, then: Callable[[Any], object] | None = None) -> Any:
        """Puts a request into the queue, of whoever lives."""
        if isinstance(request, Commit) and request.entries:
            if self.dies_after is not None and self.records >= self.dies_after:
                self.died.set()
                raise StoreError("the process is dead", code="AF240")
            self.records += len(request.entries)
        return super().ask(request, then)


@attrs.frozen
class Ended:
    """What became of all runs of a store.

    Attributes:
        runs: Of each run its id, its workflow, its parent and how it ended.
        result: What the first one gave.
        outcomes: How often an outcome of a body was recorded, at most.
    """

    runs: tuple[tuple[str, str, str, Status], ...]
    result: Any
    outcomes: int


def crash_everywhere(
    flows: Callable[[], Sequence[Workflow[Any, Any]]],
    folder: Any,
    *,
    backend: Backend,
) -> tuple[Ended, int]:
    """Runs the first of the workflows undisturbed, and again with a crash behind each record, and compares what all came to.

    Returns:
        What it came to, and how many crashes there were.
    """

    def play(path: str, dies_after: int | None) -> tuple[Ended, int]:
        made: list[tuple[Ended, int]] = []

        async def main() -> None:
            async with SqliteStore(path, inline=True):  # it outlives the processes
                lives = (MortalStore(path, dies_after), MortalStore(path, None))
                assert await _live(lives[0], flows) or await _live(lives[1], flows)
                made.append((await _ended(path, flows), lives[0].records))

        simulate(main, backend=backend)
        return made[0]

    whole, records = play(f"{folder}/whole.db", None)
    assert whole.outcomes == 1
    crashes = range(records)
    for after in crashes:
        again, _ = play(f"{folder}/{backend}-{after}.db", after)
        assert again == whole, f"crashed behind record {after} of {records}: {again}, and not {whole}"
    return whole, len(crashes)


class _DeadError(Exception):
    """Ends a runtime as a kill does."""


async def _live(
    store: MortalStore,
    flows: Callable[[], Sequence[Workflow[Any, Any]]],
) -> bool:
    """One life of a process; whether all runs ended in it."""
    ended: list[bool] = []
    with suppress(_DeadError, StoreError):
        async with Runtime(store=store, workflows=flows()) as rt:
            async with anyio.create_task_group() as group:

                async def die() -> None:
                    await store.died.wait()
                    group.cancel_scope.cancel()

                async def work() -> None:
                    with suppress(Exception):
                        await (await rt.start(flows()[0], run_id="A"))
                    with anyio.fail_after(3600):
                        while (await store.runs(_OPEN)).runs:
                            await anyio.sleep(0.5)
                    ended.append(True)
                    group.cancel_scope.cancel()

                group.start_soon(die)
                group.start_soon(work)
            if not ended:
                raise _DeadError
    return bool(ended)


_OPEN = RunQuery(status=[Status.RUNNABLE, Status.WAITING], limit=1)


async def _ended(path: str, flows: Callable[[], Sequence[Workflow[Any, Any]]]) -> Ended:
    async with SqliteStore(path, inline=True) as store, Runtime(store=store, workflows=flows()) as rt:
        runs = (await store.runs(RunQuery(limit=1000))).runs
        try:
            result = await (await rt.get("A"))
        except Exception as error:
            result = repr(error)
        outcomes = 0
        for info in runs:
            done = Counter(one.record.invocation for one in await rt.history(info.run_id) if one.record.kind == "done")
            outcomes = max([outcomes, *done.values()])
        return Ended(
            tuple(sorted((info.run_id, info.workflow, info.parent, info.status) for info in runs)), result, outcomes
        )
