"""Human approval: an expense above a limit waits for somebody, small ones do not, and silence is a no."""

import anyio

from actorflow import Ask, Context, StartEvent, StopEvent, Workflow, step


class Expense(StartEvent):
    """What somebody wants back."""

    who: str
    cents: int


class Approve(Ask[bool]):
    """The question, as it comes out of the stream."""

    who: str
    cents: int


class Expenses(Workflow[Expense, StopEvent[str]]):
    """Up to 50.00 is paid at once."""

    @step
    async def decide(self, ctx: Context, ev: Expense) -> StopEvent[str]:
        """Asks where it must."""
        paid = ev.cents <= 5000 or await ctx.ask(Approve(who=ev.who, cents=ev.cents), timeout=3600, default=False)
        return StopEvent(result=f"{ev.who}: {'paid' if paid else 'not paid'}")


async def treasurer(answers: dict[str, bool], expense: Expense) -> str:
    """Reads the stream of a run, and answers what is asked there."""
    run = Expenses().run(expense)
    async for question in run.stream_events(Approve):
        print(f"{question.who} wants {question.cents / 100:.2f}")
        await run.send_event(question.answer(answers[question.who]))
    return await run


async def main() -> None:
    """Three expenses, two of them to be asked about."""
    for who, cents in (("Ada", 4200), ("Ben", 9900), ("Cem", 7000)):
        print(await treasurer({"Ben": True, "Cem": False}, Expense(who=who, cents=cents)))


if __name__ == "__main__":
    anyio.run(main)
