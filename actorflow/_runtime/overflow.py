"""What an actor does with an event that finds its inbox full, where senders are not to be held back."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any

from actorflow._runtime.actor import Actor, Delivery
from actorflow._runtime.priority import PriorityActor
from actorflow._signature import StepSpec
from actorflow.errors import WorkflowRuntimeError
from actorflow.events import Event, describe
from actorflow.flow import Conflate

__all__ = ["ConflatingActor", "make_actor", "not_placed", "refusal", "resolve"]


class ConflatingActor(Actor):
    """An actor whose inbox keeps one event per key: the newest, in the place of the oldest.

    The queue holds cells, whose content is exchanged; a key leaves the table with its cell. Events that were parked when
    they came, because the inbox was full of other keys, are not conflated with each other.
    """

    __slots__ = ("_cells", "_key")

    def __init__(self, workflow: object, spec: StepSpec, index: int, policy: Conflate) -> None:
        super().__init__(workflow, spec, index)
        self._key = policy.key
        self._cells: dict[Hashable, list[Any]] = {}

    def key_of(self, item: Any) -> Hashable:
        """The key of an event."""
        return self._key(item.event if isinstance(item, Delivery) else item)

    def exchange(self, key: Hashable, item: Any) -> Any:
        """Puts an event into the place of the one with its key, which is returned; None where there is none."""
        cell = self._cells.get(key)
        if cell is None:
            return None
        before, cell[0] = cell[0], item
        return before

    def push(self, item: Any) -> None:
        """Puts an event in, into a cell of its own."""
        cell = [item]
        self._cells[self.key_of(item)] = cell
        super().push(cell)

    def pop(self) -> Any:
        """Takes the content of the oldest cell."""
        cell = self.take()
        item = cell[0]
        key = self.key_of(item)
        if self._cells.get(key) is cell:
            del self._cells[key]
        if self.lanes:
            self.admit()
        return item

    def content(self, item: Any) -> Any:
        """What a cell holds; what waits in a lane has none yet."""
        cell: list[Any] = item
        return cell[0] if isinstance(item, list) else item

    def take_out(self, wanted: Callable[[Any], bool]) -> list[Any]:
        """Takes out events, and their keys with them."""
        taken = super().take_out(wanted)
        for item in taken:
            cell = self._cells.get(self.key_of(item))
            if cell is not None and cell[0] is item:
                del self._cells[self.key_of(item)]
        return taken

    def close(self) -> Iterator[Any]:
        """Ends the queue and yields what its cells, and its lanes, still hold."""
        for item in super().close():
            yield item[0] if isinstance(item, list) else item


def make_actor(workflow: object, spec: StepSpec, index: int) -> Actor:
    """The actor of a step, with the inbox that its overflow policy or its priority wants."""
    policy = spec.config.overflow
    if isinstance(policy, Conflate):
        return ConflatingActor(workflow, spec, index, policy)
    if spec.config.priority is not None:
        return PriorityActor(workflow, spec, index, spec.config.priority)
    return Actor(workflow, spec, index)


def resolve(target: Actor, item: Any, where: str) -> tuple[bool, Any, str]:
    """Applies the policy of `target` to an event that arrives.

    Returns:
        Whether the event is dealt with (else it goes into the inbox, or waits for room); the item that is dropped, or
        None; and the reason.

    Raises:
        Exception: What the user's function raises that gives an event its key, or its place.
    """
    policy = target.overflow
    if isinstance(target, PriorityActor):
        target.rank_of(item.event if isinstance(item, Delivery) else item)
    if isinstance(target, ConflatingActor):
        before = target.exchange(target.key_of(item), item)
        return before is not None, before, f"replaced by a newer event with the same key in the inbox of {where}"
    if target.n < target.capacity or policy in {"suspend", "fail"}:
        return False, None, ""
    if policy == "drop_newest":
        return True, item, f"dropped: the inbox of {where} is full, and its overflow is 'drop_newest'"
    oldest = target.pop()
    target.push(item)
    return True, oldest, f"dropped: the inbox of {where} was full, and its overflow is 'drop_oldest'"


def not_placed(target: Actor, where: str, event: Event, error: Exception) -> WorkflowRuntimeError:
    """What the sender is told of an event whose place in the inbox cannot be told because of `error`."""
    if isinstance(target, PriorityActor):
        return WorkflowRuntimeError(
            f"the priority of {where} raised {error!r} on {describe(event)}; it must take each event that the step "
            "accepts, and give a number",
            code="AF267",
        )
    return WorkflowRuntimeError(
        f"the key of overflow=conflate(…) of {where} raised {error!r} on {describe(event)}; it must take each event "
        "that the step accepts, and give something hashable",
        code="AF076",
    )


def refusal(target: Actor, where: str, event: Event) -> str:
    """The message to the sender of an event that a full inbox refuses."""
    return (
        f"the inbox of {where} is full ({target.n} events), and it has overflow='fail': it did not take {describe(event)}; "
        "send less, raise @step(inbox=…), or let it suspend its senders"
    )
