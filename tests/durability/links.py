"""A link to a server that can be cut without a word: a process in between that stops passing on what it gets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["Link", "link"]


class Link:
    """Passes on what connections send, both ways, until it is cut.

    Attributes:
        port: Where it listens on loopback.
        mask: Whether the server's first message about its process is changed, as a pooler does.
    """

    def __init__(self, to: int, *, mask: bool = False, door: socket.socket | None = None) -> None:
        self._to = to
        self.mask = mask
        self._door = door or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._door.getsockname()[1]
        self._whole = threading.Event()
        self._whole.set()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """From now on it takes what it is sent, and passes nothing on."""
        self._whole.clear()

    def mend(self) -> None:
        """Passes on again, also what it has taken meanwhile."""
        self._whole.set()

    def close(self) -> None:
        """Ends every connection."""
        self._whole.set()
        for each in (self._door, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                ours, _ = self._door.accept()
                theirs = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                if self._door.fileno() < 0:
                    return
                continue  # the server is down
            self._sockets += [ours, theirs]
            for source, sink, masked in ((ours, theirs, False), (theirs, ours, self.mask)):
                threading.Thread(target=self._pass_on, args=(source, sink, masked), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, masked: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._whole.wait()
                if masked and (at := data.find(b"K\x00\x00\x00\x0c")) >= 0:
                    data = data[: at + 5] + b"\x00\x00\x00\x01" + data[at + 9 :]
                    masked = False
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextmanager
def link(to: int, *, mask: bool = False) -> Generator[Link]:
    """A link to a port, for as long as the block lasts."""
    made = Link(to, mask=mask)
    try:
        yield made
    finally:
        made.close()
