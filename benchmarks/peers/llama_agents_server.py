"""Their server with the same workflow: ``python -m benchmarks.peers.llama_agents_server PORT asyncio STORE``."""

from __future__ import annotations

import logging
import sys

import uvicorn
from llama_agents.server import MemoryWorkflowStore, SqliteWorkflowStore, WorkflowServer
from workflows import Workflow, step
from workflows.events import Event, StartEvent, StopEvent


class Number(StartEvent):
    n: int


class More(Event):
    n: int


class Chain(Workflow):
    @step
    async def first(self, ev: Number) -> More:
        return More(n=ev.n + 1)

    @step
    async def last(self, ev: More) -> StopEvent:
        return StopEvent(result=ev.n)


def main() -> None:
    port, _, store = sys.argv[1:4]
    logging.disable(logging.CRITICAL)
    kept = SqliteWorkflowStore(store) if store else MemoryWorkflowStore()
    server = WorkflowServer(workflow_store=kept)
    server.add_workflow("chain", Chain())
    uvicorn.run(server.app, host="127.0.0.1", port=int(port), log_level="error", access_log=False, loop="asyncio")


if __name__ == "__main__":
    main()
