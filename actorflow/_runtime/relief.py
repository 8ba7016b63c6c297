"""Finds actors that wait for room in each other's full inboxes, and who may be let in to resolve it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from actorflow._runtime.actor import Actor
from actorflow._runtime.execution import Execution
from actorflow._runtime.inbox import Lane
from actorflow._runtime.ports import RunSide

__all__ = ["blocked_cycle", "waits_for_room"]


def blocked_cycle(
    actor: Actor,
    actors: Iterable[Actor | None],
    executions: Collection[Execution],
    others: Iterable[RunSide] | None,
) -> tuple[Lane, frozenset[str]] | None:
    """The closed set of blocked actors that one which has just been blocked belongs to, if there is one.

    An execution is stuck when it waits for room in the inbox of a stuck actor, or for a permit of a limit whose every
    holder is stuck; an actor is stuck when each of its slots is held by a stuck execution. The greatest sets with that
    property are found by starting from all that are blocked and striking out those that cannot belong to it.

    Args:
        actor: The actor of an execution that has begun to wait. As long as it has a slot that can move, and no permits
            are about, the answer costs nothing.
        actors: All actors of the run.
        executions: All executions of the run.
        others: All runs with which it may share limits, itself included; None where its steps need no permits. Who
            holds a permit may be stuck in another run, so that the sets go through all of them. The run that closes
            such a set is always one that can open it: a set without a lane of its own was closed before.

    Returns:
        The lane from which the smallest full inbox of the set is to take one event above its capacity (always one of a
        sender inside of the set, or outsiders would steal the room that resolves it), and the names of the steps.
    """
    if others is None:
        if not _all_blocked(actor):
            return None
        candidates, waiting = actors, executions
    else:
        if not any(e.outbox is not None and e.outbox.lanes for e in executions):
            return None  # nobody of this run waits for room
        sharing = [run for run in others if run.plan.permits]
        candidates = [a for run in sharing for a in run.actors]
        waiting = [e for run in sharing for e in run.carriers]
    stuck_actors = {a for a in candidates if a is not None and _all_blocked(a)}
    stuck: set[Execution] = {e for e in waiting if e.waiting}
    while True:
        free = {e for e in stuck if not _is_stuck(e, stuck, stuck_actors)}
        stuck -= free
        held = Counter(e.actor for e in stuck if e.slot)
        moving = {a for a in stuck_actors if held[a] < a.busy}
        stuck_actors -= moving
        if not free and not moving:
            break
    lanes = [
        lane
        for execution in sorted(stuck.intersection(executions), key=lambda e: e.number)
        if execution.outbox is not None
        for inbox, lane in execution.outbox.lanes.items()
        if inbox in stuck_actors
    ]
    if not lanes or (others is None and actor not in stuck_actors):
        return None
    # The first of the smallest in the order of the steps: the same choice on every backend, whatever the set's order.
    lane = min(lanes, key=lambda lane: (lane.inbox.n, lane.inbox.index if isinstance(lane.inbox, Actor) else 0))
    return lane, frozenset(e.actor.name for e in stuck.intersection(executions))


def waits_for_room(executions: Iterable[Execution]) -> str:
    """The wait-for graph in words."""
    waits = {
        f"{execution.actor.name} waits for room in {inbox.name}"
        for execution in executions
        if execution.waiting and execution.outbox is not None
        for inbox in execution.outbox.lanes
        if isinstance(inbox, Actor)
    }
    return ", ".join(sorted(waits))


def _is_stuck(execution: Execution, stuck: set[Execution], stuck_actors: set[Actor]) -> bool:
    if execution.wanted is not None:
        return all(holder in stuck for holder in execution.wanted.holders)
    return execution.outbox is not None and any(inbox in stuck_actors for inbox in execution.outbox.lanes)


def _all_blocked(actor: Actor) -> bool:
    return actor.busy >= actor.limit and actor.blocked >= actor.busy and not actor.starting and not actor.paused
