"""Programs in which mypy and pyright find nothing, and the types that they see; tests/test_typing.py runs them too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any, assert_type

import attrs

from actorflow import (
    Ask,
    Context,
    DictState,
    Event,
    InputRequiredEvent,
    Resource,
    Run,
    Runtime,
    StartEvent,
    StepFailedEvent,
    StopEvent,
    Stream,
    Workflow,
    catch_error,
    check,
    step,
)


class Order(StartEvent):
    item: str
    count: int = 1


class Part(Event):
    number: int


class Checked(Event):
    number: int
    ok: bool = True


class Packed(Event):
    parts: int


class Progress(Event):
    percent: int


class Sent(StopEvent[str]):
    weight: float = 0.0


class Approve(Ask[bool]):
    order: str


class HowMany(Ask[int]):
    pass


@attrs.define
class State:
    seen: int = 0
    names: list[str] = attrs.field(factory=list[str])


class Scales:
    def weigh(self, parts: int) -> float:
        return parts * 0.5


def scales() -> Scales:
    return Scales()


# -- steps in every form: sync and async, both orders, unions, lists, streams, joins, resources


class Shop(Workflow[Order, StopEvent[int]]):
    @step
    async def take(self, ev: Order, ctx: Context[State]) -> list[Part]:
        async with ctx.store.edit_state() as state:
            assert_type(state, State)
            state.seen += 1
        assert_type(await ctx.store.get_state(), State)
        ctx.write_event_to_stream(Progress(percent=10))
        return [Part(number=n) for n in range(ev.count)]

    @step(num_workers=2, timeout=60)
    async def look(self, ctx: Context[State], ev: Part) -> Checked | None:
        return Checked(number=ev.number)

    @step
    async def pack(self, evs: list[Checked]) -> Packed:
        return Packed(parts=len(evs))

    @step
    def send(self, ev: Packed) -> StopEvent[int]:
        return StopEvent(result=ev.parts)

    check((take & look & pack & send).graph)


class Fancy(Workflow[Order, Sent]):
    """A StopEvent of its own: `await run` gives the event itself."""

    @step
    async def ask(self, ctx: Context, ev: Order) -> Part | Checked | Sent:
        async with ctx.store.edit_state() as state:
            assert_type(state, DictState)
        ctx.send_event(Checked(number=1))
        return Part(number=1)

    @step
    async def both(self, ctx: Context, a: Part, b: Checked, scale: Annotated[Scales, Resource(scales)]) -> Packed:
        return Packed(parts=int(scale.weigh(4)))

    @step
    async def stream(self, ev: Packed, note: str = "") -> AsyncIterator[Progress | InputRequiredEvent]:
        for percent in range(ev.parts):
            yield Progress(percent=percent)

    @step
    async def count(self, ctx: Context, ev: Progress) -> Sent | None:
        done = ctx.collect_events(ev, [Progress] * 2)
        assert_type(done, list[Progress] | None)
        return None if done is None else Sent(result="done", weight=1.5)

    @catch_error
    async def recover(self, ctx: Context, ev: StepFailedEvent) -> Sent:
        return Sent(result=ev.step_name)

    check((ask & both & stream & count & recover).graph)


class Joined(Workflow[Order, StopEvent[tuple[int, bool]]]):
    @step
    async def begin(self, ctx: Context, ev: Order) -> Part | Checked:
        ctx.send_event(Checked(number=2, ok=False))
        return Part(number=1)

    @step
    async def end(self, ev: Part | Checked, ctx: Context) -> StopEvent[tuple[int, bool]] | None:
        pair = ctx.collect_events(ev, Part, Checked)
        assert_type(pair, tuple[Part, Checked] | None)
        if pair is None:
            return None
        part, checked = pair
        return StopEvent(result=(part.number, checked.ok))

    check((begin & end).graph)


class Patient(Workflow[Order, StopEvent[str]]):
    """Waits and questions."""

    @step
    async def wait(self, ctx: Context, ev: Order) -> StopEvent[str]:
        found = await ctx.wait_for_event(Checked, requirements=lambda answer: answer.ok and answer.number > 0)
        assert_type(found, Checked)
        approved = await ctx.ask(Approve(order=ev.item))
        assert_type(approved, bool)
        many = await ctx.ask(HowMany(), timeout=5, default=None)
        assert_type(many, int | None)
        return StopEvent(result=f"{found.number} {approved} {many}")

    check(wait.graph)


class Mixin:
    """Steps may come from a class that is no workflow."""

    @step
    async def first(self, ctx: Context, ev: Order) -> Part:
        return Part(number=ev.count)

    @step
    async def last(self, ev: Part) -> StopEvent[int]:
        return StopEvent(result=ev.number)

    check((first & last).graph)


class Mixed(Mixin, Workflow[Order, StopEvent[int]]):
    check((Mixin.first & Mixin.last).graph)


class Fine(Workflow[Order, StopEvent[int]]):
    """Parameters with defaults stay."""

    @step
    async def only(self, ev: Order, note: str = "") -> StopEvent[int]:
        return StopEvent(result=len(ev.item + note))

    @step
    async def more(self, ctx: Context, ev: Order, note: str = "") -> StopEvent[int]:
        return await self.only(ev, note=note)

    @step
    async def most(self, ev: Order, ctx: Context, note: str = "") -> StopEvent[int]:
        return await self.more(ctx, ev, note=note)

    check((only & more & most).graph)


class Wider(Shop):
    """A step is overridden like a method: what it returns may be narrower."""

    @step
    async def look(self, ctx: Context[State], ev: Part) -> Checked:
        return Checked(number=ev.number, ok=True)


patient = step(timeout=60)


class Ported(Workflow):
    """As in LlamaIndex Workflows: no types but those of the steps."""

    @patient(num_workers=1)
    async def only(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=ev["topic"])


@step(workflow=Ported, num_workers=2)
async def log(ctx: Context, ev: Progress) -> None:
    ctx.write_event_to_stream(ev)


@step(workflow=Ported)
def begin(ev: StartEvent) -> Progress | None:
    return Progress(percent=0)


check((Ported.only & log & begin).graph)


# -- a step is a method with its own signature, and a function that a class has


async def calls(shop: Shop, ctx: Context[State]) -> None:
    if ctx.is_running:
        assert_type(await shop.take(Order(item="tea"), ctx), list[Part])
    assert_type(await shop.look(ctx, Part(number=1)), Checked | None)
    assert_type(await shop.pack([Checked(number=1)]), Packed)
    assert_type(await Fine().only(Order(item="tea"), note="!"), StopEvent[int])
    assert_type(shop.send(Packed(parts=1)), StopEvent[int])
    assert_type(await Shop.pack(shop, [Checked(number=1)]), Packed)
    assert_type(await Fancy().both(Context(shop), Part(number=1), Checked(number=1), scale=Scales()), Packed)
    as_function: Callable[[Packed], StopEvent[int]] = shop.send
    as_coroutine: Callable[[list[Checked]], Coroutine[Any, Any, Packed]] = shop.pack
    assert as_function(Packed(parts=2)).result == 2
    assert (await as_coroutine([])).parts == 0
    assert_type(await Mixed().first(Context(shop), Order(item="tea")), Part)
    assert begin(StartEvent()) == Progress(percent=0)


# -- runs


async def main() -> None:
    run = Shop().run(Order(item="tea", count=3))
    assert_type(run, Run[int])
    seen: list[int] = []
    stream = run.stream_events(Progress, Packed)
    assert_type(stream, Stream[Progress | Packed])
    async for event in stream:
        assert_type(event, Progress | Packed)
        seen.append(event.percent if isinstance(event, Progress) else event.parts)
    async for progress in run.stream_events(Progress, after=-1):
        assert_type(progress, Progress)
    async for anything in run.stream_events(after=-1):
        assert_type(anything, Event)
    result = await run
    assert_type(result, int)
    assert_type(run.stop_event_result(), int)
    assert (result, seen) == (3, [10])

    assert_type(await Shop().run(start_event=Order(item="tea")), int)
    assert_type(await Shop().run(item="tea", run_id="by keywords"), int)
    assert_type(await Shop().run(Context(Shop()), item="tea"), int)
    assert_type(await Ported().run(topic="bees"), Any)
    assert_type(await Joined().run(Order(item="tea")), tuple[int, bool])

    sent = await Fancy().run(Order(item="tea"))
    assert_type(sent, Sent)
    assert (sent.result, sent.weight) == ("done", 1.5)

    async with Runtime() as runtime:
        owned = await runtime.start(Shop(), Order(item="tea", count=2))
        assert_type(owned, Run[int])
        assert await owned == 2
        assert_type(await runtime.start(Fancy(), Order(item="tea")), Run[Sent])

    waiting = Patient().run(Order(item="tea"))
    await waiting.send_event(Checked(number=0))
    await waiting.send_event(Checked(number=7))
    async for question in waiting.stream_events(Approve, HowMany):
        assert_type(question, Approve | HowMany)
        await waiting.send_event(question.answer(True) if isinstance(question, Approve) else question.answer(4))
    assert_type(await waiting, str)
    assert await waiting == "7 True 4"

    shop = Shop()
    context: Context[State] = Context(shop)
    assert await shop.run(Order(item="tea"), ctx=context) == 1
    assert (await context.store.get_state()).seen == 1
    await calls(shop, context)


def plain() -> None:
    assert assert_type(Shop().run_sync(Order(item="tea"), backend="trio"), int) == 1
    assert assert_type(Fancy().run_sync(Order(item="tea")), Sent).weight == 1.5
