"""Humans in the loop: typed questions, prompts that wait, and prompts that steps return."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import anyio
import pytest

from actorflow import (
    Answer,
    Ask,
    Context,
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    Runtime,
    StartEvent,
    StopEvent,
    Workflow,
    WorkflowCancelledEvent,
    WorkflowRuntimeError,
    step,
)
from tests.seams import everywhere
from tests.test_waits import Go, Heard, Reply, begin_many, until_waiting

T = TypeVar("T")


class Approve(Ask[bool]):
    order: str


class Choose(Ask[T], Generic[T]):
    among: list[T]


class ChooseNumber(Choose[int]):
    pass


class ChooseMany(Ask[list[T]], Generic[T]):
    pass


class ChooseNumbers(ChooseMany[int]):
    pass


class Untyped(Choose[Any]):
    pass


@pytest.mark.parametrize(
    ("question", "good", "bad", "message"),
    [
        (Approve(order="A"), True, "yes", "the answer to Approve must be bool, got str ('yes')"),
        (ChooseNumber(among=[1, 2]), 1, "1", "the answer to ChooseNumber must be int, got str ('1')"),
        (ChooseNumbers(), [1], [1, "2"], "the answer to ChooseNumbers[1] must be int, got str ('2')"),
        (Untyped(among=[]), object(), None, None),
        (Choose[int](among=[]), 1, None, None),
    ],
)
def test_answers_are_typed_by_what_stands_in_the_brackets(
    question: Ask[Any], good: object, bad: object, message: str | None
) -> None:
    """Also through generic questions of one's own; where nobody has said, anything goes."""
    assert question.answer(good).value is good
    assert question.objection(bad) == message
    if message is not None:
        with pytest.raises(TypeError) as caught:
            question.answer(bad)
        assert str(caught.value) == message


class Asking(Workflow):
    """Asks for approval."""

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result=await ctx.ask(Approve(order="A-1")))


@everywhere
async def test_a_question_is_published_with_an_id_and_its_answer_is_a_value() -> None:
    run = Asking().run(run_id="r")
    questions: list[Approve] = []
    async for event in run.stream_events():
        if isinstance(event, Approve):
            questions.append(event)
            assert [wait.prompt for wait in run.open_waits] == [event]
            await run.send_event(event.answer(True))
    assert await run is True
    assert [(question.order, question.ask_id) for question in questions] == [("A-1", "r/1")]


@everywhere
async def test_an_answer_may_be_made_by_hand() -> None:
    run = Asking().run()
    await until_waiting(run, 1)
    await run.send_event(Answer(value=False, ask_id=run.open_waits[0].id))
    assert await run is False


@everywhere
async def test_an_answer_of_the_wrong_type_is_refused_to_its_sender_and_the_step_waits_on() -> None:
    run = Asking().run(run_id="r")
    await until_waiting(run, 1)
    wrong = Answer(value="yes", ask_id="r/1")
    refused = (
        r"^the answer to Approve must be bool, got str \('yes'\); nothing was sent, and the step waits on \[AF283\]$"
    )
    with pytest.raises(WorkflowRuntimeError, match=refused):
        await run.send_event(wrong)
    with pytest.raises(WorkflowRuntimeError, match=refused):
        run.ctx.send_event(wrong)
    assert len(run.open_waits) == 1
    await run.send_event(Answer(value=True, ask_id="r/1"))
    assert await run is True
    assert run.dead_letters == ()


@everywhere
async def test_a_step_that_answers_wrongly_fails() -> None:
    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> Go | StopEvent:
            ctx.send_event(Go(n=1))
            return StopEvent(result=await ctx.ask(Approve(order="A", ask_id="a")))

        @step
        async def answer(self, ev: Go) -> Answer[Any]:
            await anyio.sleep(1)
            return Answer(value="yes", ask_id="a")

    with pytest.raises(
        WorkflowRuntimeError,
        match=r"^Flow\.answer answered wrongly: the answer to Approve must be bool, got str \('yes'\) \[AF283\]",
    ):
        await Flow().run()


@everywhere
async def test_a_wrong_answer_that_came_before_its_question_is_none() -> None:
    class Flow(Workflow):
        @step
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            await anyio.sleep(5)
            return StopEvent(result=await ctx.ask(Approve(order="A", ask_id="a"), timeout=5, default="none"))

    run = Flow().run()
    await run.send_event(Answer(value="yes", ask_id="a"))
    assert await run == "none"
    assert [letter.event for letter in run.dead_letters] == [Answer(value="yes", ask_id="a")]


