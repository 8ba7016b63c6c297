"""Values as JSON and back: events, runs, waits, entries of a journal, graphs, and refusals."""

from __future__ import annotations

import inspect
import json
import re
import traceback
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard, cast

import attrs

from actorflow._records import record_serializer
from actorflow.asking import Answer, Ask, _answer_type
from actorflow.errors import ActorflowError, ContextSerdeError, RunConflict, StoreError
from actorflow.events import Event, StopEvent, WorkflowFailedEvent, field_values
from actorflow.graph import Graph
from actorflow.registry import Registry, everywhere, register
from actorflow.schema import _Definitions, schema_of
from actorflow.snapshots import scope_of_workflow
from actorflow.storage import RunInfo, Status
from actorflow.trace import Effect, StepTally, Tally, TracedWait, TraceEntry
from actorflow.workflow import Workflow

__all__ = ["STATUSES", "Json", "Refused", "Vocabulary", "dumped", "loaded", "refusal_of"]

Json = dict[str, Any]  # a JSON object

MOST_NUMBER = 2**53 - 1
"""The greatest number that every reader of JSON reads right."""

STATUSES: Mapping[str, tuple[Status, ...]] = {
    "running": (Status.RUNNABLE,),
    "waiting": (Status.WAITING,),
    "completed": (Status.COMPLETED,),
    "failed": (Status.FAILED,),
    "timed_out": (Status.TIMED_OUT,),
    "cancelled": (Status.CANCELLED,),
}
"""Where a run stands, by the word that clients use. A run at work here that waits for the outside is ``waiting`` too."""


class Refused(Exception):
    """A request that cannot be carried out, with what its sender is told.

    Args:
        status: Status code.
        code: A word for programs: an error's id where there is one.
        message: What is wrong, and what to do.
        field: Which part of the request is wrong.
        headers: Headers of the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field
        self.headers = headers

    def body(self) -> Json:
        """What the client reads."""
        return {"error": {"code": self.code, "message": str(self), "field": self.field}}


# ------------------------------------------------------------------------------------------------ text
def dumped(data: object) -> bytes:
    """JSON-ready data as bytes."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate is no character, and JSON has an escape for it


def loaded(body: bytes) -> Json:
    """The JSON object that a body holds; {} where it is empty.

    Raises:
        Refused: It holds none.
    """
    if not body.strip():
        return {}
    try:
        text = body.decode()
        data: object = json.loads(text, parse_constant=_no_constant)
        json.dumps(data, ensure_ascii=False).encode()  # an escaped lone surrogate is no text that can be kept
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "it is not well-formed"
        raise Refused(400, "bad_request", f"the body is not JSON: {reason}; send a JSON object in UTF-8") from None
    if not isinstance(data, dict):
        raise Refused(400, "bad_request", "the body is JSON, and no object; send an object like {}")
    return cast("Json", data)


def _no_constant(name: str) -> object:
    raise ValueError(name)


# ------------------------------------------------------------------------------------------------ refusals
_PATH = re.compile(r"cannot deserialise ([\w.\[\]'\"-]+):")
_NAMED = (
    re.compile(r"it has no field '([^']+)'"),
    re.compile(r"it needs a field '([^']+)'"),
    re.compile(r"(?:TypeError|ValueError): \w+\.(\w+) must"),
    re.compile(r"TypeError: '(\w+)' must"),
    re.compile(r"ValueError: '(\w+)' must"),
)


