"""The shared state: paths, copies, and transactions that come one after the other."""

from __future__ import annotations

import copy
import dataclasses
import enum
import pickle
import re
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple, cast

import anyio
import attrs
import pydantic
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from actorflow.errors import ContextStateError
from actorflow.events import Event, StartEvent
from actorflow.state import DictState, InMemoryStateStore, StateFace, StateStore, copy_data

Log = list[tuple[str | None, Any] | str]


@attrs.define
class Person:
    name: str
    tags: list[str] = attrs.field(factory=list[str])
    address: Any = None

    def shout(self) -> str:
        return self.name.upper()


@attrs.frozen
class Frozen:
    items: list[int]


@dataclasses.dataclass
class Account:
    owner: Person
    balance: int = 0


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass(frozen=True)
class Shade:
    parts: list[int]


class Colour(Shade, enum.Enum):
    RED = [255]  # noqa: RUF012 - the value of a member


class Note(Event):
    words: list[str]


def store(**values: Any) -> InMemoryStateStore[DictState]:
    return InMemoryStateStore(DictState(values))


class Watcher:
    """Logs what it is told, and lets nobody on whom `touch` raises."""

    def __init__(self, log: Log | None = None, touch: Callable[[], None] | None = None) -> None:
        self.log: Log = [] if log is None else log
        self.touch = touch

    def touch_state(self, what: str, /) -> None:
        if self.touch is not None:
            self.touch()
        self.log.append("touch")

    def edited_before(self) -> None:
        return None

    def record_read(self, value: Any, /) -> None:
        pass

    def record_state(self, path: str | None, value: Any, /, before: Any = None) -> None:
        self.log.append((path, value))


def logged(state: Any) -> tuple[StateFace[Any], Log]:
    log: Log = []
    return StateFace(StateStore(state), Watcher(log)), log


# -- DictState


def test_dict_state_is_a_dict_with_attributes() -> None:
    """Keys and attributes are the same thing, and it is a dict to all else."""
    state = DictState(a=1)
    state.b = 2
    state["c"] = 3
    del state.a
    assert (state.b, state.c, dict(state)) == (2, 3, {"b": 2, "c": 3})
    assert isinstance(state, dict)
    assert not hasattr(state, "a")


def test_dict_state_explains_a_missing_attribute() -> None:
    """A misspelt attribute is an AttributeError that names the near key, or what there is."""
    state = DictState(count=1, total=2)
    with pytest.raises(AttributeError, match=r"^the state has no 'cuont'; did you mean 'count'\?$"):
        state.cuont  # noqa: B018
    with pytest.raises(AttributeError, match=r"^the state has no 'zz'; there is 'count', 'total'$"):
        del state.zz
    with pytest.raises(AttributeError, match=r"^the state has no 'zz'; it is empty$"):
        DictState().zz  # noqa: B018


def test_dict_state_copies_and_pickles() -> None:
    """A DictState stays one when it is copied or pickled."""
    state = DictState(a=[1])
    for twin in (copy.copy(state), copy.deepcopy(state), pickle.loads(pickle.dumps(state))):  # noqa: S301
        assert (type(twin), twin) == (DictState, state)


def test_dict_state_has_no_declared_fields() -> None:
    """A class attribute would hide the key of its name, so it is refused; methods are welcome."""

    class WithMethod(DictState):
        def double(self) -> int:
            return cast("int", self.count) * 2

    assert WithMethod(count=2).double() == 4
    with pytest.raises(
        TypeError,
        match=r"^Fields\.count declares a field, and a DictState has keys only; "
        "make the state an attrs class, a dataclass or a pydantic model$",
    ):

        class Fields(DictState):  # pyright: ignore[reportUnusedClass]
            count = 0


