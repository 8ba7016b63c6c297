"""The pytest plugin: fixtures for both backends, virtual time and simulations; a failure shows schedule and trace.

An async test that asks for `virtual_clock` is run by this plugin, on virtual time, on both backends; every other async
test is left to whoever runs it, anyio's plugin or pytest-asyncio.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, cast, final

import pytest

from actorflow.errors import ActorflowError
from actorflow.events import Event
from actorflow.testing._backends import Backend
from actorflow.testing.clock import VirtualClock
from actorflow.testing.explore import Exploration, explore
from actorflow.testing.schedule import parse_schedule
from actorflow.testing.simulate import Defaults, Performance, Simulation, defaults, observers, simulate

__all__ = ["Simulator"]

BACKENDS: list[Backend] = ["asyncio", "trio"] if importlib.util.find_spec("trio") is not None else ["asyncio"]
SHOWN = 30
"""How many lines of what happened a failure shows."""

_last = pytest.StashKey[Simulation[Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("actorflow", "actorflow: simulations of workflows")
    group.addoption(
        "--actorflow-schedule",
        metavar="SCHEDULE",
        help="schedule where a simulation names none: fifo, lifo, random:SEED, pct:SEED:DEPTH, or choices as 0,2,1",
    )
    group.addoption("--actorflow-seed", type=int, default=0, metavar="N", help="where explore() starts its seeds")
    group.addoption("--actorflow-runs", type=int, default=500, metavar="N", help="how many runs explore() makes")


def pytest_configure(config: pytest.Config) -> None:
    """The options become what holds where a call says nothing."""
    text = cast("str | None", config.getoption("--actorflow-schedule"))
    try:
        defaults.schedule = None if text is None else parse_schedule(text)
    except ActorflowError as error:
        raise pytest.UsageError(f"--actorflow-schedule: {error}") from error
    defaults.seed = cast("int", config.getoption("--actorflow-seed"))
    defaults.runs = cast("int", config.getoption("--actorflow-runs"))


def pytest_unconfigure(config: pytest.Config) -> None:
    """As before."""
    before = Defaults()
    defaults.schedule, defaults.seed, defaults.runs = before.schedule, before.seed, before.runs


# ---------------------------------------------------------------------------------------------------------- fixtures


@pytest.fixture(params=BACKENDS)
def actorflow_backend(request: pytest.FixtureRequest) -> Backend:
    """The backend of a test: asyncio, then trio."""
    backend: Backend = request.param
    return backend


@pytest.fixture
def virtual_clock(actorflow_backend: Backend) -> VirtualClock:
    """The clock of an async test, which is run on virtual time because it asks for it, on both backends."""
    return VirtualClock()


@final
class Simulator:
    """What the fixture `simulation` gives: `simulate` and `explore` on the backend of the test.

    Example:
        >>> import anyio
        >>> async def main() -> float:
        ...     await anyio.sleep(3600)
        ...     return anyio.current_time()
        >>> def test_an_hour(simulation: Simulator) -> None:
        ...     assert simulation(main).result == 3600.0
        >>> test_an_hour(Simulator("trio"))
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def __call__(
        self, main: Any, start_event: Event | None = None, **options: Any
    ) -> Simulation[Any]:  # Any: as simulate
        """As `simulate`."""
        made: Simulation[Any] = cast("Any", simulate)(main, start_event, **{"backend": self.backend, **options})
        return made

    def explore(self, main: Any, start_event: Event | None = None, **options: Any) -> Exploration:
        """As `explore`."""
        options = {"backend": self.backend, **options}
        return explore(main, start_event, **options)


@pytest.fixture
def simulation(actorflow_backend: Backend) -> Simulator:
    """`simulate` and `explore` on both backends, one after the other."""
    return Simulator(actorflow_backend)


# ------------------------------------------------------------------------------------------------------- async tests


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Runs an async test that has a virtual clock; the other plugins see a plain function."""
    arguments = cast("Mapping[str, Any]", pyfuncitem.funcargs)
    clock: VirtualClock | None = arguments.get("virtual_clock")
    # pytest-asyncio has wrapped it by now in its auto mode.
    function: Callable[..., Awaitable[object]] = inspect.unwrap(pyfuncitem.obj)
    if clock is None or not inspect.iscoroutinefunction(function):
        return (yield)
    seen = pyfuncitem.obj
    backend: Backend = arguments["actorflow_backend"]

    def run(**fixtures: object) -> None:
        simulate(lambda: function(**fixtures), backend=backend, clock=clock)

    pyfuncitem.obj = run
    try:
        return (yield)
    finally:
        pyfuncitem.obj = seen


# ---------------------------------------------------------------------------------------------------------- failures


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Keeps the last simulation of a test."""

    def observe(performance: Performance[Any]) -> None:
        # Not the whole performance: its error would hold what is left of a broken program beyond its test.
        item.stash[_last] = performance.simulation

    observers.append(observe)
    try:
        return (yield)
    finally:
        observers.remove(observe)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows it where the test failed."""
    report = yield
    simulation = item.stash.get(_last, None)
    if report.when == "call" and simulation is not None:
        if report.failed:
            report.sections.append(("actorflow simulation", _shown(simulation)))
        del item.stash[_last]
    return report


def _shown(simulation: Simulation[Any]) -> str:
    if simulation.schedule is None:
        return (
            f"virtual time {simulation.clock.now:.12g} s; no schedule: tasks ran as the event loop pleased "
            "(--actorflow-schedule=fifo for one)"
        )
    choices = simulation.choices
    return (
        f"schedule {simulation.schedule!r}, seed {choices.seed}: {choices!r}\n"
        f"run it again: --actorflow-schedule={choices.option or 'fifo'}\n"
        f"it ended at virtual time {simulation.clock.now:.12g} s after {simulation.turns} turns; what happened last:\n"
        f"{simulation.record.story(last=SHOWN) or '  nothing in runs of workflows'}"
    )
