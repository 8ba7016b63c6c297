"""What every store does: the contract of `actorflow.storage`, on each engine and both backends."""

from __future__ import annotations

import anyio
import attrs
import pytest

from actorflow.errors import Fenced, RunConflict, StoreError, WorkflowRuntimeError
from actorflow.storage import Entry, Fork, Message, Receipt, RunQuery, Snapshot, Status, Topic
from actorflow.stores._face import EngineStore
from tests.durability.engines import (
    BACKENDS,
    CAPS,
    ENGINES,
    PARAMETERS,
    Backend,
    accepted,
    bodies,
    claimed,
    message,
    moved,
    new_run,
    on_every_clock,
    on_every_store,
    run,
    step,
)

LONG = b"x" * 200_000


# ------------------------------------------------------------------------------------------------------------- starting


@on_every_store
async def test_a_run_is_made_once_however_often_it_is_asked_for(store: EngineStore) -> None:
    """The same id and the same start are the same run; its first record is what it was started with."""
    first = await store.create(new_run())
    second = await store.create(new_run())
    assert (first.run_id, first.fresh, second.run_id, second.fresh) == ("a", True, "a", False)
    assert [(entry.kind, entry.body, entry.seq) for entry in await store.read("a")] == [("created", b"start", 1)]


@on_every_store
async def test_another_start_under_the_same_id_is_a_conflict(store: EngineStore) -> None:
    """Whoever asks for another run learns that there is one, and changes nothing."""
    await store.create(new_run())
    for other in (new_run(body=b"other"), new_run(workflow="Other")):
        with pytest.raises(RunConflict, match=r"^there is a run with the id 'a', of Flow, .* \[AF230\]$"):
            await store.create(other)
    assert await bodies(store, "a") == [b"start"]


@on_every_store
async def test_a_key_stands_for_one_run(store: EngineStore) -> None:
    """An idempotency key finds the run that it was first used for, whatever id is proposed the second time."""
    await store.create(new_run("a", key="k"))
    again = await store.create(new_run("b", key="k"))
    assert (again.run_id, again.fresh) == ("a", False)
    assert await store.get("b") is None
    with pytest.raises(RunConflict, match=r"^there is a run with the idempotency key 'k', of Flow"):
        await store.create(new_run("c", key="k", body=b"other"))
    await store.create(new_run("d"))
    with pytest.raises(RunConflict):  # the id is one run, the key another
        await store.create(new_run("d", key="k"))


@on_every_store
async def test_what_must_be_equal_is_the_digest_where_there_is_one(store: EngineStore) -> None:
    """A body that holds the time of day may differ."""
    await store.create(new_run(body=b"at 10", digest=b"order 1"))
    assert not (await store.create(new_run(body=b"at 11", digest=b"order 1"))).fresh
    with pytest.raises(RunConflict):
        await store.create(new_run(body=b"at 10", digest=b"order 2"))


# ------------------------------------------------------------------------------------------------------------- messages


@on_every_store
async def test_a_message_is_kept_once(store: EngineStore) -> None:
    """Messages are numbered as they come; one that comes again is known, and is not kept again."""
    await store.create(new_run())
    await accepted(store, message(event_id="x", body=b"1"), message(event_id="y", body=LONG))
    assert await store.deliver(message(event_id="x", body=b"another")) is Receipt.DUPLICATE
    await accepted(store, Message(run_id="a", event_id="stop", body=b"", kind="cancel"))
    kept = await store.inbox("a")
    assert [(m.n, m.event_id, m.body, m.kind) for m in kept] == [
        (1, "x", b"1", "event"),
        (2, "y", LONG, "event"),
        (3, "stop", b"", "cancel"),
    ]
    assert [m.n for m in await store.inbox("a", after=1, limit=1)] == [2]


@on_every_store
async def test_messages_to_nobody_are_told_so(store: EngineStore) -> None:
    """A run that is over, and one that never was; a message that a closed run has is still known."""
    assert await store.deliver(message()) is Receipt.UNKNOWN
    host = await store.register(CAPS)
    run_a = (await claimed(store, host, "a"))["a"]
    await accepted(store, message(event_id="x"))
    await store.commit(step(run_a, b"end", status=Status.COMPLETED))
    assert await store.deliver(message(event_id="x")) is Receipt.DUPLICATE
    assert await store.deliver(message(event_id="y")) is Receipt.CLOSED
    assert len(await store.inbox("a")) == 1