# -- paths


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("n", 1),
        ("user.name", "Ada"),
        ("orders.1.id", 8),
        ("orders.-1.id", 8),
        ("person.name", "Bo"),
        ("person.tags.0", "x"),
        ("pair.left", 1),
        ("pair.1", 2),
        ("queue.0", 5),
        ("event.words.0", "hi"),
        ("dynamic.topic", "bees"),
        ("none", None),
        ("items", 9),
    ],
)
async def test_paths_read(path: str, value: object) -> None:
    """A path goes through keys, indexes and attributes."""
    held = store(
        n=1,
        user={"name": "Ada"},
        orders=[{"id": 7}, {"id": 8}],
        person=Person("Bo", ["x"]),
        pair=Pair(1, 2),
        queue=deque([5]),
        event=Note(words=["hi"]),
        dynamic=StartEvent(topic="bees"),
        none=None,
        items=9,
    )
    assert await held.get(path) == value
    assert await held.get(path, "default") == value


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("cuont", "the state has no 'cuont'; did you mean 'count'?"),
        ("zz", "the state has no 'zz'; there is 'count', 'user', 'orders', 'person', 'nothing', 'frozen', 'empty'"),
        ("user.nmae", "the state has no 'user.nmae'; did you mean 'user.name'?"),
        ("user.name.first", "the state has no 'user.name.first'; 'user.name' holds a str"),
        ("count.real", "the state has no 'count.real'; 'count' holds a int"),
        ("nothing.more", "the state has no 'nothing.more'; 'nothing' holds None"),
        ("empty.x", "the state has no 'empty.x'; 'empty' holds a dict"),
        ("orders.2.id", "the state has no 'orders.2.id'; 'orders' is a list of length 2"),
        ("orders.first", "the state has no 'orders.first'; 'orders' is a list of length 2"),
        ("person.nam", "the state has no 'person.nam'; did you mean 'person.name'?"),
        ("person.shout", "the state has no 'person.shout'; there is 'person.name', 'person.tags', 'person.address'"),
        (
            "person.__class__.__init__",
            "the state has no 'person.__class__.__init__'; there is 'person.name', 'person.tags', 'person.address'",
        ),
        ("user.", "the state has no 'user.'; there is 'user.name'"),
    ],
)
async def test_paths_to_nothing(path: str, message: str) -> None:
    """A path to nothing names itself and what is near; a default is given instead; methods are not data."""
    held = store(
        count=1,
        user={"name": "Ada"},
        orders=[{}, {}],
        person=Person("Bo"),
        nothing=None,
        frozen=Frozen([1]),
        empty={},
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        await held.get(path)
    assert await held.get(path, None) is None
    assert await held.get(path, default=7) == 7


@pytest.mark.anyio
async def test_the_empty_path() -> None:
    """The empty path reads the whole, and cannot be set."""
    held = store(a=1)
    assert await held.get("") == {"a": 1}
    with pytest.raises(
        ValueError, match=r"^the path to set in the state is empty; name a key, or use set_state\(\) for the whole$"
    ):
        await held.set("", 2)


@pytest.mark.anyio
async def test_set_makes_missing_dicts() -> None:
    """What is missing on the way to a key is made, as dicts."""
    held = store(person=Person("Bo", address={}))
    await held.set("a.b.c", 1)
    await held.set("a.b.d", 2)
    await held.set("person.address.city.name", "Ulm")
    assert await held.get("a") == {"b": {"c": 1, "d": 2}}
    assert await held.get("person.address.city.name") == "Ulm"


@pytest.mark.anyio
async def test_set_goes_through_lists_and_attributes() -> None:
    """What is there on the way is changed in place."""
    held = store(orders=[{"id": 1}, 2], person=Person("Bo"), queue=deque([1, 2]))
    for path, value in [("orders.0.id", 3), ("orders.-1", 4), ("person.name", "Cy"), ("queue.1", 5)]:
        await held.set(path, value)
    assert await held.get_state() == {
        "orders": [{"id": 3}, 4],
        "person": Person("Cy"),
        "queue": deque([1, 5]),
    }


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("orders.5", "the state has no 'orders.5'; 'orders' is a list of length 1"),
        ("orders.5.x", "the state has no 'orders.5.x'; 'orders' is a list of length 1"),
        ("person.nmae", "the state has no 'person.nmae'; did you mean 'person.name'?"),
        ("person.nmae.first", "the state has no 'person.nmae.first'; did you mean 'person.name'?"),
        ("person._name", "the state has no 'person._name'; did you mean 'person.name'?"),
        (
            "frozen.items",
            (
                "cannot set 'frozen.items' in the state: a Frozen does not let itself be changed there; "
                "set a changed copy of the whole object"
            ),
        ),
        (
            "count.x",
            (
                "cannot set 'count.x' in the state: a int does not let itself be changed there; "
                "set a changed copy of the whole object"
            ),
        ),
        ("count.x.y", "the state has no 'count.x.y'; 'count' holds a int"),
    ],
)
async def test_what_cannot_be_set(path: str, message: str) -> None:
    """What cannot be set is a ValueError, and leaves the state and the record as they were."""
    face, log = logged(DictState(orders=[1], person=Person("Bo"), frozen=Frozen([1]), count=1))
    before = await face.get_state()
    log.clear()
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        await face.set(path, 1)
    assert log == ["touch"]
    assert await face.get_state() == before


