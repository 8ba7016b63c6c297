"""What a server says, read by a client: events, runs and waits, refusals, and the errors of runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import quote

import attrs
import httpx2

from actorflow import errors
from actorflow._raised import LostException, revive
from actorflow.errors import (
    ActorflowError,
    ContextSerdeError,
    RunConflict,
    WorkflowCancelledError,
    WorkflowRuntimeError,
    WorkflowTimeoutError,
)
from actorflow.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StopEvent,
    WorkflowCancelledEvent,
    WorkflowTimedOutEvent,
)
from actorflow.serialization import JsonSerializer
from actorflow.snapshots import scope_of_workflow
from actorflow.workflow import Workflow

__all__ = [
    "Json",
    "ReceivedEvent",
    "RefusedError",
    "RemoteWait",
    "RunFailedError",
    "RunSummary",
    "UnreachableError",
    "Words",
    "answered",
    "ended_with",
    "part",
    "summary",
]

Json = dict[str, Any]  # a JSON object

_BUILT_IN: tuple[type[Event], ...] = (
    StartEvent,
    StopEvent,
    InputRequiredEvent,
    HumanResponseEvent,
    WorkflowTimedOutEvent,
    WorkflowCancelledEvent,
)


class UnreachableError(ActorflowError, ConnectionError):
    """The server did not answer for as long as the client is patient."""


class RefusedError(WorkflowRuntimeError):
    """The server refused a request.

    Attributes:
        status: Status code of its answer.
        reason: The server's word for why: an error's id, or a word like ``not_found``.
        field: Which part of the request is wrong; None where it is no part.
    """

    def __init__(self, message: str, *, status: int, reason: str, field: str | None, code: str = "AF370") -> None:
        super().__init__(message, code=code)
        self.status = status
        self.reason = reason
        self.field = field


class RunFailedError(WorkflowRuntimeError):
    """A run failed with an error whose class is not known here.

    Attributes:
        type_name: Name of that class.
        message: What it said.
        step: The step that raised it; None where no step is to blame.
        attempts: How often the step was tried.
        details: The traceback, from a server in debug mode; None from others.
    """

    def __init__(
        self,
        text: str,
        *,
        type_name: str,
        message: str,
        step: str | None,
        attempts: int,
        details: str | None,
        code: str = "AF372",
    ) -> None:
        super().__init__(text, code=code)
        self.type_name = type_name
        self.message = message
        self.step = step
        self.attempts = attempts
        self.details = details


class ReceivedEvent(Event):
    """An event of a class that the client was not given.

    Attributes:
        type: Name of the class.
        value: Its fields, as JSON has them.

    Example:
        >>> ReceivedEvent(type="Draft", value={"text": "bees"}).value["text"]
        'bees'
    """

    type: str
    value: dict[str, Any]


@attrs.frozen(kw_only=True)
class RunSummary:
    """A run in few words.

    Attributes:
        run_id: Its id.
        workflow: What the server calls its workflow.
        status: ``running``, ``waiting``, ``completed``, ``failed``, ``timed_out`` or ``cancelled``.
        created_at: When it was started, in seconds since the epoch.
        closed_at: When it ended, likewise; None before that.
        version: Fingerprint of the workflow that it was started with.
    """

    run_id: str
    workflow: str
    status: str
    created_at: float
    closed_at: float | None
    version: str


@attrs.frozen(kw_only=True)
class RemoteWait:
    """A step that waits for an event; answer it with `RemoteRun.answer`.

    Attributes:
        id: What it is known by, also after a restart of the server.
        step: Name of the step.
        type: Name of the class of the event that it waits for.
        schema: JSON schema of that event's fields.
        prompt: What was published to ask for it; None where nothing was.
        opened_at: When it began, in seconds since the epoch.
        deadline: When it gives up, likewise; None for never.
    """

    id: str
    step: str
    type: str
    schema: Mapping[str, Any]
    prompt: Event | None
    opened_at: float
    deadline: float | None


class Words:
    """Events of one workflow as JSON and back."""

    def __init__(self, workflow: type[Workflow[Any, Any]] | None, events: Iterable[type[Event]]) -> None:
        self.start: type[Event] | None = None
        self._serializer = JsonSerializer()
        classes = dict.fromkeys(_BUILT_IN)
        if workflow is not None:
            self._serializer = self._serializer.within(scope_of_workflow(workflow))
            graph = workflow._actorflow_graph()
            self.start = graph.start_event
            classes |= dict.fromkeys([graph.start_event, *graph.stop_events])
            for step in graph.steps:
                classes |= dict.fromkeys([*step.accepts, *step.emits, *step.config.waits_for])
        self._classes: dict[str, type[Event]] = {}
        for cls in (*classes, *events):
            self._classes[cls.__name__] = self._classes[f"{cls.__module__}:{cls.__qualname__}"] = cls

    def fields(self, event: Event) -> Any:  # Any: JSON
        """The fields of an event as JSON."""
        if isinstance(event, ReceivedEvent):
            return event.value
        data: Any = self._serializer.serialize_value(event)
        return data["v"] if set(data) == {"$", "v"} else data

    def value(self, value: object, at: str) -> Any:  # Any: JSON
        """A value as JSON."""
        return self._serializer.serialize_value(value, at)

    def event(self, data: Json) -> Event:
        """An event that the server has sent, of its class where that is known.

        Raises:
            ContextSerdeError: Its class is known, and has other fields.
        """
        name, value = data["type"], data["value"]
        cls = self._classes.get(name)
        if cls is None:
            return ReceivedEvent(type=name, value=value)
        try:
            event: Event = self._serializer.deserialize_value(value, name, hint=cls)
        except ContextSerdeError as error:
            raise ContextSerdeError(
                f"the server's {name} does not fit the class of that name that the client was given: {error}; give the client "
                "the classes that the server has",
                code="AF373",
            ) from error
        return event

    def result(self, data: Any) -> Any:  # Any: whatever the run gave
        """The result of a run; as JSON has it where its types are not known here."""
        try:
            return self._serializer.deserialize_value(data, "result")
        except ContextSerdeError:
            return data


def part(text: str) -> str:
    return quote(text, safe="")


def summary(data: Json) -> RunSummary:
    names = ("run_id", "workflow", "status", "created_at", "closed_at", "version")
    return RunSummary(**{name: data[name] for name in names})


def answered(answer: httpx2.Response) -> Json:
    """What the server has answered.

    Raises:
        RefusedError: It has refused.
    """
    status = answer.status_code
    try:
        data: Any = answer.json() if answer.content else {}
    except ValueError:
        data = None
    if status < 300 and isinstance(data, dict):
        return cast("Json", data)
    asked = f"{answer.request.method} {answer.request.url}"
    refusal: object = cast("Json", data).get("error") if isinstance(data, dict) else None
    if not isinstance(refusal, dict):
        raise RefusedError(
            f"{asked} was answered with {status}, and not by a server of actorflow; see what is at this address",
            status=status,
            reason="",
            field=None,
        )
    told = cast("Json", refusal)
    reason, field = str(told.get("code")), told.get("field")
    text = str(told.get("message")).removesuffix(f" [{reason}]")
    if status == 409 and "started with something else" in text:
        raise RunConflict(text, code=reason if reason.startswith("AF") else "AF370")
    raise RefusedError(
        f"{text} ({asked} was answered with {status}{f', field {field}' if field else ''})",
        status=status,
        reason=reason,
        field=field,
        code=reason if reason.startswith("AF") else "AF370",
    )


def error_of(told: Json, where: str) -> Exception:
    """The error of a run that has failed: of its class where Python or actorflow has that, and with what is known of it."""
    name, message = str(told.get("type")), str(told.get("message"))
    step, attempts, details = told.get("step"), int(told.get("attempts") or 0), told.get("traceback")
    at = f"{where} failed" + (f" in step {step}, attempt {attempts}" if step else "")
    ours = getattr(errors, name, None)
    error: BaseException
    if isinstance(ours, type) and issubclass(ours, ActorflowError):
        text, _, code = message.rpartition(" [")
        error = ours.__new__(ours)
        ActorflowError.__init__(error, text or message, code=code.rstrip("]") or "AF372")
    else:
        error = revive(f"builtins:{name}", (message,), {}, {})
    if isinstance(error, LostException) or not isinstance(error, Exception):
        return RunFailedError(
            f"{at}: {name}: {message}",
            type_name=name,
            message=message,
            step=step,
            attempts=attempts,
            details=details,
        )
    error.add_note(at)
    if details:
        error.add_note(str(details))
    return error


def ended_with(data: Json, where: str) -> Exception:
    """The error that a run ended with which has no result.

    Args:
        data: What the server says of the run.
        where: The run, for the message.
    """
    event = cast("Json | None", data["event"])
    told: Json = {} if event is None else event["value"]
    if data["status"] == "cancelled":
        return WorkflowCancelledError(f"{where} was cancelled: {told.get('reason', '')}", code="AF021")
    if data["status"] == "timed_out":
        active = ", ".join(told.get("active_steps", ())) or "nothing"
        return WorkflowTimeoutError(
            f"{where} did not end within {told.get('timeout')} s; still at work: {active}", code="AF011"
        )
    return error_of(data["error"] or {}, where)