# -------------------------------------------------------------------------------------------------------------- commits


@on_every_store
async def test_commits_append_without_a_gap(store: EngineStore) -> None:
    """Records are numbered from 1; long ones come back whole."""
    host = await store.register(CAPS)
    run_a = (await claimed(store, host, "a"))["a"]
    answer = await store.commit(step(run_a, b"one", LONG))
    assert (answer.head, answer.status, answer.owned) == (3, Status.RUNNABLE, True)
    answer = await store.commit(step(moved(run_a, answer), LONG))
    assert await bodies(store, "a") == [b"start", b"one", LONG, LONG]
    assert [entry.epoch for entry in await store.read("a")] == [0, 1, 1, 1]
    info = await store.get("a")
    assert info is not None
    assert (info.head, info.epoch, info.owner) == (answer.head, 1, host.id)


@on_every_store
async def test_a_commit_at_the_wrong_head_or_epoch_is_fenced(store: EngineStore) -> None:
    """Whoever does not know where the run stands changes nothing, and is told where it does."""
    host = await store.register(CAPS)
    run_a = (await claimed(store, host, "a"))["a"]
    for wrong in ({"head": 0}, {"head": 2}, {"epoch": 0}, {"epoch": 2}):
        with pytest.raises(Fenced, match=rf"it is at epoch 1, record 1, with {host.id}; .* \[AF231\]$"):
            await store.commit(step(run_a, b"lost", outbox=[new_run("child")], take=[("l", 1)], **wrong))
    assert await bodies(store, "a") == [b"start"]
    assert await store.get("child") is None
    with pytest.raises(Fenced, match="there is no such run"):
        await store.commit(step(attrs.evolve(run_a, run_id="nobody"), b"lost"))


@on_every_store
async def test_a_closed_run_is_closed(store: EngineStore) -> None:
    """Nothing comes after the last record."""
    host = await store.register(CAPS)
    run_a = (await claimed(store, host, "a"))["a"]
    answer = await store.commit(step(run_a, b"end", status=Status.FAILED))
    assert not answer.owned
    with pytest.raises(Fenced, match="it is failed"):
        await store.commit(step(moved(run_a, answer), b"after"))
    info = await store.get("a")
    assert info is not None
    assert info.status is Status.FAILED
    assert info.closed_at is not None
    assert not (await store.claim(host, 10)).runs


@on_every_store
async def test_a_refusal_leaves_the_rest_of_its_group_alone(store: EngineStore) -> None:
    """Requests that were made together succeed and fail one by one, in their order."""
    host = await store.register(CAPS)
    runs = await claimed(store, host, "a", "b")
    answers = [
        store.ask(step(runs["a"], b"1")),
        store.ask(step(runs["a"], b"lost")),
        store.ask(step(runs["b"], b"2")),
        store.ask(attrs.evolve(step(runs["a"], b"3"), head=2)),
    ]
    assert (await answers[0].wait()).head == 2
    with pytest.raises(Fenced):
        await answers[1].wait()
    assert (await answers[2].wait()).head == 2
    assert (await answers[3].wait()).head == 3
    assert await bodies(store, "a") == [b"start", b"1", b"3"]
    assert answers[3].done


@on_every_store
async def test_answers_are_told_in_order_before_anyone_goes_on(store: EngineStore) -> None:
    """`then` is how a journal knows how far it is durable."""
    host = await store.register(CAPS)
    run_a = (await claimed(store, host, "a"))["a"]
    heads: list[int | str] = []

    def note(outcome: object) -> None:
        heads.append(getattr(outcome, "head", type(outcome).__name__))

    store.ask(attrs.evolve(step(run_a, b"1")), note)
    store.ask(attrs.evolve(step(run_a, b"2"), head=2), note)
    last = store.ask(attrs.evolve(step(run_a, b"3"), head=7), note)
    with pytest.raises(Fenced):
        await last.wait()
    assert heads == [2, 3, "Fenced"]


@on_every_store
async def test_nobody_goes_idle_past_a_message(store: EngineStore) -> None:
    """A run that would wait though a message has come goes on, and stays with its host."""
    host = await store.register(CAPS)
    run_a = (await claimed(store, host, "a"))["a"]
    await accepted(store, message())
    answer = await store.commit(step(run_a, status=Status.WAITING, release=True))
    assert (answer.status, answer.inbox_n, answer.owned) == (Status.RUNNABLE, 1, True)
    answer = await store.commit(step(run_a, status=Status.WAITING, release=True, seen=1))
    assert (answer.status, answer.owned) == (Status.WAITING, False)


