"""Records of a journal as bytes and back: what a run has done, in words that name no code."""

from __future__ import annotations

from typing import Any

from actorflow.abc import Record
from actorflow.errors import ContextSerdeError
from actorflow.serialization import JsonSerializer
from actorflow.snapshots import scope_of_workflow

__all__ = ["dump_record", "load_record", "record_serializer"]


def record_serializer(workflow: object) -> JsonSerializer:
    """What records of a workflow's runs are written and read with.

    Args:
        workflow: An instance of the workflow.
    """
    return JsonSerializer().within(scope_of_workflow(type(workflow)))


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
        value, took = data.get("value"), data.get("took")
    except (AttributeError, LookupError, TypeError) as error:
        raise ContextSerdeError(
            f"a {kind} record of run {run_id} is damaged: {error!r}; restore the store from a backup", code="AF310"
        ) from error
    return Record(run_id, kind, invocation, attempt, effects, value, took)
