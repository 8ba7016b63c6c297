"""Steps at run time: thin faces of their functions, joined by `&`, checked by nobody but the type checkers."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import anyio
import pytest

from actorflow import Context, Event, StartEvent, StepFailedEvent, StopEvent, Workflow, catch_error, check, step
from actorflow.wiring import Step, function_of
from tests.seams import everywhere


class Draft(Event):
    text: str


class Orphan(Event):
    pass


class Writer(Workflow):
    @step
    async def write(self, ev: StartEvent) -> Draft:
        """Writes."""
        return Draft(text=ev["topic"])

    @step(num_workers=2)
    async def publish(self, ctx: Context, ev: Draft, mark: str = "!") -> StopEvent:
        return StopEvent(result=ev.text + mark)

    @catch_error
    async def recover(self, ev: StepFailedEvent) -> StopEvent:
        return StopEvent(result="recovered")

    check((write & publish & recover).graph)


class Loud(Writer):
    @step
    async def publish(self, ctx: Context, ev: Draft, mark: str = "!") -> StopEvent:
        said = await super().publish(ctx, ev, mark=mark)
        return StopEvent(result=said.result.upper())


@step(workflow=Writer)
async def log(ev: Draft) -> None:
    """Logs."""


def test_a_step_of_an_instance_is_a_bound_method() -> None:
    """Methods are what runs, and what a caller gets from an instance."""
    writer = Writer()
    assert inspect.ismethod(writer.publish)
    assert inspect.iscoroutinefunction(writer.publish)
    assert list(inspect.signature(writer.publish).parameters) == ["ctx", "ev", "mark"]


def test_a_step_of_a_class_looks_like_its_function() -> None:
    """Its name, signature, documentation and place are the function's; it shows itself by its name."""
    assert isinstance(Writer.write, Step)
    assert (Writer.write.__name__, Writer.write.__doc__, Writer.write.__module__) == ("write", "Writes.", __name__)
    assert list(inspect.signature(Writer.publish).parameters) == ["self", "ctx", "ev", "mark"]
    assert inspect.getsource(Writer.write).lstrip().startswith("@step")
    assert function_of(Writer.write) is Writer.write.__wrapped__
    assert inspect.isfunction(Writer.write.__wrapped__)
    assert repr(Writer.publish) == "<step Writer.publish>"


def test_a_step_is_pickled_by_its_name() -> None:
    """Like the function that it stands for, so that a process may get it."""
    assert pickle.loads(pickle.dumps(log)) is log  # noqa: S301 - our own bytes
    assert pickle.loads(pickle.dumps(Writer.write)) is Writer.write  # noqa: S301


@everywhere
async def test_steps_are_called_like_what_they_were() -> None:
    """From a class, from an instance, through super(), and as a free function; nothing is started."""
    writer = Writer()
    assert await writer.write(StartEvent(topic="bees")) == Draft(text="bees")
    assert await Writer.write(writer, StartEvent(topic="bees")) == Draft(text="bees")
    assert await Loud().publish(Context(writer), Draft(text="bees"), mark="?") == StopEvent(result="BEES?")
    await log(Draft(text="bees"))
    assert await Loud().run(topic="ants") == "ANTS!"


def test_steps_are_joined() -> None:
    """`&` takes steps, free ones too, and what it gave; `graph` has their names in order."""
    wiring = (Writer.write & Writer.publish).graph
    assert wiring.names == ("write", "publish")
    assert (wiring & log).graph.names == ("write", "publish", "log")
    assert (log & wiring).graph.names == ("log", "write", "publish")
    assert (wiring & Loud.publish.graph).names == ("write", "publish", "publish")
    assert repr(Writer.write.graph) == "<Wiring of write>"


def test_check_does_nothing_at_run_time() -> None:
    """It is for type checkers; the workflow itself is checked when its first instance is made."""

    class Wrong(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Draft | Orphan:
            return Draft(text="")

        @step
        async def end(self, ev: Draft) -> StopEvent:
            return StopEvent()

    check((Wrong.begin & Wrong.end).graph)  # type: ignore[misc] # pyright: ignore[reportArgumentType]


def test_options_are_kept() -> None:
    """A decorator with options may be used again, with more options or other ones."""
    patient = step(timeout=60, num_workers=3)

    class Kept(Workflow):
        @patient
        async def begin(self, ev: StartEvent) -> Draft:
            return Draft(text="")

        @patient(num_workers=1, waits_for=[Orphan])
        async def end(self, ev: Draft) -> StopEvent:
            return StopEvent()

    configs: list[Any] = [function_of(one).__actorflow_step__ for one in (Kept.begin, Kept.end)]
    assert [(config.timeout, config.num_workers, config.waits_for) for config in configs] == [
        (60, 3, ()),
        (60, 1, (Orphan,)),
    ]


def test_a_function_is_marked_again() -> None:
    """The last mark counts, and a step of a step is a step of the function."""

    async def write(self: Writer, ev: StartEvent) -> Draft:
        return Draft(text="")

    first = step(num_workers=2)(write)
    again: Any = step(num_workers=5)(first)
    assert again.__wrapped__ is write
    assert function_of(again).__actorflow_step__.num_workers == 5


@pytest.mark.parametrize(
    ("decorator", "name", "said"),
    [
        (step, "num_worker", "@step has no option 'num_worker'; did you mean 'num_workers'?"),
        (catch_error, "for_step", "@catch_error has no option 'for_step'; did you mean 'for_steps'?"),
        (
            catch_error,
            "xyz",
            "@catch_error has no option 'xyz'; its options are for_steps, max_recoveries, workflow",
        ),
    ],
)
def test_an_option_that_does_not_exist(decorator: Any, name: str, said: str) -> None:
    """It is refused where it is written, with the near name."""
    with pytest.raises(TypeError) as error:
        decorator(**{name: 1})
    assert str(error.value) == said


@everywhere
async def test_a_tuple_is_collected() -> None:
    """Types one after the other give a tuple in their order; a list of types gives a list, and keeps its buffer."""
    batches: list[Any] = []
    kinds: list[type[Event]] = [Draft, Orphan]

    class Pair(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Draft | Orphan | None:
            for n in range(2):
                ctx.send_event(Orphan())
                ctx.send_event(Draft(text=str(n)))
            return None

        @step(num_workers=1)
        async def gather(self, ctx: Context, ev: Draft | Orphan) -> StopEvent | None:
            batches.append(ctx.collect_events(ev, Draft, Orphan))
            batches.append(ctx.collect_events(ev, Draft, Orphan, Draft, buffer_id="three"))
            batches.append(ctx.collect_events(ev, kinds, "by position"))
            await anyio.lowlevel.checkpoint()
            return StopEvent() if len(batches) == 12 else None

    await Pair().run()
    first, second = Draft(text="0"), Draft(text="1")
    assert batches[0::3] == [None, (first, Orphan()), None, (second, Orphan())]
    assert batches[1::3] == [None, None, None, (first, Orphan(), second)]
    assert batches[2::3] == [None, [first, Orphan()], None, [second, Orphan()]]
