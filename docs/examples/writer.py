"""Two steps, one event between them, one on the stream: the first example of README, to be run from a terminal."""

from actorflow import Context, Event, StartEvent, StopEvent, Workflow, step


class Draft(Event):
    """What was written and is to be published."""

    text: str


class Writer(Workflow):
    """Writes about a topic: start it with ``topic="bees"``."""

    @step
    async def write(self, ev: StartEvent) -> Draft:
        """Has one thing to say about everything."""
        return Draft(text=f"{ev['topic']} are small")

    @step(num_workers=8)
    async def publish(self, ctx: Context, ev: Draft) -> StopEvent:
        """Shows the draft to whoever reads the stream, and ends the run."""
        ctx.write_event_to_stream(ev)
        return StopEvent(result=ev.text.upper())