@pytest.mark.anyio
async def test_values_go_by_reference() -> None:
    """get and set hand over the object itself, even the largest."""
    held, thing = store(), [1]
    await held.set("thing", thing)
    assert await held.get("thing") is thing


@pytest.mark.anyio
async def test_typed_states() -> None:
    """attrs classes and dataclasses are states like any other."""
    for state in (Account(Person("Bo")), Frozen([1])):
        face, _ = logged(state)
        async with face.edit_state() as draft:
            if isinstance(draft, Account):
                draft.owner.name = "Cy"
            else:
                draft.items.append(2)
        assert type(await face.get_state()) is type(state)
    face, _ = logged(Account(Person("Bo")))
    await face.set("owner.name", "Cy")
    await face.set("balance", 5)
    assert await face.get("owner.name") == "Cy"
    assert await face.get_state() == Account(Person("Cy"), 5)


# -- the whole state


@pytest.mark.anyio
async def test_get_state_and_set_state_do_not_alias() -> None:
    """What comes out of and goes into the whole state is a copy."""
    held = store(xs=[1])
    out = await held.get_state()
    out.xs.append(2)
    assert await held.get("xs") == [1]
    await held.set_state(out)
    out.xs.append(3)
    assert await held.get("xs") == [1, 2]


@pytest.mark.anyio
async def test_set_state_wants_the_type() -> None:
    """Another type is refused; a DictState takes any mapping and stays one; a subclass passes."""
    held = store(a=1)
    await held.set_state(cast("DictState", {"b": 2}))
    assert (await held.get_state()).b == 2
    message = r"^set_state\(\) got a Person, and the state is a DictState; give it a DictState$"
    with pytest.raises(ValueError, match=message):
        await held.set_state(cast("DictState", Person("Bo")))

    @dataclasses.dataclass
    class Savings(Account):
        rate: float = 0.1

    typed = InMemoryStateStore(Account(Person("Bo")))
    await typed.set_state(Savings(Person("Cy")))
    assert await typed.get("rate") == 0.1


@pytest.mark.anyio
async def test_clear() -> None:
    """clear makes a new state of the same type, which needs defaults."""
    held = store(a=1)
    await held.clear()
    assert await held.get_state() == DictState()
    assert isinstance(await held.get_state(), DictState)
    message = re.escape("clear() cannot make a new Account: ")
    with pytest.raises(ValueError, match=f"^{message}.*; give all its fields a default, or use set_state\\(\\)$"):
        await InMemoryStateStore(Account(Person("Bo"), 3)).clear()


# -- typed states


class Level(enum.Enum):
    LOW = 1


@attrs.define
class Item:
    id: int
    price: float = 0.0


def fold(text: str) -> str:
    return text.casefold()


@attrs.define
class AttrsState:
    count: int = 0
    name: str | None = None
    items: list[Item] = attrs.field(factory=list[Item])
    scores: dict[str, list[int]] = attrs.field(factory=dict[str, list[int]])
    level: Level = Level.LOW
    mode: Literal["on", "off"] = "on"
    main: Item | None = None
    positive: int = attrs.field(default=1, validator=attrs.validators.gt(0))
    folded: str = attrs.field(default="", converter=fold)
    anything: Any = None
    pair: tuple[int, str] = (0, "")


@dataclasses.dataclass
class DataclassState:
    count: int = 0
    name: str | None = None
    items: list[Item] = dataclasses.field(default_factory=list[Item])
    scores: dict[str, list[int]] = dataclasses.field(default_factory=dict[str, list[int]])
    main: Item | None = None


