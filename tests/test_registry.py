"""Names of types: found without being imported, unique where it matters, and grown from version to version."""

from __future__ import annotations

import dataclasses
import gc
import re
import sys
import types
from typing import Any, cast

import anyio
import attrs
import pytest

from actorflow import Context, Event, JsonSerializer, StartEvent, StopEvent, Workflow, step
from actorflow._loaded import place_of
from actorflow.errors import ContextSerdeError, RegistrationError
from actorflow.graph import compile_workflow
from actorflow.registry import Entry, Registry, evolves, register, scope_of

SERIALIZER = JsonSerializer()


def load(tag: str, fields: object, serializer: JsonSerializer = SERIALIZER) -> Any:
    return serializer.deserialize_value({"$": tag, "v": fields})


class Plain:
    def __init__(self, x: int = 0) -> None:
        self.x = x


# -- registering


@pytest.mark.parametrize("thing", [Plain, int, 5, list[int], Plain()], ids=repr)
def test_what_cannot_be_registered(thing: object) -> None:
    """Only classes whose objects can be taken apart are registered without saying how."""
    message = (
        f"cannot register {thing!r}; give an attrs class, a dataclass, a pydantic model, a msgspec struct, an Enum, an "
        "exception or an event class, or say how with dump=… and load=… [AF200]"
    )
    with pytest.raises(RegistrationError, match=f"^{re.escape(message)}$"):
        JsonSerializer().register(cast("Any", thing))


def test_how_to_keep_anything() -> None:
    """Any class can be kept once it is said how."""
    own = JsonSerializer()
    own.register(Plain, "plain", dump=lambda plain: (plain.x,), load=lambda parts: Plain(*parts))
    text = own.serialize([Plain(3)])
    assert text == '[{"$":"plain@1","v":{"$":"tuple","v":[3]}}]'
    assert own.deserialize(text)[0].x == 3
    with pytest.raises(
        ContextSerdeError, match=r"^cannot deserialise value: the data does not make a plain@1: TypeError: "
    ):
        own.deserialize('{"$":"plain@1","v":[1,2,3]}')
    with pytest.raises(RegistrationError, match="was given one of dump and load"):
        own.register(Plain, dump=str)


@pytest.mark.parametrize("version", [0, -1, True, "1"])
def test_versions_are_counted_from_one(version: Any) -> None:
    """A version is a whole number from 1."""
    with pytest.raises(RegistrationError, match=r"a version is a whole number from 1, not .* \[AF200\]$"):
        register(attrs.make_class("Thing", ["x"]), version=version)


def test_a_class_whose_name_was_registered_has_no_other() -> None:
    """A class that was given a name is not found by its place in the code."""

    @register(name="moved.here")
    class Moved(Event):
        n: int

    assert load("moved.here@1", {"n": 1}) == Moved(n=1)
    with pytest.raises(ContextSerdeError, match="no type is known as"):
        load(f"{Moved.__module__}:{Moved.__qualname__}@1", {"n": 1})


def test_registering_reaches_serializers_that_are_in_use() -> None:
    """What is registered after a look-up is found by the next one."""
    cls = attrs.make_class("Late", ["x"])
    with pytest.raises(ContextSerdeError, match=r"Late is not registered; put @register"):
        SERIALIZER.serialize(cls(1))
    register(cls, "late")
    assert SERIALIZER.deserialize(SERIALIZER.serialize(cls(1))) == cls(1)


def test_a_long_name_is_not_searched_for_neighbours() -> None:
    """Comparing names takes the square of their length: data cannot ask for it."""
    with pytest.raises(ContextSerdeError) as caught:
        load("x" * 1_000_000, {})
    assert len(str(caught.value)) < 300


# -- classes of one name


def make_order() -> type[Event]:
    class Order(Event):
        number: int

    return Order


def test_classes_of_functions_may_share_a_name() -> None:
    """They are declared without ado; of those in use, data does not say which it means."""
    first = make_order()
    data = SERIALIZER.serialize_value(first(number=1))
    assert SERIALIZER.deserialize_value(data) == first(number=1)
    second = make_order()
    with pytest.raises(ContextSerdeError) as caught:
        SERIALIZER.deserialize_value(data)
    assert re.fullmatch(
        rf"cannot deserialise value: 2 classes are '{__name__}:make_order\.<locals>\.Order', the first from .*Order "
        r"\(.*test_registry\.py:\d+\), the last from .*; give them names of their own: @register\(name=…\) \[AF205\]",
        str(caught.value),
    )
    del first
    assert SERIALIZER.deserialize_value(data) == second(number=1)


