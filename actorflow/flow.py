"""Flow control as values: what a step does with more events than it can take."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from operator import attrgetter
from typing import Any, Literal, TypeVar

import attrs

from actorflow.events import Event

__all__ = ["Breaker", "Conflate", "Keyed", "Overflow", "Rate", "conflate", "keyed"]

E = TypeVar("E", bound=Event)


@attrs.frozen
class Conflate:
    """An overflow policy: of the queued events with the same key only the newest is kept. Made by `conflate`.

    Attributes:
        key: Gives the key of an event.
    """

    key: Callable[[Any], Hashable]  # Any: the step's own events


Overflow = Literal["suspend", "fail", "drop_oldest", "drop_newest"] | Conflate
"""What becomes of an event that arrives at a full inbox: see `step`."""


def conflate(key: str | Callable[[E], Hashable]) -> Conflate:
    """Lets a newer event take the place of a queued one that has the same key; new keys wait for room.

    Args:
        key: Name of the field that is the key, or a function of the event.

    Example:
        >>> from actorflow import Event, StartEvent, StopEvent, Workflow, conflate, step
        >>> class Price(Event):
        ...     item: str
        ...     cents: int
        >>> class Shop(Workflow):
        ...     @step
        ...     async def begin(self, ev: StartEvent) -> list[Price]:
        ...         return [Price(item="bee", cents=cents) for cents in range(1000)]
        ...     @step(overflow=conflate("item"), num_workers=1)
        ...     async def show(self, ev: Price) -> StopEvent | None:
        ...         return StopEvent(result=ev.cents) if ev.cents == 999 else None
        >>> Shop().run_sync()
        999
    """
    return Conflate(attrgetter(key) if isinstance(key, str) else key)


@attrs.frozen
class Keyed:
    """A limit that counts the executions of each key by themselves. Made by `keyed`.

    Attributes:
        name: Name of a limit of the `Runtime`.
        key: Gives the key of an event.
    """

    name: str
    key: Callable[[Any], Hashable]  # Any: the step's own events


def keyed(name: str, key: str | Callable[[E], Hashable]) -> Keyed:
    """Lets a limit of the `Runtime` hold for each key by itself: so many executions per tenant, say, in all runs.

    Args:
        name: Name of the limit.
        key: Name of the field that is the key, or a function of the event.

    Example:
        >>> import anyio
        >>> from actorflow import Runtime, StartEvent, StopEvent, Workflow, keyed, step
        >>> class Bill(Workflow):
        ...     @step(limit=keyed("tenant", key="tenant"))
        ...     async def send(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result=f"sent to {ev.tenant}")
        >>> async def main() -> None:
        ...     async with Runtime(limits={"tenant": 3}) as rt:
        ...         print(await (await rt.start(Bill(), tenant="bees")))
        >>> anyio.run(main)
        sent to bees
    """
    return Keyed(name, attrgetter(key) if isinstance(key, str) else key)


def _check_count(instance: object, attribute: attrs.Attribute[int], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{type(instance).__name__}: {attribute.name} is {value!r}; give a whole number of at least 1")


def _check_seconds(instance: object, attribute: attrs.Attribute[float], value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError(f"{type(instance).__name__}: {attribute.name} is {value!r}; give seconds greater than 0")


@attrs.frozen
class Rate:
    """How many executions of a step may begin in a time, in all runs of a runtime.

    In no window of `per` seconds, wherever it is laid, do more than `count` of them begin. Each attempt counts.
    Executions that are too early wait in the order in which they came, and each holds a worker of its step meanwhile.

    Attributes:
        count: How many may begin.
        per: Length of the window in seconds.
        name: Steps whose rates have the same name share one; None for a rate of the step's own.

    Example:
        >>> from actorflow import Rate, StartEvent, StopEvent, Workflow, step
        >>> class Mailer(Workflow):
        ...     @step(rate=Rate(10, per=1.0))
        ...     async def send(self, ev: StartEvent) -> StopEvent:
        ...         return StopEvent(result="sent")
        >>> Mailer().run_sync()
        'sent'
    """

    count: int = attrs.field(validator=_check_count)
    per: float = attrs.field(default=1.0, kw_only=True, validator=_check_seconds)
    name: str | None = attrs.field(default=None, kw_only=True)


def _check_errors(instance: object, attribute: attrs.Attribute[Any], value: tuple[object, ...]) -> None:
    for kind in value:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise ValueError(  # noqa: TRY004 - all that these classes refuse is a ValueError
                f"{type(instance).__name__}: {attribute.name} names {kind!r}; give classes that derive from Exception"
            )


def _as_tuple(value: type[Exception] | tuple[type[Exception], ...]) -> tuple[type[Exception], ...]:
    return value if isinstance(value, tuple) else (value,)


@attrs.frozen
class Breaker:
    """When a step is left alone for a while, in all runs of a runtime, because it fails again and again.

    After `failures` failures in a row the circuit is *open*: executions fail at once with `CircuitOpen`. `reset` seconds
    later it is *half open*: one execution is let through. If it succeeds the circuit is *closed* again, if it fails the
    circuit is open for another `reset` seconds. A time-out of the step is a failure; an execution that is cancelled, or
    fails with another error than those of `on`, says nothing about the step: it counts as neither.

    Attributes:
        failures: How many failures in a row open the circuit.
        reset: Seconds until it is tried again.
        on: Classes of the errors that count.

    Example:
        >>> from actorflow import Breaker, CircuitOpen, ConstantDelayRetryPolicy, StartEvent, StopEvent, Workflow, step
        >>> class Caller(Workflow):
        ...     @step(breaker=Breaker(failures=2, reset=60), retry_policy=ConstantDelayRetryPolicy(delay=0))
        ...     async def call(self, ev: StartEvent) -> StopEvent:
        ...         print("called")
        ...         raise OSError("no answer")
        >>> try:
        ...     Caller().run_sync()
        ... except CircuitOpen:
        ...     print("left alone")
        called
        called
        left alone
    """

    failures: int = attrs.field(default=5, validator=_check_count)
    reset: float = attrs.field(default=30.0, validator=_check_seconds)
    on: tuple[type[Exception], ...] = attrs.field(default=(Exception,), converter=_as_tuple, validator=_check_errors)
