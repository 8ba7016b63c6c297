"""Plain `def` steps: in threads with the sync verbs of their context, and in processes that can be killed."""

from __future__ import annotations

import logging
import os
import pathlib
import threading
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.from_thread
import pytest

from actorflow import (
    ConstantDelayRetryPolicy,
    Context,
    Event,
    Runtime,
    StartEvent,
    StepTimeoutError,
    StopEvent,
    Workflow,
    WorkflowRuntimeError,
    step,
)
from tests.seams import everywhere

BACKENDS = ["asyncio", "trio"]

colour: ContextVar[str] = ContextVar("colour", default="none")


class A(Event):
    n: int


class Told(Event):
    text: str


@everywhere
async def test_the_verbs_of_a_sync_step() -> None:
    """`send_event`, `write_event_to_stream`, `collect_events`, `retry_info` as they are; async ones through anyio."""
    threads: set[int] = set()

    class Flow(Workflow):
        @step
        def begin(self, ctx: Context, ev: StartEvent) -> A | None:
            threads.add(threading.get_ident())
            assert colour.get() == "red"
            colour.set("blue")
            assert Context.get_step_context() is not None
            ctx.send_event(A(n=1))
            ctx.send_event(A(n=2))
            anyio.from_thread.run(ctx.send, A(n=3))
            anyio.from_thread.run(ctx.store.set, "x", ctx.retry_info().retry_number)
            return None

        @step(num_workers=1)
        def gather(self, ev: A, ctx: Context) -> StopEvent | None:
            assert colour.get() == "red"
            ctx.write_event_to_stream(Told(text=f"got {ev.n}"))
            got = ctx.collect_events(ev, [A] * 3)
            if got is None:
                return None
            return StopEvent(result=[a.n for a in got] + [anyio.from_thread.run(ctx.store.get, "x")])

    colour.set("red")
    run = Flow().run()
    assert await run == [1, 2, 3, 0]
    assert [str(event) async for event in run.stream_events()][:3] == [f"Told(text='got {n}')" for n in (1, 2, 3)]
    assert threading.get_ident() not in threads


@everywhere
async def test_a_sync_step_that_fails_and_is_tried_again() -> None:
    """Its exception is the step's own, and a retry is a new call."""
    calls: list[int] = []

    class Flow(Workflow):
        @step(retry_policy=ConstantDelayRetryPolicy(maximum_attempts=3, delay=1))
        def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            calls.append(ctx.retry_info().retry_number)
            raise ValueError("no")

    with pytest.raises(ValueError, match=r"^no") as caught:
        await Flow().run(run_id="r")
    assert calls == [0, 1, 2]
    assert caught.value.__notes__ == ["in step Flow.begin, attempt 3, event StartEvent(), run r"]
    assert any(entry.name == "begin" for entry in caught.traceback)


