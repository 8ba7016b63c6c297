"""Drives a server with the published client of llama-agents, in an environment of its own: ``python their_client.py URL CUT``.

CUT is an address of the same server at which connections break again and again. Prints what it saw, as one JSON object.
"""

# mypy: ignore-errors
# pyright: basic, reportMissingImports=false

import asyncio
import json
import sys

from llama_agents.client import WorkflowClient
from workflows.events import StartEvent


async def main(url: str, cut: str) -> dict[str, object]:
    client, shaky = WorkflowClient(base_url=url), WorkflowClient(base_url=cut)
    saw: dict[str, object] = {"health": (await client.is_healthy()).status}
    saw["workflows"] = (await client.list_workflows()).workflows
    saw["start"] = sorted((await client.get_workflow_schema("shop")).start["properties"])
    saw["events"] = sorted(event["title"] for event in (await client.get_workflow_events_schema("shop")).events)
    saw["nodes"] = len((await client.get_workflow_graph("shop")).graph.nodes)

    done = await client.run_workflow("shop", start_event=StartEvent(topic="bees"))
    saw["run"] = [done.status, done.result.value["result"]]
    failed = await client.run_workflow("broken")
    saw["failed"] = [failed.status, failed.error]

    handler = await client.run_workflow_nowait("counter", start_event={"to": 3}, handler_id="C-1")
    saw["begun"] = [handler.handler_id, handler.status, handler.workflow_name]
    stream = shaky.get_workflow_events(handler.handler_id)
    seen = []
    async for event in stream:
        seen.append([event.type, stream.last_sequence])
        if event.type == "Counted":
            sent = await client.send_event(handler.handler_id, {"type": "Approved", "value": {"by": "me"}})
            saw["sent"] = sent.status
    saw["stream"] = seen
    after = client.get_workflow_events(handler.handler_id, after_sequence=seen[1][1])
    saw["after"] = [event.type async for event in after]
    ended = await client.wait_for_handler(handler.handler_id, timeout=20, poll_interval=0.01)
    saw["ended"] = [ended.status, ended.result.value]

    slow = await client.run_workflow_nowait("slow")
    saw["running"] = [
        one.handler_id == slow.handler_id for one in (await client.get_handlers(status=["running"])).handlers
    ]
    saw["cancel"] = (await client.cancel_handler(slow.handler_id)).status
    saw["cancelled"] = (await client.wait_for_handler(slow.handler_id, timeout=20, poll_interval=0.01)).status
    saw["handlers"] = sorted(one.workflow_name for one in (await client.get_handlers()).handlers)
    saw["purge"] = (await client.cancel_handler("C-1", purge=True)).status
    try:
        await client.get_handler("C-1")
    except Exception as error:
        saw["gone"] = type(error).__name__
    return saw


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