@on_every_store
async def test_a_waiting_run_is_claimed_when_a_message_comes(store: EngineStore) -> None:
    """Released, it is nobody's; then anybody's."""
    host, other = await store.register(CAPS), await store.register(CAPS)
    run_a = (await claimed(store, host, "a"))["a"]
    await store.commit(step(run_a, status=Status.WAITING, release=True))
    assert not (await store.claim(other, 10)).runs
    await accepted(store, message())
    ((again,), news) = ((await store.claim(other, 10)).runs, (await store.claim(host, 10)).news)
    assert (again.run_id, again.epoch, again.owner, again.inbox_n, again.seen) == ("a", 2, other.id, 1, 0)
    assert not news


@on_every_store
async def test_a_host_hears_of_messages_to_its_own_runs(store: EngineStore) -> None:
    """Until it says that it has seen them."""
    host = await store.register(CAPS)
    run_a = (await claimed(store, host, "a", "b"))["a"]
    answer = await store.commit(step(run_a, status=Status.WAITING))
    assert answer.owned
    await accepted(store, message(), message(event_id="f"))
    assert (await store.claim(host, 10)).news == (("a", 2),)
    answer = await store.commit(step(run_a, b"event", seen=2))
    assert answer.status is Status.RUNNABLE
    assert not (await store.claim(host, 10)).news


# --------------------------------------------------------------------------------------------------------------- claims


@on_every_store
async def test_a_run_has_one_host(store: EngineStore) -> None:
    """Each run is claimed once, oldest first, as many as asked for."""
    hosts = [await store.register(CAPS), await store.register(CAPS)]
    for name in "abc":
        await store.create(new_run(name))
    first = (await store.claim(hosts[0], 2)).runs
    second = (await store.claim(hosts[1], 10)).runs
    assert ([run.run_id for run in first], [run.run_id for run in second]) == (["a", "b"], ["c"])
    assert {run.epoch for run in first + second} == {1}
    assert not (await store.claim(hosts[0], 10)).runs


@on_every_store
async def test_a_host_gets_what_it_can_run(store: EngineStore) -> None:
    """Other versions stay, and are shown as homeless."""
    host = await store.register([("Flow", "v1"), ("Other", "v2")])
    for name, workflow, version in (("a", "Flow", "v2"), ("b", "Other", "v2"), ("c", "Flow", "v1")):
        await store.create(new_run(name, workflow=workflow, version=version))
    assert {run.run_id for run in (await store.claim(host, 10)).runs} == {"b", "c"}
    stats = await store.stats()
    assert stats.homeless == (("Flow", "v2", 1),)
    assert stats.runs == (
        ("Flow", "v1", Status.RUNNABLE, 1),
        ("Flow", "v2", Status.RUNNABLE, 1),
        ("Other", "v2", Status.RUNNABLE, 1),
    )
    assert (stats.hosts, stats.failures, stats.failure) == (1, 0, "")


@on_every_store
async def test_who_leaves_gives_his_runs_back(store: EngineStore) -> None:
    """The next host goes on where the journal ends; the first one is fenced from that moment."""
    host, other = await store.register(CAPS), await store.register(CAPS)
    run_a = (await claimed(store, host, "a"))["a"]
    answer = await store.commit(step(run_a, b"1"))
    await store.leave(host)
    with pytest.raises(Fenced, match="with nobody"):
        await store.commit(step(moved(run_a, answer), b"late"))
    (again,) = (await store.claim(other, 10)).runs
    assert (again.head, again.epoch > run_a.epoch) == (2, True)
    with pytest.raises(Fenced):
        await store.commit(step(moved(run_a, answer), b"later"))
    await store.commit(step(again, b"2"))
    assert await bodies(store, "a") == [b"start", b"1", b"2"]
    for ask in (store.claim(host, 1), store.beat(host)):
        with pytest.raises(Fenced, match=r"\[AF232\]$"):
            await ask


@on_every_store
async def test_a_run_that_is_handed_back_goes_on(store: EngineStore) -> None:
    """A host that closes down gives back what is not finished."""
    host, other = await store.register(CAPS), await store.register(CAPS)
    run_a = (await claimed(store, host, "a"))["a"]
    assert not (await store.commit(step(run_a, b"1", release=True))).owned
    assert [run.head for run in (await store.claim(other, 10)).runs] == [2]


