"""What a run shows: the buffer of its stream, and with a journal what may not be seen before it is durable."""

from __future__ import annotations

from collections import deque
from threading import get_ident
from typing import Any

from actorflow._runtime.dispatch import Dispatch
from actorflow._runtime.ports import RuntimeSide
from actorflow._runtime.router import Plan
from actorflow._runtime.stream import Hub
from actorflow.errors import StoreError, WorkflowRuntimeError
from actorflow.events import Event, StopEvent

__all__ = ["Publishing"]


class Publishing(Dispatch):
    """The part of a run that publishes."""

    __slots__ = ("_concluded", "_publishing", "_recorded", "_stream", "_terminal")

    def __init__(self, runtime: RuntimeSide, workflow: Any, plan: Plan) -> None:
        super().__init__(runtime, workflow, plan)
        self._concluded = False
        self._publishing = False
        self._recorded: deque[tuple[int, Event]] | None = None
        self._stream: Hub | None = None
        self._terminal: StopEvent[Any] | None = None

    def _task_over(self, n: int) -> None:
        """Some of the run's tasks have ended."""
        raise NotImplementedError

    def hub(self) -> Hub:
        """The stream's buffer, made when first needed."""
        if self._stream is None:
            self._stream = Hub()
            if self._concluded and self._terminal is not None:
                self._stream.close(self._terminal)
        return self._stream

    def publish(self, event: Event) -> None:
        """Writes to the run's stream."""
        if get_ident() != self.thread:
            self.check_thread()
        if not isinstance(event, Event):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise WorkflowRuntimeError(
                f"write_event_to_stream got {event!r} ({type(event).__name__}), not an event", code="AF036"
            )
        if self._concluded:
            raise WorkflowRuntimeError(
                f"run {self.run_id} of {self.plan.name} is over and its stream has ended; publish before the StopEvent",
                code="AF037",
            )
        (self._stream or self.hub()).publish(event)
        if self.hooks.event_published is not None:
            self.hooks.event_published(self.run_id, event)

    def publish_recorded(self, event: Event, record: int) -> None:
        """Writes to the run's stream, with a journal: readers see it once its record is durable."""
        assert self.journal is not None  # noqa: S101
        if self._recorded is None:
            self._recorded = deque()
        self._recorded.append((record, event))
        if not self._publishing:
            self._publishing = True
            self.tasks += 1
            self.runtime.spawn(self.variables, self._publish_durable)

    async def _publish_durable(self) -> None:
        assert self.journal is not None  # noqa: S101
        assert self._recorded is not None  # noqa: S101
        try:
            while self._recorded:
                record = self._recorded[0][0]
                if self.journal.durable < record:
                    await self.journal.sync(record)
                if self._recorded:
                    self.publish(self._recorded.popleft()[1])
        except StoreError:
            self._recorded.clear()  # nobody may see what may be lost, and the run is handed back
        finally:
            self._publishing = False
            self._task_over(1)
