"""A run as values: all that it takes to go on with it elsewhere, and nothing of how it was run.

What refers to a member of a group does so by the member's index in `RunImage.members`, what refers to a group by its
index in `RunImage.groups`. Steps are referred to by name. Times are in seconds, and relative: what is left, or passed.
"""

from __future__ import annotations

from typing import Any

import attrs

from actorflow.events import Event

__all__ = [
    "AttemptsImage",
    "BufferImage",
    "GatheringImage",
    "GroupImage",
    "ItemImage",
    "LetterImage",
    "MemberImage",
    "ProgressImage",
    "RunImage",
    "StreamImage",
]


@attrs.frozen(kw_only=True)
class AttemptsImage:
    """What is known of the failed attempts at an event.

    Attributes:
        failures: How many have failed.
        since_began: Seconds since the first attempt began.
        since_failure: Seconds since the first failure.
        error: What the last one raised.
        failed_at: When that was, as an ISO 8601 text in UTC.
    """

    failures: int
    since_began: float
    since_failure: float
    error: BaseException | None = None
    failed_at: str | None = None


@attrs.frozen(kw_only=True)
class ProgressImage:
    """How far a body has come with its event.

    Attributes:
        log: What the body has done, read and drawn in this attempt, in order.
        attempts: What is known of the failed ones; None for none.
        delay: Seconds until the next attempt; None where none is waited for.
        out: What the body returned, where that has not been sent yet: a list of events, or ``[event]`` of one by itself.
        returned: Whether `out` holds what it returned.
        error: What it raised, where nobody has judged that yet.
        listed: Whether it returned a list.
    """

    log: tuple[Any, ...] = ()
    attempts: AttemptsImage | None = None
    delay: float | None = None
    out: tuple[Event, ...] = ()
    returned: bool = False
    listed: bool = False
    error: BaseException | None = None


@attrs.frozen(kw_only=True)
class ItemImage:
    """An event on its way to a step, or in the hands of its body.

    Attributes:
        event: The event; of a step that takes several at once, the one that holds them.
        step: Name of the step.
        number: Its number in the run; 0 where none was given.
        member: Index of the member of a group that it came of; None for none.
        trail: How often its lineage was recovered, by name of the handler.
        progress: How far the body has come; None where it has not begun.
    """

    event: Event
    step: str
    number: int = 0
    member: int | None = None
    trail: dict[str, int] | None = None
    progress: ProgressImage | None = None


@attrs.frozen(kw_only=True)
class MemberImage:
    """A member of a group.

    Attributes:
        group: Index of its group.
        won: Whether a gathering has taken an event of it.
    """

    group: int
    won: bool = False


@attrs.frozen(kw_only=True)
class GatheringImage:
    """What one step has gathered of a group.

    Attributes:
        step: Name of the step.
        events: What has come and was not given out, in batches, each with its key; one without a key where there is none.
        trail: The recoveries of all of it.
        done: Whether nothing more is given out.
        given: Keys whose batch was given out.
    """

    step: str
    events: tuple[tuple[Any, tuple[Event, ...]], ...] = ()
    trail: dict[str, int] | None = None
    done: bool = False
    given: tuple[Any, ...] = ()


@attrs.frozen(kw_only=True)
class GroupImage:
    """A list that a body returned, while it is not complete.

    Attributes:
        opener: Name of the step that returned it.
        size: How many elements it had.
        parent: Index of the member that the opener worked for.
        abandoned: Whether all but the winners were taken out.
        gatherings: What has been gathered.
    """

    opener: str
    size: int
    parent: int | None = None
    abandoned: bool = False
    gatherings: tuple[GatheringImage, ...] = ()


@attrs.frozen(kw_only=True)
class BufferImage:
    """A buffer of ``ctx.collect_events``.

    Attributes:
        step: Name of the step.
        id: Name of the buffer.
        events: What waits in it.
    """

    step: str
    id: str | None = None
    events: tuple[Event, ...] = ()


@attrs.frozen(kw_only=True)
class StreamImage:
    """What a run has published and somebody may still read.

    Attributes:
        first: Number of the first of the events.
        events: The events, from the first that some reader has not read.
        resume: Where a reader of all of them is, or left off.
    """

    first: int = 0
    events: tuple[Event, ...] = ()
    resume: int | None = None


@attrs.frozen(kw_only=True)
class LetterImage:
    """A dead letter.

    Attributes:
        event: The event.
        reason: Why nobody handled it.
        step: Of the step that sent it or failed on it.
        attempt: The attempt that failed.
    """

    event: Event
    reason: str
    step: str | None = None
    attempt: int = 0


@attrs.frozen(kw_only=True)
class RunImage:
    """A run that is not over.

    Attributes:
        run_id: Its id.
        fingerprint: Of the workflow's graph.
        items: Events in bodies, oldest body first; then those in inboxes, in the order of each.
        queues: Events in inboxes of which no more is to be said, by the name of the step, in order; they come after `items`.
        joins: Events that wait for their partners.
        members: Members of groups that something is alive of.
        groups: Groups that are not complete.
        buffers: Fan-in buffers that hold something.
        kept: Events kept for waits to come.
        marks: What a journal knows these by, where there is one.
        stream: What may still be read.
        dead: Dead letters.
        early: What was sent to a run that has not begun yet, with the step it is for; the first is the start event.
        begun: Whether it has begun.
        numbers: The last number given to an item.
        waited: The number of the newest wait.
        asked: How many questions were given an id.
        prompts: Prompts that nobody has answered.
        dropped: Events dropped by full inboxes.
        timeout: Seconds until the run's timeout; None for no limit.
        children: Runs of its store that its bodies have started and whose end none has looked at, with their workflows' names.
    """

    run_id: str
    fingerprint: str
    items: tuple[ItemImage, ...] = ()
    queues: dict[str, tuple[Event, ...]] = attrs.field(factory=dict[str, tuple[Event, ...]])
    joins: tuple[ItemImage, ...] = ()
    members: tuple[MemberImage, ...] = ()
    groups: tuple[GroupImage, ...] = ()
    buffers: tuple[BufferImage, ...] = ()
    kept: tuple[Event, ...] = ()
    marks: tuple[int, ...] = ()
    stream: StreamImage = StreamImage()
    dead: tuple[LetterImage, ...] = ()
    early: tuple[tuple[Event, str | None], ...] = ()
    begun: bool = True
    numbers: int = 0
    waited: int = 0
    asked: int = 0
    prompts: int = 0
    dropped: int = 0
    timeout: float | None = None
    children: tuple[tuple[str, str], ...] = ()


@attrs.frozen(kw_only=True)
class Moment:
    """What a run was after a record of its journal, from which the records behind it can be read on.

    Attributes:
        number: Number of the record.
        at: When it was written, which the times in the image count from.
        began: When the first record was written.
        taken: How many events from outside had been recorded.
        image: The run.
        state: Its state.
    """

    number: int
    at: float
    began: float
    taken: int
    image: RunImage
    state: Any  # of the workflow's type of state