@on_every_clock
async def test_a_host_that_does_not_beat_loses_its_runs(store: EngineStore) -> None:
    """When its lease runs out; from then on it may not even beat."""
    host, other = await store.register(CAPS, ttl=3.0), await store.register(CAPS, ttl=60.0)
    run_a = (await claimed(store, host, "a"))["a"]
    for _ in range(4):
        await anyio.sleep(2)
        await store.beat(host)
    assert not (await store.claim(other, 10)).runs
    await anyio.sleep(3)
    with pytest.raises(Fenced, match="its lease had run out"):
        await store.beat(host)
    with pytest.raises(Fenced, match="its lease had run out"):
        await store.claim(host, 1)
    assert [run.run_id for run in (await store.claim(other, 10)).runs] == ["a"]
    with pytest.raises(Fenced):
        await store.commit(step(run_a, b"late"))


@on_every_clock
async def test_a_run_wakes_at_its_time(store: EngineStore) -> None:
    """A waiting run that nobody has is claimed when it is due, and not before."""
    host = await store.register(CAPS, ttl=1e6)
    runs = await claimed(store, host, "a", "b")
    at = store.now() + 100
    await store.commit(step(runs["a"], status=Status.WAITING, release=True, wake_at=at))
    await store.commit(step(runs["b"], status=Status.WAITING, release=True))
    claim = await store.claim(host, 10)
    assert not claim.runs
    assert claim.wake_in is not None
    assert claim.wake_in == pytest.approx(100, abs=1)
    await anyio.sleep(claim.wake_in)
    (run_a,) = (await store.claim(host, 10)).runs
    assert (run_a.run_id, run_a.wake_at, run_a.status) == ("a", at, Status.RUNNABLE)
    assert (await store.claim(host, 10)).wake_in is None


# ------------------------------------------------------------------------------------------------------ outbox, permits


@on_every_store
async def test_what_a_commit_sends_is_sent_with_it(store: EngineStore) -> None:
    """Messages and children are there exactly when the record is; twice is once."""
    host = await store.register(CAPS)
    run_a = (await claimed(store, host, "a", "b"))["a"]
    outbox = [new_run("a/1", parent="a"), message("b", "hello"), message("nobody"), message("a", "to myself")]
    answer = await store.commit(step(run_a, b"1", outbox=outbox))
    assert answer.sent == (Receipt.ACCEPTED, Receipt.ACCEPTED, Receipt.UNKNOWN, Receipt.ACCEPTED)
    assert answer.inbox_n == 1
    answer = await store.commit(step(moved(run_a, answer), b"2", outbox=outbox))
    assert answer.sent == (Receipt.DUPLICATE, Receipt.DUPLICATE, Receipt.UNKNOWN, Receipt.DUPLICATE)
    child = await store.get("a/1")
    assert child is not None
    assert child.parent == "a"
    assert [m.event_id for m in await store.inbox("b")] == ["hello"]
    # Going idle sees what the run has sent to itself.
    answer = await store.commit(
        step(moved(run_a, answer), status=Status.WAITING, seen=1, outbox=[message("a", "again")])
    )
    assert (answer.status, answer.inbox_n) == (Status.RUNNABLE, 2)


@on_every_store
async def test_permits_are_as_many_as_there_are(store: EngineStore) -> None:
    """A run gets one, or is told that it does not; what is given back can be taken."""
    host = await store.register(CAPS)
    runs = await claimed(store, host, "a", "b")
    answer = await store.commit(step(runs["a"], take=[("gpu", 2), ("gpu", 2), ("gpu", 2), ("disk", 1)]))
    assert answer.granted == (True, True, False, True)
    assert (await store.commit(step(runs["b"], take=[("gpu", 2)]))).granted == (False,)
    await store.commit(step(runs["a"], free=["gpu"]))
    assert (await store.commit(step(runs["b"], take=[("gpu", 2), ("gpu", 2)]))).granted == (True, False)


@on_every_store
@pytest.mark.parametrize("ending", ["closed", "released", "left"])
async def test_permits_end_with_the_claim(store: EngineStore, ending: str) -> None:
    """However a host lets go of a run, its permits are free."""
    host, other = await store.register(CAPS), await store.register(CAPS)
    run_a = (await claimed(store, host, "a"))["a"]
    assert (await store.commit(step(run_a, take=[("gpu", 1)]))).granted == (True,)
    if ending == "closed":
        await store.commit(step(run_a, status=Status.COMPLETED))
    elif ending == "released":
        await store.commit(step(run_a, status=Status.WAITING, release=True))
    else:
        await store.leave(host)
    run_b = (await claimed(store, other, "b"))["b"]
    assert (await store.commit(step(run_b, take=[("gpu", 1)]))).granted == (True,)


