"""A live run as data: what is kept, what is refused and how it is said, and what a snapshot costs."""

from __future__ import annotations

import copy
import json
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, cast

import anyio
import anyio.to_thread
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actorflow import (
    Context,
    ContextSerdeError,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    PickleSerializer,
    Runtime,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    Workflow,
    WorkflowFailedEvent,
    catch_error,
    step,
)
from actorflow.collect import Collect, Take
from actorflow.errors import InternalError, NonDeterministicStep
from actorflow.retry_policy import ConstantDelayRetryPolicy
from actorflow.testing import DeadlockError, assert_resumable, simulate
from tests.seams import SlowJournal
from tests.test_cost import Meter
from tests.test_resuming import Go, Interpreter, answer

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Number(Event):
    n: int


class Question(InputRequiredEvent):
    n: int


class Reply(HumanResponseEvent):
    n: int


async def stopped(workflow: Any, seconds: float, start: Event | None = None, serializer: Any = None) -> Any:
    """A run's data after some seconds, as it comes out of JSON; the run is gone."""
    run = workflow.run(start_event=start)
    await anyio.sleep(seconds)
    data = json.loads(json.dumps(run.ctx.to_dict(serializer)))
    await run.cancel_run()
    return data


def gone_on(workflow: Any, data: Any, backend: Any = "asyncio", **options: Any) -> Any:
    """What comes of data in a runtime of its own."""

    async def main() -> Any:
        async with Runtime():
            return await workflow.run(ctx=Context.from_dict(workflow, data, **options))

    return simulate(main, backend=backend).result


# ------------------------------------------------------------------------------------------------ time


class Patient(Workflow):
    """Waits for 10 s at most, then tells when it was told that nobody came."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        begin = anyio.current_time()
        try:
            await ctx.wait_for_event(Reply, timeout=10)
        except TimeoutError:
            return StopEvent(result=anyio.current_time() - begin)
        return StopEvent(result="answered")


@BACKENDS
def test_a_wait_goes_on_with_the_time_that_is_left(backend: Any) -> None:
    """Of 10 s of which 4 have passed, 6 are left; the time between the snapshot and the resuming does not count."""

    async def main() -> Any:
        return await stopped(Patient(), 4)

    data = simulate(main, backend=backend).result
    assert gone_on(Patient(), data, backend) == pytest.approx(6)


@BACKENDS
def test_the_run_goes_on_with_what_is_left_of_its_timeout(backend: Any) -> None:
    """Of a timeout of 100 s of which 40 have passed, 60 are left."""

    class Endless(Workflow):
        @step
        async def wait(self, ev: StartEvent) -> StopEvent:
            await anyio.sleep_forever()
            return StopEvent()

    async def main() -> Any:
        return await stopped(Endless(timeout=100), 40)

    data = simulate(main, backend=backend).result
    assert data["run"]["timeout"] == pytest.approx(60)

    async def rest() -> float:
        async with Runtime():
            flow = Endless(timeout=100)
            with pytest.raises(TimeoutError, match="did not end"):
                await flow.run(ctx=Context.from_dict(flow, data))
        return anyio.current_time()

    assert simulate(rest, backend=backend).clock.now == pytest.approx(60)


@BACKENDS
def test_retry_clocks_go_on(backend: Any) -> None:
    """An event between two attempts is due when it was, and counts its failures on."""

    class Flaky(Workflow):
        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=10))
        async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
            info = ctx.retry_info()
            if info.retry_number < 2:
                raise ValueError(info.retry_number)
            return StopEvent(result=[anyio.current_time(), info.retry_number, str(info.last_exception)])

    async def main() -> Any:
        return await stopped(Flaky(), 13)

    data = simulate(main, backend=backend).result
    assert gone_on(Flaky(), data, backend) == [pytest.approx(7), 2, "1"]


class Both(Workflow):
    """Two steps wait for replies, the later one first; a third step takes replies as well."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> list[Number]:
        return [Number(n=3), Number(n=1)]

    @step
    async def slow(self, ctx: Context, ev: Number) -> Told:
        await ctx.once("sleep", lambda: anyio.sleep(ev.n))
        reply = await ctx.wait_for_event(Reply)
        return Told(what=f"{ev.n} got {reply.n}")

    @step
    async def count(self, ctx: Context, ev: Reply) -> None:
        await ctx.store.set("seen", [*await ctx.store.get("seen", []), ev.n])

    @step
    async def end(self, ctx: Context, evs: list[Told]) -> StopEvent:
        return StopEvent(result=[sorted(ev.what for ev in evs), await ctx.store.get("seen")])