class PydanticItem(pydantic.BaseModel):
    id: int
    price: float = 0.0


class PydanticState(pydantic.BaseModel):
    count: int = 0
    name: str | None = None
    items: list[PydanticItem] = []
    scores: dict[str, list[int]] = {}
    positive: int = pydantic.Field(default=1, gt=0)
    main: PydanticItem | None = None


STATES: list[Any] = [AttrsState, DataclassState, PydanticState]


def item(state: Any, **fields: Any) -> Any:
    return (PydanticItem if isinstance(state, PydanticState) else Item)(**fields)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", STATES)
async def test_typed_states_take_what_fits(kind: Any) -> None:
    """A state of each library is made of its defaults, and takes at every depth what its annotations say."""
    store = StateStore.of(kind)
    face = StateFace[Any](store, Watcher())
    one = item(store.value, id=1)
    for path, value in (
        ("count", 2),
        ("name", "x"),
        ("name", None),
        ("items", [one]),
        ("items.0", item(store.value, id=2)),
        ("items.0.price", 3),
        ("main", one),
        ("main.id", 7),
        ("scores.a", [1]),
        ("scores.a.0", 5),
    ):
        await face.set(path, value)
        assert await face.get(path) == value
    assert store.kind is kind
    assert (await face.get("items.0.price"), await face.get("scores")) == (3, {"a": [5]})


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("count", "2", "{kind}.count must be int, got str ('2')"),
        ("count", None, "{kind}.count must be int, got None"),
        ("name", 5, "{kind}.name must be str | None, got int (5)"),
        ("items", [5], "{kind}.items[0] must be Item, got int (5)"),
        ("items.0", "x", "items.0 must be Item, got str ('x')"),
        ("items.0.price", "x", "Item.price must be float, got str ('x')"),
        ("main.id", 1.5, "Item.id must be int, got float (1.5)"),
        ("scores.a", 1, "scores.a must be list[int], got int (1)"),
        ("scores.a", ["x"], "scores.a[0] must be int, got str ('x')"),
        ("scores.a.b", 1, "scores.a must be list[int], got dict ({'b': 1})"),
    ],
)
@pytest.mark.parametrize("kind", [AttrsState, DataclassState])
async def test_typed_states_refuse_the_rest(kind: Any, path: str, value: object, problem: str) -> None:
    """What does not fit is a ValueError that names the place and both types; the state stays what it was."""
    face, log = logged(kind(items=[Item(1)], main=Item(2)))
    before = await face.get_state()
    log.clear()
    message = f"cannot set {path!r} in the state: {problem.replace('{kind}', kind.__name__)}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        await face.set(path, value)
    assert log == ["touch"]
    assert await face.get_state() == before


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("level", 1, "AttrsState.level must be Level, got int (1)"),
        ("mode", "dim", "AttrsState.mode must be Literal['on', 'off'], got str ('dim')"),
        ("pair", (1,), "AttrsState.pair must be tuple[int, str], got tuple ((1,))"),
        ("pair", (1, 2), "AttrsState.pair[1] must be str, got int (2)"),
        ("positive", -1, "'positive' must be > 0: -1"),
    ],
)
async def test_what_attrs_says_of_its_fields(path: str, value: object, problem: str) -> None:
    """Validators of the class have their say; converters convert; what is Any takes anything."""
    face, _ = logged(AttrsState())
    with pytest.raises(ValueError, match=f"^cannot set '{path}' in the state: {re.escape(problem)}$"):
        await face.set(path, value)
    await face.set("folded", "ABC")
    await face.set("anything", [1])
    await face.set("anything.0", "x")
    assert (await face.get("folded"), await face.get("anything")) == ("abc", ["x"])


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("count", "x", "Input should be a valid integer"),
        ("positive", 0, "Input should be greater than 0"),
        ("items", [5], "Input should be a valid dictionary or instance of PydanticItem"),
        ("items.0.id", "x", "Input should be a valid integer"),
    ],
)
async def test_what_pydantic_says_of_its_fields(path: str, value: object, problem: str) -> None:
    """A model checks what is set, though it was not told to check assignments, and converts as it does elsewhere."""
    face, _ = logged(PydanticState(items=[PydanticItem(id=1)]))
    before = await face.get_state()
    with pytest.raises(ValueError, match=rf"(?s)^cannot set '{path}' in the state: 1 validation error .*{problem}"):
        await face.set(path, value)
    assert await face.get_state() == before
    with pytest.raises(ValueError, match=r"^cannot set 'items.0' in the state: items\.0 must be PydanticItem, got int"):
        await face.set("items.0", 5)
    await face.set("count", "7")
    assert await face.get("count") == 7


