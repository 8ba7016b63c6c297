"""What becomes of events that belong together: lists that bodies return, steps that gather, and joins.

Functions over a run and `actorflow._runtime.groups`. Each is synchronous, and leaves every event in one custody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from actorflow._runtime.actor import Actor, Delivery
from actorflow._runtime.groups import Gathering, Group, Member, TooLate, Trail, merged
from actorflow._runtime.inbox import Lane
from actorflow._runtime.ports import DispatchSide, SenderSide
from actorflow.collect import Take
from actorflow.errors import WorkflowRuntimeError
from actorflow.events import Event, GatheredEvent, describe

__all__ = ["abandon", "close", "fan_out", "gather", "join", "look_again", "misses", "release"]

JOIN_LIMIT = 100_000
"""How many events a step with several event parameters holds while their partners are missing."""


# -- groups


def fan_out(run: DispatchSide, events: Sequence[Event], sender: SenderSide, record: int = 0) -> None:
    """Sends what a body returned as a list: the members of a group, if a step gathers them."""
    k = sender.actor.index
    parent: Member | None = sender.item.member if run.wrapped else None
    trail: Trail | None = sender.item.trail if run.wrapped else None
    if not run.plan.collectors[k]:
        for event in events:
            run.route(event, None, sender, record, member=parent, trail=trail)
        return
    group = Group(parent, k, len(events))
    if run.groups is None:
        run.groups = {}
    run.groups[group] = None
    if parent is not None:
        parent.live += 1
    if not events:
        _close(run, group, sender)
    kind = type(events[0]) if events else None
    receiver = run.single.get(kind) if kind is not None and all(e.__class__ is kind for e in events) else None
    target = None if receiver is None else run.actor(receiver)
    if target is not None and target.overflow is None and not run.done:
        _send_all(run, events, group, target, trail, sender, record)
        return
    for event in events:
        member = Member(group)
        run.route(event, None, sender, record, member=member, trail=trail)
        release(run, member, sender)


def _send_all(
    run: DispatchSide,
    events: Sequence[Event],
    group: Group,
    target: Actor,
    trail: Trail | None,
    sender: SenderSide,
    record: int,
) -> None:
    """The usual list: of one class, for one step. Once one of it finds no room, the rest waits behind it."""
    number = run.numbers
    run.numbers += len(events)
    lane: Lane | None = None
    for event in events:
        number += 1
        item = Delivery(event, number, record, Member(group), trail)
        if lane is not None:
            lane.items.append((item, None))
        elif not run.place(sender, target, item, None):
            outbox = sender.outbox
            assert outbox is not None  # noqa: S101
            lane = outbox.lanes[target]
            outbox.parked += run.numbers - number


def release(run: DispatchSide, member: Member, sender: SenderSide | None) -> None:
    """Something of a member is not alive any more."""
    member.live -= 1
    if member.live:
        if member.live == member.held:
            _stuck(run, member, sender)
        return
    group = member.group
    group.open -= 1
    if group.open:
        if run.plan.exact:
            _check_exact(run, group, sender)
        if group.stuck and group.stuck == group.open:
            _never(run, group, sender)
    else:
        _close(run, group, sender)


def gather(
    run: DispatchSide, target: Actor, event: Event, own: Member | None, trail: Trail | None, sender: SenderSide | None
) -> None:
    """An event that came of `own` has come to a step that gathers; it is not alive any more then."""
    plan = run.plan
    member = own
    while member is not None and target.index not in plan.collectors[member.group.opener]:
        member = member.group.parent
    collect = target.spec.collect
    assert collect is not None  # noqa: S101
    where = f"{plan.name}.{target.name}"
    if member is None:
        run.dead_letter(event, f"{where} gathers a list, and the event is of none", None, 0)
        if own is not None:
            release(run, own, sender)
        if run.workflow._actorflow_options.on_unhandled != "dead_letter":
            error = WorkflowRuntimeError(
                f"{describe(event)} came to {where}, which gathers a list, and belongs to none; return it in a list, or "
                "let another step accept it",
                code="AF082",
            )
            if sender is None:
                raise error
            run.blame(error, sender)
        return
    group = member.group
    gathering = group.gathering(target.index, collect)
    try:
        batch = gathering.add(event, trail)
    except TooLate:
        run.dead_letter(event, f"{where} has got what it takes of the list already", None, 0)
    except Exception as error:  # noqa: BLE001 - the key is the user's
        run.dead_letter(event, f"the key of {where} raised {error!r}", None, 0)
        run.blame(_bad_key(run, where, event, error), sender)
    else:
        member.won = True
        if batch is not None:
            _give(run, target, group, batch, gathering.trail, sender)
            if isinstance(collect.release, Take) and collect.release.losers == "cancel":
                run.abandon(group, where, sender)
    if own is not None:
        release(run, own, sender)


def _give(
    run: DispatchSide, target: Actor, group: Group, batch: list[Event], trail: Trail | None, sender: SenderSide | None
) -> None:
    """What a step has gathered goes into its inbox."""
    parent = group.parent
    if parent is not None:
        parent.live += 1
    _put(run, target, run.wrap(_gathered(batch), run.appended, parent, trail), sender)


def _put(run: DispatchSide, target: Actor, item: Any, sender: SenderSide | None) -> None:
    """Into the inbox of a step that takes several events; what it refuses fails the run, for nobody is there to be told."""
    try:
        run.place(run if sender is None else sender, target, item, None)
    except WorkflowRuntimeError as error:
        run.blame(error, sender)


def _close(run: DispatchSide, group: Group, sender: SenderSide | None) -> None:
    """All that came of a list has been resolved."""
    parent = group.parent
    lost = _is_lost(parent)
    for k in run.plan.collectors[group.opener]:
        if run.done:
            return  # what has been gathered stays with the group, and is counted with it
        target = run.actor(k)
        collect = target.spec.collect
        assert collect is not None  # noqa: S101
        gathering = group.gathering(k, collect)
        if lost:
            for event in gathering.left():
                run.dead_letter(
                    event, f"{run.plan.name}.{target.name} gathers a list that is not wanted any more", None, 0
                )
        elif gathering.lacking:
            _too_few(run, group, k, gathering, sender)
            return
        else:
            for batch in gathering.close():
                _give(run, target, group, batch, gathering.trail, sender)
    if run.done:
        return
    if run.groups is not None:
        run.groups.pop(group, None)
    if parent is not None:
        release(run, parent, sender)


def _check_exact(run: DispatchSide, group: Group, sender: SenderSide | None) -> None:
    """Fails at once where the members that are left cannot make up the number."""
    for k in run.plan.collectors[group.opener]:
        if k in run.plan.exact:
            collect = run.plan.steps[k].collect
            assert collect is not None  # noqa: S101
            gathering = group.gathering(k, collect)
            if gathering.lacking > group.open:
                _too_few(run, group, k, gathering, sender)
                return


def _too_few(run: DispatchSide, group: Group, k: int, gathering: Gathering, sender: SenderSide | None) -> None:
    name, plan = run.plan.name, run.plan
    collect = plan.steps[k].collect
    assert collect is not None  # noqa: S101
    wanted = collect.release.n if isinstance(collect.release, Take) else 0
    error = WorkflowRuntimeError(
        f"run {run.run_id}: {name}.{plan.steps[k].name} takes exactly {wanted} of the {group.size} that "
        f"{name}.{plan.steps[group.opener].name} returned; {wanted - gathering.lacking} came, {group.open} may still come, and "
        "the other branches have ended without a result for it. Let them return one, or take fewer",
        code="AF083",
    )
    run.blame(error, sender)


def abandon(run: DispatchSide, group: Group, where: str, sender: SenderSide | None, cause: str = "lost") -> None:
    """Takes out what is left of the members that have not won: queued, held by joins, and in bodies."""
    group.abandoned = True

    def lost(item: Any) -> bool:
        return _is_loser(item.member, group)

    reason = f"{where} has got what it takes of the list, and cancels the rest"
    gone: list[Any] = []
    for actor in run.actors:
        if actor is not None and (actor.n or actor.lanes):
            gone += actor.take_out(lost)
    gone += _let_go(run, lost)
    for carrier in sorted(run.carriers, key=_number):
        if carrier.item is not None and lost(carrier.item):
            carrier.lose(reason)
    for item in gone:
        run.discard(item, reason, None, 0, sender, cause=cause)


def close(run: DispatchSide, group: Group) -> None:
    """A list of which nothing is left goes to the steps that gather it, in a run that goes on from an image."""
    _close(run, group, None)


def look_again(run: DispatchSide, members: Iterable[Member]) -> None:
    """Sees which members of a run that goes on from an image are stuck, and which were to be taken out."""
    for group in list(run.groups or ()):
        if group.abandoned:
            abandon(run, group, f"what gathers the list of {run.plan.steps[group.opener].name}", None, "")
    for member in members:
        if member.live and member.live == member.held:
            _stuck(run, member, None)


# -- joins


def join(run: DispatchSide, target: Actor, item: Delivery, sender: SenderSide | None) -> None:
    """An event has come to a step with several event parameters."""
    join = target.join
    assert join is not None  # noqa: S101
    where = f"{run.plan.name}.{target.name}"
    if item.member is not None:
        item.member.held += 1
    try:
        partners = join.add(item)
    except Exception as error:  # noqa: BLE001 - the key is the user's
        _unhold(item.member)
        run.dead_letter(item, f"the key of {where} raised {error!r}", None, 0)
        run.blame(_bad_key(run, where, item.event, error), sender)
        return
    if partners is not None:
        _joined(run, target, partners, sender)
    elif join.held > JOIN_LIMIT:
        full = WorkflowRuntimeError(
            f"{where} holds {join.held} events whose partners are missing; {misses(target)}. Let as many of each come, or "
            "make their senders wait",
            code="AF084",
        )
        run.blame(full, sender)


def _joined(run: DispatchSide, target: Actor, partners: list[Delivery], sender: SenderSide | None) -> None:
    """The partners are complete: they go on as one event, which belongs to what the first of them came of."""
    member = partners[0].member
    trail = None
    for partner in partners:
        trail = merged(trail, partner.trail)
        _unhold(partner.member)
    if member is not None:
        member.live += 1
    item = run.wrap(_gathered([partner.event for partner in partners]), run.appended, member, trail)
    _put(run, target, item, sender)
    for partner in partners:
        if partner.member is not None:
            release(run, partner.member, sender)


def _let_go(run: DispatchSide, wanted: Callable[[Any], bool]) -> list[Any]:
    """Takes out of all joins what is not to wait any more."""
    gone: list[Any] = []
    for actor in run.actors:
        if actor is not None and actor.join is not None:
            gone += actor.join.take_out(wanted)
    for item in gone:
        _unhold(item.member)
    return gone


def _unhold(member: Member | None) -> None:
    if member is not None:
        member.held -= 1
        if member.stuck:
            member.stuck = False
            member.group.stuck -= 1


def _stuck(run: DispatchSide, member: Member, sender: SenderSide | None) -> None:
    """Nothing is alive of a member but what joins hold: it can bring forth no partners of its own any more."""
    if member.stuck or run.done:
        return
    member.stuck = True
    group = member.group
    group.stuck += 1
    for actor in run.actors:
        if actor is not None and actor.join is not None:
            for partners in actor.join.promote(member):
                _joined(run, actor, partners, sender)
    if group.stuck and group.stuck == group.open:
        _never(run, group, sender)


def _never(run: DispatchSide, group: Group, sender: SenderSide | None) -> None:
    """All that is left of a group waits for partners that cannot come."""
    plan = run.plan
    if all(k in group.gatherings and group.gatherings[k].done for k in plan.collectors[group.opener]):
        # Nobody misses it: all who gather the list have got what they take.
        opener = f"{plan.name}.{plan.steps[group.opener].name}"
        reason = f"it waited for partners, and all that is taken of the list of {opener} has come"
        for item in _let_go(run, lambda item: item.member is not None and item.member.group is group):
            run.let_go(item, reason, None, 0, sender)  # it follows from what is in the journal
        return
    missing = [misses(actor) for actor in run.actors if actor is not None and actor.join and actor.join.held]
    error = WorkflowRuntimeError(
        f"run {run.run_id}: the list that {plan.name}.{plan.steps[group.opener].name} returned can never be complete: of "
        f"{group.size} branches {group.open} wait for partners that cannot come; {'; '.join(missing)}. Let each branch send "
        "all that the step takes, or say with @step(key=…) what belongs together",
        code="AF085",
    )
    run.blame(error, sender)


def misses(actor: Actor) -> str:
    """What a join lacks, in words."""
    assert actor.join is not None  # noqa: S101
    lacking = {k for batch in actor.join.lacks() for k in batch}
    names = ", ".join(
        f"{parameter.name} ({' or '.join(kind.__name__ for kind in parameter.accepts)})"
        for k, parameter in enumerate(actor.spec.joins)
        if k in lacking
    )
    return f"{actor.name} misses {names}"


def _bad_key(run: DispatchSide, where: str, event: Event, error: Exception) -> WorkflowRuntimeError:
    wrong = WorkflowRuntimeError(
        f"the key of {where} raised {error!r} on {describe(event)}; it must take each event that the step accepts, and give "
        "something hashable",
        code="AF086",
    )
    wrong.__cause__ = error
    return wrong


def _gathered(events: list[Event]) -> GatheredEvent:
    return GatheredEvent(events=events)


def _number(carrier: Any) -> int:
    number: int = carrier.number
    return number


def _is_loser(member: Member | None, group: Group) -> bool:
    """Whether something belongs to a member of `group` that has not won."""
    while member is not None:
        if member.group is group:
            return not member.won
        member = member.group.parent
    return False


def _is_lost(member: Member | None) -> bool:
    """Whether something belongs to a branch that was taken out."""
    while member is not None:
        if member.group.abandoned and not member.won:
            return True
        member = member.group.parent
    return False
