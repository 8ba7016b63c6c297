"""Mistakes that type checkers find, one a line: the comment there says which errors each of them reports.

mypy's code stands first, then pyright's; a checker that reports nothing has a dash. tests/test_typing.py fails when an
error disappears, changes its code, or a new one appears.
"""

from __future__ import annotations

import attrs

from actorflow import Ask, Context, Event, Runtime, StartEvent, StopEvent, Workflow, check, step


class Order(StartEvent):
    item: str


class Part(Event):
    number: int


class Orphan(Event):
    pass


class Approve(Ask[bool]):
    order: str


@attrs.define
class State:
    seen: int = 0


class Bad(Workflow[Order, StopEvent[int]]):
    @step
    async def begin(self, ev: Order) -> Part | Orphan:
        print(ev.itme)  # typo in event [attr-defined | reportAttributeAccessIssue]
        return Part(number=1)

    @step
    async def end(self, ctx: Context[State], ev: Part) -> StopEvent[int]:
        async with ctx.store.edit_state() as state:
            state.sene += 1  # typo in state [attr-defined | reportAttributeAccessIssue]
        await ctx.wait_for_event(Part, requirements=lambda part: part.nmuber > 1)  # typo in predicate [attr-defined | reportAttributeAccessIssue]
        ev.number = 2  # assignment to field [misc | reportAttributeAccessIssue]
        answer: str = await ctx.ask(Approve(order="tea"))  # wrong type of answer [arg-type | reportAssignmentType]
        ctx.send_event(answer)  # not an event [arg-type | reportArgumentType]
        pair: tuple[Part, Order] | None = ctx.collect_events(ev, Order, Part)  # wrong order of tuple [arg-type | reportAssignmentType]
        print(pair, ev.get("number"))
        return StopEvent(result="one")  # wrong type of result in step [arg-type | reportReturnType]

    check((begin & end).graph)  # orphan event [misc | reportArgumentType]

    @step  # returns no event [arg-type, type-var | reportArgumentType, reportCallIssue]
    async def no_event(self, ev: Order) -> str:
        return ev.item

    @step  # takes no event [arg-type | reportArgumentType, reportCallIssue]
    async def takes_number(self, ev: int) -> Part:
        return Part(number=ev)

    @step  # returns list of no events [arg-type, type-var | reportArgumentType, reportCallIssue]
    async def no_events(self, ev: Order) -> list[int]:
        return [len(ev.item)]

    @step(num_wrokers=2)  # unknown option [call-overload | reportCallIssue]
    async def misspelt(self, ev: Order) -> Part:
        return Part(number=1)


class Fine(Workflow[Order, StopEvent[int]]):
    @step
    async def only(self, ev: Order, note: str = "") -> StopEvent[int]:
        return StopEvent(result=len(ev.item + note))


class Changed(Fine):
    @step
    async def only(self, ev: Order, note: str = "") -> Part:  # step overridden by another type [override | reportIncompatibleVariableOverride]
        return Part(number=1)


async def main(runtime: Runtime) -> None:
    Order()  # missing field [call-arg | reportCallIssue]
    Order(item="tea", colour="red")  # unknown field [call-arg | reportCallIssue]
    Part(number="one")  # wrong type of field [arg-type | reportArgumentType]
    Fine().run(StartEvent())  # wrong start event [call-overload | reportArgumentType, reportCallIssue]
    text: str = await Fine().run(Order(item="tea"))  # wrong type of result [assignment | reportAssignmentType]
    owned: str = await (await runtime.start(Fine(), Order(item="tea")))  # wrong type of result [assignment | reportAssignmentType]
    number: str = Fine().run_sync(Order(item="tea"))  # wrong type of result [assignment | reportAssignmentType]
    await Fine().only(Part(number=1))  # wrong event to step [arg-type | reportArgumentType]
    await Fine().only(Order(item="tea"), note=1)  # wrong argument of step [arg-type | reportArgumentType]
    async for part in Fine().run(Order(item="tea")).stream_events(Part, Order):
        print(part.number)  # attribute of one event of several [union-attr | reportAttributeAccessIssue]
    Fine().run(Order(item="tea")).stream_events(State)  # stream of no event [type-var | reportArgumentType, reportCallIssue]
    print(text, owned, number, StartEvent(topic="bees").topic)  # dynamic field as attribute [attr-defined | reportAttributeAccessIssue]
