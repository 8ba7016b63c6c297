"""A context as JSON-ready data, and back."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from actorflow._image import GroupImage, ItemImage, LetterImage, RunImage
from actorflow._imaged import dropped
from actorflow.abc import RunPort
from actorflow.errors import ContextSerdeError
from actorflow.events import Event, GatheredEvent
from actorflow.graph import Graph
from actorflow.registry import Registry, scope_of
from actorflow.serialization import JsonSerializer, dump_run, dump_state, load_run, load_state
from actorflow.state import StateStore

__all__ = ["FORMAT", "ContextSnapshots", "scope_of_workflow"]

_logger = logging.getLogger("actorflow")

FORMAT = 1
"""Version of the data; raised whenever older code could not read it."""


_DEEPEST = 300
"""How deep lists may be nested: they close one inside of the other."""


class ContextSnapshots:
    """Dumps and loads contexts: the implementation of `actorflow.abc.Snapshots`."""

    def dump(self, port: RunPort, serializer: Any, /) -> dict[str, Any]:
        """A context, with all that is in flight, as JSON-ready data."""
        name = type(port.workflow).__name__
        own = _serializer(serializer, port.workflow)
        data = {"format": FORMAT, "workflow": name, "state": dump_state(port.state.value, own)}
        image = port.image()
        if image is not None:
            data["run"] = dump_run(image, own)
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
        if type(data["format"]) is not int or data["format"] != FORMAT:
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
        graph: Graph = workflow._actorflow_graph()
        lost: list[str] = []
        token = dropped.set(None if strict else lost)
        try:
            kind = graph.state_type
            value = load_state(data["state"], own)
            if not isinstance(value, kind):
                raise ContextSerdeError(
                    f"the data of a context of {name} holds a {type(value).__name__} for its state, which is a "
                    f"{kind.__name__}; give what Context.to_dict() returned",
                    code="AF054",
                )
            image = None if data.get("run") is None else load_run(data["run"], own)
        finally:
            dropped.reset(token)
        if image is not None:
            image = _Fitting(image, graph).fitted(lost, strict=strict)
        return StateStore(value, kind), image


class _Fitting:
    """Makes an image fit a graph: all that it refers to is there, and takes what it is given.

    What a step of another version of the workflow had, and this one has not, goes to the dead letters.
    """

    def __init__(self, image: RunImage, graph: Graph) -> None:
        self.image = image
        self.graph = graph
        self.steps = {step.name: step for step in graph.steps}
        self.dead: list[LetterImage] = list(image.dead)
        self.misfits: dict[str, None] = {}

    def fitted(self, lost: list[str], *, strict: bool) -> RunImage:
        """The image that fits.

        Args:
            lost: What was dropped while it was loaded.
            strict: Whether a misfit is an error.

        Raises:
            ContextSerdeError: It refers to what it does not hold, or there is a misfit that is an error.
        """
        image, name = self.image, self.graph.name
        self.check_references()
        fitted = attrs.evolve(
            image,
            items=tuple(item for item in image.items if self.takes(item.step, item.event, f"{item.step!r}")),
            joins=tuple(item for item in image.joins if self.joins(item)),
            queues=self.queues(),
            buffers=tuple(buffer for buffer in image.buffers if self.has(buffer.step, buffer.events)),
            early=image.early[: not image.begun]
            + tuple(e for e in image.early[not image.begun :] if self.sendable(*e)),
        )
        broken = [one for group in image.groups for one in self.broken(group)]
        for item in (*image.items, *image.joins):
            self.trail(item.trail)
        if not (self.misfits or broken or lost):
            return fitted
        said = "; ".join([*self.misfits, *broken, *dict.fromkeys(lost)])
        if strict:
            raise ContextSerdeError(
                f"the context of {name} was written by another version of it: {said}. Give it to that version, or load it with "
                "strict=False, which puts the events of these steps to the dead letters",
                code="AF303",
            )
        if broken:
            raise ContextSerdeError(
                f"the context of {name} holds a list of which a step that returned or gathers it is gone ({said}), and cannot "
                "go on without it even with strict=False; bring the step back",
                code="AF303",
            )
        _logger.warning("a context of %s is of another version of it: %s; this is left out", name, said)
        return self.without_trails(attrs.evolve(fitted, dead=tuple(self.dead)))

    # -- what it refers to

    def check_references(self) -> None:
        """Raises where an index leads nowhere, or round in a circle."""
        image = self.image
        members, groups = len(image.members), len(image.groups)
        for index, member in enumerate(image.members):
            if member.group >= groups:
                raise _malformed(f"members[{index}].group")
        for index, group in enumerate(image.groups):
            if group.parent is not None and group.parent >= members:
                raise _malformed(f"groups[{index}].parent")
        for kind, items in (("items", image.items), ("joins", image.joins)):
            for index, item in enumerate(items):
                if item.member is not None and item.member >= members:
                    raise _malformed(f"{kind}[{index}].member")
                if item.progress is not None and kind == "joins":
                    raise _malformed(f"{kind}[{index}].progress")
        depths: dict[int, int] = {}
        for index in range(groups):
            path: dict[int, None] = {}
            here: int | None = index
            while here is not None and here not in depths:
                if here in path:
                    raise _malformed(f"groups[{index}].parent")
                path[here] = None
                parent = image.groups[here].parent
                here = None if parent is None else image.members[parent].group
            depth = 0 if here is None else depths[here]
            for one in reversed(path):
                depths[one] = depth = depth + 1
            if depth > _DEEPEST:
                raise _malformed(f"groups[{index}].parent")
        if not image.begun and (not image.early or not isinstance(image.early[0][0], self.graph.start_event)):
            raise _malformed("early")

    # -- what there is for it

    def takes(self, step: str, event: Event, name: str) -> bool:
        """Whether a step is there and takes an event of that class; else the event goes to the dead letters."""
        spec = self.steps.get(step)
        if spec is None:
            return self.misfit(f"{name} is no step of this workflow", step, (event,))
        held = event.events if isinstance(event, GatheredEvent) else None
        if (spec.collect is not None or bool(spec.joins)) != (held is not None):
            return self.misfit(f"{name} takes its events otherwise now", step, (event,))
        if held is None:
            fits = isinstance(event, spec.accepts)
        elif spec.joins:
            fits = len(held) == len(spec.joins) and all(map(_fits, held, (slot.accepts for slot in spec.joins)))
        else:
            fits = all(isinstance(one, spec.accepts) for one in held)
        return fits or self.misfit(f"{name} does not take {type(event).__name__} now", step, (event,))

    def joins(self, item: ItemImage) -> bool:
        """The same, of an event that waits for its partners."""
        spec = self.steps.get(item.step)
        if spec is None:
            return self.misfit(f"{item.step!r} is no step of this workflow", item.step, (item.event,))
        if not spec.joins:
            return self.misfit(f"{item.step!r} takes its events otherwise now", item.step, (item.event,))
        return isinstance(item.event, spec.accepts) or self.misfit(
            f"{item.step!r} does not take {type(item.event).__name__} now", item.step, (item.event,)
        )

    def queues(self) -> dict[str, tuple[Event, ...]]:
        """The queues, each of which takes what is in it."""
        fitting: dict[str, tuple[Event, ...]] = {}
        for step, events in self.image.queues.items():
            if self.has(step, events):
                kept = tuple([event for event in events if self.takes(step, event, repr(step))])
                if kept:
                    fitting[step] = kept
        return fitting

    def has(self, step: str, events: Sequence[Event]) -> bool:
        """Whether a step is there; else its events go to the dead letters."""
        return step in self.steps or self.misfit(f"{step!r} is no step of this workflow", step, events)

    def sendable(self, event: Event, step: str | None) -> bool:
        """Whether what was sent to a run before it began can be sent."""
        return step is None or self.takes(step, event, repr(step))

    def trail(self, trail: Mapping[str, int] | None) -> None:
        """Notes the handlers that are gone."""
        for name in trail or ():
            if name not in self.steps:
                self.misfits[f"{name!r} is no step of this workflow"] = None

    def broken(self, group: GroupImage) -> Iterator[str]:
        """What of a list is gone that cannot be done without."""
        if group.opener not in self.steps:
            yield f"{group.opener!r} is no step of this workflow"
        for gathering in group.gatherings:
            spec = self.steps.get(gathering.step)
            if spec is None:
                yield f"{gathering.step!r} is no step of this workflow"
            elif spec.collect is None:
                yield f"{gathering.step!r} takes its events otherwise now"
            else:
                self.trail(gathering.trail)
                for _, events in gathering.events:
                    if not all(isinstance(event, spec.accepts) for event in events):
                        yield f"{gathering.step!r} does not take what it has gathered"
                for key in (*gathering.given, *(key for key, _ in gathering.events)):
                    if not _is_hashable(key):
                        raise _malformed("groups")

    def misfit(self, what: str, step: str, events: Sequence[Event]) -> bool:
        """Notes what does not fit; its events go to the dead letters."""
        self.misfits[what] = None
        self.dead += [LetterImage(event=event, reason=what, step=step) for event in events]
        return False

    def without_trails(self, image: RunImage) -> RunImage:
        """The image without recoveries by handlers that are gone."""

        def known(trail: Mapping[str, int] | None) -> dict[str, int] | None:
            return {name: told for name, told in (trail or {}).items() if name in self.steps} or None

        return attrs.evolve(
            image,
            items=tuple(attrs.evolve(item, trail=known(item.trail)) for item in image.items),
            joins=tuple(attrs.evolve(item, trail=known(item.trail)) for item in image.joins),
            groups=tuple(
                attrs.evolve(
                    group, gatherings=tuple(attrs.evolve(one, trail=known(one.trail)) for one in group.gatherings)
                )
                for group in image.groups
            ),
        )


def _fits(event: Event, kinds: tuple[type[Event], ...]) -> bool:
    return isinstance(event, kinds)


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _malformed(path: str) -> ContextSerdeError:
    return ContextSerdeError(
        f"the data of the context has at run.{path} what cannot be in one; give what Context.to_dict() returned",
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
    return serializer.within(scope_of_workflow(type(workflow)))


_scopes: weakref.WeakKeyDictionary[type, tuple[Graph, Registry]] = weakref.WeakKeyDictionary()


def scope_of_workflow(workflow: Any) -> Registry:
    """The types that a workflow class names, found once per graph."""
    graph = workflow._actorflow_graph()
    known = _scopes.get(workflow)
    if known is None or known[0] is not graph:  # a step was added to the workflow
        known = _scopes[workflow] = graph, scope_of(graph)
    return known[1]