def test_a_state_that_cannot_be_made() -> None:
    """A state type whose fields have no defaults says so."""
    message = re.escape("a run cannot make a new Item: ")
    with pytest.raises(ValueError, match=f"^{message}.*; give all its fields a default, or seed it$"):
        StateStore.of(Item)


@pytest.mark.anyio
async def test_a_state_keeps_its_declared_type() -> None:
    """After a subclass came in, the declared type is still what fits, and what clear makes."""

    @attrs.define
    class More(AttrsState):
        extra: int = 0

    store = StateStore.of(AttrsState)
    face = StateFace(store, Watcher())
    await face.set_state(More(extra=1))
    with pytest.raises(
        ValueError, match=r"^cannot set 'extra' in the state: More\.extra must be int, got str \('x'\)$"
    ):
        await face.set("extra", "x")
    await face.set_state(AttrsState(count=3))
    assert await face.get("count") == 3
    await face.set_state(More())
    await face.clear()
    assert type(await face.get_state()) is AttrsState


@pytest.mark.anyio
@pytest.mark.parametrize("kind", STATES)
async def test_get_state_of_a_typed_state_does_not_alias(kind: Any) -> None:
    """Not the lists, not the objects in them, not what was given."""
    face, _ = logged(kind())
    given = kind(items=[item(kind(), id=1)], scores={"a": [1]})
    await face.set_state(given)
    out = await face.get_state()
    for other in (given, out):
        other.items[0].id = 9
        other.scores["a"].append(9)
    assert (await face.get("items.0.id"), await face.get("scores")) == (1, {"a": [1]})


@pytest.mark.anyio
@pytest.mark.parametrize("kind", STATES)
async def test_a_hundred_editors_lose_nothing(kind: Any) -> None:
    """Each sees what the one before committed; readers see committed values only: all that belongs together."""
    face, _ = logged(kind())
    seen: list[tuple[int, int]] = []

    async def edit() -> None:
        async with face.edit_state() as state:
            before = state.count
            await anyio.sleep(0.1)
            state.count = before + 1
            state.scores.setdefault("n", []).append(state.count)

    async def read() -> None:
        while await face.get("count") < 100:
            state = await face.get_state()
            seen.append((state.count, len(state.scores.get("n", ()))))
            await anyio.sleep(0.07)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        for _ in range(100):
            tasks.start_soon(edit)
    assert await face.get("count") == 100
    assert await face.get("scores.n") == list(range(1, 101))
    assert len(seen) > 100
    assert all(count == numbers for count, numbers in seen)


# -- transactions


@pytest.mark.anyio
async def test_edit_state_commits_at_the_end() -> None:
    """Inside, readers see what was committed; after the block, all of it."""
    held = store(n=1, xs=[1])
    async with held.edit_state() as state:
        state.n += 1
        state.xs.append(2)
        assert await held.get_state() == {"n": 1, "xs": [1]}
        assert await held.get("n") == 1
    assert await held.get_state() == {"n": 2, "xs": [1, 2]}


@pytest.mark.anyio
async def test_edit_state_discards_on_error() -> None:
    """An exception leaves nothing of the block, and frees the turn."""
    face, log = logged(DictState(xs=[1]))
    with pytest.raises(KeyError):
        async with face.edit_state() as state:
            state.xs.append(2)
            raise KeyError
    assert log == ["touch"]
    assert await face.get("xs") == [1]
    await face.set("xs", [3])
    assert await face.get("xs") == [3]


