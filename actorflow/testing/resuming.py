"""Whether a workflow can be stopped anywhere and goes on elsewhere as if nothing had been: a snapshot at every turn, resumed."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import attrs

from actorflow._runtime.runtime import Runtime
from actorflow.abc import Instrument
from actorflow.context import Context
from actorflow.events import Event, GatheredEvent, StepFailedEvent
from actorflow.serialization import JsonSerializer
from actorflow.testing._backends import Backend
from actorflow.testing.gate import current_turns
from actorflow.testing.schedule import Fifo, Schedule
from actorflow.testing.simulate import simulate
from actorflow.workflow import Workflow

__all__ = ["assert_resumable"]

Answers: TypeAlias = Callable[[Event], Event | None]


@attrs.define(eq=False)
class _Deeds(Instrument):
    """What a run did, counted."""

    done: Counter[str] = attrs.field(factory=Counter[str])

    def execution_ended(self, run_id: str, step: str, event: Event, error: BaseException | None) -> None:
        """One body has ended, by itself."""
        if getattr(error, "code", None) == "AF281":
            return  # its branch was not wanted any more, and need not have begun
        self.done[f"{step} {'ended' if error is None else 'failed'} with {_told(event)}"] += 1

    def event_sent(self, run_id: str, step: str | None, event: Event) -> None:
        """Sent by a body, or from outside."""
        self.done[f"{step or 'the outside'} sent {_told(event)}"] += 1

    def event_published(self, run_id: str, event: Event) -> None:
        """Written to the stream."""
        self.done[f"published {_told(event)}"] += 1


@attrs.frozen
class _Outcome:
    """How a run ended, and what there was to see of it.

    Attributes:
        end: The result, or the error, as text.
        state: The state, as text.
        done: What it did.
        dead: Its dead letters.
        read: What a reader of its stream saw.
    """

    end: str
    state: str
    done: Counter[str]
    dead: Counter[str]
    read: tuple[str, ...]


@attrs.frozen
class _Point:
    """A snapshot, and what had been done until then."""

    turn: int
    time: float
    text: str
    done: Counter[str]
    read: tuple[str, ...]


async def assert_resumable(
    workflow: Workflow[Any, Any],
    start_event: Event | None = None,
    *,
    answers: Answers | None = None,
    backend: Backend = "asyncio",
    schedule: Schedule | None = None,
    serializer: JsonSerializer | None = None,
    turns: Collection[int] | None = None,
) -> int:
    """Fails unless a workflow gives the same wherever it is stopped and goes on from a snapshot.

    The workflow runs once to its end, in virtual time, and a snapshot is taken before each turn that one of its tasks
    gets. Then each snapshot goes through JSON text into a runtime of its own, and on to the end. Each time the result,
    or the error, the state, and what was sent, handled to its end, published and given up must be the same as in the
    run that was not stopped, before and after the snapshot taken together: nothing is lost, and nothing is done twice.

    What comes out must not depend on who of several tasks comes first. It runs in a thread, with an event loop of its
    own, and so takes as long as the number of turns squared: give it small runs.

    Args:
        workflow: The workflow.
        start_event: Its start event; None to make one without fields.
        answers: Gets each event that the run publishes, and gives the event that is to be sent into it then, or None.
        backend: The event loop to run it in.
        schedule: Who goes on when several tasks are ready; None: `Fifo`.
        serializer: What makes JSON of the snapshots.
        turns: Numbers of the turns before which a snapshot is taken, from 1; None for all.

    Returns:
        How many snapshots were resumed.

    Raises:
        AssertionError: The run that went on from some snapshot did something else.
        ContextSerdeError: Something in the run cannot be kept.

    Example:
        >>> from actorflow import Context, StartEvent, StopEvent, step
        >>> class Naps(Workflow):
        ...     @step
        ...     async def nap(self, ctx: Context, ev: StartEvent) -> StopEvent:
        ...         for _ in range(3):
        ...             async with ctx.store.edit_state() as state:
        ...                 state["naps"] = state.get("naps", 0) + 1
        ...             await anyio.sleep(3600)
        ...         return StopEvent(result=await ctx.store.get("naps"))
        >>> async def main() -> None:
        ...     print(await assert_resumable(Naps()) > 3)
        >>> anyio.run(main)
        True
    """
    check = functools.partial(
        _check, workflow, start_event, answers, backend, Fifo() if schedule is None else schedule,
        JsonSerializer() if serializer is None else serializer, turns,
    )  # fmt: skip
    return await anyio.to_thread.run_sync(check)


def _check(
    workflow: Workflow[Any, Any],
    start_event: Event | None,
    answers: Answers | None,
    backend: Backend,
    schedule: Schedule,
    serializer: JsonSerializer,
    turns: Collection[int] | None,
) -> int:
    run = functools.partial(_run, workflow, answers=answers, backend=backend, schedule=schedule, serializer=serializer)
    points: list[_Point] = []
    whole = run(start_event, None, points, turns)
    for point in points:
        rest = run(None, point.text, [], ())
        _compare(point, whole, rest)
    return len(points)


def _run(
    workflow: Workflow[Any, Any],
    start_event: Event | None,
    text: str | None,
    points: list[_Point],
    turns: Collection[int] | None,
    *,
    answers: Answers | None,
    backend: Backend,
    schedule: Schedule,
    serializer: JsonSerializer,
) -> _Outcome:
    """One run to its end, begun or gone on with; with a snapshot at each of some turns."""
    deeds = _Deeds()
    read: list[str] = []
    runs: list[Any] = []
    last: list[str] = []
    owner: Any = workflow

    def at_turn(turn: int) -> None:
        if not runs or runs[0].is_done() or (turns is not None and turn not in turns):
            return
        data = runs[0].ctx.to_dict(serializer)
        if "run" not in data:
            return  # it is ending
        kept = json.dumps(data)
        if last != [kept]:  # nothing but who is next has changed
            last[:] = [kept]
            points.append(_Point(turn, runs[0].timers.clock(), kept, deeds.done.copy(), tuple(read)))

    async def listen(run: Any) -> None:
        event: Event
        async for event in run.stream_events():
            read.append(_told(event))
            answer = None if answers is None else answers(event)
            if answer is not None and not run.done:
                run.ctx.send_event(answer)

    async def main() -> _Outcome:
        async with Runtime(instruments=[deeds], turns=current_turns()):
            end = ""
            ctx = None if text is None else Context.from_dict(owner, json.loads(text), serializer)
            run = owner.run(start_event=start_event, ctx=ctx)
            runs.append(run)
            try:
                async with anyio.create_task_group() as group:
                    group.start_soon(listen, run)
                    try:
                        end = f"the result {json.dumps(serializer.serialize_value(await run), sort_keys=True)}"
                    except Exception as error:  # noqa: BLE001 - compared
                        end = f"the error {type(error).__name__}: {error}"
            finally:
                runs.clear()
            state = json.dumps(run.ctx.to_dict(serializer)["state"], sort_keys=True)
        dead = Counter(f"{_told(letter.event)}: {letter.reason}" for letter in run.dead_letters)
        return _Outcome(end, state, deeds.done, dead, tuple(read))

    return simulate(main, backend=backend, schedule=schedule, at_turn=at_turn).result


def _compare(point: _Point, whole: _Outcome, rest: _Outcome) -> None:
    """Raises where a run that went on from a snapshot differs from the one that was not stopped."""
    wrong: list[str] = []
    if rest.end != whole.end:
        wrong.append(f"it gave {rest.end}, and without a stop {whole.end}")
    if rest.state != whole.state:
        wrong.append(f"it left the state {rest.state}, and without a stop {whole.state}")
    done = point.done + rest.done
    wrong += _differences(done, whole.done, "")
    wrong += _differences(rest.dead, whole.dead, "dead letter ")
    wrong += _differences(Counter(point.read + rest.read), Counter(whole.read), "read ")
    if wrong:
        raise AssertionError(
            f"a run that went on from the snapshot before turn {point.turn}, at {point.time:.12g} s, is another one:\n  "
            + "\n  ".join(wrong[:20])
            + f"\nthe snapshot: {point.text}"
        )


def _differences(found: Counter[str], wanted: Counter[str], verb: str) -> Sequence[str]:
    return [
        f"{verb}{deed}: {found[deed]} times, and without a stop {wanted[deed]}"
        for deed in sorted({*found, *wanted})
        if found[deed] != wanted[deed]
    ]


def _told(event: Event) -> str:
    """An event as text, without what may be another each time: how long something took, and what came first."""
    if isinstance(event, GatheredEvent):
        return f"[{', '.join(sorted(map(_told, event.events)))}]"
    if isinstance(event, StepFailedEvent):
        failed = f"{event.step_name} on {event.input_event!r} with {event.exception!r}"
        return f"StepFailedEvent of {failed} after {event.attempts} attempts"
    return repr(event)
