"""Supervise: what becomes of an actor whose step failed for good, as values and pure decisions.

Retrying answers "this event failed", supervision answers "this actor is bad": it is asked once the retry policy has
given up. Restarts are counted over a window of time, because an actor that fails again and again is not helped by one
more restart.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, cast, get_args

import attrs

from actorflow.errors import WorkflowRuntimeError
from actorflow.retry import RetryPolicy, check_policy, decide

__all__ = [
    "Backoff",
    "Directive",
    "Escalate",
    "Failure",
    "Intensity",
    "Restart",
    "Resume",
    "Strategy",
    "Supervise",
    "affected",
    "delay_before",
    "directive_for",
]

Strategy: TypeAlias = Literal["one_for_one", "one_for_all", "rest_for_one"]
"""Which actors are restarted along with the one that failed."""

Backoff: TypeAlias = float | RetryPolicy | Callable[[float, int, Exception], float | None]
"""Seconds before a restart, or a retry policy that gives them."""


_MAPPING: Any = Mapping  # for the checkers: isinstance() with it leaves an Any what it is


def _check_intensity(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ValueError(f"{type(instance).__name__}: {attribute.name} is {value!r}; give a whole number, 0 or more")


def _check_period(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if value is not None and not (isinstance(value, int | float) and 0 < value < math.inf):
        raise ValueError(f"{type(instance).__name__}: {attribute.name} is {value!r}; give seconds, more than 0")


def _check_backoff(instance: object, attribute: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, int | float):
        if isinstance(value, bool) or not 0 <= value < math.inf:
            raise ValueError(f"Restart: backoff is {value!r}; give seconds, 0 or more, or a retry policy")
        return
    objection = "it is None; give 0" if value is None else check_policy(value)
    if objection is not None:
        raise ValueError(f"Restart: backoff cannot be used: {objection}")


@attrs.frozen(kw_only=True)
class Restart:
    """Closes what the actor holds, opens it anew, and gives the actor the event again.

    Attributes:
        intensity: Restarts that are allowed within the period; None for what `Supervise` says.
        period: Seconds that the window is long; None for what `Supervise` says.
        backoff: Seconds before the restart, or a retry policy that gives them and escalates with None. The policy is
            told the seconds since the first failure of the window and the number of failures in it.

    Example:
        >>> Restart(intensity=5, period=60).backoff
        0.0
    """

    intensity: int | None = attrs.field(default=None, validator=_check_intensity)
    period: float | None = attrs.field(default=None, validator=_check_period)
    backoff: Backoff = attrs.field(default=0.0, validator=_check_backoff)


@attrs.frozen
class Resume:
    """Puts the event to the dead letters and lets the actor go on as it is.

    Attributes:
        reason: What the dead letter says; None for the error.

    Example:
        >>> directive_for(Supervise(on={KeyError: Resume("unknown customer")}), KeyError(7))
        Resume(reason='unknown customer')
    """

    reason: str | None = None


@attrs.frozen
class Escalate:
    """Fails the run with the error: what is done about every exception that `Supervise` says nothing of.

    Example:
        >>> directive_for(Supervise(), OSError())
        Escalate()
    """


Directive: TypeAlias = Restart | Resume | Escalate
"""What to do about a failure."""


def _as_dict(value: Any) -> Any:
    # A copy: the caller's may change.
    return dict(value) if isinstance(value, _MAPPING) else value


def _check_strategy(_instance: object, _attribute: attrs.Attribute[Any], value: object) -> None:
    known = get_args(Strategy)
    if value not in known:
        raise ValueError(f"Supervise: strategy is {value!r}; give one of {', '.join(map(repr, known))}")


def _check_on(_instance: object, _attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, _MAPPING):
        raise TypeError(f"Supervise: on is {value!r}; give a dict of exception classes and directives")
    for kind, directive in value.items():
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            raise TypeError(f"Supervise: on has {kind!r} as a key; give subclasses of Exception")
        if isinstance(directive, type) and issubclass(directive, Restart | Resume | Escalate):
            name = directive.__name__
            raise TypeError(f"Supervise: on has the class {name} for {kind.__name__}; write {name}(...)")
        if not isinstance(directive, Restart | Resume | Escalate):
            raise TypeError(
                f"Supervise: on has {directive!r} for {kind.__name__}; give Restart(...), Resume() or Escalate()"
            )


@attrs.frozen(kw_only=True)
class Supervise:
    """What becomes of actors whose steps fail for good, by the type of the exception.

    Attributes:
        strategy: Whom a restart restarts: ``one_for_one`` the actor that failed, ``one_for_all`` all actors of the run,
            ``rest_for_one`` the actor that failed and those declared after it.
        on: Directives by exception class; the most specific class decides, as in a chain of ``except`` clauses in the
            right order. What none of them covers is escalated.
        intensity: Restarts that one actor may have within the period; the next failure is escalated.
        period: Seconds that this window is long.

    Example:
        >>> supervise = Supervise(on={OSError: Restart(), Exception: Resume()}, intensity=2, period=10)
        >>> directive_for(supervise, ConnectionError()), directive_for(supervise, ValueError())
        (Restart(intensity=None, period=None, backoff=0.0), Resume(reason=None))
    """

    strategy: Strategy = attrs.field(default="one_for_one", validator=_check_strategy)
    on: Mapping[type[Exception], Directive] = attrs.field(
        factory=dict[type[Exception], Directive], converter=_as_dict, validator=_check_on
    )
    intensity: int = attrs.field(default=3, validator=[attrs.validators.instance_of(int), _check_intensity])
    period: float = attrs.field(default=5.0, validator=[attrs.validators.instance_of((int, float)), _check_period])


_ESCALATE = Escalate()


def directive_for(supervise: Supervise | None, error: BaseException) -> Directive:
    """Says what to do about an error: the directive of the first class in its MRO that has one.

    An exception group whose own class has no directive is judged by the exceptions in it, at any depth, and the gravest
    directive of theirs counts: `Escalate` before `Restart` before `Resume`. A directive for `Exception` covers them one
    by one. What is no `Exception`, such as `KeyboardInterrupt`, is always escalated.

    Args:
        supervise: What the workflow declares; None for nothing.
        error: What the last attempt raised.

    Example:
        >>> supervise = Supervise(on={ValueError: Resume(), OSError: Restart()})
        >>> type(directive_for(supervise, ExceptionGroup("two", [ValueError(), OSError()])))
        <class 'actorflow.supervision.Restart'>
    """
    if supervise is None or not isinstance(error, Exception):
        return _ESCALATE
    inner = _members(error)
    if inner and not any(issubclass(kind, BaseExceptionGroup) and isinstance(error, kind) for kind in supervise.on):
        return min((directive_for(supervise, one) for one in inner), key=_gravity)
    for kind in type(error).__mro__:
        if (directive := supervise.on.get(kind)) is not None:
            return directive
    return _ESCALATE


def _members(error: Exception) -> tuple[Exception, ...]:
    return cast("ExceptionGroup[Exception]", error).exceptions if isinstance(error, ExceptionGroup) else ()


def _gravity(directive: Directive) -> int:
    return 0 if isinstance(directive, Escalate) else 1 if isinstance(directive, Restart) else 2


def affected(strategy: Strategy, failed: int, count: int) -> range:
    """Which actors a restart restarts, as indices in the order of declaration.

    Args:
        strategy: Of the `Supervise`.
        failed: Index of the step whose actor failed.
        count: Number of the steps.

    Example:
        >>> [list(affected(strategy, 1, 3)) for strategy in ("one_for_one", "one_for_all", "rest_for_one")]
        [[1], [0, 1, 2], [1, 2]]
    """
    if strategy == "one_for_all":
        return range(count)
    return range(failed, count) if strategy == "rest_for_one" else range(failed, failed + 1)


def delay_before(restart: Restart, elapsed: float, failures: int, error: Exception) -> float | None:
    """Seconds to wait before a restart; None to escalate instead.

    Args:
        restart: The directive.
        elapsed: Seconds since the first failure of the window.
        failures: Failures in the window, this one included.
        error: This one.

    Raises:
        WorkflowRuntimeError: The policy given as `backoff` raised an exception, or gave what is not a delay.

    Example:
        >>> from actorflow.retry import ExponentialBackoffRetryPolicy
        >>> backoff = ExponentialBackoffRetryPolicy(jitter=False)
        >>> delay_before(Restart(backoff=backoff), elapsed=3.0, failures=2, error=OSError())
        2.0
    """
    backoff = restart.backoff
    if isinstance(backoff, int | float):
        return float(backoff)
    return decide(backoff, elapsed, failures, error)


@attrs.frozen
class Failure:
    """One failure in a window.

    Attributes:
        time: When it was, in seconds on the runtime's clock.
        error: What it was, in words: the exception itself would keep its frames alive.

    Example:
        >>> str(Failure(2.5, "OSError: gone"))
        'at 2.5 s OSError: gone'
    """

    time: float
    error: str

    def __str__(self) -> str:
        return f"at {self.time:g} s {self.error}"


class Intensity:
    """Counts the failures of one actor over a window of time that ends now.

    Not shared by actors: under ``one_for_all`` the counter of the one that failed counts.

    Args:
        limit: Restarts that are allowed within the period.
        period: Seconds that the window is long; a failure that is just so old has left it.

    Attributes:
        failures: The failures in the window as of the last one, oldest first.

    Example:
        >>> intensity = Intensity(limit=1, period=10)
        >>> intensity.failed(0.0, OSError("gone")), intensity.failed(9.9, OSError("gone again"))
        (True, False)
        >>> intensity.explain("step Writer.publish").split(":")[0]
        'step Writer.publish failed 2 times within 10 s, and 1 restart is allowed'
    """

    __slots__ = ("failures", "limit", "period")

    def __init__(self, limit: int, period: float) -> None:
        self.limit: int = limit
        self.period: float = period
        self.failures: deque[Failure] = deque(maxlen=limit + 1)

    @classmethod
    def of(cls, supervise: Supervise, restart: Restart) -> Intensity:
        """The counter for a directive, with what it leaves open taken from `supervise`."""
        return cls(
            supervise.intensity if restart.intensity is None else restart.intensity,
            supervise.period if restart.period is None else restart.period,
        )

    def failed(self, now: float, error: BaseException) -> bool:
        """Counts a failure; whether a restart is still allowed.

        Args:
            now: The time, never before that of the failure before.
            error: What was raised.
        """
        failures = self.failures
        while failures and now - failures[0].time >= self.period:
            failures.popleft()
        failures.append(Failure(now, _in_words(error)))
        return len(failures) <= self.limit

    @property
    def elapsed(self) -> float:
        """Seconds from the first failure in the window to the last one."""
        return self.failures[-1].time - self.failures[0].time if self.failures else 0.0

    def exceeded(self, subject: str, error: BaseException) -> WorkflowRuntimeError:
        """The error to escalate with, once `failed` has said no; its cause is the last failure.

        Args:
            subject: Who failed.
            error: What was raised last.
        """
        storm = WorkflowRuntimeError(self.explain(subject), code="AF060")
        storm.__cause__ = error
        return storm

    def explain(self, subject: str) -> str:
        """Says why there is no further restart, with the failures of the window.

        Args:
            subject: Who failed.
        """
        count = len(self.failures)
        allowed = "1 restart is" if self.limit == 1 else f"{self.limit} restarts are"
        return (
            f"{subject} failed {count} time{'' if count == 1 else 's'} within {self.period:g} s, and {allowed} allowed: "
            f"{'; '.join(map(str, self.failures))}; look at these errors, or raise Supervise(intensity=…)"
        )


def _in_words(error: BaseException, limit: int = 120) -> str:
    """Type and message of an exception, on one line."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 - somebody's __str__ is not worth losing the history for
        text = "(its message cannot be read)"
    words = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return words if len(words) <= limit else f"{words[: limit - 1]}…"