@pytest.mark.anyio
async def test_edit_state_discards_on_cancellation() -> None:
    """A cancelled block leaves nothing, and frees the turn."""
    held = store(n=1)
    with anyio.move_on_after(1):
        async with held.edit_state() as state:
            state.n = 2
            await anyio.sleep(60)
    assert await held.get("n") == 1
    async with held.edit_state() as state:
        state.n = 3
    assert await held.get("n") == 3


Verb = Callable[[InMemoryStateStore[DictState]], Awaitable[None]]


async def nested_edit(held: InMemoryStateStore[DictState]) -> None:
    async with held.edit_state():
        pass


WRITERS: dict[str, Verb] = {
    "set": lambda held: held.set("n", 5),
    "set_state": lambda held: held.set_state(DictState(n=5)),
    "clear": lambda held: held.clear(),
    "edit_state": nested_edit,
}


@pytest.mark.anyio
@pytest.mark.parametrize("verb", WRITERS)
async def test_writers_inside_edit_state(verb: str) -> None:
    """A writer inside the block of the same task would wait for ever, so it is told what to do."""
    held = store(n=1)
    message = (
        f"{verb}() inside edit_state() would wait for itself; "
        f"change the state that edit_state() gave, or call {verb}() after the block [AF040]"
    )
    async with held.edit_state() as state:
        with pytest.raises(ContextStateError, match=f"^{re.escape(message)}$"):
            await WRITERS[verb](held)
        state.n = 2
    assert await held.get("n") == 2


@pytest.mark.anyio
@pytest.mark.parametrize("verb", WRITERS)
async def test_writers_of_other_tasks_wait(verb: str) -> None:
    """A writer of another task gets its turn after the block, on what the block committed."""
    held = store(n=1)
    done = anyio.Event()

    async def write() -> None:
        await WRITERS[verb](held)
        done.set()

    async with anyio.create_task_group() as tasks, held.edit_state() as state:
        tasks.start_soon(write)
        await anyio.sleep(1)
        assert not done.is_set()
        state.n = 2
    assert done.is_set()
    assert await held.get("n", None) == {"clear": None, "edit_state": 2}.get(verb, 5)


@pytest.mark.anyio
async def test_writers_take_turns_in_order() -> None:
    """Writers that wait are served first come, first served; one that is cancelled meanwhile is passed over."""
    held = store(order=[])
    scopes: list[anyio.CancelScope] = []

    async def write(name: int) -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            async with held.edit_state() as state:
                state.order.append(name)
                await checkpoint()

    async with anyio.create_task_group() as tasks, held.edit_state():
        for name in range(5):
            tasks.start_soon(write, name)
            await anyio.wait_all_tasks_blocked()
        scopes[2].cancel()
    assert await held.get("order") == [0, 1, 3, 4]


@pytest.mark.anyio
async def test_a_turn_given_to_a_cancelled_writer_is_passed_on() -> None:
    """A writer cancelled at the very moment of its turn blocks nobody."""
    held = store(order=[])
    first, second = anyio.CancelScope(), anyio.CancelScope()

    async def write(name: int, scope: anyio.CancelScope) -> None:
        with scope:
            async with held.edit_state() as state:
                state.order.append(name)

    async with anyio.create_task_group() as tasks:
        async with held.edit_state():
            tasks.start_soon(write, 1, first)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(write, 2, second)
            await anyio.wait_all_tasks_blocked()
        first.cancel()
    assert (await held.get("order"))[-1] == 2
    async with held.edit_state() as state:
        state.order.append(3)
    assert (await held.get("order"))[-1] == 3


def test_a_store_moves_between_event_loops() -> None:
    """A store needs no event loop to be made, and goes from one backend to the other."""
    held = store(n=0)

    async def add() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(add_one)

    async def add_one() -> None:
        async with held.edit_state() as state:
            await checkpoint()
            state.n += 1

    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(add, backend=backend)
    assert held._store.read("n") == 9
    assert not held._store.editing


def test_a_cancelled_writer_leaves_nothing_to_the_next_loop() -> None:
    """A writer cancelled before its turn leaves no lock of its event loop behind."""
    held = store(n=0)

    async def cancelled() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await held.clear()

    async def write() -> None:
        await held.set("n", 1)
        await held.set_state(DictState(n=2))

    for before, after in (("asyncio", "trio"), ("trio", "asyncio")):
        anyio.run(cancelled, backend=before)
        anyio.run(write, backend=after)
    assert held._store.value == {"n": 2}


