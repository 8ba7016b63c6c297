"""Supervision: directives as values, who is restarted, and when it is too often."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow.errors import WorkflowRuntimeError
from actorflow.retry import ConstantDelayRetryPolicy
from actorflow.supervision import (
    Directive,
    Escalate,
    Intensity,
    Restart,
    Resume,
    Supervise,
    affected,
    delay_before,
    directive_for,
)


class Gone(ConnectionError, LookupError):
    """Two bases, to see that the MRO decides."""


RESTART, RESUME, ESCALATE = Restart(intensity=9), Resume(), Escalate()


@pytest.mark.parametrize(
    ("error", "directive"),
    [
        (OSError(), RESTART),
        (ConnectionError(), RESTART),
        (ConnectionResetError(), RESUME),
        (Gone(), RESTART),
        (KeyError(), Resume("lost")),
        (ValueError(), ESCALATE),
        (KeyboardInterrupt(), ESCALATE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_most_specific_class_decides(error: BaseException, directive: Directive) -> None:
    """However the directives are ordered, the first class in the MRO that has one decides; none means escalate."""
    on: list[tuple[type[Exception], Directive]] = [
        (OSError, RESTART),
        (ConnectionResetError, RESUME),
        (LookupError, Resume("lost")),
    ]
    for order in (on, on[::-1]):
        assert directive_for(Supervise(on=dict(order)), error) == directive


def test_nothing_declared_escalates() -> None:
    """No supervision, or an empty one, escalates."""
    assert directive_for(None, ValueError()) == ESCALATE
    assert directive_for(Supervise(), ValueError()) == ESCALATE


def test_what_is_no_exception_escalates() -> None:
    """Not even a directive for every Exception holds on to a KeyboardInterrupt, alone or in a group."""
    supervise = Supervise(on={Exception: RESUME})
    assert directive_for(supervise, KeyboardInterrupt()) == ESCALATE
    assert directive_for(supervise, BaseExceptionGroup("", [ValueError(), KeyboardInterrupt()])) == ESCALATE


def test_a_group_is_judged_by_its_members() -> None:
    """A task group's error has the gravest directive of the errors in it, unless groups have one of their own."""
    supervise = Supervise(on={ValueError: RESUME, OSError: RESTART})
    values = ExceptionGroup("", [ValueError(), ExceptionGroup("", [UnicodeError()])])
    assert directive_for(supervise, values) == RESUME
    assert directive_for(supervise, ExceptionGroup("", [values, OSError()])) == RESTART
    assert directive_for(supervise, ExceptionGroup("", [OSError(), values, KeyError()])) == ESCALATE
    assert directive_for(Supervise(on={ValueError: ESCALATE, Exception: RESUME}), values) == ESCALATE
    own = Supervise(on={ExceptionGroup: RESTART, ValueError: RESUME})
    assert directive_for(own, values) == RESTART


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: Supervise(strategy=cast_any("one_for_some")),
            ValueError,
            "Supervise: strategy is 'one_for_some'; give one of 'one_for_one', 'one_for_all', 'rest_for_one'",
        ),
        (
            lambda: Supervise(on=cast_any([ValueError])),
            TypeError,
            "Supervise: on is [<class 'ValueError'>]; give a dict of exception classes and directives",
        ),
        (
            lambda: Supervise(on={cast_any(KeyboardInterrupt): RESUME}),
            TypeError,
            "Supervise: on has <class 'KeyboardInterrupt'> as a key; give subclasses of Exception",
        ),
        (
            lambda: Supervise(on={cast_any((OSError, KeyError)): RESUME}),
            TypeError,
            "Supervise: on has (<class 'OSError'>, <class 'KeyError'>) as a key; give subclasses of Exception",
        ),
        (
            lambda: Supervise(on={OSError: cast_any(Restart)}),
            TypeError,
            "Supervise: on has the class Restart for OSError; write Restart(...)",
        ),
        (
            lambda: Supervise(on={OSError: cast_any("resume")}),
            TypeError,
            "Supervise: on has 'resume' for OSError; give Restart(...), Resume() or Escalate()",
        ),
        (lambda: Supervise(intensity=-1), ValueError, "Supervise: intensity is -1; give a whole number, 0 or more"),
        (lambda: Restart(intensity=True), ValueError, "Restart: intensity is True; give a whole number, 0 or more"),
        (lambda: Supervise(period=0), ValueError, "Supervise: period is 0; give seconds, more than 0"),
        (lambda: Restart(period=float("inf")), ValueError, "Restart: period is inf; give seconds, more than 0"),
        (
            lambda: Restart(backoff=-1),
            ValueError,
            "Restart: backoff is -1; give seconds, 0 or more, or a retry policy",
        ),
        (
            lambda: Restart(backoff=cast_any(ConstantDelayRetryPolicy)),
            ValueError,
            (
                "Restart: backoff cannot be used: the class ConstantDelayRetryPolicy is given, not an object of it; "
                "write ConstantDelayRetryPolicy(...)"
            ),
        ),
        (lambda: Restart(backoff=cast_any(None)), ValueError, "Restart: backoff cannot be used: it is None; give 0"),
    ],
)
def test_mistakes_are_told_at_once(make: Any, kind: type[Exception], message: str) -> None:
    """What cannot be meant is refused where it is written."""
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        make()


def cast_any(value: Any) -> Any:
    return value


