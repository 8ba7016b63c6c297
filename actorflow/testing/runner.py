"""`WorkflowTestRunner`, as users of LlamaIndex Workflows know it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from actorflow.context import Context
from actorflow.events import Event
from actorflow.workflow import Workflow

__all__ = ["WorkflowTestResult", "WorkflowTestRunner"]


@attrs.frozen(kw_only=True)
class WorkflowTestResult:
    """What a test run gave.

    Attributes:
        collected: The events of the run's stream, the last one included.
        event_types: How many of them there are of each class.
        result: The result of the run.
        ctx: The run's context.
    """

    collected: list[Event]
    event_types: Mapping[type[Event], int]
    result: Any  # whatever the workflow gives
    ctx: Context[Any]


class WorkflowTestRunner:
    """Runs a workflow to its end and collects what it publishes.

    Args:
        workflow: The workflow.

    Example:
        >>> from actorflow import Context, Event, StartEvent, StopEvent, Workflow, step
        >>> class Progress(Event):
        ...     done: int
        >>> class Job(Workflow):
        ...     @step
        ...     async def work(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ...         ctx.write_event_to_stream(Progress(done=1))
        ...         return StopEvent(result="ok")
        >>> async def main() -> None:
        ...     outcome = await WorkflowTestRunner(Job()).run()
        ...     print(outcome.result, outcome.event_types[Progress])
        >>> from actorflow.testing import simulate
        >>> simulate(main).result
        ok 1
    """

    def __init__(self, workflow: Workflow[Any, Any]) -> None:
        self._workflow: Any = workflow

    async def run(
        self,
        start_event: Event | None = None,
        ctx: Context[Any] | None = None,
        expose_internal: bool = True,
        exclude_events: Sequence[type[Event]] | None = None,
    ) -> WorkflowTestResult:
        """Runs to the end.

        Args:
            start_event: The start event; None to make one without fields.
            ctx: A context to go on with.
            expose_internal: Accepted as in LlamaIndex Workflows; runs publish no internal events yet.
            exclude_events: Classes that are not to be collected, exactly these.

        Raises:
            Exception: What the run ended with instead of a result.
        """
        run = self._workflow.run(start_event=start_event, ctx=ctx)
        excluded = set(exclude_events or ())
        collected: list[Event] = [event async for event in run.stream_events() if type(event) not in excluded]
        result = await run
        counts: Counter[type[Event]] = Counter(type(event) for event in collected)
        return WorkflowTestResult(collected=collected, event_types=counts, result=result, ctx=run.ctx)
