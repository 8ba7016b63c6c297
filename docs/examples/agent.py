"""An agent: a model thinks, asks for tools, several at once, reads what they say, and thinks again until it knows."""

import json
from collections.abc import Callable

from actorflow import Context, Event, StartEvent, StopEvent, Workflow, step


class Question(StartEvent):
    """What the agent is to find out."""

    text: str


class Thought(Event):
    """The model is to go on."""

    turn: int


class ToolCall(Event):
    """The model asks for a tool."""

    tool: str
    argument: str


class ToolAnswer(Event):
    """What a tool has said."""

    tool: str
    answer: str


class LocalModel:
    """Stands for a language model: it answers by rule, so that the program runs anywhere and always says the same."""

    async def complete(self, messages: list[str]) -> str:
        """What the model says next: calls of tools as JSON, or its answer."""
        answers = [message for message in messages if message.startswith("tool ")]
        if not answers:
            cities = [word.strip("?,.") for word in messages[0].split() if word[0].isupper()][1:]
            return json.dumps([{"tool": "weather", "argument": city} for city in cities])
        if len(answers) == 2:
            return json.dumps([{"tool": "compare", "argument": " | ".join(answers)}])
        return f"It is warmer in {answers[-1].rpartition(' ')[2]}."


def weather(city: str) -> str:
    """Degrees in a city."""
    return f"{city} {len(city) * 3}"


def compare(argument: str) -> str:
    """Which of two places is warmer."""
    places = [part.split()[-2:] for part in argument.split(" | ")]
    return max(places, key=lambda place: int(place[1]))[0]


TOOLS: dict[str, Callable[[str], str]] = {"weather": weather, "compare": compare}


class Agent(Workflow[Question, StopEvent[str]]):
    """Start it with ``text="Where is it warmer, in Rome or in Lisbon?"``."""

    model = LocalModel()

    @step
    async def begin(self, ctx: Context, ev: Question) -> Thought:
        """What has been said is the state of the run."""
        await ctx.store.set("messages", [ev.text])
        return Thought(turn=1)

    @step
    async def think(self, ctx: Context, ev: Thought) -> list[ToolCall] | StopEvent[str]:
        """The model answers, or asks for tools."""
        said = await self.model.complete(await ctx.store.get("messages"))
        if not said.startswith("["):
            return StopEvent(result=said)
        return [ToolCall(tool=call["tool"], argument=call["argument"]) for call in json.loads(said)]

    @step(num_workers=4, timeout=30)
    async def use(self, ctx: Context, ev: ToolCall) -> ToolAnswer:
        """Tools that were asked for together run together."""
        ctx.write_event_to_stream(ev)
        return ToolAnswer(tool=ev.tool, answer=TOOLS[ev.tool](ev.argument))

    @step
    async def read(self, ctx: Context, evs: list[ToolAnswer]) -> Thought:
        """All of a turn have answered: the model is told, and thinks again."""
        async with ctx.store.edit_state() as state:
            said = sorted(f"tool {ev.tool}: {ev.answer}" for ev in evs)
            state["messages"] = [*state["messages"], *said]
            turn = state["turn"] = state.get("turn", 1) + 1
        return Thought(turn=turn)
