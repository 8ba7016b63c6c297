"""What stands between a runtime's events and the bodies that they are for: limits, rates and circuits, for all runs."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from actorflow._runtime.breaker import Circuit
from actorflow._runtime.limits import Limit, Limits
from actorflow._runtime.rate import Pace
from actorflow._runtime.router import Plan
from actorflow._runtime.timers import Timers
from actorflow._signature import StepSpec
from actorflow.errors import WorkflowRuntimeError
from actorflow.events import Event, describe
from actorflow.flow import Keyed

__all__ = ["Gates"]


class Gates:
    """The limits of a runtime, and the rates and circuits of the steps that have run in it.

    What belongs to a step belongs to its function: classes that inherit a step have it in common, and it goes with them.

    Args:
        totals: How many permits each limit has.
        timers: Whose clock counts.

    Attributes:
        limits: The limits.
    """

    def __init__(self, totals: Mapping[str, int], timers: Timers) -> None:
        self.limits = Limits(totals)
        self._timers = timers
        self._paces: weakref.WeakKeyDictionary[Any, Pace] = weakref.WeakKeyDictionary()
        self._shared: dict[str, Pace] = {}
        self._circuits: weakref.WeakKeyDictionary[Any, Circuit] = weakref.WeakKeyDictionary()

    def check(self, plan: Plan) -> None:
        """Refuses a workflow whose steps ask for what the runtime does not have.

        Raises:
            WorkflowRuntimeError: It has no limit of that name, or has another rate of that name.
        """
        for spec in plan.steps:
            limit, rate = spec.config.limit, spec.config.rate
            name = limit.name if isinstance(limit, Keyed) else limit
            if name is not None and name not in self.limits:
                known = ", ".join(map(repr, self.limits.names)) or "no limits"
                raise WorkflowRuntimeError(
                    f"{plan.name}.{spec.name} counts against the limit {name!r}, and this runtime has {known}; run it inside of "
                    f"`async with Runtime(limits={{{name!r}: …}})`",
                    code="AF073",
                )
            if rate is not None and rate.name is not None:
                shared = self._shared.get(rate.name)
                if shared is None:
                    self._shared[rate.name] = Pace(rate, self._now)
                elif shared.rate != rate:
                    raise WorkflowRuntimeError(
                        f"{plan.name}.{spec.name} has {rate}, and in this runtime that name belongs to {shared.rate}; "
                        "let the steps that share a rate say the same, or give it another name",
                        code="AF268",
                    )

    def _now(self) -> float:
        return self._timers.clock()  # the clock is known once the runtime is open

    def limit(self, declared: str | Keyed, event: Event, where: str) -> Limit:
        """The limit that an execution is to take a permit of, in the same breath.

        Raises:
            WorkflowRuntimeError: The event has no key.
        """
        if isinstance(declared, str):
            return self.limits.named(declared)
        try:
            return self.limits.keyed(declared.name, declared.key(event))
        except Exception as error:
            raise WorkflowRuntimeError(
                f"the key of limit=keyed({declared.name!r}, …) of {where} raised {error!r} on {describe(event)}; it must "
                "take each event that the step accepts, and give something hashable",
                code="AF265",
            ) from error

    def pace(self, spec: StepSpec) -> Pace:
        """The rate of a step that has one."""
        rate = spec.config.rate
        assert rate is not None  # noqa: S101
        if rate.name is not None:
            return self._shared[rate.name]
        pace = self._paces.get(spec.fn)
        if pace is None:
            pace = self._paces[spec.fn] = Pace(rate, self._now)
        return pace

    def circuit(self, spec: StepSpec) -> Circuit | None:
        """The circuit of a step, None for one without."""
        if spec.config.breaker is None:
            return None
        circuit = self._circuits.get(spec.fn)
        if circuit is None:
            circuit = self._circuits[spec.fn] = Circuit(spec.config.breaker, self._now)
        return circuit
