"""Measures contestants in turn, round after round, each in a process of its own, until the numbers stand still."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import attrs
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from benchmarks.measure import CLOCK
from benchmarks.workloads import Measure, Workload

__all__ = ["RAW_HOP", "Contestant", "Effort", "Reading", "Readings", "Seat", "measure", "seated"]

ROOT = Path(__file__).resolve().parent.parent
RAW_HOP = Workload(key="raw-hop", title="raw hop", program="raw_hop", unit="hop", n=4_000)
"""The yardstick of each backend, measured by its straight code in each round."""

MAX_LINE = 1_000_000


@attrs.frozen
class Contestant:
    """A program to run: whose, and on which backend.

    Attributes:
        name: Name of the library, or "limit" for straight code.
        module: Where its programs are.
        backend: "asyncio", "uvloop" or "trio".
    """

    name: str
    module: str
    backend: str

    def __str__(self) -> str:
        return f"{self.name}/{self.backend}"


@attrs.frozen(kw_only=True)
class Effort:
    """How much time numbers are worth.

    Attributes:
        scale: Divides the number of operations.
        least: Rounds that everyone is measured in.
        most: Rounds after which it is good enough, however the numbers move.
        calm: The spread at which no more rounds are needed: half of the distance between the quartiles, as a share of
            the median.
        cpu: Whether processor time is measured instead of time on the wall: on a busy machine the better number, for all
            that does not sleep.
        budget: Seconds of measurements of one workload after which a contestant is measured no more than `least` times.
        patience: Seconds after which one measurement is given up.
    """

    scale: int = 1
    least: int = 5
    most: int = 15
    calm: float = 0.03
    cpu: bool = False
    budget: float = 20.0
    patience: float = 60.0

    def n(self, workload: Workload) -> int:
        """How many operations of a workload are one measurement."""
        return max(workload.n // self.scale, workload.tiny)


@attrs.define
class Reading:
    """One number of a workload: all that a contestant's rounds gave, in seconds or bytes per operation.

    Attributes:
        values: One for each round that it was measured in.
        raw: For each of these its ratio to the raw hop of the same round and backend; times only.
        reason: Why there is no number.
    """

    values: list[float] = attrs.field(factory=list[float])
    raw: list[float] = attrs.field(factory=list[float])
    reason: str | None = None

    @property
    def median(self) -> float | None:
        """The number that the table gives; None where there is none."""
        return statistics.median(self.values) if self.values else None

    @property
    def spread(self) -> float:
        """Half of the distance between the quartiles, as a share of the median; 0 for a single number."""
        if len(self.values) < 2 or not self.median:
            return 0.0
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return (high - low) / 2 / self.median


Readings = dict[tuple[str, Measure, str], Reading]
"""By workload's key, what is measured, and contestant."""


class Seat:
    """A contestant's process, started by `open`, and again when it is asked though it has ended.

    Attributes:
        contestant: Whose it is.
        version: Of the library.
        missing: What is not installed; None if all is there.
        programs: What it can do.
        cannot: What it cannot do, and why.
        process: The process; None while there is none.
    """

    def __init__(self, contestant: Contestant, python: str = sys.executable, *, cpu: bool = False) -> None:
        self.contestant = contestant
        self.version = ""
        self.missing: str | None = None
        self.programs: frozenset[str] = frozenset()
        self.cannot: Mapping[str, str] = {}
        self._python = python
        self._environment = {**os.environ, CLOCK: "cpu" if cpu else "wall"}
        self.process: Process | None = None
        self._replies: BufferedByteReceiveStream | None = None

    async def open(self) -> None:
        """Starts the process and hears what it can do."""
        command = [self._python, "-m", "benchmarks.worker", self.contestant.module, self.contestant.backend]
        self.process = await anyio.open_process(command, cwd=ROOT, env=self._environment, stderr=None)
        assert self.process.stdout is not None
        self._replies = BufferedByteReceiveStream(self.process.stdout)
        hello = await self._reply()
        self.missing = hello.get("missing")
        if self.missing is None:
            self.programs, self.cannot = frozenset(hello["programs"]), hello["cannot"]
            self.version = hello["version"]

    async def close(self) -> None:
        """Ends the process, whatever it does."""
        process, self.process = self.process, None
        if process is not None:
            with anyio.CancelScope(shield=True):
                if process.returncode is None:
                    process.kill()
                await process.aclose()

    async def ask(self, workload: Workload, n: int, patience: float) -> dict[str, Any]:
        """One measurement, or the reason why there is none."""
        if self.missing is not None:
            return {"cannot": self.missing}
        if workload.program not in self.programs:
            return {"cannot": self.cannot.get(workload.program, "not programmed")}
        fresh = workload.fresh or self.process is None
        if fresh:
            await self.close()
            await self.open()
        request = {"program": workload.program, "n": n, "arguments": dict(workload.arguments)}
        with anyio.move_on_after(patience):
            if fresh:
                # Everything is compiled and imported before it counts.
                warm = await self._answer({**request, "n": workload.tiny})
                if "seconds" not in warm:
                    return warm
            reply = await self._answer(request)
            if "seconds" in reply and workload.result(n) not in (None, reply["result"]):
                return {"error": f"gave {reply['result']!r} for {workload.result(n)!r}"}
            return reply
        await self.close()
        return {"cannot": f"not finished in {patience:g} s"}

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdin is not None
        with suppress(anyio.BrokenResourceError):  # it is dead: the reply says so
            await self.process.stdin.send(json.dumps(request).encode() + b"\n")
        return await self._reply()

    async def _reply(self) -> dict[str, Any]:
        assert self._replies is not None
        try:
            reply: dict[str, Any] = json.loads(await self._replies.receive_until(b"\n", MAX_LINE))
        except (anyio.IncompleteRead, anyio.EndOfStream, anyio.BrokenResourceError):
            await self.close()
            return {"error": "its process died", "missing": "its process died"}
        return reply


