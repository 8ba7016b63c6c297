"""Resource: what a step needs beside its event: who makes it, and how long it lives.

Nothing is opened here: `actorflow._recipes` reads a declaration, and the runtime opens it, once in its scope.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args, get_origin

import attrs

__all__ = ["SCOPES", "Factory", "Resource", "ResourceConfig", "Scope", "current_overrides", "identity_of", "override"]

Scope: TypeAlias = Literal["runtime", "run", "actor", "step"]
"""How long a resource lives, and who shares it."""

SCOPES: tuple[Scope, ...] = get_args(Scope)
"""The scopes from the longest-lived to the shortest."""

Factory: TypeAlias = Callable[..., object]
"""What makes a resource."""


def _usual_scope(resource: Resource) -> Scope:
    return "run" if resource.cache else "step"


def _check_factory(_instance: object, _attribute: attrs.Attribute[Any], value: object) -> None:
    if not callable(value):
        raise TypeError(f"Resource: factory is {value!r}; give a function that makes the resource")


def _check_scope(instance: Resource, _attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in SCOPES:
        raise ValueError(f"Resource: scope is {value!r}; give one of {', '.join(map(repr, SCOPES))}")
    if not instance.cache and value != "step":
        raise ValueError(f"Resource: cache=False makes one for each execution, and scope={value!r} says otherwise")


@attrs.frozen(eq=False)
class Resource:
    """Says how to make what a parameter gets: ``db: Annotated[Database, Resource(connect)]``.

    The factory may be a function, an async function, or a generator function, async or not, with one ``yield``: what it
    yields is the resource, what comes after closes it. A plain generator is resumed whatever happened; one decorated
    with ``contextmanager`` or ``asynccontextmanager`` is left as ``with`` would leave it, with the error. Anything else
    that a factory returns is the resource itself: a lock is not taken, though it is a context manager.

    A factory's own parameters may be resources too, of its own scope or a longer-lived one. The same factory in the same
    scope is the same resource, whoever declares it.

    Attributes:
        factory: Makes the resource.
        cache: False makes a new one for each execution, or for each resource that needs it.
        scope: ``runtime``: one for all runs; ``run``: one per run; ``actor``: one per step in a run, made anew when it
            is restarted; ``step``: one per execution, opened and closed in its task.

    Example:
        >>> def connect() -> str:
        ...     return "connected"
        >>> Resource(connect).scope, Resource(connect, cache=False).scope
        ('run', 'step')
    """

    factory: Factory = attrs.field(validator=_check_factory)
    cache: bool = True
    scope: Scope = attrs.field(
        default=attrs.Factory(_usual_scope, takes_self=True),
        validator=_check_scope,
        kw_only=True,
    )


def _check_file(_instance: object, _attribute: attrs.Attribute[Any], value: str | Path) -> None:
    if Path(value).suffix != ".json":
        raise ValueError(f"ResourceConfig: {str(value)!r} is not a .json file; only JSON is read")


@attrs.frozen
class ResourceConfig:
    """Reads what a parameter gets from a JSON file: ``settings: Annotated[Settings, ResourceConfig("settings.json")]``.

    The parameter's type may be a pydantic model, an attrs class, a dataclass or a dict. The file is read once per run.

    Attributes:
        config_file: The file.
        path_selector: Where in it, by dots through the keys of objects; None for the whole.
        label: A short name for pictures.
        description: What it is for.

    Example:
        >>> ResourceConfig("settings.json", "mail.smtp").name
        'settings.json.mail.smtp'
    """

    config_file: str | Path = attrs.field(validator=_check_file)
    path_selector: str | None = None
    label: str | None = None
    description: str | None = None

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.config_file}.{self.path_selector}" if self.path_selector else str(self.config_file)

    def load(self, kind: Any) -> Any:  # Any: both are whatever type the parameter has
        """Reads the file.

        Args:
            kind: The parameter's type.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It does not hold what the type asks for.
        """
        try:
            data: Any = json.loads(Path(self.config_file).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{self.config_file} is not JSON: {error}") from error
        parts = self.path_selector.split(".") if self.path_selector else []
        for depth in range(len(parts) + 1):
            if not isinstance(data, _DICT):
                where = f" at {'.'.join(parts[:depth])!r}" if depth else ""
                what = "nothing" if data is None else f"a {type(data).__name__}"
                # ValueError as for all else that a file may hold.
                raise ValueError(  # noqa: TRY004
                    f"{self.config_file} holds {what}{where}, and a configuration is an object"
                )
            if depth < len(parts):
                data = data.get(parts[depth])
        return _structure(data, kind)


_DICT: Any = dict  # for the checkers: isinstance() with it leaves an Any what it is


def _structure(data: dict[str, Any], kind: Any) -> Any:
    bare: Any = get_origin(kind) or kind
    if bare is Any or bare in (dict, Mapping):
        return data
    if hasattr(bare, "model_validate"):
        return bare.model_validate(data)
    import cattrs  # noqa: PLC0415 (imported when first needed)

    try:
        return cattrs.structure(data, kind)
    except cattrs.BaseValidationError as error:
        raise ValueError("; ".join(cattrs.transform_error(error))) from error


# -- other factories in tests

current_overrides: ContextVar[Mapping[Hashable, Resource]] = ContextVar(
    "actorflow_overrides", default=types.MappingProxyType({})
)
"""What stands for other factories here; `override` sets it."""


@contextmanager
def override(factory: Factory | ResourceConfig, replacement: Factory) -> Generator[None]:
    """Lets another factory make what `factory` makes, for runs that are started inside the block.

    It is a matter of the calling task and of those that it starts: tests side by side do not see each other's. What was
    open before the block stays as it is, and what is opened inside it is not given to runs outside.

    Args:
        factory: What steps and other factories declare.
        replacement: A factory like any other. It may need the original: ``Annotated[Database, Resource(connect)]``.

    Example:
        >>> def connect() -> str:
        ...     return "connected"
        >>> with override(connect, lambda: "fake"):
        ...     pass  # here, `await Writer().run()` gives its steps "fake"
    """
    if not callable(replacement):
        raise TypeError(f"override() got {replacement!r} as the replacement; give a function that returns it")
    before = current_overrides.get()
    current_overrides.set({**before, identity_of(factory): Resource(replacement)})
    try:
        yield
    finally:
        # Not by a token: a fixture may leave the block in another context than the one that it entered it in.
        current_overrides.set(before)


def identity_of(factory: object) -> Hashable:
    """A key that is the same for the same factory: a bound method is a new object each time it is asked for."""
    if isinstance(factory, ResourceConfig):
        return (str(factory.config_file), factory.path_selector)
    if isinstance(factory, types.MethodType):
        return (id(factory.__self__), id(factory.__func__))
    return id(factory)
