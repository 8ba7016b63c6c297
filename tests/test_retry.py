"""Retry policies: each form that `retry_policy=` takes gives the decision it promises, from the given data alone."""

from __future__ import annotations

import importlib
import math
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest
import tenacity
from hypothesis import example, given
from hypothesis import strategies as st

from actorflow.errors import WorkflowRuntimeError
from actorflow.retry import (
    ConstantDelayRetryPolicy,
    ExponentialBackoffRetryPolicy,
    RetryInfo,
    check_policy,
    decide,
    retry_policy,
)

OOPS = OSError("oops")
FAILURES = st.integers(1, 3_000)
SECONDS = st.floats(0, 1e6)


class Stubborn:
    """A user's own policy."""

    def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None:
        return attempts * 0.5 if elapsed_time < 60 and isinstance(error, OSError) else None


def by_hand(elapsed_time: float, attempts: int, error: Exception) -> float | None:
    return Stubborn().next(elapsed_time, attempts, error)


@pytest.mark.parametrize("policy", [Stubborn(), by_hand, Stubborn().next], ids=["object", "function", "method"])
def test_own_policies(policy: object) -> None:
    """An object with `next` and a plain function are asked with the same three facts."""
    assert decide(policy, 1.0, 3, OOPS) == 1.5
    assert decide(policy, 60.0, 3, OOPS) is None
    assert decide(policy, 1.0, 3, ValueError()) is None


def test_no_policy_gives_up() -> None:
    """None is a policy that never tries again."""
    assert decide(None, 0.0, 1, OOPS) is None
    assert check_policy(None) is None


@given(FAILURES, st.integers(1, 3_000), SECONDS)
def test_constant_delay(failures: int, maximum: int, delay: float) -> None:
    """The delay is the same until the last attempt has failed."""
    decision = decide(ConstantDelayRetryPolicy(maximum, delay), 0.0, failures, OOPS)
    assert decision == (delay if failures < maximum else None)


@given(FAILURES, SECONDS, st.floats(0, 100), SECONDS)
@example(3_000, 0.0, 2.0, 60.0)
@example(3_000, 1.0, 2.0, 60.0)
def test_exponential_backoff(failures: int, initial: float, multiplier: float, most: float) -> None:
    """The delay follows the formula, whatever its powers, and jitter stays between zero and it."""
    plain = ExponentialBackoffRetryPolicy(5_000, initial, multiplier, most, jitter=False)
    try:
        expected = min(initial * math.pow(multiplier, failures - 1), most)
    except OverflowError:
        expected = most if initial else 0.0
    assert decide(plain, 0.0, failures, OOPS) == pytest.approx(expected)
    jittered = decide(ExponentialBackoffRetryPolicy(5_000, initial, multiplier, most), 0.0, failures, OOPS)
    assert jittered is not None
    assert 0 <= jittered <= expected * (1 + 1e-9)


def test_exponential_backoff_gives_up() -> None:
    """The first attempt counts among the maximum."""
    policy = ExponentialBackoffRetryPolicy(maximum_attempts=2, jitter=False)
    assert [decide(policy, 0.0, failures, OOPS) for failures in (1, 2)] == [1.0, None]


@pytest.mark.parametrize(
    "policy",
    [ExponentialBackoffRetryPolicy(), retry_policy(wait=tenacity.wait_random(0, 9))],
    ids=["ours", "tenacity's"],
)
def test_jitter_comes_from_the_global_random(policy: object) -> None:
    """Seeding `random` decides the delay: that is how the simulator repeats one."""
    before = random.getstate()
    try:
        draws: list[float | None] = []
        for seed in (1, 1, 2):
            random.seed(seed)
            draws.append(decide(policy, 0.0, 1, OOPS))
    finally:
        random.setstate(before)
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ConstantDelayRetryPolicy(maximum_attempts=0),
            "ConstantDelayRetryPolicy: maximum_attempts is 0; give a finite number, 1 or more",
        ),
        (
            lambda: ExponentialBackoffRetryPolicy(max_delay=math.inf),
            "ExponentialBackoffRetryPolicy: max_delay is inf; give a finite number, 0 or more",
        ),
        (
            lambda: ExponentialBackoffRetryPolicy(multiplier=math.nan),
            "ExponentialBackoffRetryPolicy: multiplier is nan; give a finite number, 0 or more",
        ),
    ],
)
def test_impossible_numbers(make: Callable[[], object], message: str) -> None:
    """Our policies refuse numbers that make no delay, when they are made."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


# -- tenacity's objects


def test_defaults_of_retry_policy() -> None:
    """Without arguments: every exception, 5 seconds, 3 attempts."""
    assert [decide(retry_policy(), 0.0, failures, OOPS) for failures in (1, 2, 3)] == [5.0, 5.0, None]


@given(st.lists(SECONDS, min_size=1, max_size=8), SECONDS, st.booleans())
def test_stop_objects_follow_the_given_clock(times: list[float], limit: float, as_delta: bool) -> None:
    """stop_after_delay goes by the elapsed time that is given, and by no other clock."""
    delay = timedelta(seconds=limit) if as_delta else limit
    limit = delay.total_seconds() if isinstance(delay, timedelta) else delay
    policy = retry_policy(wait=tenacity.wait_fixed(2), stop=tenacity.stop_after_delay(delay))
    careful = retry_policy(wait=tenacity.wait_fixed(2), stop=tenacity.stop_before_delay(delay))
    for failures, elapsed in enumerate(sorted(times), 1):
        assert decide(policy, elapsed, failures, OOPS) == (None if elapsed >= limit else 2.0)
        assert decide(careful, elapsed, failures, OOPS) == (None if elapsed + 2.0 >= limit else 2.0)


def test_the_wall_clock_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same decision whatever the machine's clock says: tenacity may look at it, nothing comes of it."""
    policy = retry_policy(stop=tenacity.stop_after_delay(10))
    for now in (0.0, 1e9, -1e9):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        assert [decide(policy, elapsed, 1, OOPS) for elapsed in (9.9, 10.0)] == [5.0, None]


