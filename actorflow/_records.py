"""Records of a journal as bytes and back: what a run has done, in words that name no code."""

from __future__ import annotations

import functools
from typing import Any

import attrs

from actorflow._image import Moment
from actorflow._json import fast_json
from actorflow.abc import Record
from actorflow.errors import ContextSerdeError, WorkflowRuntimeError
from actorflow.events import Event
from actorflow.serialization import JsonSerializer, dump_run, dump_state, load_run, load_state
from actorflow.snapshots import scope_of_workflow
from actorflow.storage import Snapshot

__all__ = [
    "CODEC",
    "dump_moment",
    "dump_record",
    "edited",
    "load_moment",
    "load_record",
    "record_serializer",
    "taken_before",
]

CODEC = "json/1"
"""How moments are written; another one where older code could not read it."""


def record_serializer(workflow: object) -> JsonSerializer:
    """What records of a workflow's runs are written and read with.

    Args:
        workflow: An instance of the workflow.
    """
    return _plain().within(scope_of_workflow(type(workflow)))


@functools.cache
def _plain() -> JsonSerializer:
    """A serializer of no workflow: making one costs as much as a record."""
    return JsonSerializer()


def dump_record(record: Record, serializer: JsonSerializer) -> bytes:
    """The body of a record; its kind and its run stand beside it.

    Args:
        record: The record.
        serializer: One in which names mean the types of the workflow.

    Raises:
        ContextSerdeError: Something in it cannot be kept; the message names its path.
    """
    data: dict[str, Any] = {"effects": [list(effect) for effect in record.effects]}
    if record.invocation is not None:
        data["of"] = [*record.invocation, record.attempt]
    if record.value is not None:
        data["value"] = record.value
    if record.took is not None:
        data["took"] = round(record.took, 6)
    if record.trace is not None:
        data["trace"] = record.trace
    return serializer.serialize(data).encode()


def load_record(run_id: str, kind: str, body: bytes, serializer: JsonSerializer) -> Record:
    """The record again that `dump_record` made into bytes.

    Raises:
        ContextSerdeError: The bytes are malformed, or hold a type that is not known here.
    """
    data = serializer.deserialize(body.decode())
    try:
        of = data.get("of")
        effects = tuple(tuple(effect) for effect in data["effects"])
        invocation, attempt = (None, 1) if of is None else ((of[0], of[1]), of[2])
        value, took, trace = data.get("value"), data.get("took"), data.get("trace")
    except (AttributeError, LookupError, TypeError) as error:
        raise ContextSerdeError(
            f"a {kind} record of run {run_id} is damaged: {error!r}; restore the store from a backup", code="AF310"
        ) from error
    return Record(run_id, kind, invocation, attempt, effects, value, took, trace)


def dump_moment(moment: Moment, serializer: JsonSerializer) -> Snapshot:
    """A moment of a run as a store keeps it.

    Raises:
        ContextSerdeError: Something in it cannot be kept; the message names its path.
    """
    data = {
        "at": moment.at,
        "began": moment.began,
        "taken": moment.taken,
        "state": dump_state(moment.state, serializer),
        "run": dump_run(moment.image, serializer),
    }
    write, _ = fast_json()
    return Snapshot(CODEC, write(data).encode(), moment.number)


def load_moment(run_id: str, snapshot: Snapshot, serializer: JsonSerializer) -> Moment:
    """The moment again that `dump_moment` made into bytes.

    Raises:
        ContextSerdeError: The bytes are malformed, or hold a type that is not known here.
    """
    if snapshot.codec != CODEC:
        raise ContextSerdeError(
            f"the snapshot of run {run_id} at record {snapshot.seq} is written in {snapshot.codec!r}, and this actorflow reads "
            f"{CODEC!r}; update actorflow",
            code="AF318",
        )
    try:
        _, read = fast_json()
        data = read(snapshot.body.decode())
        at, began, taken = float(data["at"]), float(data["began"]), int(data["taken"])
        state, run = data["state"], data["run"]
    except (ValueError, LookupError, TypeError) as error:
        raise ContextSerdeError(
            f"the snapshot of run {run_id} at record {snapshot.seq} is damaged: {error!r}; restore the store from a backup",
            code="AF318",
        ) from error
    return Moment(
        number=snapshot.seq,
        at=at,
        began=began,
        taken=taken,
        image=load_run(run, serializer),
        state=load_state(state, serializer),
    )


def taken_before(snapshot: Snapshot | None) -> int:
    """How many events from outside a run had recorded when a snapshot was taken; needs none of the run's types."""
    if snapshot is None:
        return 0
    _, read = fast_json()
    return int(read(snapshot.body.decode())["taken"])


def edited(record: Record, number: int, place: int, event: Event) -> Record:
    """A record with another event in the place of one that it sends or publishes.

    Args:
        record: The record.
        number: Its number in the journal, for the message.
        place: Which event, counted from 0 over all that the record sends and publishes, those of lists one by one.
        event: What is to be there.

    Raises:
        WorkflowRuntimeError: There is no such event, or it is of another class.
    """
    left, effects = place, list(record.effects)
    there: list[str] = []
    for index, effect in enumerate(effects):
        if effect[0] not in {"send", "apart", "list", "publish", "prompt"}:
            continue
        events = list(effect[1]) if effect[0] == "list" else [effect[1]]
        there += [type(one).__name__ for one in events]
        if 0 <= left < len(events) and type(events[left]) is type(event):
            events[left] = event
            effects[index] = (effect[0], events if effect[0] == "list" else event, *effect[2:])
            return attrs.evolve(record, effects=tuple(effects))
        left -= len(events)
    raise WorkflowRuntimeError(
        f"record {number} of run {record.run_id} has no {type(event).__name__} in place {place}: it sends and publishes "
        f"{', '.join(there) or 'nothing'}, counted from 0; give the place of the event, and an event of its class",
        code="AF317",
    )
