"""A thousand readers of runs cost one reading and no queues."""

from __future__ import annotations

import gc
import json
import tracemalloc
from pathlib import Path
from typing import Any, Literal

import anyio

from actorflow.server import WorkflowServer
from actorflow.server._follow import KEPT, KEPT_BYTES
from tests.server.flows import Gated, both, client_of, eventually

Backend = Literal["asyncio", "trio"]

QUICK = 10
EVENTS = 400
SIZE = 20_000  # 8 MB in all, of which half is kept


class Reader:
    """Reads a stream over ASGI, as fast as it is let."""

    def __init__(self, *, stalls: bool) -> None:
        self.numbers = 0
        self.last = -1
        self.begun = anyio.Event()
        self.go = anyio.Event()
        self.stalls = stalls

    async def read(self, app: Any, run_id: str) -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": f"/api/runs/{run_id}/events",
            "raw_path": b"",
            "query_string": b"format=ndjson",
            "headers": [(b"host", b"localhost")],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
            "scheme": "http",
            "http_version": "1.1",
        }

        async def receive() -> dict[str, Any]:
            await anyio.sleep_forever()
            return {}

        async def send(message: dict[str, Any]) -> None:
            self.begun.set()
            body = message.get("body")
            if not body:
                return
            number = (
                json.loads(body)["n"] if self.last < 0 or (body.endswith(b"}}\n") and self.numbers % 100 == 0) else None
            )
            assert number is None or number == self.numbers
            self.numbers += 1
            self.last = self.numbers
            if self.stalls:
                await self.go.wait()

        await app(scope, receive, send)


async def peak_with(stalled: int, path: Path) -> int:
    """The most bytes that were in use while a run published, with so many readers who take one event and no more."""
    server = WorkflowServer(f"sqlite:///{path}?durability=relaxed")
    server.add_workflow("gated", Gated())
    before = peak = 0
    readers = [Reader(stalls=n >= QUICK) for n in range(QUICK + stalled)]
    async with client_of(server) as client, anyio.create_task_group() as group:
        await client.post("/api/workflows/gated/runs", json={"run_id": "one", "start": {"count": EVENTS, "size": SIZE}})
        for reader in readers:
            group.start_soon(reader.read, server.app, "one")

        async def attached() -> bool:
            return server._service.streams == len(readers)

        async def quick_ones_are_through() -> bool:
            return all(reader.numbers == EVENTS + 1 for reader in readers[:QUICK])

        await eventually(attached)
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        await client.post("/api/runs/one/events", json={"type": "Approved", "value": {"by": "me"}})
        run = (await client.get("/api/runs/one?wait=60")).json()
        assert run["status"] == "completed"
        await eventually(quick_ones_are_through)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for follower in server._service._followers or ():
            assert follower.count == EVENTS + 1
            assert len(follower._recent) <= KEPT
            assert sum(follower._sizes) <= KEPT_BYTES + SIZE + 1_000
        assert all(reader.numbers <= 1 for reader in readers[QUICK:])
        for reader in readers[QUICK : QUICK + 3]:  # those that were left behind find everything in the store
            reader.stalls = False
            reader.go.set()

        async def all_is_read() -> bool:
            return all(reader.numbers == EVENTS + 1 for reader in readers[: QUICK + min(3, stalled)])

        await eventually(all_is_read)
        group.cancel_scope.cancel()
    return peak - before


@both
def test_a_thousand_streams_cost_what_ten_do_however_much_they_have_not_read(backend: Backend, tmp_path: Path) -> None:
    async def main() -> None:
        few = await peak_with(0, tmp_path / "few.db")
        many = await peak_with(1_000 - QUICK, tmp_path / "many.db")
        # Queues of what they have not read would be 8 MB each, and 4 MB together if they shared it all.
        assert many - few < 1_000 * 10_000, (few, many)

    anyio.run(main, backend=backend)