@given(st.integers(1, 60), st.floats(0.1, 10), st.floats(1.1, 4), st.floats(0.1, 1e4))
def test_wait_objects_count_failures_as_in_tenacity(failures: int, multiplier: float, base: float, most: float) -> None:
    """The n-th failure waits what tenacity waits after the n-th attempt."""
    policy = retry_policy(
        wait=tenacity.wait_exponential(multiplier=multiplier, exp_base=base, max=most), stop=tenacity.stop_never
    )
    assert decide(policy, 0.0, failures, OOPS) == pytest.approx(min(multiplier * base ** (failures - 1), most))


@pytest.mark.parametrize("kind", [tenacity.Retrying, tenacity.AsyncRetrying])
def test_retrying_objects(kind: type[Any]) -> None:
    """tenacity's own retrying objects are policies: their retry, wait, stop and enabled are used."""
    policy = kind(
        retry=tenacity.retry_if_exception_type(OSError),
        wait=tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(4)),
        stop=tenacity.stop_after_attempt(3),
    )
    assert check_policy(policy) is None
    assert [decide(policy, 0.0, failures, OOPS) for failures in (1, 2, 3)] == [1.0, 4.0, None]
    assert decide(policy, 0.0, 1, ValueError()) is None
    assert decide(kind(enabled=False), 0.0, 1, OOPS) is None
    assert decide(kind(), 0.0, 1, OOPS) == 0.0


def test_functions_of_a_call_state() -> None:
    """Plain functions may stand for tenacity's objects; they see the failure as tenacity would show it."""
    seen: list[tuple[Any, ...]] = []

    def look(state: tenacity.RetryCallState) -> bool:
        assert state.outcome is not None
        seen.append(
            (
                state.attempt_number,
                state.outcome.failed,
                state.outcome.exception(),
                state.outcome.attempt_number,
                state.seconds_since_start,
                state.idle_for,
                state.upcoming_sleep,
            )
        )
        return False

    policy = retry_policy(retry=lambda state: not look(state), wait=lambda _state: 7, stop=look)
    assert decide(policy, 12.5, 4, OOPS) == 7.0
    assert seen == [(4, True, OOPS, 4, 12.5, 12.5, 0.0), (4, True, OOPS, 4, 12.5, 12.5, 7)]


def test_conditions_combine() -> None:
    """tenacity's operators work: they are tenacity's objects."""
    policy = retry_policy(
        retry=tenacity.retry_if_exception_type(OSError) | tenacity.retry_if_exception_message(match="again"),
        wait=tenacity.wait_fixed(1) + tenacity.wait_fixed(2),
        stop=tenacity.stop_after_attempt(9) | tenacity.stop_after_delay(30),
    )
    assert decide(policy, 0.0, 8, ValueError("again please")) == 3.0
    assert decide(policy, 0.0, 8, ValueError("no")) is None
    assert decide(policy, 30.0, 1, OOPS) is None


def test_try_again() -> None:
    """tenacity.TryAgain is retried whatever the retry condition says, as in tenacity."""
    assert decide(retry_policy(retry=tenacity.retry_never), 0.0, 1, tenacity.TryAgain()) == 5.0


# -- mistakes


class Asynchronous:
    async def next(self, elapsed_time: float, attempts: int, error: Exception) -> float | None: ...


async def condition(state: tenacity.RetryCallState) -> bool:
    return True