@everywhere
async def test_a_foreign_thread_is_refused() -> None:
    """A context used in a thread that nobody told the event loop of is an error that names `anyio.from_thread`."""
    errors: list[BaseException] = []

    def attempt(verb: Any, *args: Any) -> None:
        try:
            verb(*args)
        except BaseException as error:
            errors.append(error)

    class Flow(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> A:
            for verb, args in (
                (ctx.send_event, (A(n=1),)),
                (ctx.write_event_to_stream, (A(n=1),)),
                (ctx.collect_events, (A(n=1), [A])),
            ):
                await anyio.to_thread.run_sync(attempt, verb, *args)
            return A(n=0)

        @step
        def stop(self, ctx: Context, ev: A) -> StopEvent:
            thread = threading.Thread(target=attempt, args=(ctx.send_event, A(n=1)))
            thread.start()
            thread.join()
            return StopEvent()

    await Flow().run(run_id="r")
    assert len(errors) == 4
    for error, where in zip(errors, ["run r of Flow"] * 3 + ["Flow.stop"], strict=True):
        assert isinstance(error, WorkflowRuntimeError)
        assert str(error) == (
            f"a context of {where} was used in a thread that is not its event loop's; call it through "
            "anyio.from_thread.run_sync(ctx.send_event, event), from a thread that anyio.to_thread started, "
            "or make the step a plain `def` [AF072]"
        )


class Stuck(Workflow):
    def __init__(self, gate: threading.Event, late: list[BaseException], ended: threading.Event) -> None:
        super().__init__()
        self.gate, self.late, self.ended = gate, late, ended

    @step(timeout=1)
    def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        self.gate.wait()
        try:
            ctx.write_event_to_stream(Told(text="too late"))
        except WorkflowRuntimeError as error:
            self.late.append(error)
        self.ended.set()
        return StopEvent()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_thread_that_does_not_end(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """Past its timeout and the grace its stack is reported, it is left alone, and what it then does is an error."""
    caplog.set_level(logging.ERROR, logger="actorflow")
    gate, ended = threading.Event(), threading.Event()
    late: list[BaseException] = []

    async def main() -> None:
        # Real time: virtual time stands still while a thread is busy, and this one never ends by itself.
        async with Runtime(grace=0.05) as rt:
            workflow = Stuck(gate, late, ended)
            run = await rt.start(workflow)
            with pytest.raises(StepTimeoutError, match=r"^Stuck\.begin did not finish with StartEvent\(\) within 1 s"):
                await run
            gate.set()
            await anyio.to_thread.run_sync(ended.wait)
            assert [type(event).__name__ async for event in run.stream_events()] == ["WorkflowFailedEvent"]

    anyio.run(main, backend=backend)
    [record] = caplog.records
    assert record.getMessage().startswith("Stuck.begin, run ")
    assert "has not ended within 0.05 s of the end of its execution, and is left alone; it is at" in record.getMessage()
    assert "self.gate.wait()" in record.getMessage()
    assert str(late[0]).startswith("Stuck.begin runs on in its thread though its execution is over")


class Measure(StartEvent):
    path: str
    seconds: float = 0.0
    how: str = "ok"


class Processed(Workflow):
    pass


@step(workflow=Processed, executor="process", timeout=3)
def measure(ev: Measure) -> StopEvent:
    """Appends to a file, sleeps, and appends again: what a killed process cannot do."""
    path = pathlib.Path(ev.path)
    path.write_text(f"{os.getpid()}\n", encoding="utf-8")
    if ev.how == "raise":
        raise ValueError("in the process")
    if ev.how == "die":
        os._exit(3)
    if ev.seconds:
        path.with_suffix(".go").read_bytes()  # a pipe: waits until somebody opens its other end
    path.write_text("done", encoding="utf-8")
    return StopEvent(result=os.getpid())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_process_step(backend: Any, tmp_path: pathlib.Path) -> None:
    """It runs in another process; its exception arrives; a process that dies is an error."""
    path = str(tmp_path / "out")
    pid = Processed().run_sync(Measure(path=path), backend=backend)
    assert pid != os.getpid()
    with pytest.raises(ValueError, match=r"^in the process"):
        Processed().run_sync(Measure(path=path, how="raise"), backend=backend)
    with pytest.raises(WorkflowRuntimeError, match=r"^the process of Processed\.measure ended without an answer"):
        Processed().run_sync(Measure(path=path, how="die"), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_process_step_past_its_timeout_is_killed(backend: Any, tmp_path: pathlib.Path) -> None:
    """No side effect afterwards: the process is gone when the run has ended."""
    path = tmp_path / "out"
    os.mkfifo(path.with_suffix(".go"))
    with pytest.raises(StepTimeoutError):
        Processed().run_sync(Measure(path=str(path), seconds=1), backend=backend)
    pid = int(path.read_text(encoding="utf-8"))
    with pytest.raises(OSError, match="No such device"):  # nobody reads: it would go on now, if it were there
        os.open(path.with_suffix(".go"), os.O_WRONLY | os.O_NONBLOCK)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert path.read_text(encoding="utf-8") != "done"


@everywhere
async def test_idle_timeout() -> None:
    """Reset by every progress that can be seen, and by nothing else; a step timeout goes on beside it."""

    class Flow(Workflow):
        @step(idle_timeout=10)
        async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
            for _ in range(5):
                await anyio.sleep(8)
                ctx.write_event_to_stream(A(n=1))
            await anyio.sleep(8)
            await ctx.store.set("x", 1)
            await anyio.sleep(11)
            return StopEvent()

    began = anyio.current_time()
    with pytest.raises(StepTimeoutError) as caught:
        await Flow().run()
    assert str(caught.value) == (
        "Flow.begin made no progress with StartEvent() for 10 s; let it send, publish or touch ctx.store now and then, "
        "or raise @step(idle_timeout=…) [AF078]"
    )
    assert 58 <= anyio.current_time() - began < 63


@everywhere
async def test_what_does_not_unwind_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """A body whose cleanup takes long is waited for, and reported by its stack every `grace` seconds."""
    caplog.set_level(logging.WARNING, logger="actorflow")

    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[A | Told]:
            return [A(n=1), Told(text="")]

        @step
        async def slow(self, ev: A) -> StopEvent:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(12)
            return StopEvent()

        @step
        async def quick(self, ev: Told) -> StopEvent:
            await anyio.sleep(1)
            return StopEvent(result="quick")

    run = Flow().run(run_id="r")
    assert await run == "quick"
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    for message in told:
        assert message.startswith("run r of Flow has ended, and Flow.slow has not after another 5 s; it is at\n")
        assert "await anyio.sleep(12)" in message or "cannot be seen" in message