def test_classes_that_nobody_has_any_more() -> None:
    """Of classes that are not used the collector may not have heard yet; data does not mean them."""
    gc.disable()
    try:
        make_order()
        name = f"{__name__}:{make_order().__qualname__}@1"
        with pytest.raises(ContextSerdeError, match="no type is known as"):
            load(name, {"number": 1})
    finally:
        gc.enable()


def test_a_workflow_means_its_own() -> None:
    """Within a workflow a name means the class that the workflow names, whatever others are called."""

    def make() -> tuple[type[Workflow], type[Event]]:
        class Note(Event):
            text: str

        class Writer(Workflow):
            @step
            async def begin(self, ev: StartEvent) -> Note:
                return Note(text="x")

            @step
            async def end(self, ev: Note) -> StopEvent:
                return StopEvent()

        return Writer, Note

    pairs = [make(), make()]
    assert pairs[0][1] is not pairs[1][1]
    for workflow, note in pairs:
        within = SERIALIZER.within(scope_of(compile_workflow(workflow)))
        assert type(within.deserialize(within.serialize(note(text="a")))) is note


def test_a_module_that_runs_again_replaces_its_classes() -> None:
    """As in a notebook: a name at the top of a module means what the module calls so now."""
    module = types.ModuleType("a_notebook")
    sys.modules["a_notebook"] = module
    source = "from actorflow import Event\nclass Cell(Event):\n    n: int = 0\n"
    try:
        exec(source, vars(module))  # noqa: S102 - ours
        old = module.Cell
        data = SERIALIZER.serialize_value(old(n=1))
        assert type(SERIALIZER.deserialize_value(data)) is old
        exec(source, vars(module))  # noqa: S102 - ours
        assert module.Cell is not old
        assert type(SERIALIZER.deserialize_value(data)) is module.Cell
    finally:
        del sys.modules["a_notebook"]


def test_classes_are_let_go() -> None:
    """No table of ours keeps a class that nobody else has: the codec of a serializer goes with it."""
    serializer = JsonSerializer()
    cls = make_order()
    serializer.deserialize(serializer.serialize(cls(number=1)))
    found = [one for one in Event.__subclasses__() if one.__qualname__ == cls.__qualname__]
    assert cls in found
    found.clear()
    del cls, serializer
    gc.collect()
    assert [one for one in Event.__subclasses__() if one.__qualname__ == "make_order.<locals>.Order"] == []


# -- a workflow's types


@attrs.define
class Address:
    street: str = ""


@dataclasses.dataclass
class Customer:
    addresses: list[Address] = dataclasses.field(default_factory=list[Address])
    parent: Customer | None = None


@attrs.define
class Shelf:
    customers: dict[str, Customer] = attrs.field(factory=dict[str, Customer])
    anything: Any = None


class Shop(Workflow):
    @step
    async def begin(self, ctx: Context[Shelf], ev: StartEvent) -> StopEvent:
        async with ctx.store.edit_state() as state:
            state.customers["ada"] = Customer([Address("Oak Lane")])
            state.anything = [Address("anywhere"), (1, 2)]
        return StopEvent()


def test_the_types_that_a_workflow_names() -> None:
    """The types of a workflow's state are known through its annotations, also where those say Any."""
    scope = scope_of(compile_workflow(Shop))
    tags = {entry.cls: entry.tag for entry in scope.entries()}
    assert tags[Shelf] == f"{__name__}:Shelf@1"
    assert {Shelf, Customer, Address, StartEvent, StopEvent} <= tags.keys()
    state = Shelf({"ada": Customer([Address("x")], Customer())}, [Address("y")])
    within = SERIALIZER.within(scope)
    assert within.deserialize(within.serialize(state)) == state
    with pytest.raises(ContextSerdeError, match=r"Shelf is not registered"):
        SERIALIZER.serialize(state)


