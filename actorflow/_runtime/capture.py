"""Takes the image of a live run, and goes on with a run from an image.

Taking one is synchronous, so that the run stands still meanwhile, and costs as much as there is alive in it. A body in
the middle of its work runs again from its beginning where the run goes on; its log has what it did, so that none of it
is done twice.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from actorflow._image import (
    AttemptsImage,
    BufferImage,
    GatheringImage,
    GroupImage,
    ItemImage,
    LetterImage,
    MemberImage,
    ProgressImage,
    RunImage,
    StreamImage,
)
from actorflow._runtime.actor import Delivery, Resumed
from actorflow._runtime.carrier import results
from actorflow._runtime.execution import LOG_LIMIT, Execution, Phase
from actorflow._runtime.fan_in import close, look_again
from actorflow._runtime.groups import Group, Member, Trail
from actorflow._runtime.joins import Buffer
from actorflow._runtime.router import Plan
from actorflow._runtime.run import LiveRun
from actorflow._runtime.stream import Hub
from actorflow._runtime.waits import Wait
from actorflow.abc import DeadLetter
from actorflow.errors import ContextSerdeError
from actorflow.events import Event

__all__ = ["Photographer", "go_on", "put_back", "take"]


def take(run: LiveRun) -> RunImage:
    """The image of a run that is not over.

    Raises:
        ContextSerdeError: A body has done more than is kept of it.
    """
    return Photographer(run).image()


class Photographer:
    """Numbers the members and groups that it meets.

    Args:
        run: A `LiveRun`, or what stands for one.
    """

    def __init__(self, run: Any) -> None:
        self.run = run
        self.plan: Plan = run.plan
        self.now = run.timers.clock()
        self.members: dict[Member, int] = {}
        self.groups: dict[Group, int] = {}

    def image(self) -> RunImage:
        run = self.run
        carriers: list[Execution] = sorted(run.carriers, key=lambda carrier: carrier.number)
        if run.journal is not None:
            for carrier in carriers:
                if carrier.effects:
                    carrier.record("ops")  # what it sent leaves now: a snapshot is somebody who sees it
        items = self.in_bodies(carriers)
        joins: list[ItemImage] = []
        queues: dict[str, tuple[Event, ...]] = {}
        buffers: list[BufferImage] = []
        for actor in run.actors:
            if actor is None:
                continue
            queued = actor.listed() if actor.n else ()
            if queued and not run.wrapped:
                queues[actor.name] = tuple(queued)
            else:
                self.queue(queued, actor.name, items, queues)
            if actor.join is not None:
                joins += [self.item(item, actor.name) for item in actor.join.peek()]
            named: dict[str | None, Buffer] = actor.buffers or {}
            for name, buffer in named.items():
                if buffer.events:
                    buffers.append(BufferImage(step=actor.name, id=name, events=tuple(buffer.events)))
        for group in run.groups or ():
            self.group(group)
        timeout = None if run.deadline == math.inf else max(0.0, run.deadline - self.now)
        spawned: dict[str, str] = run.spawned or {}
        kept = () if run.waits is None else run.waits.peek()
        return RunImage(
            run_id=run.run_id,
            fingerprint=self.plan.graph.fingerprint,
            items=tuple(items),
            queues=queues,
            joins=tuple(joins),
            # In this order: an image of a group finds its parent, which may be a member that nobody has met before.
            groups=tuple(self.group_image(group) for group in self.all_groups()),
            members=tuple(MemberImage(group=self.groups[m.group], won=m.won) for m in self.members),
            buffers=tuple(buffers),
            kept=tuple(event for event, _, _ in kept),
            marks=tuple(mark for _, _, mark in kept) if run.journal is not None else (),
            stream=self.stream(),
            dead=tuple(
                LetterImage(event=one.event, reason=one.reason, step=one.step, attempt=one.attempt)
                for one in run.dead or ()
            )
            + tuple(
                LetterImage(event=one.event, reason=one.lost, step=one.actor.name)
                for one in carriers
                if one.item is not None and one.lost is not None
            ),
            early=run.not_begun(),
            begun=not run.pending,
            numbers=run.numbers,
            waited=0 if run.waits is None else run.waits.count,
            asked=run.asked,
            prompts=run.prompts,
            dropped=run.dropped,
            timeout=timeout,
            children=tuple(spawned.items()),
        )

    def in_bodies(self, carriers: Sequence[Execution]) -> list[ItemImage]:
        """What bodies have in hand, the oldest body first."""
        return [self.in_hand(one) for one in carriers if one.item is not None and one.lost is None]

    def all_groups(self) -> Iterable[Group]:
        """Every group that is met, those that are met while it goes on included."""
        seen = 0
        while seen < len(self.groups):
            for group in list(self.groups)[seen:]:
                seen += 1
                self.member(group.parent)
                yield group

    def member(self, member: Member | None) -> int | None:
        if member is None:
            return None
        self.group(member.group)
        return self.members.setdefault(member, len(self.members))

    def group(self, group: Group) -> int:
        return self.groups.setdefault(group, len(self.groups))

    def trail(self, trail: Trail | None) -> dict[str, int] | None:
        return None if trail is None else {self.plan.steps[k].name: told for k, told in trail.items()}

    def item(self, item: Any, step: str, progress: ProgressImage | None = None) -> ItemImage:
        if not isinstance(item, Delivery):
            return ItemImage(event=item, step=step, progress=progress)
        if isinstance(item, Resumed) and progress is None:
            progress = item.progress
        return ItemImage(
            event=item.event,
            step=step,
            number=item.number,
            member=self.member(item.member),
            trail=self.trail(item.trail),
            progress=progress,
        )

    def queue(
        self, queued: Sequence[Any], step: str, items: list[ItemImage], queues: dict[str, tuple[Event, ...]]
    ) -> None:
        """What an inbox holds: from its end back to the last of which there is more to say, the events are enough."""
        rest = len(queued)
        if self.run.journal is None:
            while rest and _is_bare(queued[rest - 1]):
                rest -= 1
        items += [self.item(item, step) for item in queued[:rest]]
        if rest < len(queued):
            queues[step] = tuple([item.event for item in queued[rest:]])

    def in_hand(self, carrier: Execution) -> ItemImage:
        """What a body works on, or has returned."""
        name = carrier.actor.name
        if carrier.phase is Phase.SETTLE:
            listed = isinstance(carrier.out, list)
            events: tuple[Event, ...] = () if carrier.out is None else tuple(results(carrier.out))
            return self.item(carrier.item, name, ProgressImage(out=events, returned=True, listed=listed))
        log = [self.deed(entry) for entry in carrier.log or ()]
        if len(log) > LOG_LIMIT:
            raise ContextSerdeError(
                f"{self.plan.name}.{name} has done more than {LOG_LIMIT} things in one execution, and more are not kept, so that "
                "it could not go on in its middle; take the snapshot when it has ended, or let it do less at a time",
                code="AF301",
            )
        made = carrier.attempts_made
        attempts = None if made is None else AttemptsImage(**made.kept(self.now))
        suspension = carrier.suspension
        delay = None
        if suspension is not None and suspension.deadline < math.inf:
            delay = max(0.0, suspension.deadline - self.now)
        if isinstance(carrier.item, Resumed):  # its task has not begun
            return self.item(carrier.item, name)
        log += map(tuple, carrier.replay or ())
        error = carrier.error if carrier.phase is Phase.FAILED else None
        if not log and attempts is None and delay is None and error is None:
            return self.item(carrier.item, name)
        return self.item(carrier.item, name, ProgressImage(log=tuple(log), attempts=attempts, delay=delay, error=error))

    def deed(self, entry: Sequence[Any] | Wait) -> tuple[Any, ...]:
        """An entry of a log; of a wait, what has come of it, though its body may not know yet."""
        if not isinstance(entry, Wait):
            return tuple(entry)
        name = entry.kind.__name__, entry.id, entry.own
        if entry.event is not None:
            return ("answer", entry.event, *name)
        if entry.error is not None:
            return ("raised", entry.error, *name)
        if entry.expired:
            return ("expired", None, *name)
        left = None if entry.deadline == math.inf else max(0.0, entry.deadline - self.now)
        return ("waiting", left, *name, entry.number)

    def group_image(self, group: Group) -> GroupImage:
        steps = self.plan.steps
        return GroupImage(
            opener=steps[group.opener].name,
            size=group.size,
            parent=self.member(group.parent),
            abandoned=group.abandoned,
            gatherings=tuple(
                GatheringImage(
                    step=steps[k].name,
                    events=tuple((key, tuple(batch)) for key, batch in gathering.batches()),
                    trail=self.trail(gathering.trail),
                    done=gathering.done,
                    given=tuple(gathering.given),
                )
                for k, gathering in group.gatherings.items()
            ),
        )

    def stream(self) -> StreamImage:
        hub = self.run.kept_stream()
        if hub is None:
            return StreamImage()
        first, events, resume = hub.unread()
        return StreamImage(first=first, events=(*events, *self.run.not_durable()), resume=resume)


def _is_bare(item: Delivery) -> bool:
    return item.__class__ is Delivery and item.member is None and item.trail is None


def go_on(run: LiveRun, image: RunImage) -> None:
    """Puts what an image of a run that had begun holds into one that is new, and lets it go on."""
    run.resumed = True
    run.dropped_before = image.dropped
    if image.stream.events or image.stream.first:
        run.restore_stream(Hub.restored(image.stream.first, image.stream.events, image.stream.resume))
    marks = image.marks or itertools.repeat(0)
    run.restore_waits(list(zip(image.kept, marks, strict=False)), image.waited)
    groups, members = put_back(run, image)
    run.expect(
        entry[2]
        for saved in image.items
        if saved.progress is not None
        for entry in saved.progress.log
        if entry[0] == "waiting" and len(entry) > 2
    )
    timeout = run.workflow._actorflow_options.timeout
    if timeout is not None:
        run.timers.arm(run, run.timers.clock() + (timeout if image.timeout is None else image.timeout))
    look_again(run, members)
    for group in groups:
        if not group.open and group in (run.groups or ()):
            close(run, group)  # what was left of it is gone with a step
    run.look_around()


def put_back(run: Any, image: RunImage, *, stuck: bool = False) -> tuple[list[Group], list[Member]]:
    """Puts everything that is under way to where it was; the groups and their members.

    Args:
        run: A new `LiveRun`, or what stands for one.
        image: What it is to be.
        stuck: Whether members that only joins hold are stuck from the beginning, as they were; else that is to be found out.
    """
    plan: Plan = run.plan
    run.wrapped = True
    run.pending = False
    run.numbers, run.asked, run.prompts = image.numbers, image.asked, image.prompts
    groups, members = _groups(run, image)
    for letter in image.dead:
        run.letters().append(DeadLetter(letter.event, letter.reason, letter.step, letter.attempt, run.run_id))
    for buffer in image.buffers:
        run.actor(plan.by_name[buffer.step]).buffer(buffer.id).events.extend(buffer.events)
    for saved in image.items:
        _alive(members, saved.member)
        run.put_back(run.actor(plan.by_name[saved.step]), _delivery(plan, saved, members))
    for step, events in image.queues.items():
        actor = run.actor(plan.by_name[step])
        for event in events:
            run.put_back(actor, run.wrap(event, 0, None, None))
    for saved in image.joins:
        member = _alive(members, saved.member)
        if member is not None:
            member.held += 1
    for member in members if stuck else ():
        member.stuck = 0 < member.live == member.held
        member.group.stuck += member.stuck
    for saved in image.joins:
        join = run.actor(plan.by_name[saved.step]).join
        assert join is not None  # noqa: S101
        join.add(_delivery(plan, saved, members))
    alive = Counter(member.group for member in members if member.live)
    for group in groups:
        group.open = alive[group]
    return groups, members


def _groups(run: Any, image: RunImage) -> tuple[list[Group], list[Member]]:
    plan = run.plan
    groups = [Group(None, plan.by_name[saved.opener], saved.size) for saved in image.groups]
    members = [Member(groups[saved.group]) for saved in image.members]
    for member, saved_member in zip(members, image.members, strict=True):
        member.live, member.won = 0, saved_member.won
    for group, saved in zip(groups, image.groups, strict=True):
        group.parent = _alive(members, saved.parent)
        group.abandoned = saved.abandoned
        for one in saved.gatherings:
            k = plan.by_name[one.step]
            collect = plan.steps[k].collect
            assert collect is not None  # noqa: S101
            gathering = group.gathering(k, collect)
            gathering.restore(one.events, _trail(plan, one.trail), one.done, one.given)
    if groups:
        run.groups = dict.fromkeys(groups)
    return groups, members


def _alive(members: list[Member], index: int | None) -> Member | None:
    if index is None:
        return None
    members[index].live += 1
    return members[index]


def _trail(plan: Plan, trail: Mapping[str, int] | None) -> Trail | None:
    return None if trail is None else {plan.by_name[name]: told for name, told in trail.items()}


def _delivery(plan: Plan, saved: ItemImage, members: list[Member]) -> Delivery:
    member = None if saved.member is None else members[saved.member]
    item = Delivery(saved.event, saved.number, 0, member, _trail(plan, saved.trail))
    return item if saved.progress is None else Resumed(item, saved.progress)
