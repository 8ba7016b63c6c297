"""Every error of actorflow: one root, split by who must act; each message says what happened, where, and what to do.

Each raised error carries an id, ``AF0nn``, that docs/errors.md lists. Mistakes in an event's own fields stay the
builtins that Python users expect (`TypeError`, `AttributeError`).
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

__all__ = [
    "ActorflowError",
    "BackpressureDeadlock",
    "CircuitOpen",
    "ContextSerdeError",
    "ContextStateError",
    "Fenced",
    "InternalError",
    "NonDeterministicStep",
    "Problem",
    "RegistrationError",
    "ResourceError",
    "RunConflict",
    "StepTimeoutError",
    "StoreError",
    "StreamLagged",
    "WorkflowCancelledByUser",
    "WorkflowCancelledError",
    "WorkflowConfigurationError",
    "WorkflowRuntimeError",
    "WorkflowStalled",
    "WorkflowTimeoutError",
    "WorkflowValidationError",
]


class ActorflowError(Exception):
    """Root of every error that actorflow raises itself.

    Attributes:
        code: Id of the message (``AF0nn``), listed in docs/errors.md.

    Example:
        >>> try:
        ...     raise WorkflowRuntimeError("the run is over; start a new one", code="AF020")
        ... except ActorflowError as error:
        ...     print(error)
        the run is over; start a new one [AF020]
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code

    def __str__(self) -> str:
        return f"{super().__str__()} [{self.code}]"

    def __reduce__(self) -> tuple[object, ...]:
        # The keyword-only code would be lost by BaseException's own pickling.
        return (_rebuild, (type(self), self.args, self.__dict__))


def _rebuild(cls: type[ActorflowError], args: tuple[object, ...], state: dict[str, object]) -> ActorflowError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


@attrs.frozen(kw_only=True)
class Problem:
    """One thing that is wrong with a workflow's declaration.

    Attributes:
        code: Id of the rule that it breaks, ``AF1nn``.
        subject: What it is about: ``Writer.publish``, or ``Writer`` for the whole workflow.
        message: What is wrong, one sentence without the subject.
        hint: What to do about it, one sentence.
        location: ``file.py:12`` of the step or the class, "" where there is no source.
    """

    code: str
    subject: str
    message: str
    hint: str
    location: str = ""

    def __str__(self) -> str:
        where = f" ({self.location})" if self.location else ""
        return f"{self.code} {self.subject}{where}: {self.message}. {self.hint}"


class WorkflowValidationError(ActorflowError):
    """The author must act: the workflow cannot work as declared. Reports all problems at once.

    Attributes:
        problems: Every problem found, in the order of the declaration.
    """

    def __init__(self, workflow: str, problems: Sequence[Problem], *, code: str = "AF100") -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        super().__init__(f"workflow {workflow} has {count}:{lines}", code=code)

    def __str__(self) -> str:
        return Exception.__str__(self)  # each problem carries its own id


class WorkflowConfigurationError(WorkflowValidationError):
    """An option of a workflow or a step has a value it cannot have."""


class WorkflowRuntimeError(ActorflowError):
    """The caller or a step body must act: actorflow was used in a way that cannot work at run time."""


class WorkflowTimeoutError(ActorflowError, TimeoutError):
    """A run did not end within its `timeout`."""


class StepTimeoutError(ActorflowError, TimeoutError):
    """One execution of a step did not end within its `timeout`."""


class WorkflowCancelledError(ActorflowError):
    """The run was cancelled: by `cancel_run()`, with the task that awaited it, or with its runtime."""


WorkflowCancelledByUser = WorkflowCancelledError
"""Name of `WorkflowCancelledError` in LlamaIndex Workflows."""


class NonDeterministicStep(WorkflowRuntimeError):
    """A body that runs again, after a snapshot or a crash, does not do what it did the first time."""


class WorkflowStalled(WorkflowRuntimeError):
    """Nothing is running, queued, timed or waiting, and no event can enter from outside: the run can never end."""


class BackpressureDeadlock(WorkflowRuntimeError):
    """A cycle of full inboxes grew past its limit: the workflow makes more events than it consumes."""


class CircuitOpen(WorkflowRuntimeError):
    """A step was not called, because it has failed too often of late: its `Breaker` is open.

    Attributes:
        retry_after: Seconds until it is tried again; None while a trial goes on.
    """

    def __init__(self, message: str, retry_after: float | None = None, *, code: str = "AF266") -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class ContextStateError(WorkflowRuntimeError):
    """A context verb was used where it has no meaning, or the state was misused."""


class ResourceError(WorkflowRuntimeError):
    """A resource cannot be opened as it is declared, or ended while it was in use. What a factory raises stays itself."""


class StreamLagged(WorkflowRuntimeError):
    """A reader of a stream was too slow: its next step goes on behind the events that it missed.

    Attributes:
        missed: How many events it will never see.
    """

    def __init__(self, missed: int, *, code: str = "AF025") -> None:
        self.missed = missed
        super().__init__(
            f"the reader fell behind and missed {missed} events of the stream; go on iterating, and read faster",
            code=code,
        )


class RegistrationError(ActorflowError):
    """The author must act: a class cannot be named in data as it was registered, or its versions do not fit together."""


class ContextSerdeError(ActorflowError):
    """A context could not be made into data, or data not into a context."""


class StoreError(ActorflowError):
    """A store cannot do its work: nothing of what was asked counts as done. Register, claim and read again."""


class Fenced(StoreError):
    """Somebody else has what was acted on: the run was claimed by another host, or this host's lease ran out."""


class RunConflict(WorkflowRuntimeError):
    """A run of this id, or with this idempotency key, exists, and was started with something else."""


class InternalError(ActorflowError):
    """This is a bug in actorflow; please report it."""