def test_a_context_keeps_what_its_workflow_names() -> None:
    """A state and what is in it need no registration in to_dict and from_dict."""
    run = Shop()

    async def main() -> dict[str, Any]:
        ctx = Context(run)
        await run.run(ctx=ctx)
        return ctx.to_dict()

    for backend in ("asyncio", "trio"):
        data = anyio.run(main, backend=backend)
        restored: Context[Shelf] = Context.from_dict(Shop(), data)
        state = restored._port.state.value
        assert state.customers == {"ada": Customer([Address("Oak Lane")])}
        assert state.anything == [Address("anywhere"), (1, 2)]


def test_a_step_added_later_is_seen() -> None:
    """The types of a workflow are those of its graph as it is now."""

    class Growing(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> StopEvent:
            return StopEvent()

    class More(Event):
        n: int = 0

    def data() -> dict[str, Any]:
        return Context(Growing()).to_dict()

    assert data()["state"] == {"data": {"$": "DictState", "v": {}}}

    @step(skip_graph_checks=["reachability"])
    async def more(ev: More) -> StopEvent:
        return StopEvent()

    Growing.add_step(more)
    assert data()["workflow"] == "Growing"
    assert More in {entry.cls for entry in scope_of(Growing._actorflow_graph()).entries()}


def test_two_of_one_name_in_a_workflow_are_refused() -> None:
    """Within one workflow a name has one meaning."""
    first, second = make_order(), make_order()

    class Both(Workflow):
        async def begin(self, ev: StartEvent) -> Any:
            return None

        async def end(self, ev: Any) -> StopEvent:
            return StopEvent()

    Both.begin.__annotations__["return"] = first | second
    Both.end.__annotations__["ev"] = first | second
    step(Both.begin)
    step(Both.end)
    with pytest.raises(RegistrationError, match=r"would both be .*make_order.<locals>.Order@1' in data; .* \[AF201\]$"):
        scope_of(compile_workflow(Both))


def test_serializers_own_types_come_first() -> None:
    """A serializer's own names win over those of the workflow that it is used within."""
    own = JsonSerializer()
    own.register(Address, "address", 2)
    within = own.within(scope_of(compile_workflow(Shop)))
    assert within.serialize(Address("x")) == '{"$":"address@2","v":{"street":"x"}}'
    assert within.deserialize(within.serialize(Shelf({}, Address("x")))) == Shelf({}, Address("x"))


# -- versions


@register(name="cake", version=3)
@attrs.frozen
class Cake:
    grams: int
    label: str


@evolves(Cake, from_version=1)
def kilos_to_grams(fields: dict[str, Any]) -> dict[str, Any]:
    return {"grams": fields.pop("kilos") * 1000}


@evolves(Cake, from_version=2)
def with_label(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "label": f"{fields['grams']} g"}


def test_old_data_goes_through_every_version() -> None:
    """Upcasters are composed: 1→2→3, 2→3, and none for data of today. The data is left as it was."""
    old = {"kilos": 2}
    assert load("cake@1", old) == Cake(2000, "2000 g")
    assert old == {"kilos": 2}
    assert load("cake@2", {"grams": 5}) == Cake(5, "5 g")
    assert load("cake@3", {"grams": 5, "label": "x"}) == Cake(5, "x")
    assert SERIALIZER.serialize(Cake(1, "x")) == '{"$":"cake@3","v":{"grams":1,"label":"x"}}'


class Bakery(Event):
    cakes: list[Cake]
    best: Cake | None = None


def test_old_data_inside_of_others() -> None:
    """Where an annotation names the class, old data in it evolves, too."""
    cakes = [{"$": "cake@1", "v": {"kilos": 1}}, {"$": "cake@3", "v": {"grams": 1, "label": "x"}}]
    made = load(f"{__name__}:Bakery@1", {"cakes": cakes, "best": cakes[0]})
    assert made == Bakery(cakes=[Cake(1000, "1000 g"), Cake(1, "x")], best=Cake(1000, "1000 g"))


def fresh(name: str, version: int) -> type[Any]:
    return register(attrs.make_class(name.title(), {"x": attrs.field(default=0)}, frozen=True), name, version)


def test_a_missing_link() -> None:
    """Where the chain breaks, the message says what to write."""
    cls = fresh("gap", 4)
    evolves(cls, 1)(dict)
    with pytest.raises(ContextSerdeError) as caught:
        load("gap@1", {})
    assert str(caught.value) == (
        "cannot deserialise value: its type is 'gap@1', and no upcaster leads on from version 2 to gap@4; "
        "write one: @evolves(Gap, from_version=2) [AF206]"
    )
    evolves(cls, 2, to_version=4)(dict)
    assert load("gap@1", {"x": 7}) == cls(7)


@pytest.mark.parametrize(("old", "new"), [(2, 1), (2, 2), (0, 1), (-1, None)])
def test_no_circle_of_versions(old: int, new: int | None) -> None:
    """Versions count up, so that upcasters cannot lead in a circle."""
    with pytest.raises(RegistrationError, match=r"so that no steps go round in a circle \[AF202\]$"):
        evolves(Cake, old, new)


def test_one_upcaster_for_each_version() -> None:
    """Two ways on from one version are refused, with both places; the same function may be defined again."""
    cls = fresh("twice", 2)

    def define() -> Any:
        @evolves(cls, 1)
        def one(fields: dict[str, Any]) -> dict[str, Any]:
            return fields

        return one

    define()
    define()
    with pytest.raises(RegistrationError) as caught:

        @evolves(cls, 1)
        def other(fields: dict[str, Any]) -> dict[str, Any]:
            return fields

    assert re.fullmatch(
        r".*other \(.*test_registry\.py:\d+\) and .*one \(.*test_registry\.py:\d+\) both evolve Twice from version 1; "
        r"keep one of them \[AF203\]",
        str(caught.value),
    )


def test_what_an_upcaster_gives_wrongly() -> None:
    """An upcaster that raises, gives no dict, or gives fields that do not fit is named."""
    cls = fresh("wrong", 2)
    given: list[Any] = []
    where = f"{__name__}.test_what_an_upcaster_gives_wrongly.<locals>.step_up"

    @evolves(cls, 1)
    def step_up(fields: dict[str, Any]) -> dict[str, Any]:
        return cast("dict[str, Any]", given[0](fields))

    cases: list[tuple[Any, str]] = [
        (lambda fields: fields["y"], f"the upcaster {where} failed: KeyError: 'y' [AF206]"),  # pyright: ignore[reportUnknownLambdaType]
        (lambda _: None, f"the upcaster {where} gave a NoneType; have it give the fields, a dict [AF206]"),  # pyright: ignore[reportUnknownLambdaType]
        (lambda _: {"z": 1}, "the data does not make a wrong@2: TypeError: it has no field 'z' [AF052]"),  # pyright: ignore[reportUnknownLambdaType]
        (lambda _: {"x": (1,)}, "a tuple is not JSON data; give what serialize_value() made [AF052]"),  # pyright: ignore[reportUnknownLambdaType]
    ]
    for function, message in cases:
        given[:] = [function]
        with pytest.raises(ContextSerdeError) as caught:
            load("wrong@1", {})
        assert str(caught.value).partition(": ")[2] == message
    with pytest.raises(ContextSerdeError, match="it needs a dict, not a list"):
        load("wrong@1", [])


def test_upcasters_beyond_the_class() -> None:
    """Upcasters to a version that the class does not have yet say so."""
    cls = fresh("beyond", 2)
    evolves(cls, 1, to_version=3)(dict)
    with pytest.raises(ContextSerdeError, match=r"lead from 'beyond@1' to version 3, past beyond@2; raise the version"):
        load("beyond@1", {})


@pytest.mark.parametrize("version", ["0", "4", "9" * 5_000, "x", "", "1.0", "²", "-1"])
def test_versions_that_there_are_not(version: str) -> None:
    """Data of a newer version, or of none, is refused."""
    with pytest.raises(ContextSerdeError) as caught:
        load(f"cake@{version}", {"grams": 1, "label": "x"})
    assert caught.value.code in {"AF204", "AF206"}


def test_places_without_source() -> None:
    """A class that has no source is shown by its name."""
    assert place_of(dict) == "builtins.dict"
    assert Registry().entry_of(Plain) is None
    assert Entry(Plain, "x", 2).tag == "x@2"