def test_uncontended_verbs_do_not_suspend() -> None:
    """Without another writer, nothing gives way to other tasks: reading and setting need no event loop at all."""
    held = store(n=1)
    for verb in (held.get("n"), held.set("n", 2), held.get_state(), held.set("a.b", 2)):
        with pytest.raises(StopIteration):
            verb.send(None)


@pytest.mark.anyio
async def test_seams() -> None:
    """Every access touches first; every commit is recorded after it, with the path and the value."""
    face, log = logged(DictState(n=1))
    await face.get("n")
    await face.get_state()
    assert log == ["touch", "touch"]
    log.clear()
    await face.set("a.b", 2)
    assert log == ["touch", ("a.b", 2)]
    log.clear()
    async with face.edit_state() as state:
        state.n = 3
        assert log == ["touch"]
    assert log == ["touch", "touch", (None, {"n": 3, "a": {"b": 2}})]
    log.clear()
    await face.set_state(DictState(c=1))
    await face.clear()
    assert log == ["touch", (None, {"c": 1}), "touch", (None, {})]


@pytest.mark.anyio
async def test_a_writer_touches_in_its_turn() -> None:
    """A writer that had to wait touches after its wait: by then somebody else has written."""
    face, log = logged(DictState(n=1))
    async with anyio.create_task_group() as tasks, face.edit_state() as state:
        tasks.start_soon(face.set, "n", 5)
        await anyio.wait_all_tasks_blocked()
        assert log == ["touch"]
        state.n = 2
    assert log == ["touch", "touch", (None, {"n": 5}), "touch", ("n", 5)]


@pytest.mark.anyio
async def test_a_touch_that_raises_commits_nothing() -> None:
    """An execution that may not write any more writes nothing, and keeps nobody from writing."""
    allowed = True

    def touch() -> None:
        if not allowed:
            raise ContextStateError("too late", code="AF000")

    inner = StateStore(DictState(n=1))
    face = StateFace(inner, Watcher(touch=touch))
    with pytest.raises(ContextStateError):
        async with face.edit_state() as state:
            state.n = 2
            allowed = False
    assert inner.value == {"n": 1}
    assert not inner.editing


KEYS = st.sampled_from("abc")
VALUES = st.recursive(
    st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["set", "commit", "discard", "clear"]), st.lists(KEYS, min_size=1, max_size=3), VALUES),
    max_size=12,
)


@given(OPERATIONS)
def test_transactions_against_a_dict(operations: list[tuple[str, list[str], Any]]) -> None:
    """Sets and transactions give what they would give on a plain dict that is deep-copied around each of them."""
    model: dict[str, Any] = {}

    def put(target: Any, path: list[str], value: Any) -> bool:
        for key in path[:-1]:
            if not isinstance(target, dict):
                return False
            target = cast("dict[str, Any]", target).setdefault(key, {})
        if not isinstance(target, dict):
            return False
        target[path[-1]] = copy.deepcopy(value)
        return True

    async def run() -> None:
        nonlocal model
        held = store()
        for verb, path, value in operations:
            attempt = copy.deepcopy(model)
            if verb == "set":
                if put(attempt, path, value):
                    await held.set(".".join(path), copy.deepcopy(value))
                    model = attempt
                else:
                    with pytest.raises(ValueError, match=r"^(the state has no|cannot set) "):
                        await held.set(".".join(path), value)
            elif verb == "clear":
                await held.clear()
                model = {}
            else:
                try:
                    async with held.edit_state() as draft:
                        done = put(draft, path, value)
                        assert await held.get_state() == model
                        if verb == "discard" or not done:
                            raise InterruptedError
                    put(model, path, value)
                except InterruptedError:
                    pass
            assert await held.get_state() == model

    anyio.run(run)


# -- copies


def note(words: list[str]) -> Note:
    return Note(words=words)


def start(topic: object) -> StartEvent:
    return StartEvent(topic=topic)


