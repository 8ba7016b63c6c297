"""Measures runs that are started and awaited over HTTP: ``python -m benchmarks.service [--compare] [--quick]``.

Both servers get the same requests at the same paths, from the same plain client, round by round in turn; runs are in memory,
or on a SQLite file. Ours has a journal in either case. What the client costs is in all numbers alike.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import anyio
import attrs
from anyio.abc import SocketStream

from benchmarks.environment import python_with_peers
from benchmarks.rounds import ROOT

__all__ = ["Served", "contenders", "main", "measured", "rounds", "table"]

OURS = "benchmarks.served"
CLIENTS = 8
"""Connections at a time."""


@attrs.frozen
class Served:
    """A server to be measured.

    Attributes:
        title: What the table calls it.
        module: Its program.
        backend: "asyncio" or "trio".
        kept: Whether its runs are on a file.
    """

    title: str
    module: str
    backend: str
    kept: bool


def contenders(*, compare: bool) -> list[Served]:
    """Ours on both backends, and theirs."""
    found: list[Served] = []
    for kept in (False, True):
        where = "on a file" if kept else "in memory"
        found += [
            Served(f"actorflow/asyncio, {where}", OURS, "asyncio", kept),
            Served(f"actorflow/trio, {where}", OURS, "trio", kept),
        ]
        if compare:
            found.append(
                Served(f"llama-agents-server, {where}", "benchmarks.peers.llama_agents_server", "asyncio", kept)
            )
    return found


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.contextmanager
def served(who: Served, python: str, folder: Path) -> Generator[tuple[int, int]]:
    """A server at work, by its port and the number of its process."""
    port = free_port()
    path = folder / f"{who.module}-{who.backend}.db"
    store = "" if not who.kept else f"sqlite:///{path}" if who.module == OURS else str(path)
    command = [python, "-m", who.module, str(port), who.backend, store]
    process = subprocess.Popen(command, cwd=ROOT)  # noqa: S603 - ours
    try:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{who.title} does not begin to serve; run {' '.join(command)} to see why")
            time.sleep(0.05)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


async def _post(stream: SocketStream, n: int) -> int:
    """One run, started and awaited; what it gave."""
    body = json.dumps({"start_event": {"n": n}}).encode()
    head = "POST /workflows/chain/run HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    await stream.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    said, _, rest = data.partition(b"\r\n\r\n")
    lines = said.decode().lower().split("\r\n")
    length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
    while len(rest) < length:
        rest += await stream.receive()
    if " 200" not in lines[0]:
        raise RuntimeError(f"{lines[0]}: {rest.decode()[:200]}")
    result: int = json.loads(rest)["result"]["value"]["result"]
    return result


async def measured(port: int, runs: int) -> float:
    """Seconds that so many runs take."""
    left = iter(range(runs))

    async def client() -> None:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            for n in left:
                if await _post(stream, n) != n + 1:
                    raise RuntimeError("a run gave the result of another one")

    begin = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(min(CLIENTS, runs)):
            group.start_soon(client)
    return time.perf_counter() - begin


def processor(pid: int) -> float:
    """Seconds of processor time that a process has had, by what Linux says."""
    _, _, rest = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")
    fields = rest.split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rounds(who: Sequence[Served], python: str, runs: int, times: int, *, cpu: bool = False) -> dict[str, list[float]]:
    """Runs a second of each, in turn, `times` times; with `cpu`, of the server's processor time."""
    found: dict[str, list[float]] = {one.title: [] for one in who}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd())))
        servers = {one.title: stack.enter_context(served(one, python, folder)) for one in who}
        for port, _ in servers.values():
            anyio.run(measured, port, max(CLIENTS, runs // 10))  # what is compiled and opened once
        for _ in range(times):
            for title, (port, pid) in servers.items():
                before = processor(pid) if cpu else 0.0
                seconds = anyio.run(measured, port, runs)
                found[title].append(runs / (processor(pid) - before if cpu else seconds))
    return found


def table(who: Sequence[Served], found: Mapping[str, Sequence[float]]) -> str:
    """The numbers in Markdown, each beside how many times theirs it is that keeps runs in the same place, round for round."""
    theirs = {one.kept: found[one.title] for one in who if one.module != OURS}
    lines = ["| server | runs a second | times theirs |", "| --- | --: | --: |"]
    for one in who:
        values = found[one.title]
        ratios = [a / b for a, b in zip(values, theirs.get(one.kept, ()), strict=False)]
        times = f"{statistics.median(ratios):.1f}" if ratios else ""
        lines.append(f"| {one.title} | {statistics.median(values):,.0f} | {times} |")
    return "\n".join(lines)


def main() -> None:
    """Measures as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("--compare", action="store_true", help="measure llama-agents-server too, in one run with ours")
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="of the server's processor time: for machines that are busy otherwise (Linux)",
    )
    parser.add_argument("--json", type=Path, help="where to write all numbers")
    asked = parser.parse_args()
    python = python_with_peers() if asked.compare else sys.executable
    runs, times = (60, 3) if asked.quick else (600, 7)
    who = contenders(compare=asked.compare)
    found = rounds(who, python, runs, times, cpu=asked.cpu)
    print(table(who, found))
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