# ---------------------------------------------------------------------------------------------------- reading, listing


@on_every_store
async def test_a_reader_sees_every_record_once_in_order(store: EngineStore) -> None:
    """A cursor is a number: reading on behind it misses nothing and repeats nothing while the journal grows."""
    host = await store.register(CAPS)
    run_a = (await claimed(store, host, "a"))["a"]
    got: list[int] = []

    async def tail() -> None:
        hint = 0
        while len(got) < 41:
            hint = await store.wake(Topic.JOURNAL, hint, 60)
            got.extend(entry.seq for entry in await store.read("a", after=got[-1] if got else 0, limit=7))
            hint -= bool(got and got[-1] < 41)  # may have been cut off by the limit

    async with anyio.create_task_group() as group:
        group.start_soon(tail)
        here = run_a
        for i in range(20):
            here = moved(here, await store.commit(step(here, b"%d" % i, b"x")))
    assert got == list(range(1, 42))
    assert [entry.seq for entry in await store.read("a", after=3, until=6)] == [4, 5, 6]


@on_every_store
async def test_hints_come_for_work(store: EngineStore) -> None:
    """Who waits for work is woken by a message; nobody waits for what has been."""
    await store.create(new_run())
    hint = await store.wake(Topic.WORK, 0, 60)
    assert hint > 0
    async with anyio.create_task_group() as group:
        group.start_soon(store.deliver, message())
        assert await store.wake(Topic.WORK, hint, 60) > hint


@on_every_clock
async def test_hints_do_not_come_for_ever(store: EngineStore) -> None:
    """Who waits is let go after the timeout."""
    begin = anyio.current_time()
    assert await store.wake(Topic.WORK, 0, 5) == 0
    assert anyio.current_time() == begin + 5


@on_every_store
async def test_runs_are_listed_newest_first_by_pages(store: EngineStore) -> None:
    """Each run on one page, whatever comes in meanwhile; filters are kept from page to page by whoever asks."""
    host = await store.register(CAPS)
    names = [f"r{i}" for i in range(10)]
    runs = await claimed(store, host, *names)
    await store.commit(step(runs["r3"], status=Status.FAILED))
    await store.create(new_run("x", workflow="Other", parent="r1"))
    got: list[str] = []
    query = RunQuery(workflow="Flow", limit=3)
    while True:
        page = await store.runs(query)
        assert len(page.runs) <= 3
        got += [run.run_id for run in page.runs]
        if not page.next:
            break
        await store.create(new_run(f"new {len(got)}"))
        query = attrs.evolve(query, after=page.next)
    assert sorted(got) == names

    async def ids(**options: object) -> list[str]:
        return [run.run_id for run in (await store.runs(RunQuery(**options))).runs]  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

    assert await ids(status=[Status.FAILED, Status.CANCELLED]) == ["r3"]
    assert await ids(parent="r1") == ["x"]
    assert sorted(await ids(prefix="new ")) == ["new 3", "new 6", "new 9"]
    assert await ids(until=0.0) == []
    assert len(await ids(since=0.0)) == 14
    assert await ids(status=[]) == []
    with pytest.raises(WorkflowRuntimeError, match=r"\[AF235\]$"):
        await store.runs(RunQuery(after="nonsense/x"))


@on_every_store
async def test_a_run_in_trouble_is_given_back_to_others(store: EngineStore) -> None:
    """Who cannot work on a run says why, is not given it again, and is not woken for it; others are."""
    mine, other = await store.register(CAPS), await store.register(CAPS)
    here = (await claimed(store, mine, "a"))["a"]
    given = await store.commit(step(here, release=True, trouble="its journal cannot be read"))
    assert (given.owned, given.status, given.head) == (False, Status.RUNNABLE, 1)
    assert (await store.stats()).troubled == (("a", "Flow", "its journal cannot be read"),)
    skipping = await store.claim(mine, 10, skip=["a"])
    assert (skipping.runs, skipping.wake_in) == ((), None)
    (there,) = (await store.claim(other, 10, skip=["b"])).runs
    assert (there.run_id, there.trouble) == ("a", "its journal cannot be read")
    there = moved(there, await store.commit(step(there, b"1")))
    assert (await store.stats()).troubled == ()
    await store.commit(step(there, status=Status.WAITING, release=True, wake_at=store.now() - 1))
    assert (await store.claim(mine, 10, skip=["a"])).wake_in is None
    assert [run.run_id for run in (await store.claim(mine, 10)).runs] == ["a"]