class Told(Event):
    what: str


@BACKENDS
@pytest.mark.parametrize("at_once", [True, False])
def test_the_oldest_wait_is_still_the_oldest(backend: Any, at_once: bool) -> None:
    """Replies that come where the run goes on answer the waits in their order, also before the bodies wait again."""

    async def main() -> Any:
        return await stopped(Both(), 5)

    data = simulate(main, backend=backend).result

    async def rest() -> Any:
        async with Runtime():
            flow = Both()
            run = flow.run(ctx=Context.from_dict(flow, data))
            if not at_once:
                await anyio.sleep(10)
            run.ctx.send_event(Reply(n=7))
            run.ctx.send_event(Reply(n=8))
            return await run

    told, seen = simulate(rest, backend=backend).result
    assert seen == [7, 8]
    assert len(told) == 2
    assert {one[-1] for one in told} == {"7", "8"}
    if not at_once:
        assert told == ["1 got 7", "3 got 8"]


# ------------------------------------------------------------------------------------------------ what a body gets again


class Drawing(Workflow):
    """Draws, waits, and tells what it drew."""

    made = 0

    def _pay(self) -> int:
        type(self).made += 1
        return type(self).made

    @step
    async def draw(self, ctx: Context, ev: StartEvent) -> StopEvent:
        drawn = [ctx.now().isoformat(), ctx.random.random(), str(ctx.uuid()), await ctx.once("pay", self._pay)]
        await ctx.store.set("before", [*await ctx.store.get("before", []), drawn])
        got = await ctx.store.get("before")
        await ctx.wait_for_event(Reply)
        return StopEvent(result=[drawn, got])


@BACKENDS
def test_what_a_body_drew_it_draws_again(backend: Any) -> None:
    """now, random, uuid and once give the same after a resume, and the state is read as it was, though it has changed."""
    Drawing.made = 0

    async def main() -> Any:
        run = Drawing().run()
        await anyio.wait_all_tasks_blocked()
        first = await run.ctx.store.get("before")
        await run.ctx.store.set("before", "changed since")
        data = json.loads(json.dumps(run.ctx.to_dict()))
        await run.cancel_run()
        flow = Drawing()
        again = flow.run(ctx=Context.from_dict(flow, data))
        again.ctx.send_event(Reply(n=1))  # at once, before the body has come to its wait
        return first, await again, await again.ctx.store.get("before")

    first, result, state = simulate(main, backend=backend).result
    assert result == [first[0], first]
    assert Drawing.made == 1
    assert state == "changed since"


class Fickle(Workflow):
    """Does what its class says at the moment, which is not what a body may look at."""

    mood = "once"
    told: list[str] = []  # noqa: RUF012 - of the class

    @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=5, delay=1))
    async def work(self, ctx: Context, ev: StartEvent) -> StopEvent | Number:
        if self.mood == "once":
            await ctx.once("pay", lambda: 1)
        elif self.mood == "key":
            await ctx.once("refund", lambda: 1)
        elif self.mood == "send":
            ctx.send_event(Number(n=1))
        elif self.mood == "caught":
            try:
                ctx.send_event(Number(n=1))
            except Exception:
                self.told.append("caught")
        if self.mood != "less":
            await ctx.wait_for_event(Reply)
        return StopEvent()

    @step
    async def take(self, ev: Number) -> None: ...

    @catch_error
    async def mend(self, ev: StepFailedEvent) -> StopEvent:
        return StopEvent(result="mended")


