"""What an operation costs, counted instead of timed: a busy machine counts like an idle one.

    python -m tests.test_cost                   prints what each operation costs now, function by function
    python -m tests.test_cost "chain hop"       prints it of one
    python -m tests.test_cost --write           makes what they cost now their budget

Counted are the bytecode instructions that run in actorflow's own functions (the constructors that are made for events
included) and the calls that leave them, into the standard library, anyio, or a step's body. An operation's cost is the
difference between many and few of them in one run, so what a run costs once is not in it. The numbers depend on the
version of Python, and on nothing else: not on the hash seed, the load, or the versions of other libraries. What they do
not see is what happens inside of a call that leaves; its number they see. They are taken in a process without pytest,
which rewrites the `assert`s of a package that brings a plugin along.

A change that makes an operation dearer fails here, with what got dearer where. If the change is worth it, write the budget
anew, and say in the commit what it buys; docs/performance.md tells more. A change that makes one cheaper should be
written down as well, so that the gain is kept.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, cast

import anyio
import attrs
import pytest

from actorflow import Workflow
from actorflow._runtime.carrier import Carrier
from actorflow._runtime.run import LiveRun
from benchmarks.measure import CannotError
from benchmarks.ours import PROGRAMS, Answer, Dialogue, Go, Interview
from tests.floors import PACKAGE, ROOT

BUDGETS = Path(__file__).with_name("cost.json")
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
BACKENDS = ("asyncio", "trio")
TOLERANCE = {"asyncio": 0.01, "trio": 0.03}
"""How far an operation may go over its budget. trio draws the order of tasks that are ready together by lot."""

# 32 events is the fairness budget: whole multiples of it cost whole checkpoints.
OPERATIONS: dict[str, tuple[str, int, int]] = {
    "chain hop": ("chain", 320, 960),
    "hop beside 100 idle steps": ("idle_steps", 320, 960),
    "suspending hop": ("suspend", 320, 960),
    "fresh run": ("fresh", 20, 60),
    "concurrent run of 5 steps": ("concurrent", 20, 60),
    "cancelled run": ("cancel", 20, 60),
    "fan-out item": ("fan_out", 320, 960),
    "fan-out item, one of many": ("fan_out", 2560, 2880),
    "collected item": ("collect", 320, 960),
    "event through a full inbox": ("pressure", 640, 1280),
    "stream event": ("stream", 512, 1536),
    "state set and get": ("state", 50, 150),
    "state edit": ("edit", 50, 150),
    "answer to a step": ("answer", 20, 60),
    "answer inside of a body": ("wait", 20, 60),
}
"""Each operation: the benchmarks' program that does it, few times and many times."""

ARGUMENTS = {"fan_out": {"workers": 4}, "collect": {"workers": 4}}


@attrs.frozen
class Cost:
    """What one operation costs.

    Attributes:
        instructions: By function, as "file function".
        calls: How many calls leave our functions, by what is called.
    """

    instructions: dict[str, float]
    calls: dict[str, float]

    @property
    def totals(self) -> dict[str, float]:
        """Both together, by kind."""
        return {"instructions": sum(self.instructions.values()), "calls": sum(self.calls.values())}


class Meter:
    """Counts instructions and calls while it is on."""

    def __init__(self) -> None:
        self.instructions: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._names: dict[CodeType, str | None] = {}

    def name(self, frame: FrameType) -> str | None:
        """A function of ours by file and name; None for somebody else's."""
        code = frame.f_code
        try:
            return self._names[code]
        except KeyError:
            name = self._names[code] = _name(frame)
            return name

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        """Told of each call: those of our functions are followed instruction by instruction."""
        if event == "call" and (name := self.name(frame)) is not None:
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            counts = self.instructions

            def local(_: FrameType, event: str, __: Any) -> Any:
                if event == "opcode":
                    counts[name] += 1
                return local

            return local
        return None

    def profile(self, frame: FrameType, event: str, callee: Any) -> None:
        """Told of each call too, those of functions written in C included."""
        if event == "c_call":
            if self.name(frame) is not None:
                self.calls[str(getattr(callee, "__qualname__", callee))] += 1
        elif event == "call":
            caller = frame.f_back
            if caller is not None and self.name(frame) is None and self.name(caller) is not None:
                self.calls[frame.f_code.co_qualname] += 1

    @contextmanager
    def on(self) -> Generator[None]:
        """Counts in this block."""
        before = sys.gettrace(), sys.getprofile()
        sys.setprofile(self.profile)
        sys.settrace(self.trace)
        try:
            yield
        finally:
            sys.settrace(before[0])
            sys.setprofile(before[1])