@asynccontextmanager
async def seated(
    contestants: Sequence[Contestant], python: str = sys.executable, *, cpu: bool = False
) -> AsyncGenerator[list[Seat]]:
    """The processes of all contestants, which end with the block."""
    async with AsyncExitStack() as stack:
        seats: list[Seat] = []
        for contestant in contestants:
            seat = Seat(contestant, python, cpu=cpu)
            stack.push_async_callback(seat.close)
            await seat.open()
            seats.append(seat)
        yield seats


async def measure(
    seats: Sequence[Seat], workloads: Sequence[Workload], effort: Effort, told: Callable[[str], None] = lambda _: None
) -> Readings:
    """Measures workload by workload; within each, everyone once in each round, the yardsticks included."""
    readings: Readings = {}
    yardsticks: dict[str, Seat] = {}
    for seat in seats:
        if RAW_HOP.program in seat.programs:
            yardsticks.setdefault(seat.contestant.backend, seat)
    for seat in yardsticks.values():
        await seat.ask(RAW_HOP, RAW_HOP.tiny, effort.patience)
        readings[RAW_HOP.key, "time", str(seat.contestant)] = Reading()
    for workload in workloads:
        told(workload.title)
        mine: dict[Seat, dict[Measure, Reading]] = {}
        for seat in seats:
            mine[seat] = {kind: Reading() for kind in workload.measures}
            if not workload.fresh:
                await seat.ask(workload, workload.tiny, effort.patience)
        spent = dict.fromkeys(seats, 0.0)
        for number in range(effort.most):
            playing = [seat for seat in seats if _goes_on(mine[seat].values(), number, spent[seat], effort)]
            if not playing:
                break
            raw: dict[str, float] = {}
            for backend, seat in yardsticks.items():
                reply = await seat.ask(RAW_HOP, RAW_HOP.n, effort.patience)
                raw[backend] = reply["seconds"] / RAW_HOP.n
                readings[RAW_HOP.key, "time", str(seat.contestant)].values.append(raw[backend])
            for seat in playing:
                spent[seat] += await _once(seat, workload, effort, mine[seat], raw.get(seat.contestant.backend))
        for seat, found in mine.items():
            for kind, reading in found.items():
                readings[workload.key, kind, str(seat.contestant)] = reading
    return readings


def _goes_on(readings: Iterable[Reading], number: int, spent: float, effort: Effort) -> bool:
    found = list(readings)
    if any(reading.reason is not None for reading in found):
        return False
    if number < effort.least:
        # One that takes its whole budget for a single measurement is not asked for five of them.
        return spent < effort.budget or number < 1
    return spent < effort.budget and any(reading.spread > effort.calm for reading in found)


async def _once(
    seat: Seat, workload: Workload, effort: Effort, readings: Mapping[Measure, Reading], raw: float | None
) -> float:
    """One measurement of one contestant; the seconds that it took."""
    n = effort.n(workload)
    begin = anyio.current_time()
    reply = await seat.ask(workload, n, effort.patience)
    for kind, reading in readings.items():
        if "seconds" not in reply:
            error = reply.get("error")
            reading.reason = reply["cannot"] if error is None else f"error: {error.strip().splitlines()[-1]}"
        elif kind == "time":
            reading.values.append(reply["seconds"] / n)
            if raw is not None and workload.yardstick:
                reading.raw.append(reply["seconds"] / n / raw)
        else:
            # A process that gave pages back meanwhile has taken none.
            reading.values.append(max(reply["bytes"] / n, 0.0))
    return anyio.current_time() - begin
