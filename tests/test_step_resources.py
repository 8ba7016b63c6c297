"""Resources in steps: how often they are opened, when they are closed, and whose their errors are."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
import attrs
import pytest

from actorflow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    Resource,
    ResourceConfig,
    Restart,
    Runtime,
    StartEvent,
    StepTimeoutError,
    StopEvent,
    Supervise,
    Workflow,
    WorkflowCancelledError,
    WorkflowFailedEvent,
    WorkflowTimeoutError,
    step,
)
from actorflow.resources import override
from actorflow.testing import simulate
from tests.seams import everywhere, seamed_runtime


class Go(Event):
    n: int


class Came(Event):
    value: str


LOG: list[str] = []


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()


class Counted:
    """Numbers what is opened, by name."""

    def __init__(self) -> None:
        self.opened: dict[str, int] = {}

    def next(self, name: str) -> str:
        number = self.opened[name] = self.opened.get(name, 0) + 1
        LOG.append(f"open {name}{number}")
        return f"{name}{number}"


COUNTED = Counted()


@pytest.fixture(autouse=True)
def new_numbers() -> None:
    COUNTED.opened.clear()


async def of_runtime() -> AsyncIterator[str]:
    value = COUNTED.next("runtime")
    await anyio.sleep(1)
    yield value
    await anyio.sleep(1)
    LOG.append(f"close {value}")


async def of_run(outer: Annotated[str, Resource(of_runtime, scope="runtime")]) -> AsyncIterator[str]:
    value = COUNTED.next("run")
    await anyio.sleep(1)
    yield f"{outer}/{value}"
    await anyio.sleep(1)
    LOG.append(f"close {value}")


async def of_actor(outer: Annotated[str, Resource(of_run)]) -> AsyncIterator[str]:
    value = COUNTED.next("actor")
    yield f"{outer}/{value}"
    LOG.append(f"close {value}")


def of_step(outer: Annotated[str, Resource(of_actor, scope="actor")]) -> Iterator[str]:
    value = COUNTED.next("step")
    yield f"{outer}/{value}"
    LOG.append(f"close {value}")


class Nested(Workflow):
    """Each execution takes one of the shortest scope, which needs one of each other scope."""

    @step
    async def begin(self, ev: StartEvent) -> list[Go]:
        return [Go(n=n) for n in range(3)]

    @step
    async def use(self, ev: Go, it: Annotated[str, Resource(of_step, scope="step")]) -> Came:
        await anyio.sleep(1)
        return Came(value=it)

    @step
    async def join(self, evs: list[Came], it: Annotated[str, Resource(of_actor, scope="actor")]) -> StopEvent:
        return StopEvent(result=[*sorted(ev.value for ev in evs), it])


@everywhere
async def test_scopes_nest_and_each_is_opened_once_and_closed_in_reverse(rt: Runtime) -> None:
    async with Runtime() as inner:
        first = await inner.start(Nested())
        assert await first == [
            "runtime1/run1/actor1/step1",
            "runtime1/run1/actor1/step2",
            "runtime1/run1/actor1/step3",
            "runtime1/run1/actor2",
        ]
        opened = ["open runtime1", "open run1", "open actor1", *(f"open step{n}" for n in (1, 2, 3))]
        assert LOG[:6] == opened
        assert sorted(LOG[6:9]) == [f"close step{n}" for n in (1, 2, 3)]
        assert LOG[9] == "open actor2"
        assert sorted(LOG[10:12]) == ["close actor1", "close actor2"]
        assert LOG[12:] == ["close run1"]
        LOG.clear()
        second = await inner.start(Nested())
        assert (await second)[0] == "runtime1/run2/actor3/step4"
        LOG.clear()
    assert LOG == ["close runtime1"]


@everywhere
async def test_a_runs_resources_live_as_long_as_its_runtime_where_they_say_so(rt: Runtime) -> None:
    """The runtime around the test has the seam; it closes after the test, when the log is read by the next assertion."""
    run = await rt.start(Nested())
    await run
    assert "close run1" in LOG
    assert "close runtime1" not in LOG


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("seam", ["bare", "journal", "turns", "instrument"])
def test_the_end_of_a_runtime_or_of_a_loop_closes_what_was_shared(backend: Any, seam: str) -> None:
    async def with_runtime() -> None:
        async with seamed_runtime(seam) as rt:
            await (await rt.start(Nested()))

    async def attached() -> None:
        await Nested().run()

    for main in (with_runtime, attached):
        LOG.clear()
        simulate(main, backend=backend)
        assert LOG[-1].startswith("close runtime")


# -- kinds of factories


def plain() -> str:
    return "plain"


async def coroutine() -> str:
    await anyio.sleep(1)
    return "coroutine"


@asynccontextmanager
async def managed() -> AsyncGenerator[str]:
    try:
        yield "managed"
    except ValueError as error:
        LOG.append(f"told {error}")
        raise
    finally:
        LOG.append("left")


@attrs.frozen
class Settings:
    host: str
    port: int = 25


@everywhere
async def test_every_kind_of_factory_in_one_step(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"mail": {"host": "here"}}), encoding="utf-8")

    class Flow(Workflow):
        @step
        async def begin(
            self,
            ev: StartEvent,
            a: Annotated[str, Resource(plain)],
            b: Annotated[str, Resource(coroutine)],
            c: Annotated[str, Resource(of_actor, scope="actor")],
            d: Annotated[str, Resource(managed)],
            e: Annotated[Settings, ResourceConfig(str(tmp_path / "settings.json"), "mail")],
        ) -> StopEvent:
            return StopEvent(result=[a, b, c.split("/")[-1], d, e])

    assert await Flow().run() == ["plain", "coroutine", "actor1", "managed", Settings(host="here")]
    assert "left" in LOG


@everywhere
async def test_another_factory_in_a_test() -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent, it: Annotated[str, Resource(of_run)]) -> StopEvent:
            return StopEvent(result=it)

    with override(of_run, plain):
        assert await Flow().run() == "plain"
    assert (await Flow().run()).endswith("/run1")


# -- ends


class Held(Workflow):
    """Holds one of each scope, and ends as it is told to."""

    how = "stop"

    @step(timeout=30)
    async def hold(
        self,
        ev: StartEvent,
        a: Annotated[str, Resource(managed)],
        b: Annotated[str, Resource(of_step, scope="step")],
    ) -> StopEvent:
        await anyio.sleep(10)
        if self.how == "raise":
            raise ValueError("broken")
        if self.how == "hang":
            await anyio.sleep(100)
        return StopEvent(result="held")


CLOSED = {"left", "close step1", "close actor1", "close run1"}


@everywhere
async def test_resources_are_closed_however_a_run_ends() -> None:
    def after() -> list[str]:
        closed = [line for line in LOG if line in CLOSED or line.startswith("told")]
        LOG.clear()
        COUNTED.opened = {"runtime": 1}
        return closed

    flow = Held()
    assert await flow.run() == "held"
    assert after() == ["close step1", "close actor1", "close run1", "left"]
    flow.how = "raise"
    with pytest.raises(ValueError, match="broken"):
        await flow.run()
    assert after() == ["close step1", "close actor1", "close run1", "told broken", "left"]
    flow.how = "hang"
    with pytest.raises(StepTimeoutError):
        await flow.run()
    assert after() == ["close step1", "close actor1", "close run1", "left"]
    timed = Held(timeout=5)
    with pytest.raises(WorkflowTimeoutError):
        await timed.run()
    assert after() == ["close step1", "close actor1", "close run1", "left"]
    run = flow.run()
    await anyio.sleep(5)
    await run.cancel_run()
    with pytest.raises(WorkflowCancelledError):
        await run
    assert after() == ["close step1", "close actor1", "close run1", "left"]


async def bad_to_close() -> AsyncIterator[str]:
    yield "bad"
    raise OSError("cannot close")


@everywhere
async def test_an_error_on_closing_fails_a_run_that_had_succeeded() -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent, bad: Annotated[str, Resource(bad_to_close)]) -> StopEvent:
            return StopEvent(result="good")

    run = Flow().run()
    with pytest.raises(OSError, match="cannot close") as caught:
        await run
    assert "bad_to_close" in "".join(caught.value.__notes__)
    ended = run.get_stop_event()
    assert isinstance(ended, WorkflowFailedEvent)
    assert ended.exception is caught.value
    assert [event async for event in run.stream_events()] == [ended]


# -- factories that fail


@everywhere
@pytest.mark.parametrize("scope", ["runtime", "run", "actor", "step"])
@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_factory_that_fails_is_the_steps_failure_and_tried_again(scope: Any, kind: str) -> None:
    tries: list[float] = []

    def make() -> str:
        tries.append(anyio.current_time())
        if len(tries) < 3:
            raise OSError("not yet")
        return "made"

    async def make_slowly() -> str:
        await anyio.sleep(1)
        return make()

    factory = Resource(make if kind == "plain" else make_slowly, scope=scope)
    run = make_flow(factory, maximum_attempts=2).run()
    with pytest.raises(OSError, match="not yet"):
        await run
    ended = run.get_stop_event()
    assert isinstance(ended, WorkflowFailedEvent)
    assert (ended.step_name, ended.attempts) == ("begin", 2)
    tries.clear()
    assert await make_flow(factory, maximum_attempts=3).run() == "made"
    assert len(tries) == 3


def make_flow(factory: Resource, maximum_attempts: int) -> Workflow:
    """A workflow whose one step takes one resource."""

    class Flow(Workflow):
        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=maximum_attempts, delay=2))
        async def begin(self, ev: StartEvent, it: Annotated[Any, factory]) -> StopEvent:
            return StopEvent(result=it)

    return Flow()


@everywhere
async def test_opening_counts_as_the_steps_time() -> None:
    async def slow() -> str:
        await anyio.sleep(50)
        return "slow"

    class Flow(Workflow):
        @step(timeout=10)
        async def begin(self, ev: StartEvent, it: Annotated[str, Resource(slow)]) -> StopEvent:
            return StopEvent(result=it)

    with pytest.raises(StepTimeoutError):
        await Flow().run()


# -- with waits and restarts


@everywhere
async def test_a_restart_closes_before_it_opens_and_what_others_use_is_closed_when_they_have_ended() -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Go | None:
            ctx.send_event(Go(n=0))
            ctx.send_event(Go(n=1))
            return None

        @step(num_workers=2)
        async def use(self, ev: Go, it: Annotated[str, Resource(slow_to_close, scope="actor")]) -> Came:
            used.append((ev.n, it))
            if ev.n == 0 and len(used) < 3:
                await anyio.sleep(5)
                raise OSError("restart me")
            await anyio.sleep(20 if ev.n else 1)
            LOG.append(f"ended {ev.n}")
            return Came(value=it)

        @step
        async def join(self, ctx: Context, ev: Came) -> StopEvent | None:
            both = ctx.collect_events(ev, [Came, Came])
            return None if both is None else StopEvent(result=[one.value for one in both])

    used: list[tuple[int, str]] = []
    flow = Flow(supervision=Supervise(on={OSError: Restart()}))
    assert await flow.run() == ["r2", "r1"]
    assert sorted(used) == [(0, "r1"), (0, "r2"), (1, "r1")]
    # The other execution goes on with the old one, which is closed once it has ended.
    assert LOG[:4] == ["open r1", "open r2", "ended 0", "ended 1"]
    assert sorted(LOG[4:]) == ["close r1", "close r2", "closing r1", "closing r2"]


async def slow_to_close() -> AsyncIterator[str]:
    value = COUNTED.next("r")
    try:
        yield value
    finally:
        LOG.append(f"closing {value}")
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3)
        LOG.append(f"close {value}")


@everywhere
@pytest.mark.parametrize("backoff", [0, 1, 30])
async def test_the_sole_user_of_a_resource_is_restarted_once_it_is_closed(backoff: float) -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Go | None:
            for n in range(3):
                ctx.send_event(Go(n=n))
            return None

        @step(num_workers=1)
        async def use(self, ev: Go, it: Annotated[str, Resource(slow_to_close, scope="actor")]) -> StopEvent | None:
            used.append((ev.n, it))
            if it == "r1" and ev.n == 1:
                raise OSError("restart me")
            return StopEvent(result="end") if ev.n == 2 else None

    used: list[tuple[int, str]] = []
    await Flow(supervision=Supervise(on={OSError: Restart(backoff=backoff)})).run()
    assert LOG == ["open r1", "closing r1", "close r1", "open r2", "closing r2", "close r2"]
    assert sorted(used) == [(0, "r1"), (1, "r1"), (1, "r2"), (2, "r2")]
