"""A server of ours to be measured, in a process of its own: ``python -m benchmarks.served PORT asyncio|trio STORE``."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import anyio
import uvicorn

from actorflow import Event, StartEvent, StopEvent, Workflow, step
from actorflow.server import WorkflowServer

__all__ = ["Chain", "Number", "main"]


class Number(StartEvent):
    n: int


class More(Event):
    n: int


class Chain(Workflow):
    """Two steps, one after the other."""

    @step
    async def first(self, ev: Number) -> More:
        return More(n=ev.n + 1)

    @step
    async def last(self, ev: More) -> StopEvent:
        return StopEvent(result=ev.n)


def main() -> None:
    """Serves until it is killed: on asyncio under uvicorn, as theirs does, on trio as our server does by itself."""
    port, backend, store = sys.argv[1:4]
    server = WorkflowServer(store or None)
    server.add_workflow("chain", Chain())
    if backend == "asyncio":
        uvicorn.run(server.app, host="127.0.0.1", port=int(port), log_level="error", access_log=False, loop="asyncio")
    else:
        serve: Any = partial(server.serve, "127.0.0.1", int(port))
        anyio.run(serve, backend=backend)


if __name__ == "__main__":
    main()
