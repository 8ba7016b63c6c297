"""Finds actors that wait for room in each other's full inboxes, and who may be let in to resolve it."""

from __future__ import annotations

from collections.abc import Iterable

from actorflow._runtime.actor import Actor
from actorflow._runtime.execution import Execution
from actorflow._runtime.inbox import Lane

__all__ = ["blocked_cycle"]


def blocked_cycle(
    actor: Actor, actors: Iterable[Actor | None], executions: Iterable[Execution]
) -> tuple[Lane, frozenset[str]] | None:
    """The closed set of blocked actors that `actor` belongs to, if there is one.

    An actor is stuck when every one of its slots is held by a worker that waits for room in the inbox of a stuck
    actor: the greatest set with that property is found by starting from all fully blocked actors and striking out
    those that cannot belong to it. Costs nothing as long as `actor` itself can move.

    Returns:
        The lane from which the smallest full inbox of the set is to take one event above its capacity (always one of a
        sender inside of the set, or outsiders would steal the room that resolves it), and the names of the steps.
    """
    if not _all_blocked(actor):
        return None
    stuck = {a for a in actors if a is not None and _all_blocked(a)}
    blocked = [c for c in executions if c.waiting and c.actor in stuck and c.outbox is not None]
    blocked.sort(key=lambda c: c.number)
    striking = True
    while striking:
        striking = False
        for carrier in blocked:
            outbox = carrier.outbox
            if carrier.actor in stuck and outbox is not None and not any(inbox in stuck for inbox in outbox.lanes):
                stuck.discard(carrier.actor)
                striking = True
    if actor not in stuck:
        return None
    lanes = [
        lane
        for carrier in blocked
        if carrier.actor in stuck and carrier.outbox is not None
        for inbox, lane in carrier.outbox.lanes.items()
        if inbox in stuck
    ]
    # The first of the smallest in the order of the steps: the same choice on every backend, whatever the set's order.
    lane = min(lanes, key=lambda lane: (lane.inbox.n, lane.inbox.index if isinstance(lane.inbox, Actor) else 0))
    return lane, frozenset(a.name for a in stuck)


def _all_blocked(actor: Actor) -> bool:
    return actor.busy >= actor.limit and actor.blocked >= actor.busy and not actor.starting