def _name(frame: FrameType) -> str | None:
    code = frame.f_code
    if code.co_filename == "<string>" and "_af_mistake" in frame.f_globals:
        return f"constructor of an event, {code.co_name}"
    if code.co_filename.startswith((f"<attrs generated methods {PACKAGE}.", "<attrs generated methods benchmarks.")):
        return f"attrs {code.co_name}"
    path = Path(code.co_filename)
    home = ROOT / PACKAGE
    return f"{path.relative_to(home).as_posix()} {code.co_qualname}" if path.is_relative_to(home) else None


def count(program: str, n: int, backend: str) -> Meter:
    """All that `n` operations cost."""
    meter = Meter()

    async def main() -> None:
        run = functools.partial(PROGRAMS[program], **ARGUMENTS.get(program, {}))
        await run(32)  # what is compiled and attached once
        with meter.on():
            await run(n)

    anyio.run(main, backend=backend)
    return meter


def cost(operation: str, backend: str) -> Cost:
    """What one operation costs: the difference between many and few."""
    program, few, many = OPERATIONS[operation]
    less, more = count(program, few, backend), count(program, many, backend)

    def each(before: Counter[str], after: Counter[str]) -> dict[str, float]:
        found = {name: (after[name] - before[name]) / (many - few) for name in sorted(after)}
        return {name: round(value, 3) for name, value in found.items() if round(value, 3)}

    return Cost(each(less.instructions, more.instructions), each(less.calls, more.calls))


def budgets() -> dict[str, dict[str, Cost]]:
    """The budgets of this version of Python, by operation and backend; {} where none is written."""
    return read(json.loads(BUDGETS.read_text(encoding="utf-8")).get(VERSION, {}))


def read(data: dict[str, Any]) -> dict[str, dict[str, Cost]]:
    """Costs from what JSON has of them."""
    return {
        operation: {backend: Cost(**found) for backend, found in by_backend.items()}
        for operation, by_backend in data.items()
    }


@pytest.fixture(scope="module")
def counted() -> dict[str, dict[str, Cost]]:
    """What each operation that can be done costs now."""
    return read(json.loads(_alone("--json")))


def _alone(*arguments: str, **environment: str) -> str:
    command = [sys.executable, "-m", "tests.test_cost", *arguments]
    done = subprocess.run(  # noqa: S603 - ours
        command, check=True, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}
    )
    return done.stdout


def dearer(now: Cost, budget: Cost, tolerance: float = 0.01) -> str:
    """What is over the budget and where, as lines; "" if nothing is."""
    lines: list[str] = []
    kinds = (
        ("instructions", now.instructions, budget.instructions),
        ("calls", now.calls, budget.calls),
    )
    for kind, found, allowed in kinds:
        total, limit = now.totals[kind], budget.totals[kind]
        if total > limit * (1 + tolerance) + 0.5:
            lines.append(f"{total:.1f} {kind}, and the budget is {limit:.1f} ({total / limit - 1:+.1%}):")
            before, after = _by_method(allowed), _by_method(found)
            more = {name: after.get(name, 0) - before.get(name, 0) for name in {**after, **before}}
            lines += [
                f"  {more[name]:+8.1f}  {name} ({before.get(name, 0):.1f} -> {after.get(name, 0):.1f})"
                for name in sorted(more, key=lambda name: (-abs(more[name]), name))[:8]
                if abs(more[name]) >= 0.05
            ]
    return "\n".join(lines)


def _by_method(costs: dict[str, float]) -> dict[str, float]:
    """By bare name, so that a method that has moved to another class or file is not taken for a new one."""
    found: dict[str, float] = {}
    for name, value in costs.items():
        bare = name.rpartition(" ")[2].rpartition(".")[2]
        shown = name if bare.startswith("__") else bare
        found[shown] = found.get(shown, 0) + value
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_operation_is_dearer_than_its_budget(
    counted: dict[str, dict[str, Cost]], operation: str, backend: str
) -> None:
    """An operation costs at most what is written down for it."""
    written = budgets()
    if not written:
        pytest.skip(f"no budget for Python {VERSION}: python -m tests.test_cost --write")
    assert (operation in written) == (operation in counted), "no budget: python -m tests.test_cost --write"
    if operation not in counted:
        pytest.skip("actorflow cannot do this yet")
    over = dearer(counted[operation][backend], written[operation][backend], TOLERANCE[backend])
    assert not over, (
        f"{operation} on {backend} has become dearer: {over}\n"
        "Make it cheaper, or, if it is worth that: python -m tests.test_cost --write, and say why in the commit"
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("operation", "plain", "times"),
    [("hop beside 100 idle steps", "chain hop", 1.01), ("fan-out item, one of many", "fan-out item", 1.05)],
)
def test_what_is_not_used_costs_nothing(
    counted: dict[str, dict[str, Cost]], operation: str, plain: str, times: float, backend: str
) -> None:
    """A hop is as cheap among many steps, and an item as cheap among many items."""
    for kind, total in counted[operation][backend].totals.items():
        assert total <= counted[plain][backend].totals[kind] * times


