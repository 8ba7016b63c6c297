"""The workloads: what is done how often, what has to come out, and what the numbers are per."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import attrs

__all__ = ["BY_KEY", "WORKLOADS", "Measure", "Workload"]

Measure = Literal["time", "memory"]


@attrs.frozen(kw_only=True)
class Workload:
    """One job that every contestant is given.

    Attributes:
        key: Its short name, for the command line and the JSON.
        title: Its row in the table.
        program: Name of the program of each contestant that does it.
        unit: What the numbers are per.
        n: How many operations are one measurement.
        tiny: How many are enough to see that it works.
        arguments: What else the program is told.
        result: What has to come out of n operations.
        measures: What is read off: time, memory, or both.
        yardstick: Whether its ratio to a hop says anything.
        fresh: Measured in a fresh process each time, so that memory that was used before is not taken for free.
    """

    key: str
    title: str
    program: str
    unit: str
    n: int
    tiny: int = 20
    arguments: Mapping[str, int] = attrs.field(factory=dict[str, int])
    result: Callable[[int], object] = lambda n: n
    measures: tuple[Measure, ...] = ("time",)
    yardstick: bool = True
    fresh: bool = False


def _chains() -> list[Workload]:
    return [
        Workload(key="chain", title="chain hop", program="chain", unit="hop", n=10_000),
        Workload(
            key="idle-steps",
            title="chain hop in a workflow with 100 idle steps",
            program="idle_steps",
            unit="hop",
            n=10_000,
        ),
        Workload(key="suspend", title="hop with a real suspension", program="suspend", unit="hop", n=5_000),
    ]


def _runs() -> list[Workload]:
    return [
        Workload(key="fresh", title="fresh one-step run", program="fresh", unit="run", n=1_000),
        *(
            Workload(
                key=f"concurrent-{n}",
                title=f"{n:,} concurrent runs of 5 suspending steps",
                program="concurrent",
                unit="run",
                n=n,
                result=lambda n: 5 * n,
            )
            for n in (1_000, 10_000)
        ),
        Workload(key="cancel", title="cancel a run (1,000 at once)", program="cancel", unit="run", n=1_000),
    ]


def _fans() -> list[Workload]:
    return [
        *(
            Workload(
                key=f"fan-{n}x{workers}",
                title=f"fan-out {n:,} and join, {workers} workers",
                program="fan_out",
                unit="item",
                n=n,
                arguments={"workers": workers},
                result=lambda n: n * (n - 1) // 2,
            )
            for workers in (4, 64)
            for n in (100, 1_000, 10_000)
        ),
        *(
            Workload(
                key=f"collect-{n}",
                title=f"send_event {n:,} and collect_events, 4 workers",
                program="collect",
                unit="item",
                n=n,
                arguments={"workers": 4},
                result=lambda n: n * (n - 1) // 2,
            )
            for n in (1_000, 10_000)
        ),
        Workload(
            key="sleepers",
            title="fan-out 4,000 x 1 ms, 8 workers",
            program="sleepers",
            unit="item",
            n=4_000,
            arguments={"workers": 8},
            result=lambda n: n * (n - 1) // 2,
            yardstick=False,
        ),
        Workload(
            key="pressure",
            title="slow consumer behind a full inbox, 100,000 events",
            program="pressure",
            unit="event",
            n=100_000,
            measures=("time", "memory"),
            fresh=True,
        ),
    ]


def _faces() -> list[Workload]:
    return [
        Workload(key="stream", title="stream 10,000 events", program="stream", unit="event", n=10_000),
        Workload(key="state", title="state set and get", program="state", unit="pair", n=5_000),
        Workload(key="edit", title="state edit", program="edit", unit="edit", n=2_000),
        Workload(
            key="snapshot", title="snapshot with 10,000 queued events", program="snapshot", unit="event", n=10_000
        ),
        Workload(key="answer", title="prompt and answer, a step each", program="answer", unit="round trip", n=500),
        Workload(key="wait", title="prompt and answer inside of a body", program="wait", unit="round trip", n=500),
        Workload(
            key="idle",
            title="10,000 runs idle between steps: start and answer",
            program="idle",
            unit="run",
            n=10_000,
            measures=("time", "memory"),
            fresh=True,
        ),
        Workload(
            key="waiting",
            title="10,000 runs suspended in a body: start and answer",
            program="waiting",
            unit="run",
            n=10_000,
            measures=("time", "memory"),
            fresh=True,
        ),
    ]


def _durable() -> list[Workload]:
    return [
        Workload(
            key=f"durable-{runs}",
            title=f"durable step, {runs} {'run' if runs == 1 else 'runs at once'}",
            program="durable",
            unit="step",
            n=n,
            tiny=2 * runs,
            arguments={"runs": runs},
            yardstick=False,
        )
        for runs, n in ((1, 500), (10, 1_500), (64, 1_920))
    ]


def _footprints() -> list[Workload]:
    return [
        Workload(key="import", title="import", program="importing", unit="process", n=1, tiny=1, yardstick=False),
        Workload(
            key="size",
            title="installed, with all that it needs",
            program="size",
            unit="installation",
            n=1,
            tiny=1,
            result=lambda _: None,
            measures=("memory",),
        ),
    ]


WORKLOADS: tuple[Workload, ...] = (*_chains(), *_runs(), *_fans(), *_faces(), *_durable(), *_footprints())
"""All of them, in the order of the table."""

BY_KEY: dict[str, Workload] = {workload.key: workload for workload in WORKLOADS}
"""The same by short name."""
