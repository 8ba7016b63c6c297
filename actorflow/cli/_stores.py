"""Opens the store that a command names, and says what it has."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import anyio
import attrs

from actorflow.cli._refusals import CommandError
from actorflow.errors import StoreError
from actorflow.storage import RunInfo, RunQuery, Status, Store
from actorflow.stores import store_from_url

__all__ = ["as_json", "moment", "run_data", "run_of", "with_store", "word"]

T = TypeVar("T")


def with_store(url: str, work: Callable[[Store], Awaitable[T]]) -> T:
    """What `work` gives of the store at an address."""
    parts = urlsplit(url)
    path = Path(unquote(parts.path.removeprefix("/")))
    # Opening a store makes its file; one who looks for runs has mistyped the name.
    if parts.scheme == "sqlite" and not parts.netloc and path.name and path.name != ":memory:" and not path.is_file():
        raise CommandError(f"no store at {path}; Runtime(store={url!r}) makes one")
    try:
        store = store_from_url(url)
    except StoreError as error:
        raise CommandError(str(error)) from None

    async def main() -> T:
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return anyio.run(main)


async def run_of(store: Store, run_id: str) -> RunInfo:
    """A run by its id; where there is none, what there is instead."""
    info = await store.get(run_id)
    if info is None:
        page = await store.runs(RunQuery(limit=5))
        newest = ", ".join(run.run_id for run in page.runs)
        there = f"its newest: {newest}" if newest else "it has none"
        raise CommandError(f"no run {run_id!r} in the store; {there}")
    return info


def word(status: Status) -> str:
    """A status as the command line has it."""
    return status.name.lower().replace("_", "-")


def moment(at: float) -> str:
    """A moment of the store's clock, to be read."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def run_data(info: RunInfo) -> dict[str, Any]:
    """What is known of a run, for JSON."""
    return {**attrs.asdict(info), "status": word(info.status)}


def as_json(data: object) -> str:
    """Data as a text of one line."""
    return json.dumps(data, ensure_ascii=False) + "\n"