# ------------------------------------------------------------------------------------------- snapshots, forks, retention


@on_every_store
async def test_a_snapshot_is_of_the_records_before_it(store: EngineStore) -> None:
    """The newest one, or the newest one of a moment."""
    host = await store.register(CAPS)
    here = (await claimed(store, host, "a"))["a"]
    assert await store.snapshot("a") is None
    for body in (b"1", b"2", b"3"):
        here = moved(here, await store.commit(step(here, body, snapshot=Snapshot("json", b"after " + body))))
    assert await store.snapshot("a") == Snapshot("json", b"after 3", 4)
    assert await store.snapshot("a", at=3) == Snapshot("json", b"after 2", 3)
    assert await store.snapshot("a", at=1) is None
    info = await store.get("a")
    assert info is not None
    assert info.snap_seq == 4


@on_every_store
async def test_a_snapshot_may_be_of_an_earlier_record(store: EngineStore) -> None:
    """It takes time to make one, and the run goes on meanwhile; one that comes late hides no newer one."""
    host = await store.register(CAPS)
    here = (await claimed(store, host, "a"))["a"]
    here = moved(here, await store.commit(step(here, b"1", b"2", b"3")))
    here = moved(here, await store.commit(step(here, b"4", snapshot=Snapshot("json", b"s", 3))))
    assert await store.snapshot("a") == Snapshot("json", b"s", 3)
    await store.commit(step(here, snapshot=Snapshot("json", b"r", 2)))
    found = await store.get("a")
    assert found is not None
    assert (found.snap_seq, found.head) == (3, 5)
    assert await store.snapshot("a", at=2) == Snapshot("json", b"r", 2)


@on_every_store
async def test_a_fork_goes_on_from_an_earlier_moment(store: EngineStore) -> None:
    """It has the records, messages and snapshots of that moment, and a life of its own, also after its model's end."""
    host = await store.register(CAPS)
    here = (await claimed(store, host, "a"))["a"]
    await accepted(store, message(event_id="x"), message(event_id="y"))
    here = moved(here, await store.commit(step(here, b"1", snapshot=Snapshot("json", b"s"), seen=1)))
    here = moved(
        here, await store.commit(step(here, LONG, b"3", snapshot=Snapshot("json", b"t"), seen=2, status=Status.FAILED))
    )
    info = await store.fork(Fork(run_id="a", at=3, seen=1, new_id="b"))
    assert (
        info.run_id,
        info.status,
        info.head,
        info.seen,
        info.inbox_n,
        info.snap_seq,
        info.forked_from,
        info.owner,
    ) == (("b", Status.RUNNABLE, 3, 1, 1, 2, "a", ""))
    assert await bodies(store, "b") == [b"start", b"1", LONG]
    assert [m.event_id for m in await store.inbox("b")] == ["x"]
    await store.gc(0.0)  # the model is gone, with its part of what both had
    assert await store.get("a") is None
    (fork,) = (await store.claim(host, 10)).runs
    await store.commit(step(fork, b"other"))
    assert [entry.body for entry in await store.read("b", after=2)] == [LONG, b"other"]
    assert await store.snapshot("b") == Snapshot("json", b"s", 2)


@on_every_store
async def test_a_fork_needs_a_moment_and_a_name(store: EngineStore) -> None:
    """Refusals say what there is."""
    await store.create(new_run())
    for at, seen, run_id in ((0, 0, "a"), (2, 0, "a"), (1, 1, "a"), (1, 0, "nobody")):
        with pytest.raises(WorkflowRuntimeError, match=r"\[AF233\]$"):
            await store.fork(Fork(run_id=run_id, at=at, seen=seen, new_id="b"))
    with pytest.raises(RunConflict, match=r"\[AF234\]$"):
        await store.fork(Fork(run_id="a", at=1, seen=0, new_id="a"))


