"""The first example of README: two steps, one event between them, one on the stream.

    actorflow run docs/examples/writer.py:Writer --input '{"topic": "bees"}'
"""

from actorflow import Context, Event, StartEvent, StopEvent, Workflow, step


class Draft(Event):
    text: str


class Writer(Workflow):
    @step
    async def write(self, ev: StartEvent) -> Draft:
        return Draft(text=f"{ev.topic} are small")

    @step(num_workers=8)
    async def publish(self, ctx: Context, ev: Draft) -> StopEvent:
        ctx.write_event_to_stream(ev)
        return StopEvent(result=ev.text.upper())