@pytest.mark.parametrize(
    ("mood", "now"),
    [
        ("key", "ctx.once('refund')"),
        ("send", "sending an event"),
        ("caught", "sending an event"),
        ("less", "nothing more"),
        ("wait", "ctx.wait_for_event(Reply)"),
    ],
)
@BACKENDS
def test_a_body_that_does_another_thing_fails_its_run(backend: Any, mood: str, now: str) -> None:
    """It is told what it did and does; it is not retried, not recovered, and not gone on with where it caught the error."""
    Fickle.mood = "once"

    async def main() -> Any:
        return await stopped(Fickle(), 1)

    data = simulate(main, backend=backend).result
    Fickle.mood = mood
    with pytest.raises(NonDeterministicStep, match=r"ctx\.once\('pay'\)") as caught:
        gone_on(Fickle(), data, backend)
    assert f"{now} where it was ctx.once('pay')" in str(caught.value)
    assert caught.value.code == "AF300"


# ------------------------------------------------------------------------------------------------ everything else in a run


class Taking(Workflow):
    """Takes the first two of each list, of lists in a list."""

    @step
    async def begin(self, ev: StartEvent) -> list[Question]:
        return [Question(n=n) for n in range(3)]

    @step(num_workers=1)
    async def split(self, ev: Question) -> list[Number]:
        return [Number(n=ev.n * 10 + n) for n in range(4)]

    @step(num_workers=12)
    async def work(self, ev: Number) -> Reply:
        await anyio.sleep(ev.n + 0.5)
        return Reply(n=ev.n)

    @step
    async def first(self, evs: Annotated[list[Reply], Collect(Take(2, losers="cancel"))]) -> Drawn:
        return Drawn(ns=[ev.n for ev in evs])

    @step
    async def end(self, evs: list[Drawn]) -> StopEvent:
        return StopEvent(result=sorted(n for ev in evs for n in ev.ns))


class Drawn(Event):
    ns: list[int]


class Exact(Workflow):
    """An atomic body, a priority, a plain def in a thread, and a join of two."""

    @step(atomic=True)
    async def begin(self, ctx: Context, ev: StartEvent) -> Left | Number:
        for n in range(6):
            ctx.send_event(Number(n=n))
        await anyio.sleep(1)
        ctx.write_event_to_stream(Question(n=1))
        return Left(n=0)

    @step(num_workers=1, priority=lambda ev: -ev.n, inbox=2)
    async def work(self, ctx: Context, ev: Number) -> Right | None:
        await anyio.sleep(1)
        return Right(n=ev.n) if ctx.collect_events(ev, [Number] * 6, buffer_id="all") else None

    @step
    async def end(self, left: Left, right: Right) -> StopEvent:
        return StopEvent(result=right.n >= 0)


class Left(Event):
    n: int


class Right(Event):
    n: int


@BACKENDS
@pytest.mark.parametrize("workflow", [Taking, Exact])
def test_goes_on_from_every_turn(workflow: Callable[[], Any], backend: Any) -> None:
    """Takes with cancelled losers, nested lists, atomic bodies, priorities, buffers and joins."""
    assert anyio.run(lambda: assert_resumable(workflow(), backend=backend)) > 10


