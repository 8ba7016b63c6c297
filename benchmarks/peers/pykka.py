"""Pykka: actors, a thread each. Its programs run beside the event loop, which only waits for them."""

from __future__ import annotations

import time

import pykka

from benchmarks.measure import Measured, clock

IMPORTS, DISTRIBUTION = "pykka", "pykka"
_NO_ASYNC = "actors are threads: no coroutine suspends"
_NO_RUNS = "actors, not runs of a workflow"
CANNOT = {
    "durable": "keeps nothing",
    "suspend": _NO_ASYNC,
    "idle_steps": _NO_RUNS,
    "concurrent": _NO_RUNS,
    "cancel": _NO_RUNS,
    "collect": "see fan-out: one form only",
    "pressure": "inboxes have no bound, and no coroutine suspends",
    "stream": "no stream",
    "state": "state is an attribute of an actor",
    "edit": "no transaction: state is an attribute of an actor",
    "snapshot": "an actor cannot be written down",
    "answer": "no prompts from outside",
    "wait": "no prompts from outside",
    "idle": "no prompts from outside",
    "waiting": "no prompts from outside",
}


class Hopper(pykka.ThreadingActor):
    def __init__(self, over: pykka.ThreadingFuture) -> None:
        super().__init__()
        self.other: pykka.ActorRef | None = None
        self.over = over

    def on_receive(self, message: int | pykka.ActorRef) -> None:
        if isinstance(message, pykka.ActorRef):
            self.other = message
        elif message > 0:
            self.other.tell(message - 1)
        else:
            self.over.set(0)


async def chain(n: int) -> Measured:
    over: pykka.ThreadingFuture = pykka.ThreadingFuture()
    ping, pong = Hopper.start(over), Hopper.start(over)
    ping.tell(pong)
    pong.tell(ping)
    begin = clock()
    ping.tell(n)
    left = over.get()
    seconds = clock() - begin
    pykka.ActorRegistry.stop_all()
    return Measured(seconds, n - left)


class Only(pykka.ThreadingActor):
    def on_receive(self, message: int) -> int:
        return 1


async def fresh(n: int) -> Measured:
    total = 0
    begin = clock()
    for i in range(n):
        actor = Only.start()
        total += actor.ask(i)
        actor.stop()
    return Measured(clock() - begin, total)


class Join(pykka.ThreadingActor):
    def __init__(self, n: int, over: pykka.ThreadingFuture) -> None:
        super().__init__()
        self.n, self.over, self.done = n, over, []

    def on_receive(self, message: int) -> None:
        self.done.append(message)
        if len(self.done) == self.n:
            self.over.set(sum(self.done))


class Work(pykka.ThreadingActor):
    def __init__(self, join: pykka.ActorRef, pause: float | None) -> None:
        super().__init__()
        self.join, self.pause = join, pause

    def on_receive(self, message: int) -> None:
        if self.pause is not None:
            time.sleep(self.pause)
        self.join.tell(message)


async def fan_out(n: int, workers: int, pause: float | None = None) -> Measured:
    over: pykka.ThreadingFuture = pykka.ThreadingFuture()
    join = Join.start(n, over)
    work = [Work.start(join, pause) for _ in range(workers)]
    begin = clock()
    for i in range(n):
        work[i % workers].tell(i)
    total = over.get()
    seconds = clock() - begin
    pykka.ActorRegistry.stop_all()
    return Measured(seconds, total)


async def sleepers(n: int, workers: int) -> Measured:
    return await fan_out(n, workers, pause=0.001)


PROGRAMS = {program.__name__: program for program in (chain, fresh, fan_out, sleepers)}
