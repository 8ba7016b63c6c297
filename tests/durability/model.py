"""A store as one would explain it: dictionaries and a dozen rules, for real stores to be compared with."""

from __future__ import annotations

from typing import Any

import attrs

from actorflow.storage import Commit, Entry, Message, NewRun, Receipt, Status

__all__ = ["ModelRun", "ModelStore", "Refused"]


class Refused(Exception):
    """The request changes nothing."""


@attrs.define
class ModelRun:
    """All that a run is."""

    version: str
    start: bytes
    journal: list[tuple[str, bytes, int]]
    inbox: list[tuple[str, bytes]] = attrs.field(factory=list[tuple[str, bytes]])
    status: Status = Status.RUNNABLE
    owner: int | None = None
    epoch: int = 0
    seen: int = 0
    tail: int = 0
    permits: list[str] = attrs.field(factory=list[str])
    snapshots: dict[int, bytes] = attrs.field(factory=dict[int, bytes])
    trouble: str = ""


@attrs.define
class ModelStore:
    """Runs in the order in which they were made, and hosts by number."""

    runs: dict[str, ModelRun] = attrs.field(factory=dict[str, ModelRun])
    hosts: dict[int, str] = attrs.field(factory=dict[int, str])

    def create(self, run: NewRun) -> bool:
        there = self.runs.get(run.run_id)
        if there is None:
            self.runs[run.run_id] = ModelRun(run.version, run.body, [("created", run.body, 0)])
            return True
        if there.start != run.body:
            raise Refused
        return False

    def deliver(self, message: Message) -> Receipt:
        run = self.runs.get(message.run_id)
        if run is None:
            return Receipt.UNKNOWN
        if any(event_id == message.event_id for event_id, _ in run.inbox):
            return Receipt.DUPLICATE
        if run.status.closed:
            return Receipt.CLOSED
        run.inbox.append((message.event_id, message.body))
        run.status = Status.RUNNABLE
        return Receipt.ACCEPTED

    def commit(self, commit: Commit) -> tuple[int, Status, int, bool, list[bool], list[Receipt]]:
        run = self.runs.get(commit.run_id)
        if run is None or run.owner is None or (run.epoch, len(run.journal)) != (commit.epoch, commit.head):
            raise Refused
        entries: list[Entry] = list(commit.entries)
        run.journal += [(entry.kind, entry.body, run.epoch) for entry in entries]
        run.seen = max(run.seen, commit.seen)
        busy = commit.status is Status.WAITING and len(run.inbox) > commit.seen
        run.status = Status.RUNNABLE if busy else commit.status
        if commit.snapshot is not None:
            run.snapshots[commit.snapshot.seq or len(run.journal)] = commit.snapshot.body
        run.trouble = commit.trouble
        for name in commit.free:
            if name in run.permits:
                run.permits.remove(name)
        if run.status.closed or (commit.release and not busy):
            run.owner = None
            run.permits.clear()
        granted: list[bool] = []
        for name, capacity in commit.take:
            granted.append(
                run.owner is not None and sum(other.permits.count(name) for other in self.runs.values()) < capacity
            )
            if granted[-1]:
                run.permits.append(name)
        sent: list[Receipt] = []
        for item in commit.outbox:
            if isinstance(item, Message):
                sent.append(self.deliver(item))
            else:
                sent.append(Receipt.DUPLICATE if item.run_id in self.runs else Receipt.ACCEPTED)
                if sent[-1] is Receipt.ACCEPTED:
                    self.create(item)
        return len(run.journal), run.status, len(run.inbox), run.owner is not None, granted, sent

    def leave(self, host: int) -> None:
        self.hosts.pop(host, None)
        for run in self.runs.values():
            if run.owner == host:
                run.owner = None
                run.epoch += 1
                run.permits.clear()

    def claim(self, host: int, limit: int, skip: list[str]) -> tuple[list[str], dict[str, int]]:
        if host not in self.hosts:
            raise Refused
        free = [
            run_id
            for run_id, run in self.runs.items()
            if (run.owner, run.status, run.version) == (None, Status.RUNNABLE, self.hosts[host]) and run_id not in skip
        ][:limit]
        for run_id in free:
            self.runs[run_id].owner = host
            self.runs[run_id].epoch += 1
        news = {
            run_id: len(run.inbox)
            for run_id, run in self.runs.items()
            if run.owner == host and len(run.inbox) > run.seen and run_id not in free
        }
        return free, news

    def fork(self, run_id: str, at: int, seen: int, new_id: str, last: bytes | None) -> None:
        run = self.runs.get(run_id)
        if (
            run is None
            or new_id in self.runs
            or not max(run.tail + (last is not None), 1) <= at <= len(run.journal)
            or not 0 <= seen <= len(run.inbox)
        ):
            raise Refused
        self.runs[new_id] = ModelRun(
            run.version,
            run.start if last is None or at > 1 else last,
            [(kind, body, 0) for kind, body, _ in run.journal[:at]],
            run.inbox[:seen],
            seen=seen,
            tail=run.tail,
            snapshots={seq: body for seq, body in run.snapshots.items() if seq <= at - (last is not None)},
        )
        if last is not None:
            journal = self.runs[new_id].journal
            journal[-1] = (journal[-1][0], last, 0)

    def delete(self, run_id: str) -> bool:
        run = self.runs.get(run_id)
        if run is None:
            return False
        if not run.status.closed:
            raise Refused
        del self.runs[run_id]
        return True

    def collect(self) -> None:
        self.runs = {run_id: run for run_id, run in self.runs.items() if not run.status.closed}
        for run in self.runs.values():
            run.tail = max([*run.snapshots, run.tail])
            run.snapshots = {seq: body for seq, body in run.snapshots.items() if seq >= run.tail}

    def facts(self) -> dict[str, Any]:
        """What must be equal, by run."""
        return {
            run_id: (
                *(run.version, run.status, run.owner, run.epoch, run.seen, run.tail),
                *(run.journal[run.tail :], run.inbox, run.snapshots, run.trouble),
            )
            for run_id, run in self.runs.items()
        }
