"""A context as JSON-ready data, and back."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Mapping
from typing import Any

import attrs

from actorflow._image import BufferImage, GroupImage, ItemImage, LetterImage, RunImage
from actorflow._signature import StepSpec
from actorflow.abc import RunPort
from actorflow.errors import ContextSerdeError
from actorflow.events import GatheredEvent
from actorflow.graph import Graph
from actorflow.registry import Registry, scope_of
from actorflow.serialization import JsonSerializer, dump_state, load_state
from actorflow.state import StateStore

__all__ = ["FORMAT", "ContextSnapshots"]

_logger = logging.getLogger("actorflow")

FORMAT = 1
"""Version of the data; raised whenever older code could not read it."""


class ContextSnapshots:
    """Dumps and loads contexts: the implementation of `actorflow.abc.Snapshots`."""

    def dump(self, port: RunPort, serializer: Any, /) -> dict[str, Any]:
        """A context, with all that is in flight, as JSON-ready data."""
        name = type(port.workflow).__name__
        own = _serializer(serializer, port.workflow)
        data = {"format": FORMAT, "workflow": name, "state": dump_state(port.state.value, own)}
        image = port.image()
        if image is not None:
            data["run"] = own.serialize_value(image, "run", hint=RunImage)
        return data

    def load(
        self, workflow: Any, data: Mapping[str, Any], serializer: Any, /, *, strict: bool
    ) -> tuple[StateStore[Any], RunImage | None]:
        """The state that `dump` kept, and what was in flight."""
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
        own = _serializer(serializer, workflow)
        state = StateStore(load_state(data["state"], own))
        if data.get("run") is None:
            return state, None
        image = own.deserialize_value(data["run"], "run", hint=RunImage)
        if not isinstance(image, RunImage):
            raise ContextSerdeError(
                f"the data of a context of {name} holds a {type(image).__name__} for its run; "
                "give what Context.to_dict() returned",
                code="AF054",
            )
        return state, _fitted(image, workflow._actorflow_graph(), strict=strict)


def _fitted(image: RunImage, graph: Graph, *, strict: bool) -> RunImage:
    """An image in which all that it refers to is there.

    What a step of another version of the workflow had, and this one has not, is an error; without `strict` it goes to
    the dead letters, with a warning.
    """
    steps = {step.name: step for step in graph.steps}
    lost: list[str] = []
    dead: list[LetterImage] = list(image.dead)

    def is_there(saved: ItemImage | BufferImage) -> bool:
        spec = steps.get(saved.step)
        wrong = None
        if spec is None:
            wrong = "is no step of this workflow"
        elif isinstance(saved, BufferImage):
            wrong = None
        elif (spec.collect is not None or bool(spec.joins)) != isinstance(
            saved.event, GatheredEvent
        ) and not spec.joins:
            wrong = "takes its events otherwise now"
        if wrong is None:
            return True
        lost.append(f"{saved.step!r} {wrong}")
        events = saved.events if isinstance(saved, BufferImage) else (saved.event,)
        dead.extend(LetterImage(event=event, reason=f"{saved.step} {wrong}", step=saved.step) for event in events)
        return False

    for index, member in enumerate(image.members):
        if not 0 <= member.group < len(image.groups):
            raise _dangling(f"members[{index}].group")
    for index, group in enumerate(image.groups):
        if group.parent is not None and not 0 <= group.parent < len(image.members):
            raise _dangling(f"groups[{index}].parent")
    for index, item in enumerate((*image.items, *image.joins)):
        if item.member is not None and not 0 <= item.member < len(image.members):
            raise _dangling(f"items[{index}].member")
    fitted = attrs.evolve(
        image,
        items=tuple(item for item in image.items if is_there(item)),
        joins=tuple(item for item in image.joins if is_there(item)),
        buffers=tuple(buffer for buffer in image.buffers if is_there(buffer)),
    )
    for group in image.groups:
        for name in (group.opener, *(gathering.step for gathering in group.gatherings)):
            if name not in steps:
                lost.append(f"{name!r} is no step of this workflow")
    if not lost:
        return fitted
    said = "; ".join(dict.fromkeys(lost))
    if strict:
        raise ContextSerdeError(
            f"the context of {graph.name} was written by another version of it: {said}. Give it to that version, or load it with "
            "strict=False, which puts the events of these steps to the dead letters",
            code="AF303",
        )
    _logger.warning(
        "a context of %s is of another version of it: %s; events of these steps are dead letters",
        graph.name,
        said,
    )
    gone = {group for group, saved in enumerate(image.groups) if _is_gone(saved, steps)}
    if gone:
        raise ContextSerdeError(
            f"the context of {graph.name} holds a list that a step returned or gathers which is gone ({said}), and cannot go on "
            "without it even with strict=False; bring the step back",
            code="AF303",
        )
    return attrs.evolve(fitted, dead=tuple(dead))


def _is_gone(group: GroupImage, steps: Mapping[str, StepSpec]) -> bool:
    return group.opener not in steps or any(
        gathering.step not in steps or steps[gathering.step].collect is None for gathering in group.gatherings
    )


def _dangling(path: str) -> ContextSerdeError:
    return ContextSerdeError(
        f"the data of the context refers at run.{path} to what is not in it; give what Context.to_dict() returned",
        code="AF054",
    )


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