def test_directives_are_values() -> None:
    """They are equal by content, frozen, and can be copied and pickled; the dict that was given stays the caller's."""
    given: dict[type[Exception], Directive] = {OSError: Restart(backoff=2)}
    supervise = Supervise(strategy="rest_for_one", on=given)
    for twin in (copy.deepcopy(supervise), pickle.loads(pickle.dumps(supervise))):  # noqa: S301
        assert twin == supervise
    given.clear()
    assert directive_for(supervise, OSError()) == Restart(backoff=2)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        supervise.period = 1  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]
    assert Resume("a") != Resume("b")
    assert Resume("a") != Resume()


@given(st.integers(1, 20).flatmap(lambda count: st.tuples(st.just(count), st.integers(0, count - 1))))
def test_who_is_restarted(sizes: tuple[int, int]) -> None:
    """The one that failed is always among them; the rest are those after it; all are all."""
    count, failed = sizes
    assert list(affected("one_for_one", failed, count)) == [failed]
    assert list(affected("one_for_all", failed, count)) == list(range(count))
    assert list(affected("rest_for_one", failed, count)) == [k for k in range(count) if k >= failed]


def test_backoff() -> None:
    """A number is itself; a policy is asked with the window's figures, and its None escalates."""
    asked: list[tuple[float, int, Exception]] = []
    error = OSError()

    def policy(elapsed_time: float, attempts: int, error: Exception) -> float | None:
        asked.append((elapsed_time, attempts, error))
        return None if attempts > 1 else 3

    assert delay_before(Restart(backoff=2), 0.0, 1, error) == 2.0
    assert delay_before(Restart(backoff=policy), 0.0, 1, error) == 3.0
    assert delay_before(Restart(backoff=policy), 1.5, 2, error) is None
    assert asked == [(0.0, 1, error), (1.5, 2, error)]

    def wrong(elapsed_time: float, attempts: int, error: Exception) -> object:
        return "soon"

    with pytest.raises(WorkflowRuntimeError, match=r"gave 'soon' after failure 1 \(OSError\)"):
        delay_before(Restart(backoff=cast_any(wrong)), 0.0, 1, error)


# -- intensity


def test_a_storm_escalates_with_its_history() -> None:
    """The failure past the limit gets no restart, and the message tells of every failure in the window."""
    intensity = Intensity(limit=2, period=10)
    assert intensity.failed(0.0, OSError("one"))
    assert intensity.failed(1.0, ValueError("two\nlines"))
    assert not intensity.failed(2.5, OSError())
    assert intensity.elapsed == 2.5
    last = OSError()
    storm = intensity.exceeded("step Writer.publish of run r-1", last)
    assert (type(storm), storm.code, storm.__cause__) == (WorkflowRuntimeError, "AF060", last)
    assert str(storm) == f"{intensity.explain('step Writer.publish of run r-1')} [AF060]"
    assert intensity.explain("step Writer.publish of run r-1") == (
        "step Writer.publish of run r-1 failed 3 times within 10 s, and 2 restarts are allowed: "
        "at 0 s OSError: one; at 1 s ValueError: two lines; at 2.5 s OSError; "
        "look at these errors, or raise Supervise(intensity=…)"
    )


def test_no_restart_at_all() -> None:
    """A limit of 0 escalates at the first failure."""
    intensity = Intensity.of(Supervise(intensity=5), Restart(intensity=0))
    assert not intensity.failed(0.0, OSError("x"))
    assert intensity.explain("s").startswith(
        "s failed 1 time within 5 s, and 0 restarts are allowed: at 0 s OSError: x;"
    )


def test_the_window_ends_at_its_very_end() -> None:
    """A failure that is exactly one period old does not count any more."""
    for second, allowed in ((9.999, False), (10.0, True)):
        intensity = Intensity(limit=1, period=10)
        assert intensity.failed(0.0, OSError())
        assert intensity.failed(second, OSError()) is allowed


def test_a_directive_has_its_own_window() -> None:
    """What a Restart leaves open is what Supervise says."""
    supervise = Supervise(intensity=4, period=40)
    for restart, expected in (
        (Restart(), (4, 40)),
        (Restart(intensity=1), (1, 40)),
        (Restart(intensity=1, period=2), (1, 2)),
    ):
        intensity = Intensity.of(supervise, restart)
        assert (intensity.limit, intensity.period) == expected


def test_history_keeps_words_only() -> None:
    """Exceptions are not kept alive, long messages are cut, and one that cannot be printed is no failure of ours."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    intensity = Intensity(limit=9, period=10)
    intensity.failed(0.0, OSError("x" * 1_000))
    intensity.failed(0.0, Mute())
    long, mute = (failure.error for failure in intensity.failures)
    assert (len(long), long[:10], long[-1], mute) == (120, "OSError: x", "…", "Mute: (its message cannot be read)")


@given(
    st.integers(0, 4),
    st.integers(1, 10),
    st.lists(st.integers(0, 12), max_size=40),
)
def test_intensity_against_a_list(limit: int, period: int, gaps: list[int]) -> None:
    """The machine allows what a full list of the failures allows, and keeps no more than it needs."""
    intensity = Intensity(limit, period)
    now, times = 0, list[int]()
    for gap in gaps:
        now += gap
        times.append(now)
        recent = [time for time in times if now - time < period]
        assert intensity.failed(now, OSError()) is (len(recent) <= limit)
        assert len(intensity.failures) <= limit + 1
        assert [failure.time for failure in intensity.failures] == recent[-limit - 1 :]