@BACKENDS
def test_a_run_that_waits_for_its_turn(backend: Any) -> None:
    """A run that had not begun begins where it goes on, with what was sent to it; one that waits twice is not lost."""

    class Turns(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            reply = await ctx.wait_for_event(Reply)
            return StopEvent(result=[ev.get("name"), reply.n])

    async def main() -> Any:
        flow = Turns(num_concurrent_runs=1)
        first = flow.run(name="first")
        second = flow.run(name="second")
        second.ctx.send_event(Reply(n=2))
        data = json.loads(json.dumps(second.ctx.to_dict()))
        await second.cancel_run()
        third = flow.run(ctx=Context.from_dict(flow, data))
        again = json.loads(json.dumps(third.ctx.to_dict()))
        assert again["run"] == data["run"]
        busy = json.loads(json.dumps(first.ctx.to_dict()))
        fourth = flow.run(ctx=Context.from_dict(flow, busy))  # had begun, and waits now
        fourth.ctx.send_event(Reply(n=4))
        kept = json.loads(json.dumps(fourth.ctx.to_dict()))
        await fourth.cancel_run()
        first.ctx.send_event(Reply(n=1))
        results = [await first, await third]
        fifth = flow.run(ctx=Context.from_dict(flow, kept))
        return [*results, await fifth]

    assert simulate(main, backend=backend).result == [["first", 1], ["second", 2], ["first", 4]]


@BACKENDS
def test_what_is_unread_of_a_stream_is_read_where_the_run_goes_on(backend: Any) -> None:
    """A reader that left goes on where it left, with the cursor that it had."""

    class Telling(Workflow):
        @step
        async def tell(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for n in range(5):
                ctx.write_event_to_stream(Number(n=n))
            await ctx.wait_for_event(Reply)
            return StopEvent()

    async def main() -> Any:
        run = Telling().run()
        async for event in run.stream_events():
            if event.get("n") == 1:
                break
        data = json.loads(json.dumps(run.ctx.to_dict()))
        await run.cancel_run()
        flow = Telling()
        again = flow.run(ctx=Context.from_dict(flow, data))
        again.ctx.send_event(Reply(n=0))
        stream = again.stream_events()
        assert stream.cursor == 2
        return [event.get("n") async for event in stream if isinstance(event, Number)]

    assert simulate(main, backend=backend).result == [2, 3, 4]


def test_dead_letters_and_kept_answers_stay() -> None:
    """Both are there in the next life, and the dead letters are as many as are kept at most."""

    class Late(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            ctx.send_event(Number(n=7))
            await anyio.sleep(10)
            return StopEvent(result=(await ctx.wait_for_event(Reply)).n)

    async def main() -> Any:
        flow = Late(on_unhandled="dead_letter")
        run = flow.run()
        await anyio.sleep(1)
        run.ctx.send_event(Reply(n=3))
        data = json.loads(json.dumps(run.ctx.to_dict()))
        await run.cancel_run()
        again = flow.run(ctx=Context.from_dict(flow, data))
        return await again, [letter.event for letter in again.dead_letters]

    assert simulate(main).result == (3, [Number(n=7)])


# ------------------------------------------------------------------------------------------------ refused, and how


def live(
    items: Any = ((("ask", 1), ("sleep", 1)), (("many", 2), ("split", 2), ("pair", 1)), (("drop", 1), ("fail", 3))),
) -> Any:
    """Data of a run in which a lot is going on."""

    async def main() -> Any:
        return await stopped(Interpreter(timeout=100), 1.5, Go(items=[list(ops) for ops in items]))

    return simulate(main).result


def test_another_workflow_and_a_future_format_are_refused() -> None:
    """One clear error each."""
    data = live()
    with pytest.raises(ContextSerdeError, match="belongs to workflow 'Interpreter', not to Patient") as caught:
        Context.from_dict(Patient(), data)
    assert caught.value.code == "AF056"
    for future in (2, "1", True, None):
        with pytest.raises(ContextSerdeError, match="reads format 1; update actorflow"):
            Context.from_dict(Interpreter(), {**data, "format": future})


def renamed(data: Any, old: str, new: str) -> Any:
    """The same with another name in it."""
    return json.loads(json.dumps(data).replace(f'"{old}"', f'"{new}"'))


def test_a_step_that_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    """An error that names it; without strict its events are dead letters, with a warning."""
    data = renamed(live(), "many", "much")
    with pytest.raises(
        ContextSerdeError, match=r"'much' is no step of this workflow\. Give it to that version"
    ) as caught:
        Context.from_dict(Interpreter(), data)
    assert caught.value.code == "AF303"
    with caplog.at_level(logging.WARNING, "actorflow"):
        context = Context.from_dict(Interpreter(), data, strict=False)
    assert "'much' is no step of this workflow" in caplog.text
    assert "Many" in json.dumps(context.to_dict()["run"]["dead"])


def test_a_field_that_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    """The same of a field, and of a class."""
    data = live()
    data["run"]["queues"] = {"side": [{"$": "tests.test_resuming:Side@1", "v": {"key": "a", "n": 1, "size": 3}}]}
    with pytest.raises(ContextSerdeError, match=r"run\.queues\.side\[0\].*no field 'size'"):
        Context.from_dict(Interpreter(), data)
    with caplog.at_level(logging.WARNING, "actorflow"):
        context = Context.from_dict(Interpreter(), data, strict=False)
    assert "Side has no field 'size'" in caplog.text
    assert context.to_dict()["run"]["queues"]["side"]["vs"] == [{"key": "a", "n": 1}]
    data["run"]["queues"] = {"side": [{"$": "tests.test_resuming:Aside@1", "v": {}}]}
    with pytest.raises(ContextSerdeError, match="no type is known as"):
        Context.from_dict(Interpreter(), data)
    assert "queues" not in Context.from_dict(Interpreter(), data, strict=False).to_dict()["run"]


class Client:
    """Cannot be kept."""


class Call(Event):
    client: Any


class Calling(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Call | None:
        for n in range(5):
            ctx.send_event(Call(client=Client() if n == 3 else n))
        if ev.get("state"):
            await ctx.store.set("orders", [1, 2, 3, {"client": Client()}])
        return None

    @step(num_workers=1)
    async def call(self, ev: Call) -> StopEvent:
        await anyio.sleep_forever()
        return StopEvent()


def test_what_cannot_be_kept_names_its_path() -> None:
    """In the state and in the queues; what can be done about it is said, and a PickleSerializer can do it."""

    async def main() -> None:
        for start, path in (
            (StartEvent(), r"run\.queues\.call\[2\]\.client"),
            (StartEvent(state=True), r"state\.orders\[3\]\.client"),
        ):
            run = Calling().run(start_event=start)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(ContextSerdeError, match=f"cannot serialise {path}: .*register") as caught:
                run.ctx.to_dict()
            assert caught.value.code == "AF051"
            data = json.loads(json.dumps(run.ctx.to_dict(PickleSerializer())))
            restored = Context.from_dict(Calling(), data, PickleSerializer())
            again = Calling().run(ctx=restored)
            await anyio.wait_all_tasks_blocked()
            assert again.ctx.to_dict(PickleSerializer())["run"]["queues"].keys() == {"call"}
            with pytest.raises(ContextSerdeError, match="PickleSerializer"):
                Context.from_dict(Calling(), data)
            await run.cancel_run()
            await again.cancel_run()

    simulate(main)


# ------------------------------------------------------------------------------------------------ malformed data

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**18),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.sampled_from(["side", "work", "finish", "waiting", "answer", "tests.test_resuming:Side@1", "dict", "exception"]),
)


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in JSON data."""
    found = [path]
    inside: Any = ()
    if isinstance(data, dict):
        inside = cast("Any", data).items()
    elif isinstance(data, list):
        inside = enumerate(cast("Any", data))
    for key, value in inside:
        found += places(value, (*path, key))
    return found


def at(data: Any, path: tuple[Any, ...]) -> Any:
    """What is there."""
    for key in path:
        data = data[key]
    return data


REAL = [
    live(),
    live((("tasks", 3), ("once", 1)) for _ in range(2)),
    live(
        [
            [("sleep", 1), ("edit", 1), ("get", 1), ("draw", 9)],
            [("send", 3), ("miss", 9)],
            [("await", 1), ("once", 2), ("drop", 1)],
        ]
    ),
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(choices=st.data(), real=st.sampled_from(range(len(REAL))), strict=st.booleans())
def test_malformed_data_is_refused_or_ends_in_some_way(choices: st.DataObject, real: int, strict: bool) -> None:
    """Never anything but ContextSerdeError when it is read; and what is accepted never hangs nor breaks the dispatcher."""
    data = copy.deepcopy(REAL[real])
    paths = [path for path in places(data) if path]
    for _ in range(choices.draw(st.integers(1, 3))):
        path = choices.draw(st.sampled_from(paths))
        try:
            holder = at(data, path[:-1])
            how = choices.draw(st.sampled_from(["junk", "drop", "twice", "other"]))
            if how == "junk":
                holder[path[-1]] = choices.draw(JUNK)
            elif how == "drop":
                del holder[path[-1]]
            elif how == "other":
                holder[path[-1]] = copy.deepcopy(at(data, choices.draw(st.sampled_from(paths))))
            elif type(holder) is list:
                cast("Any", holder).insert(path[-1], copy.deepcopy(at(data, path)))
        except (KeyError, IndexError, TypeError):
            continue  # gone already
    flow = Interpreter(timeout=100)
    try:
        context = Context.from_dict(flow, data, strict=strict)
    except ContextSerdeError:
        return
    _goes_on(flow, context)


def _goes_on(flow: Any, context: Any) -> None:
    async def listen(run: Any) -> None:
        async for event in run.stream_events():
            reply = answer(event)
            if reply is not None and not run.done:
                run.ctx.send_event(reply)

    if "run" not in context.to_dict():
        return  # the next run begins, with the state

    async def main() -> None:
        async with Runtime(), anyio.create_task_group() as group:
            run = flow.run(ctx=context)
            group.start_soon(listen, run)
            with anyio.move_on_after(200):
                with suppress(Exception):
                    await run
            assert run.is_done(), "it hangs"
            terminal = run.get_stop_event()
            error = terminal.exception if isinstance(terminal, WorkflowFailedEvent) else None
            assert not isinstance(error, InternalError)
            if isinstance(error, AssertionError | KeyError | IndexError | AttributeError):
                assert _of_a_body(error), repr(error)
            group.cancel_scope.cancel()

    try:
        simulate(main)
    except DeadlockError as error:
        raise AssertionError("it hangs") from error


def _of_a_body(error: BaseException) -> bool:
    """Whether the first frame of an error is a body's."""
    traceback = error.__traceback__
    files: list[str] = []
    while traceback is not None:
        files.append(traceback.tb_frame.f_code.co_filename)
        traceback = traceback.tb_next
    return bool(files) and files[-1].endswith("test_resuming.py")


# ------------------------------------------------------------------------------------------------ what it costs


class Busy(Workflow):
    """Handles events, then waits with some that it has not handled."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Number:
        await ctx.store.set("n", 0)
        return Number(n=ev.get("handled"))

    @step
    async def count(self, ctx: Context, ev: Number) -> Number | Left | None:
        await ctx.store.set("n", ev.n)
        ctx.write_event_to_stream(Number(n=ev.n))
        if ev.n:
            return Number(n=ev.n - 1)
        for n in range(20):
            ctx.send_event(Left(n=n))
        return None

    @step(num_workers=1)
    async def stay(self, ev: Left) -> StopEvent:
        await anyio.sleep_forever()
        return StopEvent()


async def counted(handled: int) -> tuple[int, int]:
    """What a snapshot costs after so many handled events, and how long its JSON is."""
    run = Busy().run(handled=handled)
    stream = run.stream_events()
    async for event in stream:
        if event.get("n") == 0:
            break
    await anyio.wait_all_tasks_blocked()
    run.ctx.to_dict()  # what is compiled once
    meter = Meter()
    with meter.on():
        data = run.ctx.to_dict()
    await run.cancel_run()
    return sum(meter.instructions.values()) + sum(meter.calls.values()), len(json.dumps(data))


@BACKENDS
def test_a_snapshot_costs_what_is_alive(backend: Any) -> None:
    """After 10 handled events and after 10,000 the same."""
    few, many = anyio.run(counted, 10, backend=backend), anyio.run(counted, 10_000, backend=backend)
    assert abs(many[0] - few[0]) <= few[0] // 100
    assert abs(many[1] - few[1]) <= 16  # longer numbers


def test_a_queued_event_costs_little() -> None:
    """Twice the queue costs twice as much, and an event takes its fields and no more."""

    async def main(n: int) -> tuple[int, int]:
        class Many(Workflow):
            @step
            async def begin(self, ctx: Context, ev: StartEvent) -> Left | None:
                for i in range(n):
                    ctx.send_event(Left(n=i % 10))
                return None

            @step(num_workers=1)
            async def stay(self, ev: Left) -> StopEvent:
                await anyio.sleep_forever()
                return StopEvent()

        run = Many().run()
        await anyio.wait_all_tasks_blocked()
        run.ctx.to_dict()
        meter = Meter()
        with meter.on():
            data = run.ctx.to_dict()
        await run.cancel_run()
        return sum(meter.instructions.values()), len(json.dumps(data, separators=(",", ":")))

    one, two, three = (anyio.run(main, n) for n in (100, 200, 300))
    assert abs((three[0] - two[0]) - (two[0] - one[0])) <= 2
    assert (two[0] - one[0]) / 100 < 120
    assert (two[1] - one[1]) / 100 <= len('{"n":1},')


# ------------------------------------------------------------------------------------------------ beside a journal


@BACKENDS
@pytest.mark.parametrize("after", [0.1, 0.4, 0.8, 1.3, 2.6, 4.1])
def test_a_run_with_a_journal_too(backend: Any, after: float) -> None:
    """What a body has sent and the journal does not have yet is in the snapshot, once; so is what is to be published."""
    items: Any = [
        [("send", 2), ("publish", 1), ("ask", 4)],
        [("edit", 2), ("pair", 1), ("many", 2)],
        [("split", 3)],
        [("send", 2), ("sleep", 6)],
    ]

    async def run_it(ctx: Any, seconds: float | None, journal: Any) -> Any:
        read: list[str] = []

        async def listen(run: Any) -> None:
            async for event in run.stream_events():
                read.append(repr(event))
                reply = answer(event)
                if reply is not None and not run.done:
                    run.ctx.send_event(reply)

        data, before = None, read
        async with Runtime(journal=journal), anyio.create_task_group() as group:
            flow = Interpreter(timeout=100)
            restored = None if ctx is None else Context.from_dict(flow, ctx)
            run: Any = flow.run(start_event=None if ctx else Go(items=items), ctx=restored)
            group.start_soon(listen, run)
            if seconds is None:
                return await run, read
            await anyio.sleep(seconds)
            assert not run.done
            data = json.loads(json.dumps(run.ctx.to_dict()))
            before = list(read)
            await run.cancel_run()
            group.cancel_scope.cancel()
        return data, before

    whole, read = simulate(lambda: run_it(None, None, None), backend=backend).result
    data, before = simulate(lambda: run_it(None, after, SlowJournal()), backend=backend).result
    result, rest = simulate(lambda: run_it(data, None, None), backend=backend).result
    assert result == whole
    assert sorted(before + rest) == sorted(read)


def test_a_plain_def_step_in_its_middle() -> None:
    """It runs again, and what it had sent is not sent again."""
    begun = threading.Event()
    let_go = threading.Event()
    stopped: list[bool] = []

    class Threaded(Workflow):
        @step
        def work(self, ctx: Context, ev: StartEvent) -> Number | None:
            ctx.send_event(Number(n=1))
            begun.set()
            let_go.wait()
            return None

        @step
        async def end(self, ctx: Context, ev: Number) -> StopEvent | None:
            await ctx.store.set("n", await ctx.store.get("n", 0) + ev.n)
            if not stopped:
                await anyio.sleep_forever()  # the run is to be stopped here
            return StopEvent(result=await ctx.store.get("n"))

    async def main() -> Any:
        run = Threaded().run()
        await anyio.to_thread.run_sync(begun.wait)
        data = json.loads(json.dumps(run.ctx.to_dict()))
        let_go.set()
        await run.cancel_run()
        return data

    data = anyio.run(main)
    stopped.append(True)
    assert gone_on(Threaded(), data) == 1