def no_arguments() -> float:
    return 1.0


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (Stubborn, "the class Stubborn is given, not an object of it; write Stubborn(...)"),
        (5, "int has no next(elapsed_time, attempts, error) and is not a function; give one that has, or is"),
        (Asynchronous(), "Asynchronous is async, and a retry policy decides at once; make it a plain function"),
        (
            no_arguments,
            (
                "no_arguments cannot be called with (elapsed_time, attempts, error); "
                "tenacity's wait, stop and retry objects go into retry_policy(retry=..., wait=..., stop=...)"
            ),
        ),
        (
            tenacity.stop_after_attempt(3),
            (
                "stop_after_attempt cannot be called with (elapsed_time, attempts, error); "
                "tenacity's wait, stop and retry objects go into retry_policy(retry=..., wait=..., stop=...)"
            ),
        ),
        (
            tenacity.AsyncRetrying(retry=condition),
            "retry= is async, and a retry policy decides at once; make it a plain function",
        ),
        (
            tenacity.AsyncRetrying(wait=cast("Any", tenacity.wait_fixed)),
            "wait= is the class wait_fixed, not an object of it; write wait_fixed(...)",
        ),
        (
            tenacity.AsyncRetrying(stop=cast("Any", 3)),
            "stop= is 3; give one of tenacity's stop objects, or a function of a RetryCallState",
        ),
    ],
)
def test_what_cannot_be_a_policy(policy: object, sentence: str) -> None:
    """A declaration is told in one sentence why its policy cannot be one."""
    assert check_policy(policy) == sentence


@pytest.mark.parametrize("policy", [Stubborn(), by_hand, ConstantDelayRetryPolicy(), retry_policy(), max])
def test_what_can_be_a_policy(policy: object) -> None:
    """No objection to what works, nor to what has no signature to look at."""
    assert check_policy(policy) is None


def test_retry_policy_checks_its_parts() -> None:
    """retry_policy() refuses an async condition when it is made."""
    sentence = "retry_policy(): stop= is async, and a retry policy decides at once; make it a plain function"
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
        retry_policy(stop=cast("Any", condition))


@pytest.mark.parametrize("delay", [-1, math.nan, math.inf, -math.inf, True, "2", timedelta(seconds=1), 10**400])
def test_what_is_not_a_delay(delay: Any) -> None:
    """A policy that gives what is not a delay is named, with what it gave."""

    def giver(elapsed_time: float, attempts: int, error: Exception) -> Any:
        return delay

    message = (
        f"retry policy test_what_is_not_a_delay.<locals>.giver gave {delay!r} after failure 2 (OSError); "
        "make it return a finite number of seconds, zero or more, or None to give up [AF030]"
    )
    with pytest.raises(WorkflowRuntimeError) as caught:
        decide(giver, 0.0, 2, OOPS)
    assert str(caught.value) == message


def test_a_policy_that_raises() -> None:
    """What a policy raises is told apart from what the step raised, and kept as the cause."""

    def breaks(state: tenacity.RetryCallState) -> float:
        raise KeyError("delay")

    with pytest.raises(WorkflowRuntimeError) as caught:
        decide(retry_policy(wait=breaks), 0.0, 1, OOPS)
    assert str(caught.value) == (
        "retry policy retry_policy(...) raised KeyError: 'delay' after failure 1 (OSError); "
        "make it return seconds to wait, or None to give up [AF030]"
    )
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_async_policy_that_was_not_seen() -> None:
    """A coroutine is never taken for a yes, nor left unawaited."""

    def hidden(state: tenacity.RetryCallState) -> Any:
        return condition(state)

    def late(elapsed_time: float, attempts: int, error: Exception) -> Any:
        return condition(cast("Any", None))

    with pytest.raises(WorkflowRuntimeError, match="its retry condition is async; make it a plain function"):
        decide(retry_policy(retry=hidden), 0.0, 1, OOPS)
    with pytest.raises(WorkflowRuntimeError, match="gave <coroutine object condition"):
        decide(late, 0.0, 1, OOPS)


# -- names


def test_ported_names_are_tenacitys() -> None:
    """`actorflow.retry_policy` has our names, and all others are tenacity's own objects."""
    ours = {"ConstantDelayRetryPolicy", "ExponentialBackoffRetryPolicy", "RetryInfo", "RetryPolicy", "retry_policy"}
    # Not `from actorflow import retry_policy`: that may be the function.
    ported = importlib.import_module("actorflow.retry_policy")
    for name in ported.__all__:
        if name not in ours:
            assert getattr(ported, name) is getattr(tenacity, name)
    assert ported.retry_policy is retry_policy
    assert set(ported.__all__) <= set(dir(ported))
    with pytest.raises(AttributeError, match=r"^module 'actorflow\.retry_policy' has no attribute 'Retrying'$"):
        ported.__getattr__("Retrying")


def test_tenacity_is_imported_when_needed() -> None:
    """Importing the rooms, and deciding without tenacity's objects, leaves tenacity alone."""
    code = (
        "import sys, actorflow.retry_policy as r; from actorflow.retry import check_policy, decide\n"
        "p = r.ConstantDelayRetryPolicy(); check_policy(p); decide(p, 0.0, 1, OSError())\n"
        "assert 'tenacity' not in sys.modules; r.wait_fixed; assert 'tenacity' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)  # noqa: S603 - ours
    assert (done.returncode, done.stderr) == (0, "")


def test_retry_info() -> None:
    """Before any failure there is nothing to know."""
    assert RetryInfo() == RetryInfo(0, 0.0, None, None)
