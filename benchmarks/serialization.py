"""What events cost as data, against what cannot be spared in the same run: ``python -m benchmarks.serialization [--quick]``.

The yardstick is attrs' own `asdict` of the event, which keeps no types. JSON is measured on the data of the same events, by
the standard library (the yardstick there), msgspec and, where it is installed, orjson.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import attrs

from actorflow import Event, JsonSerializer

__all__ = ["measure"]


class Line(Event):
    """Three simple fields."""

    sku: str
    count: int
    price: float


class Order(Event):
    """What events are like."""

    at: datetime
    key: UUID
    lines: list[Line]
    total: Decimal
    note: str | None = None


def _line(number: int) -> Line:
    return Line(sku=f"sku-{number}", count=number, price=number / 3)


def _order(number: int) -> Order:
    return Order(
        at=datetime(2024, 5, 6, 7, tzinfo=UTC),
        key=UUID(int=number),
        lines=[_line(number + k) for k in range(3)],
        total=Decimal(number) / 7,
    )


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _each(work: Callable[[Any], object], values: list[Any]) -> None:
    for value in values:
        work(value)


def measure(events: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Median µs per event and median ratio to the yardstick of the same round, by what is done.

    Args:
        events: How many events are made into data at once.
        rounds: How often.
    """
    serializer = JsonSerializer()
    found: dict[str, tuple[float, float]] = {}
    makers: tuple[tuple[str, Callable[[int], Event]], ...] = (("three fields", _line), ("an order", _order))
    for name, make in makers:
        values = [make(number) for number in range(events)]
        data = serializer.serialize_value(values)
        assert serializer.deserialize_value(data) == values
        found |= _rounds(
            {
                f"{name}: attrs.asdict": partial(_each, attrs.asdict, values),
                f"{name}: to data": partial(serializer.serialize_value, values),
                f"{name}: to data, one by one": partial(_each, serializer.serialize_value, values),
                f"{name}: from data": partial(serializer.deserialize_value, data),
            },
            events,
            rounds,
        )
        text = json.dumps(data)
        writers: dict[str, Callable[[], object]] = {f"{name}: JSON by json": partial(json.dumps, data)}
        readers: dict[str, Callable[[], object]] = {f"{name}: read by json": partial(json.loads, text)}
        for library, write, read in _libraries():
            writers[f"{name}: JSON by {library}"] = partial(write, data)
            readers[f"{name}: read by {library}"] = partial(read, text)
        found |= _rounds(writers, events, rounds) | _rounds(readers, events, rounds)
    return found


def _libraries() -> list[tuple[str, Callable[[Any], object], Callable[[str], object]]]:
    found: list[tuple[str, Callable[[Any], object], Callable[[str], object]]] = []
    for name in ("msgspec", "orjson"):
        try:
            library: Any = importlib.import_module(name)
        except ImportError:
            continue
        json_of = library.json if name == "msgspec" else library
        write = json_of.encode if name == "msgspec" else json_of.dumps
        read = json_of.decode if name == "msgspec" else json_of.loads
        found.append((name, write, read))
    return found


def _rounds(works: dict[str, Callable[[], object]], events: int, rounds: int) -> dict[str, tuple[float, float]]:
    """The first of the works is the yardstick of the others; interleaved, so that noise meets all alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(_seconds(work))
    first = next(iter(times.values()))
    return {
        name: (
            statistics.median(taken) / events * 1e6,
            statistics.median(one / yardstick for one, yardstick in zip(taken, first, strict=True)),
        )
        for name, taken in times.items()
    }


def main() -> None:
    """Prints the table."""
    events, rounds = (100, 1) if "--quick" in sys.argv else (5_000, 15)
    print(f"{'per event':<42}{'µs':>10}{'x yardstick':>14}")
    for name, (microseconds, ratio) in measure(events, rounds).items():
        print(f"{name:<42}{microseconds:>10.2f}{ratio:>14.2f}")


if __name__ == "__main__":
    main()
