"""Declarations of resources: what they say, how they are read, and what stands for them in tests."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
import attrs
import pydantic
import pytest
from typing_extensions import TypeAliasType

from actorflow import resource
from actorflow._recipes import Kind, Recipe, read_recipe, replaced
from actorflow.errors import ResourceError
from actorflow.resources import Resource, ResourceConfig, override


def connect() -> str:
    return "connected"


async def connect_later() -> str:
    return "connected"


def generate() -> Generator[str]:
    yield "connected"


async def generate_later() -> AsyncGenerator[str]:
    yield "connected"


@contextmanager
def manage() -> Generator[str]:
    yield "connected"


@asynccontextmanager
async def manage_later() -> AsyncGenerator[str]:
    yield "connected"


class Client:
    """A class is a factory too; that it is a context manager does not matter."""

    def __init__(self, db: Annotated[str, Resource(connect)], retries: int = 3) -> None:
        self.db = db

    def __enter__(self) -> Client:
        raise AssertionError("nobody asked for it")

    def __exit__(self, *_: object) -> None:
        raise AssertionError("nobody asked for it")

    def open(self, db: Annotated[str, Resource(connect)]) -> str:
        return db

    async def __call__(self, db: Annotated[str, Resource(connect)]) -> str:
        return db


def read(declared: Resource | ResourceConfig | Callable[..., object], kind: Any = Any) -> Recipe:
    source = declared if isinstance(declared, Resource | ResourceConfig) else Resource(declared)
    recipe = read_recipe(Annotated[kind, source])
    assert recipe is not None
    return recipe


def needs(recipe: Recipe) -> dict[str, str]:
    return {need.parameter: need.recipe.name for need in recipe.needs}


def make(recipe: Recipe) -> Any:
    return recipe.make(**{need.parameter: make(need.recipe) for need in recipe.needs})


@pytest.mark.parametrize(
    ("factory", "kind", "tell", "name"),
    [
        (connect, Kind.VALUE, True, "connect"),
        (connect_later, Kind.COROUTINE, True, "connect_later"),
        (generate, Kind.CONTEXT, False, "generate"),
        (generate_later, Kind.ASYNC_CONTEXT, False, "generate_later"),
        (manage, Kind.CONTEXT, True, "manage"),
        (manage_later, Kind.ASYNC_CONTEXT, True, "manage_later"),
        (functools.partial(generate_later), Kind.ASYNC_CONTEXT, False, "generate_later"),
        (Client, Kind.VALUE, True, "Client"),
        (Client(""), Kind.COROUTINE, True, "Client"),
        (Client("").open, Kind.VALUE, True, "Client.open"),
        (dict, Kind.VALUE, True, "dict"),
        (lambda: 1, Kind.VALUE, True, "<lambda>"),
    ],
)
def test_kinds(factory: Callable[..., object], kind: Kind, tell: bool, name: str) -> None:
    """A factory's definition says what calling it gives, and whether its closing is told of errors."""
    recipe = read(factory)
    assert (recipe.kind, recipe.tell, recipe.name, recipe.scope) == (kind, tell, name, "run")


@pytest.mark.parametrize("factory", [Client, Client("").open, Client(""), functools.partial(Client, retries=1)])
def test_needs_of_every_callable(factory: Callable[..., object]) -> None:
    """Parameters are read of whatever can be called; those with a default are left alone."""
    assert needs(read(factory)) == {"db": "connect"}


def test_what_is_no_resource() -> None:
    """Other annotations declare nothing."""
    for annotation in (str, Annotated[str, "doc"], None, "str", list[Annotated[str, Resource(connect)]]):
        assert read_recipe(annotation) is None


Db = TypeAliasType("Db", Annotated[str, "doc", Resource(connect)])


def test_an_alias_is_looked_through() -> None:
    """An annotation may have a name."""
    recipe = read_recipe(Db)
    assert recipe is not None
    assert recipe.name == "connect"


def test_parameters_that_need_nothing() -> None:
    """Defaults, *args and **kwargs are not the resources' business, whatever their annotations name."""

    def factory(a: int = 1, *args: int, b: object = None, **kwargs: object) -> int:
        return a

    factory.__annotations__["b"] = "Missing"

    assert make(read(factory)) == 1


def test_nested_needs() -> None:
    """Factories take resources, and so do theirs; a name of the factory's surroundings is found."""

    def pool(db: Annotated[str, Resource(connect)]) -> str:
        return f"pool of {db}"

    Pool = Annotated[str, Resource(pool)]

    def session(pool: str, *, db: Annotated[str, Resource(connect)]) -> str:
        return f"session of {pool} and {db}"

    session.__annotations__["pool"] = "Pool"

    recipe = read_recipe(Annotated[str, Resource(session)], {"Pool": Pool})
    assert recipe is not None
    assert needs(recipe) == {"pool": "pool", "db": "connect"}
    assert make(recipe) == "session of pool of connected and connected"
    assert recipe.needs[0].recipe.needs[0].recipe.key == recipe.needs[1].recipe.key


