"""Runs whose state has a type: `ctx: Context[State]`, from the annotation to the store."""

from __future__ import annotations

import dataclasses

import attrs
import pytest
from pydantic import BaseModel

from actorflow import (
    Context,
    Event,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowValidationError,
    step,
)
from tests.seams import everywhere


class More(Event):
    by: int


@attrs.define
class Tally:
    count: int = 0
    names: list[str] = attrs.field(factory=list[str])


@dataclasses.dataclass
class Ledger:
    count: int = 0
    names: list[str] = dataclasses.field(default_factory=list[str])


class Model(BaseModel):
    count: int = 0
    names: list[str] = []


class OnTally(Workflow):
    @step
    async def begin(self, ctx: Context[Tally], ev: StartEvent) -> More:
        async with ctx.store.edit_state() as state:
            state.count += 1
            state.names.append("begin")
        return More(by=2)

    @step
    async def end(self, ctx: Context[Tally], ev: More) -> StopEvent:
        await ctx.store.set("count", (await ctx.store.get_state()).count + ev.by)
        with pytest.raises(ValueError, match=r"Tally\.count must be int, got str"):
            await ctx.store.set("count", "many")
        return StopEvent(result=await ctx.store.get_state())


class OnLedger(Workflow):
    @step
    async def begin(self, ctx: Context[Ledger], ev: StartEvent) -> StopEvent:
        async with ctx.store.edit_state() as state:
            state.count += 3
            state.names.append("begin")
        return StopEvent(result=await ctx.store.get_state())


class OnModel(Workflow):
    @step
    async def begin(self, ctx: Context[Model], ev: StartEvent) -> StopEvent:
        async with ctx.store.edit_state() as state:
            state.count += 3
            state.names.append("begin")
        return StopEvent(result=await ctx.store.get_state())


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        (OnTally, Tally(count=3, names=["begin"])),
        (OnLedger, Ledger(count=3, names=["begin"])),
        (OnModel, Model(count=3, names=["begin"])),
    ],
)
@everywhere
async def test_a_typed_state(flow: type[Workflow], expected: object) -> None:
    """Made new for each run, edited by attribute, checked when set."""
    assert await flow().run() == expected
    assert await flow().run() == expected


@everywhere
async def test_a_typed_context_by_hand() -> None:
    """`Context(workflow)` has the workflow's own state, to be seeded, and to be used again."""
    flow = OnTally()
    context: Context[Tally] = Context(flow)
    await context.store.set("count", 10)
    assert (await flow.run(ctx=context)).count == 13
    assert (await flow.run(ctx=context)).names == ["begin", "begin"]


def test_two_states_in_one_workflow() -> None:
    """Steps that disagree on the state are refused when the workflow is built."""

    class Torn(Workflow):
        @step
        async def begin(self, ctx: Context[Tally], ev: StartEvent) -> More:
            return More(by=1)

        @step
        async def end(self, ctx: Context[Ledger], ev: More) -> StopEvent:
            return StopEvent()

    with pytest.raises(
        WorkflowValidationError, match=r"AF150 Torn\.end .*its context is of Ledger, and that of begin is of Tally"
    ):
        Torn()
