"""Retry policies as plain decisions: given what is known of the failures, after how many seconds to try again, or not.

tenacity's retry, wait and stop objects are asked without its loop and without its clock, so that they follow the
runtime's time, virtual in tests. tenacity is imported when the first of its objects is asked.
"""

from __future__ import annotations

import inspect
import math
import random
import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import attrs

from actorflow.errors import WorkflowRuntimeError

if TYPE_CHECKING:
    from tenacity import BaseRetrying
    from tenacity.retry import RetryBaseT
    from tenacity.stop import StopBaseT
    from tenacity.wait import WaitBaseT

__all__ = [
    "ConstantDelayRetryPolicy",
    "ExponentialBackoffRetryPolicy",
    "RetryInfo",
    "RetryPolicy",
    "check_policy",
    "decide",
    "retry_policy",
]


@attrs.frozen
class RetryInfo:
    """What is known of earlier attempts at an execution.

    Attributes:
        retry_number: 0 in the first attempt, 1 in the first retry.
        elapsed_seconds: Seconds since the first attempt began.
        last_exception: What the attempt before this one raised; None in the first.
        last_failed_at: When it did, in UTC; None in the first.

    Example:
        >>> RetryInfo()
        RetryInfo(retry_number=0, elapsed_seconds=0.0, last_exception=None, last_failed_at=None)
    """

    retry_number: int = 0
    elapsed_seconds: float = 0.0
    last_exception: BaseException | None = None
    last_failed_at: datetime | None = None


class RetryPolicy(Protocol):
    """Decides whether a failed step is tried again: what ``retry_policy=`` takes.

    Besides, it takes a function with the parameters of `next`, and tenacity's ``Retrying`` and ``AsyncRetrying``, of
    which ``retry``, ``wait``, ``stop`` and ``enabled`` are used.


    Example:
        >>> class Stubborn:
        ...     def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
        ...         return 0.5 if attempts < 10 else None
        >>> decide(Stubborn(), elapsed=2.0, failures=4, error=OSError())
        0.5
    """

    def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
        """Decides after a failure.

        Args:
            elapsed_time: Seconds since the first failure.
            attempts: Failures so far, from 1.
            error: What the last attempt raised.

        Returns:
            Seconds to wait before the next attempt; None to give up.
        """
        ...


N = TypeVar("N", int, float)


def _from(least: N) -> Callable[[object, attrs.Attribute[N], N], None]:
    def check(instance: object, attribute: attrs.Attribute[N], value: N) -> None:
        if not least <= value < math.inf:
            raise ValueError(
                f"{type(instance).__name__}: {attribute.name} is {value!r}; give a finite number, {least:g} or more"
            )

    return check


@attrs.frozen
class ConstantDelayRetryPolicy:
    """Tries again after the same delay each time.

    Attributes:
        maximum_attempts: Attempts in all, the first one included.
        delay: Seconds between attempts.

    Example:
        >>> policy = ConstantDelayRetryPolicy(maximum_attempts=2, delay=5)
        >>> policy.next(0.0, 1, OSError()), policy.next(5.0, 2, OSError())
        (5, None)
    """

    maximum_attempts: int = attrs.field(default=3, validator=_from(1))
    delay: float = attrs.field(default=5.0, validator=_from(0.0))

    def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
        """Gives the delay until `maximum_attempts` have failed, as `RetryPolicy.next` says."""
        return self.delay if attempts < self.maximum_attempts else None