ATOMS = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.binary(max_size=3)
DATA = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.lists(inner, max_size=4).map(deque),
        st.dictionaries(st.text(max_size=2) | st.integers(), inner, max_size=4),
        st.dictionaries(st.text(max_size=2), inner, max_size=4).map(DictState),
        st.sets(st.integers(), max_size=4),
        st.frozensets(st.integers(), max_size=4),
        st.builds(Pair, inner, inner),
        st.builds(Person, st.text(max_size=3), st.just(["x"]), inner),
        st.builds(note, st.lists(st.text(max_size=2), max_size=2)),
        st.builds(start, inner),
    ),
)


def mutables(value: Any) -> list[Any]:
    """All changeable parts of a value, in order."""
    found: list[Any] = []
    if isinstance(value, dict | list | deque | set | Person):
        found.append(value)
    if isinstance(value, dict):
        parts: list[Any] = [*value.values()]
    elif isinstance(value, list | tuple | deque):
        parts = list(cast("list[Any]", value))
    elif isinstance(value, Person):
        parts = [value.tags, value.address]
    elif isinstance(value, Note):
        parts = [value.words]
    elif isinstance(value, StartEvent):
        parts = [value["topic"]]
    else:
        parts = []
    return found + [part for item in parts for part in mutables(item)]


@given(DATA)
def test_copies_are_equal_and_apart(value: Any) -> None:
    """A copy is equal, of the same types, and shares no changeable part with the original."""
    twin = copy_data(value)
    assert twin == value
    assert repr(twin) == repr(value)
    ours, theirs = mutables(twin), mutables(value)
    assert [type(part) for part in ours] == [type(part) for part in theirs]
    assert not {id(part) for part in ours} & {id(part) for part in theirs}


def test_copies_keep_shared_parts_and_cycles() -> None:
    """What was one object is one object in the copy; what held itself holds itself."""
    shared = [1]
    value: dict[str, Any] = {"a": shared, "b": shared, "t": ([],)}
    value["self"] = value
    value["t"][0].append(value["t"])
    twin = copy_data(value)
    assert twin["a"] is twin["b"] is not shared
    assert twin["self"] is twin
    assert twin["t"][0][0] is twin["t"]
    assert twin["t"] is not value["t"]


def test_copies_keep_what_has_an_identity() -> None:
    """Clients, locks, members of an Enum and classes stay the objects they are, attrs classes among them too."""

    @attrs.define(eq=False)
    class Connection:
        buffer: list[int]

    class Plain:
        pass

    parts = Colour.RED.parts
    for thing in (threading.Lock(), Plain(), Connection([1]), Colour.RED, Plain, print, OSError("x")):
        assert copy_data({"thing": [thing]})["thing"][0] is thing
    assert Colour.RED.parts is parts


def test_a_root_with_identity_is_copied() -> None:
    """A state that compares by identity is a state all the same."""

    @attrs.define(eq=False)
    class Root:
        xs: list[int]

    root = Root([1])
    twin = copy_data(root)
    twin.xs.append(2)
    assert root.xs == [1]


def test_copies_of_container_subclasses() -> None:
    """Subclasses of containers keep their type and what is special about them."""
    counts: defaultdict[str, list[int]] = defaultdict(list, a=[1])
    twin = copy_data(counts)
    twin["b"].append(2)
    twin["a"].append(2)
    assert counts == {"a": [1]}
    ordered = copy_data(OrderedDict[str, list[int]](b=[1], a=[2]))
    assert list(ordered) == ["b", "a"]
    assert type(copy_data(Counter("aab"))) is Counter
    assert copy_data(deque([[1]], maxlen=1)).maxlen == 1
    buffer = bytearray(b"x")
    assert copy_data(buffer) is not buffer


def test_copies_of_frozen_objects() -> None:
    """Frozen objects are copied as well, cached hash included, and nothing runs a constructor."""
    made: list[int] = []

    @attrs.frozen(cache_hash=True)
    class Order:
        number: int
        items: list[int] = attrs.field(eq=False)

        def __attrs_post_init__(self) -> None:
            made.append(self.number)

    order = Order(7, [1])
    before = hash(order)
    twin = copy_data([order])[0]
    twin.items.append(2)
    assert (made, order.items, twin.items, hash(twin)) == ([7], [1], [1, 2], before)