def first(it: str) -> str:
    return it


first.__annotations__["it"] = "Annotated[str, Resource(second)]"


def second(it: Annotated[str, Resource(first)]) -> str:
    return it


def third(it: Annotated[str, Resource(second)]) -> str:
    return it


def itself(it: str) -> str:
    return it


itself.__annotations__["it"] = "Annotated[str, Resource(itself)]"


def test_circles_are_reported() -> None:
    """A resource that needs itself in the end is refused with the way round, from where it is entered."""
    message = "resources need each other in a circle: second -> first -> second; take one of these needs out [AF061]"
    with pytest.raises(ResourceError, match=f"^{re.escape(message)}$"):
        read(third)
    with pytest.raises(ResourceError, match=r"circle: itself -> itself; "):
        read(itself)


def unreadable(db: str) -> None: ...


unreadable.__annotations__["db"] = "Annotated[Missing, Resource(connect)]"


def bare(port: int) -> None: ...


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            bare,
            (
                "bare cannot be called: its parameter 'port' is no resource and has no default; "
                "write `port: Annotated[..., Resource(...)]`, or give it a default [AF062]"
            ),
        ),
        (
            unreadable,
            (
                "the annotation of unreadable's parameter 'db' cannot be read (name 'Missing' is not defined); "
                "import or define what it names at the top of the module, not only under TYPE_CHECKING [AF063]"
            ),
        ),
    ],
)
def test_factories_that_cannot_be_called(factory: Callable[..., object], message: str) -> None:
    """A factory is called with resources alone."""
    with pytest.raises(ResourceError, match=f"^{re.escape(message)}$"):
        read(factory)


def test_nobody_outlives_what_it_needs() -> None:
    """A resource may need what lives as long or longer, and gets its own of what is not shared."""

    def session(db: Annotated[str, Resource(connect, scope="actor")]) -> str:
        return db

    message = (
        "session lives as long as its run and needs connect, which lives as long as its actor; "
        "widen the scope of connect, or narrow that of session [AF064]"
    )
    with pytest.raises(ResourceError, match=f"^{re.escape(message)}$"):
        read(session)
    assert read(Resource(session, scope="step")).needs[0].recipe.scope == "actor"

    def private(db: Annotated[str, Resource(connect, cache=False)]) -> str:
        return db

    recipe = read(Resource(private, scope="runtime"))
    inner = recipe.needs[0].recipe
    assert inner.scope == "runtime"
    assert inner.key != read(Resource(connect, scope="runtime")).key
    assert inner.key == read(Resource(private, scope="runtime")).needs[0].recipe.key


def test_the_factory_is_the_key() -> None:
    """The same factory in the same scope is the same resource; bound methods count by their object."""
    assert read(connect).key == read(Resource(connect)).key
    assert read(connect).key != read(Resource(connect, scope="step")).key
    assert read(connect).key != read(lambda: "connected").key
    one, two = Client(""), Client("")
    assert read(one.open).key == read(one.open).key != read(two.open).key


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Resource(any_(5)), TypeError, "Resource: factory is 5; give a function that makes the resource"),
        (
            lambda: Resource(connect, scope=any_("flow")),
            ValueError,
            "Resource: scope is 'flow'; give one of 'runtime', 'run', 'actor', 'step'",
        ),
        (
            lambda: Resource(connect, cache=False, scope="run"),
            ValueError,
            "Resource: cache=False makes one for each execution, and scope='run' says otherwise",
        ),
        (
            lambda: ResourceConfig("settings.toml"),
            ValueError,
            "ResourceConfig: 'settings.toml' is not a .json file; only JSON is read",
        ),
    ],
)
def test_mistakes_are_told_at_once(make: Callable[[], object], kind: type[Exception], message: str) -> None:
    """What cannot be meant is refused where it is written."""
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        make()


def any_(value: Any) -> Any:
    return value


def test_the_names_of_the_rival() -> None:
    """Ported programs find both where they look for them, positional arguments included."""
    assert resource.Resource is Resource
    assert resource.ResourceConfig is ResourceConfig
    assert Resource(connect, False).cache is False


# -- configurations


@attrs.define
class Server:
    host: str
    port: int = 25


@dataclasses.dataclass
class Plain:
    host: str