@pytest.mark.parametrize(
    ("workflow", "backend", "most"),
    [
        (Dialogue, "asyncio", 4_000),
        (Dialogue, "trio", 4_000),
        (Interview, "asyncio", 10_000),
        (Interview, "trio", 12_000),  # one task, and trio's are larger: 10,000 is what it should be
    ],
)
def test_a_run_that_waits_is_small(workflow: type[Workflow], most: int, backend: str) -> None:
    """A run that has asked takes at most so many bytes, all told, and gives them back when it ends."""
    runs = 100
    taken: list[int] = []

    async def main() -> None:
        waiting = workflow()
        for _ in range(2):  # what is kept for all runs is there after the first round
            before = traced()
            held = [waiting.run(Go(n=1)) for _ in range(runs)]
            await anyio.wait_all_tasks_blocked()
            taken[:] = [(traced() - before) // runs]
            for run in held:
                await run.send_event(Answer(i=1))
            assert [await run for run in held] == [1] * runs
            del held
            taken.append((traced() - before) // runs)

    with tracing():
        anyio.run(main, backend=backend)
    during, after = taken
    print(f"{during} bytes while it waits, {after} after its end")
    assert 0 < during <= most
    assert after < 200


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_long_run_takes_no_more_than_a_short_one(backend: str) -> None:
    """What a chain holds does not grow with its length."""
    peaks: list[int] = []

    async def main() -> None:
        for n in (2_000, 200, 2_000):
            before = traced()
            tracemalloc.reset_peak()
            await PROGRAMS["chain"](n)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)

    with tracing():
        anyio.run(main, backend=backend)
    _, short, long = peaks
    assert long < short + 10_000


def traced() -> int:
    """Bytes that are in use now, garbage aside."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@contextmanager
def tracing() -> Generator[None]:
    """Memory is traced in this block."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


# The scales are weighed: they see what is put on them, and stand still otherwise.


def test_the_same_is_counted_whatever_the_hash_seed() -> None:
    """Two processes with different hash seeds count the same."""
    one, other = (read(json.loads(_alone("--json", "chain hop", "fresh run", PYTHONHASHSEED=seed))) for seed in "12")
    assert one["chain hop"] == other["chain hop"]
    assert one["fresh run"]["asyncio"] == other["fresh run"]["asyncio"]
    assert "_runtime/carrier.py Carrier._drive" in one["chain hop"]["asyncio"].instructions


def test_more_work_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that is added to a hop fails its budget, and is named."""
    budget = cost("fresh run", "asyncio")
    plain = LiveRun.hub

    def twice(self: LiveRun) -> Any:
        plain(self)
        return plain(self)

    monkeypatch.setattr(LiveRun, "hub", twice)
    leave = Carrier._leave

    def dear(self: Carrier) -> None:
        cast("LiveRun", self.run).hub()
        leave(self)

    monkeypatch.setattr(Carrier, "_leave", dear)
    over = dearer(cost("fresh run", "asyncio"), budget)
    assert "  hub (0.0 -> " in over
    assert dearer(budget, budget) == ""


def _all(operations: Iterable[str]) -> dict[str, dict[str, Cost]]:
    found: dict[str, dict[str, Cost]] = {}
    for operation in operations:
        with suppress(CannotError):
            found[operation] = {backend: cost(operation, backend) for backend in BACKENDS}
    return found


def _data(costs: dict[str, dict[str, Cost]]) -> dict[str, Any]:
    return {operation: {b: attrs.asdict(c) for b, c in by_backend.items()} for operation, by_backend in costs.items()}


def _write() -> None:
    known: dict[str, Any] = json.loads(BUDGETS.read_text(encoding="utf-8")) if BUDGETS.exists() else {}
    known[VERSION] = _data(_all(OPERATIONS))
    BUDGETS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _show(costs: dict[str, dict[str, Cost]]) -> None:
    for operation, by_backend in costs.items():
        for backend, now in by_backend.items():
            totals = now.totals
            print(f"{operation} on {backend}: {totals['instructions']:.1f} instructions, {totals['calls']:.1f} calls")
            for name, value in sorted(now.instructions.items(), key=lambda item: (-item[1], item[0])):
                print(f"  {value:9.2f}  {name}")
            for name, value in sorted(now.calls.items(), key=lambda item: (-item[1], item[0])):
                print(f"  {value:9.2f}  calls {name}")


if __name__ == "__main__":
    asked = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    options = set(sys.argv[1:]) - set(asked)
    if options - {"--write", "--json"} or set(asked) - set(OPERATIONS) or (asked and "--write" in options):
        sys.exit(f"usage: python -m tests.test_cost [--write | [--json] [OPERATION ...]], of {', '.join(OPERATIONS)}")
    if "--write" in options:
        _write()
    elif "--json" in options:
        print(json.dumps(_data(_all(asked or OPERATIONS))))
    else:
        _show(_all(asked or OPERATIONS))