@attrs.frozen
class ExponentialBackoffRetryPolicy:
    """Tries again after delays that grow by a factor, up to a limit.

    The n-th retry waits ``min(initial_delay * multiplier ** (n - 1), max_delay)`` seconds; with `jitter`, a random time
    between zero and that, drawn from the global `random`.

    Attributes:
        maximum_attempts: Attempts in all, the first one included.
        initial_delay: Seconds before the first retry.
        multiplier: What each delay is multiplied by for the next one.
        max_delay: Seconds that no delay exceeds.
        jitter: Whether delays are drawn at random, so that many failing steps do not come back together.

    Example:
        >>> policy = ExponentialBackoffRetryPolicy(maximum_attempts=9, max_delay=6, jitter=False)
        >>> [policy.next(0.0, failures, OSError()) for failures in (1, 2, 3, 4)]
        [1.0, 2.0, 4.0, 6]
    """

    maximum_attempts: int = attrs.field(default=5, validator=_from(1))
    initial_delay: float = attrs.field(default=1.0, validator=_from(0.0))
    multiplier: float = attrs.field(default=2.0, validator=_from(0.0))
    max_delay: float = attrs.field(default=60.0, validator=_from(0.0))
    jitter: bool = True

    def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
        """Gives the growing delay until `maximum_attempts` have failed, as `RetryPolicy.next` says."""
        if attempts >= self.maximum_attempts:
            return None
        try:
            delay = min(self.initial_delay * self.multiplier ** (attempts - 1), self.max_delay)
        except OverflowError:
            delay = self.max_delay if self.initial_delay else 0.0
        # Not a secret: the simulator seeds this very generator.
        return random.uniform(0.0, delay) if self.jitter else delay  # noqa: S311


@attrs.frozen
class _Tenacity:
    """tenacity's objects as a `RetryPolicy`."""

    retrying: BaseRetrying

    def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
        return _ask(self.retrying, elapsed_time, attempts, error)


def retry_policy(
    retry: RetryBaseT | None = None, wait: WaitBaseT | None = None, stop: StopBaseT | None = None
) -> RetryPolicy:
    """Makes a policy of tenacity's objects, or of functions that take a ``tenacity.RetryCallState`` in their place.

    Args:
        retry: Which exceptions are worth another attempt. Default: every `Exception`.
        wait: How long to wait before it. Default: 5 seconds.
        stop: When to give up. Default: after 3 attempts.

    Raises:
        TypeError: One of them is not a function, or is an async one.

    Example:
        >>> from tenacity import retry_if_exception_type, stop_after_delay, wait_fixed
        >>> policy = retry_policy(retry_if_exception_type(OSError), wait_fixed(2), stop_after_delay(60))
        >>> policy.next(10.0, 4, OSError()), policy.next(60.0, 5, OSError()), policy.next(0.0, 1, ValueError())
        (2.0, None, None)
    """
    import tenacity  # noqa: PLC0415 (imported when first needed)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type() if retry is None else retry,
        wait=tenacity.wait_fixed(5) if wait is None else wait,
        stop=tenacity.stop_after_attempt(3) if stop is None else stop,
    )
    if problem := _check_tenacity(retrying):
        raise TypeError(f"retry_policy(): {problem}")
    return _Tenacity(retrying)


def check_policy(value: object) -> str | None:
    """Says why `value` cannot be a retry policy.

    Args:
        value: What was given as ``retry_policy=``; None is none.

    Returns:
        One sentence, without its full stop; None if there is nothing to say.

    Example:
        >>> check_policy(ConstantDelayRetryPolicy)
        'the class ConstantDelayRetryPolicy is given, not an object of it; write ConstantDelayRetryPolicy(...)'
    """
    if value is None:
        return None
    if isinstance(value, type):
        return f"the class {value.__name__} is given, not an object of it; write {value.__name__}(...)"
    if _is_retrying(value):
        return _check_tenacity(value)
    decision = getattr(value, "next", value)
    name = _name(value)
    if not callable(decision):
        return f"{name} has no next(elapsed_time, attempts, error) and is not a function; give one that has, or is"
    if _is_async(decision):
        return f"{name} is async, and a retry policy decides at once; make it a plain function"
    try:
        inspect.signature(decision).bind(0.0, 1, Exception())
    except TypeError:
        return (
            f"{name} cannot be called with (elapsed_time, attempts, error); "
            "tenacity's wait, stop and retry objects go into retry_policy(retry=..., wait=..., stop=...)"
        )
    except ValueError:  # a builtin without a signature: it is tried when it is needed
        return None
    return None


