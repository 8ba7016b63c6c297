"""A context as JSON-ready data, and back."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from actorflow.abc import RunPort
from actorflow.errors import ContextSerdeError
from actorflow.graph import Graph
from actorflow.registry import Registry, scope_of
from actorflow.serialization import JsonSerializer, dump_state, load_state
from actorflow.state import StateStore

__all__ = ["FORMAT", "ContextSnapshots"]

FORMAT = 1
"""Version of the data; raised whenever older code could not read it."""


class ContextSnapshots:
    """Dumps and loads contexts: the implementation of `actorflow.abc.Snapshots`."""

    def dump(self, port: RunPort, serializer: Any, /) -> dict[str, Any]:
        """A context with nothing in flight as JSON-ready data."""
        name = type(port.workflow).__name__
        if port.running:
            raise ContextSerdeError(
                f"run {port.run_id} of {name} is not over, and a context with events in flight cannot be made into data "
                "yet; await the run first",
                code="AF053",
            )
        return {
            "format": FORMAT,
            "workflow": name,
            "state": dump_state(port.state.value, _serializer(serializer, port.workflow)),
        }

    def load(self, workflow: Any, data: Mapping[str, Any], serializer: Any, /) -> StateStore[Any]:
        """The state that `dump` kept."""
        name = type(workflow).__name__
        if not _is_mapping(data) or not {"format", "workflow", "state"} <= data.keys():
            raise ContextSerdeError(
                f"this is not the data of a context of {name}: it needs 'format', 'workflow' and 'state'; "
                "give what Context.to_dict() returned",
                code="AF054",
            )
        if data["format"] != FORMAT:
            raise ContextSerdeError(
                f"the context was written in format {data['format']!r}, and this actorflow reads format {FORMAT}; "
                "update actorflow",
                code="AF055",
            )
        if data["workflow"] != name:
            raise ContextSerdeError(
                f"the context belongs to workflow {data['workflow']!r}, not to {name}; give the workflow that it was made for",
                code="AF056",
            )
        return StateStore(load_state(data["state"], _serializer(serializer, workflow)))


def _is_mapping(data: object) -> bool:
    return isinstance(data, Mapping)


def _serializer(serializer: Any, workflow: Any) -> JsonSerializer:
    """A serializer in which names mean the types of a workflow first."""
    if serializer is None:
        serializer = JsonSerializer()
    if not isinstance(serializer, JsonSerializer):
        raise ContextSerdeError(
            f"{serializer!r} is not a serializer; give a JsonSerializer or a PickleSerializer", code="AF057"
        )
    return serializer.within(_scope(type(workflow)))


_scopes: weakref.WeakKeyDictionary[type, tuple[Graph, Registry]] = weakref.WeakKeyDictionary()


def _scope(workflow: Any) -> Registry:
    graph = workflow._actorflow_graph()
    known = _scopes.get(workflow)
    if known is None or known[0] is not graph:  # a step was added to the workflow
        known = _scopes[workflow] = graph, scope_of(graph)
    return known[1]
