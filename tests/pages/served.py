"""A server of workflows for the page's tests: ``python -m tests.pages.served BACKEND STORE PORT``."""

from __future__ import annotations

import enum
import random
import sys
from datetime import datetime
from typing import Annotated, cast

import anyio
import attrs

from actorflow import (
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    Workflow,
    step,
)
from actorflow.retry_policy import ConstantDelayRetryPolicy
from actorflow.server import WorkflowServer


class Word(Event):
    text: str


class Greeter(Workflow):
    """Greets somebody, word by word."""

    @step
    async def greet(self, ctx: Context, ev: StartEvent) -> StopEvent:
        for text in ("Hello", ",", ev["name"]):
            ctx.write_event_to_stream(Word(text=text))
            await anyio.sleep(0.02)
        return StopEvent(result=f"Hello, {ev['name']}!")


class Tone(enum.Enum):
    DRY = 1
    WARM = 2
    LOUD = 3


class Order(StartEvent):
    """What the paper shall be about."""

    topic: Annotated[str, "What to write about"]
    articles: int = attrs.field(default=12, validator=[attrs.validators.ge(1), attrs.validators.le(40)])
    tone: Tone = Tone.WARM
    draft: bool = False
    due: datetime | None = None


class Task(Event):
    number: int


class Draft(Event):
    number: int
    text: str
    round: int = 0


class Revise(Event):
    number: int
    round: int


class Ready(Event):
    number: int


class Paper(InputRequiredEvent):
    prefix: str
    articles: int


class Approval(HumanResponseEvent):
    ok: bool
    note: str = ""


class Newsroom(Workflow):
    """A paper in a few steps: its articles are planned, written, reviewed, sent back, and approved by you."""

    @step(num_workers=1)
    async def plan(self, ctx: Context, ev: Order) -> list[Task]:
        await anyio.sleep(0.05)
        await ctx.store.set("topic", ev.topic)
        await ctx.store.set("articles", {"planned": ev.articles, "ready": 0})
        return [Task(number=number) for number in range(ev.articles)]

    @step(num_workers=4, retry_policy=ConstantDelayRetryPolicy(maximum_attempts=5, delay=0.1))
    async def write(self, ctx: Context, ev: Task | Revise) -> Draft:
        turn = ev.round if isinstance(ev, Revise) else 0
        drawn = random.Random(ev.number * 31 + turn * 7 + ctx.retry_info().retry_number)
        await anyio.sleep(drawn.uniform(0.05, 0.3))
        if drawn.random() < 0.15:
            raise ConnectionError(f"whoever writes article {ev.number} does not answer")
        return Draft(number=ev.number, text=f"Article {ev.number}. " + "Bees are small. " * 3, round=turn)

    @step(num_workers=2)
    async def review(self, ctx: Context, ev: Draft) -> Revise | Ready:
        drawn = random.Random(ev.number * 13 + ev.round)
        await anyio.sleep(drawn.uniform(0.03, 0.15))
        if drawn.random() < 0.25:
            return Revise(number=ev.number, round=ev.round + 1)
        async with ctx.store.edit_state() as state:
            state["articles"]["ready"] += 1
        return Ready(number=ev.number)

    @step(num_workers=1, waits_for=(Approval,))
    async def approve(self, ctx: Context, evs: list[Ready]) -> StopEvent:
        question = Paper(prefix="Shall the paper go to print?", articles=len(evs))
        answer = await ctx.wait_for_event(Approval, waiter_event=question, timeout=3600)
        return StopEvent(result={"printed": answer.ok, "articles": len(evs), "note": answer.note})


@attrs.frozen
class Author:
    name: str
    born: int | None = None


def _lower(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not value.islower():
        raise ValueError(f"'{attribute.name}' must be in lower case")


class Everything(StartEvent):
    """A field of every kind."""

    text: str = attrs.field(validator=_lower)
    author: Author
    whole: int = attrs.field(default=3, validator=[attrs.validators.ge(1), attrs.validators.le(9)])
    real: float = 0.5
    flag: bool = True
    tone: Tone = Tone.DRY
    moment: datetime | None = None
    tags: list[str] = attrs.field(factory=list[str])
    either: int | str = 1


class Mirror(Workflow):
    """Gives back what it is given."""

    @step
    async def mirror(self, ev: Everything) -> StopEvent:
        moment = None if ev.moment is None else ev.moment.timestamp()
        return StopEvent(
            result=[
                ev.text,
                ev.author.name,
                ev.author.born,
                ev.whole,
                ev.flag,
                ev.tone.name,
                moment,
                ev.tags,
                ev.either,
            ]
        )


def main(backend: str, store: str, port: str) -> None:
    server = WorkflowServer(store=store, debug=True)
    server.add_workflow("newsroom", Newsroom(timeout=None))
    server.add_workflow("greeter", Greeter())
    server.add_workflow("mirror", Mirror())
    anyio.run(server.serve, "127.0.0.1", int(port), backend=backend)


if __name__ == "__main__":
    main(*cast("tuple[str, str, str]", tuple(sys.argv[1:])))