class Model(pydantic.BaseModel):
    host: str


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"mail": {"smtp": {"host": "h"}, "n": 1, "none": None}}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(Server, Server("h")), (Plain, Plain("h")), (Model, Model(host="h")), (Any, {"host": "h"}),
     (dict, {"host": "h"}), (dict[str, str], {"host": "h"})],
)  # fmt: skip
def test_configurations(file: Path, kind: Any, expected: object) -> None:
    """A part of a JSON file becomes what the parameter's type says; it is read anew for each run."""
    recipe = read(ResourceConfig(file, "mail.smtp"), kind)
    assert (recipe.make(), recipe.scope, recipe.name) == (expected, "run", f"{file}.mail.smtp")


def test_configurations_of_factories(file: Path) -> None:
    """A factory may need one; who outlives a run reads it for itself."""

    def mail(server: Annotated[Server, ResourceConfig(file, "mail.smtp")]) -> str:
        return server.host

    assert make(read_in({"file": file}, mail)) == "h"
    assert read_in({"file": file}, Resource(mail, scope="runtime")).needs[0].recipe.scope == "runtime"
    assert read_in({"file": file}, Resource(mail, scope="step")).needs[0].recipe.scope == "run"


def read_in(namespace: dict[str, Any], declared: Resource | Callable[..., object]) -> Recipe:
    source = declared if isinstance(declared, Resource) else Resource(declared)
    recipe = read_recipe(Annotated[Any, source], namespace)
    assert recipe is not None
    return recipe


@pytest.mark.parametrize(
    ("path", "kind", "message"),
    [
        ("mail.imap", Server, "FILE holds nothing at 'mail.imap', and a configuration is an object"),
        ("mail.n.x", Server, "FILE holds a int at 'mail.n', and a configuration is an object"),
        ("mail", Server, "required field missing @ $.host"),
    ],
)
def test_configurations_that_do_not_fit(file: Path, path: str, kind: Any, message: str) -> None:
    """The message names the file and the place in it, or the field."""
    with pytest.raises(ValueError, match=f"^{re.escape(message.replace('FILE', str(file)))}$"):
        ResourceConfig(file, path).load(kind)


def test_files_that_are_none(tmp_path: Path) -> None:
    """A missing file is missing when it is read, not when it is declared; what is not JSON says where."""
    path = tmp_path / "late.json"
    config = ResourceConfig(path)
    with pytest.raises(FileNotFoundError, match=r"late\.json"):
        config.load(dict)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} is not JSON: Expecting property name"):
        config.load(dict)
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))} holds a list, and a configuration is an object$"):
        config.load(dict)


# -- overrides


def session(db: Annotated[str, Resource(connect)]) -> str:
    return f"session of {db}"


def wrapped(original: Annotated[str, Resource(connect)]) -> str:
    return f"wrapped {original}"


def test_overrides() -> None:
    """Inside the block another factory is called, also where the original is needed by others."""
    recipe = read(session)
    assert replaced(recipe) is recipe
    with override(connect, lambda: "fake"):
        fake = replaced(recipe)
        assert (make(fake), make(replaced(read(connect)))) == ("session of fake", "fake")
        assert replaced(read(generate)).kind is Kind.CONTEXT
        assert replaced(read(connect)).name == "<lambda> (for connect)"
        with override(connect, lambda: "inner"):
            assert make(replaced(recipe)) == "session of inner"
        assert make(replaced(recipe)) == "session of fake"
        assert replaced(recipe).key == fake.key, "the same inside of the block"
    assert replaced(recipe) is recipe
    assert fake.key != recipe.key, "not to be found by those outside"


def test_a_replacement_may_wrap_the_original() -> None:
    """Inside of a replacement the original is itself."""
    with override(connect, wrapped):
        assert make(replaced(read(session))) == "session of wrapped connected"


def test_a_replacement_takes_the_scope() -> None:
    """It lives as long as what it stands for."""
    with override(connect, generate_later):
        recipe = replaced(read(Resource(connect, scope="runtime")))
    assert (recipe.kind, recipe.scope) == (Kind.ASYNC_CONTEXT, "runtime")


def test_configurations_are_replaced(file: Path) -> None:
    """A test need not have the file."""
    with override(ResourceConfig("nowhere.json"), lambda: Server("fake")):
        assert make(replaced(read(ResourceConfig("nowhere.json"), Server))) == Server("fake")


def test_a_replacement_is_a_factory() -> None:
    """A value is not: the message says how to write it."""
    message = "override() got 'fake' as the replacement; give a function that returns it"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"), override(connect, any_("fake")):
        pass


@pytest.mark.anyio
async def test_tests_side_by_side() -> None:
    """Two tasks override the same factory and do not see each other's."""
    seen: dict[str, str] = {}

    async def test(name: str) -> None:
        with override(connect, lambda: name):
            await anyio.sleep(1)
            seen[name] = make(replaced(read(session)))
            await anyio.sleep(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(test, "a")
        tasks.start_soon(test, "b")
        await anyio.sleep(1.5)
        assert make(replaced(read(session))) == "session of connected"
    assert seen == {"a": "session of a", "b": "session of b"}
