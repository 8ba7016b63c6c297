"""Flow control as values: what a step does with more events than it can take."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from operator import attrgetter
from typing import Any, Literal, TypeVar

import attrs

from actorflow.events import Event

__all__ = ["Conflate", "Overflow", "conflate"]

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
