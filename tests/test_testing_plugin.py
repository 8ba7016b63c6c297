"""The pytest plugin: its fixtures and options, beside anyio's plugin and pytest-asyncio, and what a failure shows."""

from __future__ import annotations

import importlib
import importlib.util
import tomllib

import pytest

from tests.floors import ROOT

pytest_plugins = ["pytester"]

ASYNCIO = importlib.util.find_spec("pytest_asyncio") is not None

RACE = """
import anyio
from actorflow import Context, Event, StartEvent, StopEvent, Workflow, step
from actorflow.testing import explore, simulate

class Buy(Event):
    pass

class Bought(Event):
    pass

class Shop(Workflow):
    @step
    async def open(self, ctx: Context, ev: StartEvent) -> list[Buy]:
        await ctx.store.set("stock", 2)
        return [Buy(), Buy()]

    @step
    async def sell(self, ctx: Context, ev: Buy) -> Bought:
        stock = await ctx.store.get("stock")
        await anyio.sleep(0)
        await ctx.store.set("stock", stock - 1)
        return Bought()

    @step
    async def close(self, ctx: Context, ev: Bought) -> StopEvent | None:
        if ctx.collect_events(ev, [Bought] * 2) is None:
            return None
        return StopEvent(result=await ctx.store.get("stock"))
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A test session with the plugin, and without those that happen to be installed."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return pytester


def run(session: pytest.Pytester, *options: str, also: tuple[str, ...] = ()) -> pytest.RunResult:
    plugins = [f"-p{name}" for name in ("actorflow.testing.pytest_plugin", *also)]
    return session.runpytest_subprocess(*plugins, *options)


def test_the_entry_point_is_the_plugin() -> None:
    """Installed, pytest finds it by itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module = importlib.import_module(project["entry-points"]["pytest11"]["actorflow"])
    assert hasattr(module, "pytest_addoption")


def test_async_tests_run_on_virtual_time(session: pytest.Pytester) -> None:
    """Asking for the clock is enough; both backends run; methods and other fixtures as usual."""
    session.makepyfile(
        """
        import anyio, pytest

        @pytest.fixture
        def word():
            return "bees"

        async def test_a_day(virtual_clock, actorflow_backend, word):
            await anyio.sleep(24 * 3600)
            assert virtual_clock.now == 24 * 3600.0
            assert word == "bees"
            with open("seen.txt", "a") as file:
                file.write(f"{actorflow_backend}\\n")

        class TestIt:
            async def test_a_year(self, virtual_clock):
                assert isinstance(self, TestIt)
                await anyio.sleep(365 * 24 * 3600)

        async def test_it_can_fail(virtual_clock):
            await anyio.sleep(1)
            assert virtual_clock.now == 2
        """
    )
    result = run(session, "-v")
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(
        ["*test_a_day?asyncio? PASSED*", "*test_a_day?trio? PASSED*", "*virtual time 1 s; no schedule*"]
    )
    assert (session.path / "seen.txt").read_text() == "asyncio\ntrio\n"


def test_a_failure_shows_schedule_and_trace(session: pytest.Pytester) -> None:
    """What explore found, as a literal and as an option; and what happened under it."""
    session.makepyfile(
        RACE
        + """
def test_stock(simulation):
    simulation.explore(Shop, check=lambda it: it.result == 0)
"""
    )
    result = run(session)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "*ScheduleError*",
            "*shortest failing schedule found: schedule=Choices([[]1])",
            "*--actorflow-schedule=1",
            "*-- actorflow simulation --*",
            "schedule Choices([[]1]), seed 0: Choices([[]1])",
            "run it again: --actorflow-schedule=1",
            "it ended at virtual time 0 s after * turns; what happened last:",
            "*0.000000 s  execution sell Buy()",
        ]
    )


def test_the_option_replays_it(session: pytest.Pytester) -> None:
    """Under the option every simulation that names no schedule follows that one, also where explore would try many."""
    session.makepyfile(
        RACE
        + """
def test_simulate(simulation):
    assert simulation(Shop).result == 0

def test_direct():
    assert simulate(Shop).result == 0

def test_explore():
    explore(Shop, check=lambda it: it.result == 0)
"""
    )
    run(session, "-k", "not explore").assert_outcomes(passed=3, deselected=1)
    for option in ("1", "Choices([1])"):
        result = run(session, f"--actorflow-schedule={option}")
        result.assert_outcomes(failed=4)
        result.stdout.fnmatch_lines(["*ScheduleError*under Choices([[]1]), after 1 runs*"])
    run(session, "--actorflow-schedule=fifo").assert_outcomes(passed=4)


def test_seed_and_runs_reach_explore(session: pytest.Pytester) -> None:
    """--actorflow-runs bounds the search, --actorflow-seed moves its seeds."""
    session.makepyfile(
        RACE
        + """
def test_few():
    assert explore(Shop).runs == 7

def test_seeds():
    seen = []
    explore(Shop, check=lambda it: seen.append(repr(it.schedule)))
    assert seen[:2] == ["Fifo()", "Random(40)"]
    assert seen[2].startswith("Pct(40, 1, ")
    assert len(seen) == 7
"""
    )
    run(session, "--actorflow-runs=7", "--actorflow-seed=40").assert_outcomes(passed=2)
    run(session).assert_outcomes(failed=2)  # it found the race


def test_a_wrong_schedule_is_a_usage_error(session: pytest.Pytester) -> None:
    """No test runs."""
    result = run(session, "--actorflow-schedule=sometimes")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--actorflow-schedule: there is no schedule 'sometimes'; write fifo, lifo,*"])


def test_beside_anyios_plugin(session: pytest.Pytester) -> None:
    """Marked tests are anyio's; with the marker and the clock it is ours."""
    session.makepyfile(
        """
        import anyio, pytest

        @pytest.mark.anyio
        async def test_anyios(anyio_backend_name):
            assert anyio.current_time() > 0

        @pytest.mark.anyio
        async def test_both(virtual_clock):
            await anyio.sleep(3600)
            assert virtual_clock.now == 3600.0
        """
    )
    result = run(session, also=("anyio.pytest_plugin",))
    result.assert_outcomes(passed=6)


@pytest.mark.skipif(not ASYNCIO, reason="pytest-asyncio is not installed")
@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_beside_pytest_asyncio(session: pytest.Pytester, mode: str) -> None:
    """Its tests are its own, in either mode; with the clock one is ours."""
    session.makepyfile(
        """
        import asyncio, anyio, pytest

        @pytest.mark.asyncio
        async def test_asyncios():
            await asyncio.sleep(0)

        async def test_ours(virtual_clock):
            await anyio.sleep(3600)
            assert virtual_clock.now == 3600.0
        """
    )
    options = ("-o", f"asyncio_mode={mode}", "-o", "asyncio_default_fixture_loop_scope=function")
    result = run(session, *options, also=("pytest_asyncio.plugin",))
    result.assert_outcomes(passed=3)