@on_every_store
@pytest.mark.parametrize("last", [b"other", LONG + b"other"], ids=["short", "long"])
async def test_a_fork_may_say_something_else_at_its_end(store: EngineStore, last: bytes) -> None:
    """Its last record is what it is given; a snapshot that holds the old one is not its own; the model stays as it is."""
    host = await store.register(CAPS)
    here = (await claimed(store, host, "a"))["a"]
    here = moved(here, await store.commit(step(here, b"1", snapshot=Snapshot("json", b"s"))))
    await store.commit(step(here, LONG, snapshot=Snapshot("json", b"t"), status=Status.FAILED))
    info = await store.fork(Fork(run_id="a", at=3, seen=0, new_id="b", last=last))
    assert (info.head, info.snap_seq) == (3, 2)
    assert await bodies(store, "b") == [b"start", b"1", last]
    assert await bodies(store, "a") == [b"start", b"1", LONG]
    assert await store.delete("a")
    assert await bodies(store, "b") == [b"start", b"1", last]
    assert await store.snapshot("b") == Snapshot("json", b"s", 2)


@on_every_store
async def test_a_fork_that_starts_with_something_else_is_a_run_of_that(store: EngineStore) -> None:
    """Asked for again, it is the same run if what it was started with is the same."""
    await store.create(new_run())
    await store.fork(Fork(run_id="a", at=1, seen=0, new_id="b", last=b"other"))
    assert not (await store.create(new_run("b", body=b"other"))).fresh
    with pytest.raises(RunConflict):
        await store.create(new_run("b"))


@on_every_store
async def test_what_a_snapshot_has_swallowed_cannot_say_something_else(store: EngineStore) -> None:
    """The record is gone; the fork of what is there can still be made."""
    host = await store.register(CAPS)
    here = (await claimed(store, host, "a"))["a"]
    await store.commit(step(here, b"1", snapshot=Snapshot("json", b"s")))
    await store.gc(0.0)
    with pytest.raises(WorkflowRuntimeError, match=r"\[AF233\]$"):
        await store.fork(Fork(run_id="a", at=2, seen=0, new_id="b", last=b"other"))
    assert (await store.fork(Fork(run_id="a", at=2, seen=0, new_id="b"))).head == 2


@on_every_store
async def test_a_run_that_is_over_can_be_deleted(store: EngineStore) -> None:
    """All of it is gone, with what only it had; one that goes on stays, and one that is not there is nobody's loss."""
    host = await store.register(CAPS)
    runs = await claimed(store, host, "a", "b")
    await accepted(store, message("a"))
    await store.commit(step(runs["a"], LONG, snapshot=Snapshot("json", b"s"), status=Status.COMPLETED))
    with pytest.raises(WorkflowRuntimeError, match=r"'b'.*is not over.*\[AF316\]$"):
        await store.delete("b")
    assert await store.delete("a")
    assert not await store.delete("a")
    assert [await store.get("a"), await store.read("a"), await store.inbox("a"), await store.snapshot("a")] == [
        None,
        [],
        [],
        None,
    ]
    assert (await store.gc(0.0)).rows == 0
    assert await store.deliver(message("a", event_id="y")) is Receipt.UNKNOWN


@on_every_store
async def test_a_child_is_not_removed_before_its_parent_is_over(store: EngineStore) -> None:
    """A body of the parent may have to read again how the child ended."""
    host = await store.register(CAPS)
    parent = (await claimed(store, host, "a"))["a"]
    await store.commit(step(parent, b"1", outbox=[attrs.evolve(new_run("b"), parent="a")]))
    (child,) = (await store.claim(host, 10)).runs
    await store.commit(step(child, b"1", status=Status.COMPLETED))
    assert (await store.gc(0.0)).runs == 0
    assert await store.get("b") is not None
    await store.commit(step(attrs.evolve(parent, head=parent.head + 1), b"2", status=Status.COMPLETED))
    assert (await store.gc(0.0)).runs == 2