@everywhere
async def test_a_question_may_have_a_deadline_and_a_default() -> None:
    class Flow(Workflow):
        @step(timeout=2, num_workers=1)
        async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
            began = anyio.current_time()
            late = await ctx.ask(Approve(order="A-1"), timeout=10, default=None)
            with pytest.raises(TimeoutError, match=r"^AF280: Flow\.ask waited 5 s for Answer, and none came; "):
                await ctx.ask(Approve(order="A-2"), timeout=5)
            return StopEvent(result=(late, anyio.current_time() - began))

    run = Flow().run()
    assert await run == (None, 15)


@everywhere
async def test_equal_questions_get_their_own_answers() -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Go]:
            return begin_many(3)

        @step(num_workers=1)
        async def ask(self, ctx: Context, ev: Go) -> Heard:
            return Heard(n=10 * ev.n + await ctx.ask(ChooseNumber(among=[ev.n])))

        @step
        async def join(self, evs: list[Heard]) -> StopEvent:
            return StopEvent(result=sorted(ev.n for ev in evs))

    run = Flow().run()
    questions: list[ChooseNumber] = []
    async for event in run.stream_events():
        if isinstance(event, ChooseNumber):
            questions.append(event)
            if len(questions) == 3:
                for question in reversed(questions):
                    await run.send_event(question.answer(question.among[0]))
    assert await run == [0, 11, 22]
    assert len({question.ask_id for question in questions}) == 3


# -- prompts by hand


@everywhere
async def test_a_prompt_is_published_once_while_a_wait_of_its_name_is_open() -> None:
    class Flow(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Go]:
            return begin_many(3)

        @step
        async def ask(self, ctx: Context, ev: Go) -> Heard:
            prompt = InputRequiredEvent(prefix="name?")
            first = await ctx.wait_for_event(Reply, waiter_event=prompt, waiter_id="name")
            await anyio.sleep(5)
            second = await ctx.wait_for_event(Reply, waiter_event=prompt, waiter_id="name again")
            return Heard(n=first.n + second.n)

        @step
        async def join(self, evs: list[Heard]) -> StopEvent:
            return StopEvent(result=len(evs))

    run = Flow().run()
    await until_waiting(run, 3)
    for n in range(3):
        await run.send_event(Reply(n=n))
    await anyio.sleep(1)
    await until_waiting(run, 3)
    for n in range(3):
        await run.send_event(Reply(n=n))
    assert await run == 3
    prompts = [event async for event in run.stream_events() if isinstance(event, InputRequiredEvent)]
    assert len(prompts) == 2


# -- prompts that steps return


class Question(InputRequiredEvent):
    text: str


class Said(HumanResponseEvent):
    text: str


class Returned(Workflow):
    """The other style: the prompt is what a step returns, and the answer is what the next one accepts."""

    @step
    async def ask(self, ev: StartEvent) -> Question:
        return Question(text="Name?")

    @step
    async def greet(self, ev: Said) -> StopEvent:
        return StopEvent(result=f"Hello {ev.text}")


@everywhere
async def test_a_returned_prompt_and_a_step_that_accepts_the_answer() -> None:
    run = Returned().run()
    async for event in run.stream_events():
        if isinstance(event, Question):
            await run.send_event(Said(text="Ada"))
    assert await run == "Hello Ada"


@everywhere
async def test_a_run_with_an_unanswered_prompt_is_idle(rt: Runtime) -> None:
    """It neither stalls nor holds up a runtime that is left."""
    async with Runtime() as inner:
        run = await inner.start(Returned())
    assert isinstance(run.get_stop_event(), WorkflowCancelledEvent)


@everywhere
async def test_both_styles_in_one_run() -> None:
    """An answer goes to the wait that is open and to the step that accepts it."""

    class Flow(Workflow):
        @step
        async def ask(self, ev: StartEvent) -> Question | Go:
            return Go(n=1)

        @step
        async def wait(self, ctx: Context, ev: Go) -> Question:
            name = await ctx.wait_for_event(Said, waiter_event=Question(text="Name?"))
            heard.append(name.text)
            return Question(text="Sure?")

        @step
        async def hear(self, ev: Said) -> StopEvent | None:
            heard.append(ev.text)
            return StopEvent(result=heard) if ev.text == "yes" else None

    heard: list[str] = []
    run = Flow().run()
    answers: dict[str, Event] = {"Name?": Said(text="Ada"), "Sure?": Said(text="yes")}
    async for event in run.stream_events():
        if isinstance(event, Question):
            await run.send_event(answers[event.text])
    assert sorted(await run) == ["Ada", "Ada", "yes"]
