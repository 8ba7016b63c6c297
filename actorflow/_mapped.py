"""A run for each of many items, so many at a time, and their results in the order of the items."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Any, Protocol, TypeVar

import anyio

from actorflow.errors import WorkflowRuntimeError

__all__ = ["Runs", "run_each"]

S_contra = TypeVar("S_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Runs(Protocol[S_contra, R_co]):
    """What can be run for a start event: a `Workflow`, which stands above this room."""

    def run(self, start: S_contra, /) -> Awaitable[R_co]:
        """Starts a run at once."""
        ...


async def run_each(workflow: Runs[Any, Any], items: Iterable[Any], limit: int, *, collect: bool) -> list[Any]:
    """What the runs give; with `collect` what they fail with, in its place.

    Raises:
        WorkflowRuntimeError: `limit` is no whole number of at least 1.
        Exception: Without `collect`: what the first run has failed with.
    """
    given: Any = limit
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise WorkflowRuntimeError(f"map_runs got limit={limit!r}; give a whole number of at least 1", code="AF328")
    waiting = enumerate(items)
    results: dict[int, Any] = {}
    failed: dict[int, Exception] = {}
    async with anyio.create_task_group() as group:

        async def work() -> None:
            for place, item in waiting:
                try:
                    results[place] = await workflow.run(item)
                except Exception as error:  # noqa: BLE001 - raised below, or given
                    if not collect:
                        failed[place] = error
                        group.cancel_scope.cancel()
                        return
                    results[place] = error

        for _ in range(min(limit, len(items)) if isinstance(items, list | tuple) else limit):
            group.start_soon(work)
    if failed:
        # Of several that have failed at the same time the same one, whoever looks and when.
        try:
            raise failed[min(failed)]
        finally:
            failed.clear()
    return [results[place] for place in sorted(results)]
