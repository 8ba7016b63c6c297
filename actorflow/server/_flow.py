"""Answers that go on for as long as there is something to say: Server-Sent Events, and JSON line by line.

A stream holds one item. Its reader's connection is what slows it down, and nobody else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

__all__ = ["HEARTBEAT", "STALLED", "Flow", "last_seen", "sse"]

HEARTBEAT = 15.0
"""Seconds of silence after which a stream says that it is alive."""

STALLED = 120.0
"""Seconds after which a reader that takes nothing loses its connection."""

Chunks = AsyncGenerator[bytes]


def sse(data: bytes, *, n: int | None = None, event: str | None = None) -> bytes:
    """An event in the form of Server-Sent Events; its data has no line ends."""
    head = b"" if n is None else b"id: %d\n" % n
    kind = b"" if event is None else b"event: %s\n" % event.encode()
    return b"%s%sdata: %s\n\n" % (head, kind, data)


def last_seen(request: Request, number: Callable[[str], int | None]) -> int | None:
    """The number that a reader has seen last: what its browser says when it comes again, else ``after``.

    Args:
        request: The request.
        number: Reads a number of the query by its name.
    """
    said = request.headers.get("last-event-id", "")
    if said.isascii() and said.lstrip("-").isdecimal() and len(said) < 17:
        return int(said)
    return number("after")


class Flow(Response):
    """A stream as an answer.

    Args:
        chunks: Makes what is sent; called when the answer begins.
        media_type: What it is.
        ending: Set when the server closes, and the stream with it.
        release: Called when it is over.
        headers: More headers.
    """

    def __init__(
        self,
        chunks: Callable[[], Chunks],
        media_type: str,
        *,
        ending: anyio.Event,
        release: Callable[[], object],
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._chunks = chunks
        self._ending = ending
        self._release = release
        self.status_code = 200
        self.media_type = media_type
        self.background = None
        self.body = b""
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no", **(headers or {})})

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Without a length, which nobody knows."""
        super().init_headers(headers)
        self.raw_headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = False
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async with anyio.create_task_group() as group:

                async def listen() -> None:
                    nonlocal gone
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    gone = True
                    group.cancel_scope.cancel()

                async def closing() -> None:
                    await self._ending.wait()
                    group.cancel_scope.cancel()

                group.start_soon(listen)
                group.start_soon(closing)
                try:
                    await self._send_all(send)
                except (OSError, TimeoutError):  # the reader is gone, or takes nothing
                    gone = True
                group.cancel_scope.cancel()
            if not gone:
                with anyio.move_on_after(1), suppress(OSError):
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._release()

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._chunks()) as chunks:
            async for chunk in chunks:
                if chunk:
                    with anyio.fail_after(STALLED):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