def refusal_of(error: Exception, *, debug: bool = False) -> Refused | None:
    """What a client is told of an error of the library; None where it is nobody's but the server's."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, StoreError) and error.code not in {"AF312", "AF313"}:
        told = str(error) if debug else "the store of the server fails; try again later"
        return Refused(503, "unavailable", told, headers={"retry-after": "1"})
    if isinstance(error, RunConflict):
        return Refused(
            409, error.code, "there is a run of this id that was started with something else; give another id"
        )
    if isinstance(error, ActorflowError):
        status = _BY_CODE.get(error.code)
        if status is not None:
            return Refused(status, error.code, str(error))
    return None


_BY_CODE: Mapping[str, int] = {
    **dict.fromkeys(("AF020", "AF313", "AF316", "AF233"), 409),
    "AF312": 404,
    **dict.fromkeys(("AF029", "AF031", "AF032", "AF033", "AF283", "AF317"), 422),
    "AF081": 429,
}


def _misfit(error: ContextSerdeError, at: str) -> Refused:
    """What is wrong with the fields of an event, with the name of the field."""
    text = str(error)
    path = _PATH.search(text)
    field = path.group(1) if path else at
    if field == at:
        named = next((found for pattern in _NAMED if (found := pattern.search(text))), None)
        if named:
            field = f"{at}.{named.group(1)}"
    message = text.removesuffix(f" [{error.code}]").partition(": ")[2].replace("__main__:", "")
    return Refused(422, error.code, message, field=field)


# ------------------------------------------------------------------------------------------------ a workflow's words
class Vocabulary:
    """What can be said of one workflow: its events by name, and everything of its runs as JSON.

    Args:
        name: What clients call the workflow.
        workflow: The workflow.
        additional: Classes of events that its annotations do not show.
        debug: Whether clients are told what only the server's owner should know.

    Attributes:
        name: What clients call it.
        workflow: The workflow.
        graph: Its graph.
        events: The classes of events by the names that clients know them by.
    """

    def __init__(
        self, name: str, workflow: Workflow[Any, Any], additional: Iterable[type[Event]] = (), *, debug: bool = False
    ) -> None:
        self.name = name
        self.workflow = workflow
        self.graph: Graph = type(workflow)._actorflow_graph()
        self._debug = debug
        self._scope: Registry = scope_of_workflow(type(workflow))
        for cls in additional:
            if self._scope.entry_of(cls) is None or everywhere.entry_of(cls) is None:
                register(cls)
        self.events: dict[str, type[Event]] = {}
        self._names: dict[type[Event], str] = {}
        for cls in self._classes(additional):
            self._name(cls)
        self._serializer = record_serializer(workflow)

    def _classes(self, additional: Iterable[type[Event]]) -> Iterable[type[Event]]:
        graph = self.graph
        found = [graph.start_event, *graph.stop_events]
        for step in graph.steps:
            found += [*step.accepts, *step.emits, *step.config.waits_for]
        return dict.fromkeys(cls for cls in (*found, *additional) if cls is not Event)

    def _name(self, cls: type[Event]) -> str:
        known = self._names.get(cls)
        if known is None:
            known = cls.__name__
            if self.events.get(known, cls) is not cls:
                known = f"{cls.__module__}:{cls.__qualname__}"
            self._names[cls] = known
            self.events[known] = cls
        return known

    # ------------------------------------------------------------------------------------------------ events
    def event(self, event: Event) -> Json:
        """An event as JSON."""
        cls = type(event)
        known = self._names.get(cls)
        if known is None:
            same = self.events.get(cls.__name__)
            known = cls.__name__ if same is None else f"{cls.__module__}:{cls.__qualname__}"
        return {"type": known, "value": self.fields(event)}

    def fields(self, event: Event) -> Json:
        """The fields of an event as JSON."""
        if isinstance(event, WorkflowFailedEvent):
            return {
                "step_name": event.step_name,
                "exception": self.exception(event.exception),
                "attempts": event.attempts,
                "elapsed_seconds": event.elapsed_seconds,
            }
        try:
            data: Any = self._serializer.serialize_value(event)
        except ContextSerdeError:
            return {name: self.value(value) for name, value in field_values(event).items()}
        return cast("Json", data["v"]) if set(data) == {"$", "v"} else cast("Json", data)

    def value(self, value: object) -> Any:  # Any: JSON
        """Any value as JSON; what cannot be kept is shown by its repr."""
        if isinstance(value, Event):
            return self.event(value)
        if isinstance(value, BaseException):
            return self.exception(value)
        try:
            return self._serializer.serialize_value(value)
        except ContextSerdeError:
            return {"$": "repr", "v": repr(value)}

    def exception(self, error: BaseException) -> Json:
        """An error of a run, without its traceback."""
        return {"type": type(error).__name__, "message": str(error)}

    def class_of(self, name: object, at: str = "type") -> type[Event]:
        """The class of events of a name.

        Raises:
            Refused: There is none.
        """
        if not isinstance(name, str) or name not in self.events:
            names = ", ".join(self.events)
            raise Refused(422, "unknown_type", f"{self.name} has no event {name!r}; it has: {names}", field=at)
        return self.events[name]

    def read(self, cls: type[Event], value: object, at: str) -> Event:
        """An event made of JSON.

        Raises:
            Refused: The fields are not those of the class; the refusal names the field.
        """
        if not isinstance(value, dict):
            raise Refused(422, "bad_request", f"{at} must be an object with the fields of {cls.__name__}", field=at)
        try:
            event: object = self._serializer.deserialize_value(cast("Json", value), at, hint=cls)
        except ContextSerdeError as error:
            raise _misfit(error, at) from None
        except Exception as error:  # noqa: BLE001 - whatever the class's own validators raise is about the value
            message = f"{cls.__name__} does not take this: {type(error).__name__}"
            raise Refused(422, "bad_request", f"{message}: {error}" if self._debug else message, field=at) from None
        if type(event) is not cls:
            raise Refused(422, "bad_request", f"{at} must have the fields of {cls.__name__}", field=at)
        return event

    def keepable(self, event: Event, at: str) -> None:
        """Refuses an event that the journal could not keep.

        Raises:
            Refused: It cannot be kept.
        """
        try:
            self._serializer.serialize(event)
        except ContextSerdeError as error:
            raise _misfit(error, at) from None

    # ------------------------------------------------------------------------------------------------ the workflow
    def summary(self) -> Json:
        """The workflow in a list of workflows."""
        waits = dict.fromkeys(cls for step in self.graph.steps for cls in step.config.waits_for)
        return {
            "name": self.name,
            "version": self.graph.fingerprint,
            "doc": inspect.getdoc(type(self.workflow)) if type(self.workflow).__doc__ else None,
            "start": self._name(self.graph.start_event),
            "waits_for": [self._name(cls) for cls in waits],
        }

    def described(self) -> Json:
        """All of the workflow."""
        start = self.graph.start_event
        return {
            **self.summary(),
            "start": self.schema(start),
            "stop": self.schema(self.graph.stop_events[0]),
            "events": {name: self.schema(cls) for name, cls in self.events.items()},
            "graph": self.graph_json(),
        }

    def schema(self, cls: type[Event]) -> Json:
        """The schema of an event, which has its name for a title."""
        return {"title": self._names.get(cls, cls.__name__), **schema_of(cls)}

    def graph_json(self) -> Json:
        """The workflow's graph."""
        graph = self.graph
        steps = [
            {
                "name": step.name,
                "doc": inspect.getdoc(step.fn),
                "num_workers": step.config.num_workers,
                "accepts": [self._name(cls) for cls in step.accepts if cls is not Event],
                "emits": [self._name(cls) for cls in step.emits if cls is not Event],
                "joins": [parameter.name for parameter in step.joins],
                "gathers": step.collect is not None,
                "waits_for": [self._name(cls) for cls in step.config.waits_for],
                "catches": step.catches is not None,
            }
            for step in graph.steps
        ]
        edges = [
            {"source": edge.source, "event": edge.event.__name__, "target": edge.target, "listed": edge.listed}
            for edge in graph.edges
        ]
        return {
            "name": graph.name,
            "fingerprint": graph.fingerprint,
            "steps": steps,
            "edges": edges,
            "mermaid": graph.mermaid(),
        }

    # ------------------------------------------------------------------------------------------------ runs
    def run(self, info: RunInfo, status: str) -> Json:
        """What is known of a run without its journal."""
        return {
            "run_id": info.run_id,
            "workflow": self.name,
            "version": info.version,
            "status": status,
            "created_at": info.created_at,
            "closed_at": info.closed_at,
            "head": info.head,
            "parent": info.parent or None,
            "forked_from": info.forked_from or None,
        }

    def ended(self, event: StopEvent[Any] | None) -> Json:
        """How a run has ended: its terminal event, its result, and its error."""
        error: Json | None = None
        result: Any = None
        if isinstance(event, WorkflowFailedEvent):
            failed = event.exception
            error = {**self.exception(failed), "step": event.step_name or None, "attempts": event.attempts}
            if self._debug:
                error["traceback"] = "".join(traceback.format_exception(failed))
        elif type(event) is StopEvent:
            result = self.value(event.result)
        elif event is not None and isinstance(event, tuple(self.graph.stop_events)):
            result = self.fields(event)
        return {"result": result, "event": None if event is None else self.event(event), "error": error}

    def wait(self, wait: TracedWait) -> Json:
        """A wait."""
        return {
            "id": wait.id,
            "step": wait.step,
            "type": wait.kind,
            "schema": self.answer_schema(wait),
            "prompt": None if wait.prompt is None else self.event(wait.prompt),
            "opened_at": wait.opened_at,
            "deadline": wait.deadline,
        }

    def answer_schema(self, wait: TracedWait) -> Json:
        """What an answer to a wait must be like."""
        question = _question(wait)
        if question is not None:
            found = _Definitions()
            value = found.describe(_answer_type(type(question)))
            schema: Json = {
                "title": "Answer",
                "type": "object",
                "properties": {"value": value},
                "required": ["value"],
                "additionalProperties": False,
            }
            return {**schema, **({"$defs": found.definitions} if found.definitions else {})}
        cls = self.events.get(wait.kind)
        return {"title": wait.kind, "type": "object"} if cls is None else self.schema(cls)

    def answer(self, wait: TracedWait, value: object, kind: object) -> Event:
        """The event that answers a wait, made of JSON.

        Raises:
            Refused: It is none.
        """
        question = _question(wait)
        if question is not None:
            given = cast("Json", value) if isinstance(value, dict) else {}
            if set(given) - {"ask_id"} != {"value"}:
                raise Refused(422, "bad_request", 'value must be an object like {"value": …}', field="value")
            try:
                made: object = self._serializer.deserialize_value(
                    given["value"], "value.value", hint=_answer_type(type(question))
                )
            except ContextSerdeError as error:
                raise _misfit(error, "value.value") from None
            problem = question.objection(made)
            if problem is not None:
                raise Refused(422, "AF283", problem, field="value.value")
            return Answer(value=made, ask_id=question.ask_id)
        wanted = self.events.get(wait.kind)
        cls = self.class_of(wait.kind if kind is None else kind)
        if kind is not None and wanted is not None and not issubclass(cls, wanted):
            raise Refused(422, "bad_request", f"the wait is for {wait.kind}, which {kind} is not", field="type")
        return self.read(cls, value, "value")

    # ------------------------------------------------------------------------------------------------ journals
    def entry(self, entry: TraceEntry) -> Json:
        """An entry of a journal."""
        return {
            "seq": entry.seq,
            "at": entry.at,
            "kind": entry.kind,
            "step": entry.step,
            "invocation": None if entry.invocation is None else list(entry.invocation),
            "attempt": entry.attempt,
            "began": entry.began,
            "causes": list(entry.causes),
            "effects": [self.effect(effect) for effect in entry.effects],
            "value": self.value(entry.value),
        }

    def effect(self, effect: Effect) -> Json:
        """An effect, without what it has nothing to say of."""
        told: Json = {"kind": effect.kind, "index": effect.index}
        if effect.event is not None:
            told["event"] = self.event(effect.event)
        if effect.to or effect.kind in {"send", "apart", "list"}:
            told["to"] = [attrs.asdict(to) for to in effect.to]
        if effect.causes:
            told["causes"] = list(effect.causes)
        if effect.value is not None or effect.kind in {"state", "commit", "once"}:
            told["value"] = self.value(effect.value)
        told |= {
            name: value
            for name, value in (("name", effect.name), ("wait", effect.wait), ("seconds", effect.seconds))
            if value is not None
        }
        return told

    def tally(self, tally: Tally, *, complete: bool) -> Json:
        """A run in numbers."""
        return {
            "steps": {name: _tallied(step) for name, step in tally.steps.items()},
            "edges": [{**attrs.asdict(way), "count": count} for way, count in tally.edges.items()],
            "complete": complete,
        }


def _question(wait: TracedWait) -> Ask[Any] | None:
    """What a wait of ``ctx.ask`` asks."""
    return wait.prompt if _asks(wait.prompt) and wait.kind == Answer.__name__ else None


def _asks(prompt: object) -> TypeGuard[Ask[Any]]:
    return isinstance(prompt, Ask)


def _tallied(tally: StepTally) -> Json:
    return attrs.asdict(tally)
