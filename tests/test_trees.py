"""Random trees of lists, joins, streams and races give what a plain recursive model gives, on both backends.

Each under a random schedule and audited between any two turns: see `tests.audit`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import anyio
import attrs
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from actorflow import (
    Collect,
    Context,
    Event,
    StartEvent,
    StopEvent,
    Take,
    Workflow,
    WorkflowCancelledError,
    step,
)
from actorflow.testing import Random, current_turns, simulate
from tests.audit import Audit, AuditedRuntime
from tests.seams import SlowJournal

# ------------------------------------------------------------------------------------------------------ the tree


@attrs.frozen
class Leaf:
    """One result, after a while; none where it is dead."""

    delay: int
    dead: bool


@attrs.frozen
class Pair:
    """Two events that a join of the same branch makes one."""

    delay: int


@attrs.frozen
class Read:
    """An async generator of leaves, which are of the list around it."""

    leaves: list[Leaf]


@attrs.frozen
class Race:
    """A list of which two are taken."""

    leaves: list[Leaf]


@attrs.frozen
class Mix:
    """A list whose branches are partners of each other."""

    delays: list[int]


@attrs.frozen
class Fan:
    """A list."""

    nodes: list[Any]


Value = Any
"""Nested tuples."""


def model(node: Any) -> list[Value]:
    """What comes of a node in the list around it, by plain recursion."""
    match node:
        case Leaf(dead=dead):
            return [] if dead else ["leaf"]
        case Pair():
            return ["pair"]
        case Read(leaves=leaves):
            return [value for leaf in leaves for value in model(leaf)]
        case Race(leaves=leaves):
            return [("race", min(2, sum(not leaf.dead for leaf in leaves)))]
        case Mix(delays=delays):
            return [("mix", len(delays))]
        case _:
            return [gathered(value for one in node.nodes for value in model(one))]


def gathered(values: Any) -> Value:
    return ("fan", *sorted(values, key=repr))


# ------------------------------------------------------------------------------------------------------ the workflow
class Node(Event):
    node: Any
    root: bool = False


class LeafNode(Event):
    node: Any
    root: bool = False


class PairNode(Event):
    delay: int


class ReadNode(Event):
    leaves: Any


class RaceNode(Event):
    leaves: Any


class MixNode(Event):
    delays: Any


class Runner(Event):
    node: Any


class Lap(Event):
    pass


class Part(Event):
    delay: int


class PartDone(Event):
    pass


class Left(Event):
    pass


class Right(Event):
    pass


RACING = (Runner, Lap, Part, PartDone, Left, Right)


class X(Event):
    delay: int


class Y(Event):
    delay: int


class Delayed(Event):
    pass


class Both(Event):
    pass


class A(Event):
    pass


class B(Event):
    pass


class Result(Event):
    value: Any
    root: bool = False


OPTIONS = st.fixed_dictionaries({"num_workers": st.sampled_from([1, 1, 2, 4]), "inbox": st.sampled_from([1, 1, 2, 64])})


@attrs.frozen
class Shape:
    """What a workflow is made of: a tree, what each step has, and what becomes of losers."""

    tree: Fan
    options: list[dict[str, int]]
    losers: Literal["keep", "cancel"]


def make(shape: Shape) -> Workflow[Any, Any]:
    options: list[dict[str, Any]] = [dict(one) for one in shape.options]

    class Tree(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Node | LeafNode]:
            return [LeafNode(node=Leaf(0, False), root=True), *(Node(node=node) for node in shape.tree.nodes)]

        @step(**options[0])
        async def open(self, ev: Node) -> list[Node] | LeafNode | PairNode | ReadNode | RaceNode | MixNode:
            match ev.node:
                case Leaf():
                    return LeafNode(node=ev.node)
                case Pair(delay=delay):
                    return PairNode(delay=delay)
                case Read(leaves=leaves):
                    return ReadNode(leaves=leaves)
                case Race(leaves=leaves):
                    return RaceNode(leaves=leaves)
                case Mix(delays=delays):
                    return MixNode(delays=delays)
                case _:
                    return [Node(node=node) for node in ev.node.nodes]

        @step(**options[1])
        async def leaf(self, ctx: Context, ev: LeafNode) -> Result | None:
            await anyio.sleep(ev.node.delay)
            if ev.node.delay == 1 and not ev.node.dead:
                ctx.send_event(Result(value="leaf", root=ev.root))
                return None
            return None if ev.node.dead else Result(value="leaf", root=ev.root)

        @step(**options[2])
        async def fork(self, ctx: Context, ev: PairNode) -> A | B:
            await ctx.send(B())
            await anyio.sleep(ev.delay)
            return A()

        @step(**options[3])
        async def both(self, a: A, b: B) -> Result:
            return Result(value="pair")

        @step(**options[4])
        async def read(self, ev: ReadNode) -> AsyncIterator[LeafNode]:
            for leaf in ev.leaves:
                yield LeafNode(node=leaf)

        @step(**options[5])
        async def race(self, ev: RaceNode) -> list[Runner]:
            return [Runner(node=leaf) for leaf in ev.leaves]

        @step(**options[6])
        async def run_one(self, ctx: Context, ev: Runner) -> list[Part] | Left | Right | Lap | None:
            if ev.node.dead:
                return None
            if ev.node.delay == 3:
                return [Part(delay=delay) for delay in range(3)]
            if ev.node.delay == 2:
                ctx.send_event(Left())
                await anyio.sleep(2)
                return Right()
            await anyio.sleep(ev.node.delay)
            return Lap()

        @step(**options[11])
        async def part(self, ev: Part) -> PartDone:
            await anyio.sleep(ev.delay)
            return PartDone()

        @step
        async def parts(self, evs: list[PartDone]) -> Lap:
            return Lap()

        @step(**options[12])
        async def sides(self, left: Left, right: Right) -> Lap:
            return Lap()

        @step(**options[7])
        async def taken(self, evs: Annotated[list[Lap], Collect(Take(2, losers=shape.losers))]) -> Result:
            return Result(value=("race", len(evs)))

        @step
        async def mix(self, ev: MixNode) -> list[X | Y]:
            return [kind(delay=delay) for kind in (X, Y) for delay in ev.delays]

        @step(**options[8])
        async def late(self, ev: X) -> Delayed:
            await anyio.sleep(ev.delay)
            return Delayed()

        @step(**options[9])
        async def partners(self, y: Y, x: Delayed) -> Both:
            return Both()

        @step
        async def mixed(self, evs: list[Both]) -> Result:
            return Result(value=("mix", len(evs)))

        @step(**options[10])
        async def close(self, evs: list[Result]) -> Result | StopEvent:
            value = gathered(ev.value for ev in evs if not ev.root)
            return StopEvent(result=value) if any(ev.root for ev in evs) else Result(value=value)

    return Tree()


LEAVES = st.builds(Leaf, delay=st.sampled_from([0, 0, 1, 2, 3]), dead=st.booleans())
NODES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        LEAVES,
        st.builds(Pair, delay=st.integers(0, 2)),
        st.builds(Read, leaves=st.lists(LEAVES, max_size=4)),
        st.builds(Race, leaves=st.lists(LEAVES, max_size=5)),
        st.builds(Mix, delays=st.lists(st.integers(0, 2), max_size=4)),
    ),
    lambda nodes: st.builds(Fan, nodes=st.lists(nodes, max_size=4)),
    max_leaves=14,
)
SHAPES = st.builds(
    Shape,
    tree=st.builds(Fan, nodes=st.lists(NODES, max_size=4)),
    options=st.lists(OPTIONS, min_size=13, max_size=13),
    losers=st.sampled_from(["keep", "cancel"]),
)
SEEDS = st.integers(0, 10**6)
BACKENDS = st.sampled_from(["asyncio", "trio"])
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

BUSY = Shape(
    tree=Fan([
        Fan([Leaf(1, False), Read([Leaf(0, False), Leaf(2, True), Leaf(3, False)]), Fan([])]),
        Race([Leaf(0, False), Leaf(3, False), Leaf(1, False), Leaf(2, False)]),
        Fan([Fan([Pair(1), Pair(0)]), Mix([2, 0])]),
        Leaf(2, True),
    ]),
    options=[{"num_workers": 1 + n % 3, "inbox": 1 + n % 2} for n in range(13)],
    losers="cancel",
)  # fmt: skip


def grown(shape: Shape, backend: Any, seed: int | None, *, journal: bool = False, cancel_at: int = 0) -> Any:
    """A tree to its end, audited; with a seed, in the order of a random schedule."""
    audit = Audit()

    def at_turn(turn: int) -> None:
        if turn == cancel_at and audit.runs:
            audit.runs[0].cancel("by the test")
        audit.check_now()

    async def main() -> Any:
        runtime = AuditedRuntime(audit, journal=SlowJournal() if journal else None, turns=current_turns())
        async with runtime:
            try:
                result = await make(shape).run()
            except WorkflowCancelledError:
                return "cancelled"
            run = audit.runs[0]
            losers = sum(isinstance(letter.event, RACING) for letter in run.dead_letters)
            assert run.unhandled == 0
            assert len(run.dead_letters) == losers
            return result

    simulation = simulate(
        main,
        backend=backend,
        schedule=None if seed is None else Random(seed),
        at_turn=None if seed is None else at_turn,
    )
    audit.check_end()
    return simulation


@SETTINGS
@given(shape=SHAPES, seed=SEEDS)
@example(shape=BUSY, seed=1)
def test_a_tree_gives_what_the_model_gives_with_the_same_turns_on_both_backends(shape: Shape, seed: int) -> None:
    one, two = (grown(shape, backend, seed) for backend in ("asyncio", "trio"))
    assert [one.result] == [two.result] == model(shape.tree)
    assert one.log == two.log


@SETTINGS
@given(shape=SHAPES, backend=BACKENDS, journal=st.booleans())
def test_a_tree_on_the_loop_as_it_is(shape: Shape, backend: str, journal: bool) -> None:
    assert [grown(shape, backend, None, journal=journal).result] == model(shape.tree)


@SETTINGS
@given(shape=SHAPES, backend=BACKENDS, seed=SEEDS)
def test_a_tree_with_a_slow_journal(shape: Shape, backend: str, seed: int) -> None:
    assert [grown(shape, backend, seed, journal=True).result] == model(shape.tree)


@SETTINGS
@given(shape=SHAPES, backend=BACKENDS, seed=SEEDS, journal=st.booleans(), part=st.floats(0, 1))
def test_a_tree_cancelled_at_any_turn(shape: Shape, backend: str, seed: int, journal: bool, part: float) -> None:
    """Nothing is lost, doubled or left over."""
    turns = grown(shape, backend, seed, journal=journal).turns
    grown(shape, backend, seed, journal=journal, cancel_at=1 + int(part * turns))


@pytest.mark.parametrize(("backend", "journal"), [("asyncio", False), ("trio", True)])
def test_a_busy_tree_cancelled_at_every_turn(backend: str, journal: bool) -> None:
    turns = grown(BUSY, backend, 7, journal=journal).turns
    ends = [grown(BUSY, backend, 7, journal=journal, cancel_at=turn).result for turn in range(1, turns + 1)]
    assert ends.count("cancelled") > turns // 2 > 40