def decide(policy: object, elapsed: float, failures: int, error: Exception) -> float | None:
    """Asks a policy what to do after a failure.

    A pure function, but for what the policy itself does and for random delays, which come from the global `random`.

    Args:
        policy: Anything that `check_policy` has no objection to; None gives up.
        elapsed: Seconds since the first failure, on the runtime's clock; tenacity's stop objects count from it too.
        failures: Failures so far, from 1.
        error: What the last attempt raised.

    Returns:
        Seconds to wait before the next attempt; None to give up.

    Raises:
        WorkflowRuntimeError: The policy raised an exception, or gave what is not a delay.

    Example:
        >>> decide(lambda elapsed_time, attempts, error: attempts / 10, elapsed=0.0, failures=3, error=OSError())
        0.3
    """
    if policy is None:
        return None
    try:
        if _is_retrying(policy):
            delay: object = _ask(policy, elapsed, failures, error)
        else:
            delay = cast("Callable[..., object]", getattr(policy, "next", policy))(elapsed, failures, error)
    except Exception as problem:
        raise WorkflowRuntimeError(
            f"retry policy {_name(policy)} raised {type(problem).__name__}: {problem} "
            f"after failure {failures} ({type(error).__name__}); make it return seconds to wait, or None to give up",
            code="AF030",
        ) from problem
    if delay is None:
        return None
    if isinstance(delay, int | float) and not isinstance(delay, bool) and 0 <= delay <= sys.float_info.max:
        return float(delay)
    if inspect.iscoroutine(delay):
        delay.close()
    raise WorkflowRuntimeError(
        f"retry policy {_name(policy)} gave {delay!r} after failure {failures} ({type(error).__name__}); "
        "make it return a finite number of seconds, zero or more, or None to give up",
        code="AF030",
    )


if TYPE_CHECKING:
    from typing_extensions import TypeIs

    def _is_retrying(value: object) -> TypeIs[BaseRetrying]: ...
else:

    def _is_retrying(value):
        # Who has an object of tenacity's has imported tenacity.
        tenacity = sys.modules.get("tenacity")
        return tenacity is not None and isinstance(value, tenacity.BaseRetrying)


def _ask(retrying: BaseRetrying, elapsed: float, failures: int, error: Exception) -> float | None:
    """What tenacity's own loop would do after this failure, by our clock."""
    import tenacity  # noqa: PLC0415 (imported when first needed)

    if not retrying.enabled:
        return None
    state = tenacity.RetryCallState(retrying, None, (), {})
    state.attempt_number = failures
    state.outcome = tenacity.Future.construct(failures, error, has_exception=True)
    state.start_time, state.outcome_timestamp = 0.0, elapsed
    # What part of it was spent waiting is not known here; all of it is the careful answer to a stop that sums up waits.
    state.idle_for = elapsed
    if not isinstance(error, tenacity.TryAgain) and not _plain(retrying.retry(state), "retry"):
        return None
    state.upcoming_sleep = retrying.wait(state)
    return None if _plain(retrying.stop(state), "stop") else state.upcoming_sleep


def _plain(answer: object, role: str) -> object:
    """Refuses a coroutine, which is true whatever it would have returned."""
    if inspect.iscoroutine(answer):
        answer.close()
        raise TypeError(f"its {role} condition is async; make it a plain function")
    return answer


def _check_tenacity(retrying: BaseRetrying) -> str | None:
    for role in ("retry", "wait", "stop"):
        part: object = getattr(retrying, role)
        if isinstance(part, type):
            return f"{role}= is the class {part.__name__}, not an object of it; write {part.__name__}(...)"
        if not callable(part):
            return f"{role}= is {part!r}; give one of tenacity's {role} objects, or a function of a RetryCallState"
        if _is_async(part):
            return f"{role}= is async, and a retry policy decides at once; make it a plain function"
    return None


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _name(policy: object) -> str:
    if isinstance(policy, _Tenacity):
        return "retry_policy(...)"
    name: object = getattr(policy, "__qualname__", None)
    return name if isinstance(name, str) else type(policy).__name__