@on_every_store
async def test_old_runs_are_removed_whole_in_batches(store: EngineStore) -> None:
    """A run that is being removed is gone at once; its id can be used again at once; runs that go on stay."""
    host = await store.register(CAPS)
    runs = await claimed(store, host, "a", "b", "c")
    await accepted(store, message("a"), message("b"))
    for name in "ab":
        await store.commit(step(runs[name], *[LONG] * 10, snapshot=Snapshot("json", b"s"), status=Status.COMPLETED))
    assert (await store.gc(3600)) == attrs.evolve(await store.gc(3600), runs=0, rows=0, more=False)
    first = await store.gc(0.0, limit=5)
    assert (first.runs, first.rows, first.more) == (1, 5, True)
    assert [await store.get("a"), await store.read("a"), await store.inbox("a"), await store.snapshot("a")] == [
        None,
        [],
        [],
        None,
    ]
    assert (await store.create(new_run("a", body=b"second life"))).fresh
    assert await bodies(store, "a") == [b"second life"]
    assert await store.deliver(message("a")) is Receipt.ACCEPTED
    rest = await store.gc(0.0)
    assert (rest.runs, rest.more) == (1, False)
    assert {run.run_id for run in (await store.runs(RunQuery())).runs} == {"a", "c"}
    assert await bodies(store, "a") == [b"second life"]


@on_every_clock
async def test_of_many_hosts_one_collects(store: EngineStore) -> None:
    """Where it was done lately, nothing is done, whoever asks."""
    host = await store.register(CAPS, ttl=1e9)
    run = (await claimed(store, host, "a"))["a"]
    assert (await store.gc(0.0, every=60)).runs == 0
    await store.commit(step(run, status=Status.COMPLETED))
    await anyio.sleep(59)
    assert (await store.gc(0.0, every=60)).runs == 0
    await anyio.sleep(2)
    assert (await store.gc(0.0, every=60)).runs == 1


@on_every_store
async def test_records_behind_a_snapshot_are_removed_when_they_are_old(store: EngineStore) -> None:
    """What is left begins with a snapshot, and can be gone on from."""
    host = await store.register(CAPS)
    here = (await claimed(store, host, "a"))["a"]
    for body in (b"1", b"2", b"3"):
        here = moved(here, await store.commit(step(here, body, LONG, snapshot=Snapshot("json", b"after " + body))))
    assert (await store.gc(3600)).rows == 0
    assert not (await store.gc(0.0)).more
    info = await store.get("a")
    assert info is not None
    assert (info.tail, info.head, info.snap_seq) == (7, 7, 7)
    assert await store.read("a") == []
    assert await store.snapshot("a", at=7) == Snapshot("json", b"after 3", 7)
    assert await store.snapshot("a", at=6) is None
    await store.commit(step(here, b"4"))
    assert [(entry.seq, entry.body) for entry in await store.read("a", after=7)] == [(8, b"4")]


# ---------------------------------------------------------------------------------------------------- opening, waiting


@pytest.mark.parametrize("engine", PARAMETERS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_store_is_open_as_long_as_somebody_needs_it(engine: str, backend: Backend, tmp_path: object) -> None:
    """Opened twice, closed twice; then every request says that it is closed; then it can be opened again."""
    store = ENGINES[engine].make(tmp_path)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

    async def main() -> None:
        async with store:
            async with store:
                await store.create(new_run())
            assert await store.get("a") is not None
        for ask in (store.create(new_run()), store.get("a")):
            with pytest.raises(StoreError, match=r"is not open; open it first: async with store \[AF221\]$"):
                await ask
        async with store:
            await store.create(new_run("b"))

    run(main, backend, virtual=ENGINES[engine].virtual)


@on_every_store
async def test_who_is_cancelled_while_waiting_has_asked(store: EngineStore) -> None:
    """A commit is never half done: cancelled before it is asked for it is not done, afterwards it is."""
    host = await store.register(CAPS)
    run_a = (await claimed(store, host, "a"))["a"]
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.commit(step(run_a, b"never asked"))
    with anyio.CancelScope() as scope:
        answer = store.ask(step(run_a, b"asked"))
        scope.cancel()
        await answer.wait()
    assert await store.deliver(message()) is Receipt.ACCEPTED  # behind it in the queue
    assert await bodies(store, "a") == [b"start", b"asked"]


@on_every_store
async def test_many_tasks_commit_at_once(store: EngineStore) -> None:
    """Each run's records are in its own order, none lost, in far fewer transactions than requests."""
    host = await store.register(CAPS)
    names = [f"r{i}" for i in range(50)]
    runs = await claimed(store, host, *names)

    async def work(name: str) -> None:
        here = runs[name]
        for i in range(10):
            here = moved(here, await store.commit(step(here, b"%d" % i)))

    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(work, name)
    for name in names:
        assert await bodies(store, name) == [b"start", *(b"%d" % i for i in range(10))]
    assert Entry("done", b"9").kind == (await store.read("r0", after=10))[0].kind
