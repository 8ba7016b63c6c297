"""Recipes: declarations of resources, read once into all that is needed to open them."""

from __future__ import annotations

import enum
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any, cast, get_args, get_origin

import attrs
import typing_extensions

from actorflow.errors import ResourceError
from actorflow.resources import SCOPES, Factory, Resource, ResourceConfig, Scope, current_overrides, identity_of

__all__ = ["Kind", "Need", "Recipe", "read_recipe", "replaced"]


class Kind(enum.Enum):
    """What calling a factory gives."""

    VALUE = "the resource"
    COROUTINE = "a coroutine that returns the resource"
    CONTEXT = "a context manager that gives the resource"
    ASYNC_CONTEXT = "an async context manager that gives the resource"


@attrs.frozen(eq=False, kw_only=True)
class Recipe:
    """A declaration, read: all that is needed to open the resource.

    Attributes:
        name: How messages call it.
        factory: Key of what makes it, by identity.
        key: Key of the resource in its scope.
        scope: How long it lives.
        make: Called with what `needs` gave, by keyword.
        kind: What that call gives.
        tell: Whether closing it is told the error on which it closes.
        needs: The resources that its factory takes.
        source: The declaration.
    """

    name: str
    factory: Hashable
    key: Hashable
    scope: Scope
    make: Callable[..., Any]
    kind: Kind
    tell: bool = True
    needs: tuple[Need, ...] = ()
    source: Resource | ResourceConfig


@attrs.frozen(eq=False)
class Need:
    """A parameter that gets a resource.

    Attributes:
        parameter: Its name.
        recipe: What it gets.
    """

    parameter: str
    recipe: Recipe


def read_recipe(annotation: object, namespace: Mapping[str, Any] | None = None) -> Recipe | None:
    """Reads what an annotation declares, with everything that its factory needs in turn.

    Args:
        annotation: An evaluated annotation of a parameter.
        namespace: Names, beside its globals and closure, that a factory's annotations may use.

    Returns:
        The recipe; None where the annotation declares no resource.

    Raises:
        ResourceError: A factory cannot be called with resources alone, or needs itself in the end.

    Example:
        >>> def connect() -> str:
        ...     return "connected"
        >>> def session(db: Annotated[str, Resource(connect)]) -> str:
        ...     return db
        >>> recipe = read_recipe(Annotated[str, Resource(session)])
        >>> recipe.name, [(need.parameter, need.recipe.name) for need in recipe.needs]
        ('session', [('db', 'connect')])
    """
    declared = _declared(annotation)
    return None if declared is None else _read(*declared, namespace or {}, ())


def _declared(annotation: object) -> tuple[Resource | ResourceConfig, Any] | None:
    while isinstance(annotation, typing_extensions.TypeAliasType):
        annotation = annotation.__value__
    if get_origin(annotation) is Annotated:
        kind, *extras = get_args(annotation)
        for extra in extras:
            if isinstance(extra, Resource | ResourceConfig):
                return extra, kind
    return None


def _read(
    source: Resource | ResourceConfig, kind: Any, namespace: Mapping[str, Any], users: tuple[Recipe, ...]
) -> Recipe:
    """Reads a declaration; `users` are the recipes on the way to it, whose own needs are not known yet."""
    user = users[-1] if users else None
    if isinstance(source, ResourceConfig):
        identity = identity_of(source)
        # Who outlives a run reads it for itself.
        scope: Scope = "runtime" if user is not None and user.scope == "runtime" else "run"
        key = (identity, kind if isinstance(kind, Hashable) else id(kind), scope)
        make: Callable[..., Any] = functools.partial(source.load, kind)
        return Recipe(
            name=source.name, factory=identity, key=key, scope=scope, make=make, kind=Kind.VALUE, source=source
        )
    factory = source.factory
    identity = identity_of(factory)
    call, result, tell = _call(factory)
    own = user is not None and not source.cache
    recipe = Recipe(
        name=_name(factory),
        factory=identity,
        key=(identity, user.key if own and user is not None else source.scope),
        scope=user.scope if own and user is not None else source.scope,
        make=call,
        kind=result,
        tell=tell,
        source=source,
    )
    chain = (*users, recipe)
    _check_circle(chain)
    if user is not None and SCOPES.index(recipe.scope) > SCOPES.index(user.scope):
        raise ResourceError(
            f"{user.name} lives as long as its {user.scope} and needs {recipe.name}, which lives as long as its "
            f"{recipe.scope}; widen the scope of {recipe.name}, or narrow that of {user.name}",
            code="AF064",
        )
    return attrs.evolve(recipe, needs=_needs(factory, namespace, chain))


def _check_circle(chain: tuple[Recipe, ...]) -> None:
    for place, recipe in enumerate(chain[:-1]):
        if recipe.factory == chain[-1].factory:
            path = " -> ".join(one.name for one in chain[place:])
            raise ResourceError(
                f"resources need each other in a circle: {path}; take one of these needs out", code="AF061"
            )


def _call(factory: Factory) -> tuple[Callable[..., Any], Kind, bool]:
    """How to call a factory, what that gives, and whether closing it is told the error."""
    function = factory if isinstance(factory, type) else _function(factory)
    if inspect.isgeneratorfunction(function):
        return contextmanager(cast("Any", factory)), Kind.CONTEXT, False
    if inspect.isasyncgenfunction(function):
        return asynccontextmanager(cast("Any", factory)), Kind.ASYNC_CONTEXT, False
    if inspect.iscoroutinefunction(function):
        return factory, Kind.COROUTINE, True
    wrapped = inspect.unwrap(cast("Any", function))
    if inspect.isasyncgenfunction(wrapped):
        return factory, Kind.ASYNC_CONTEXT, True
    return factory, Kind.CONTEXT if inspect.isgeneratorfunction(wrapped) else Kind.VALUE, True


def _function(factory: Any) -> Any:
    """The function that a call of a factory runs."""
    while isinstance(factory, functools.partial):
        factory = cast("Any", factory).func
    if isinstance(factory, type):
        factory = cast("Any", factory).__init__
    elif not inspect.isroutine(factory):
        factory = type(factory).__call__
    return getattr(factory, "__func__", factory)


def _name(factory: Any) -> str:
    while isinstance(factory, functools.partial):
        factory = cast("Any", factory).func
    name = getattr(factory, "__qualname__", type(factory).__qualname__)
    return str(name).rpartition("<locals>.")[2]


# -- parameters of factories


def _needs(factory: Factory, namespace: Mapping[str, Any], chain: tuple[Recipe, ...]) -> tuple[Need, ...]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not tell; calling it will
        return ()
    needs: list[Need] = []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        optional = parameter.default is not parameter.empty
        declared = _declared(_evaluate(factory, parameter, namespace, chain[-1].name, optional=optional))
        if declared is not None and parameter.kind is not parameter.POSITIONAL_ONLY:
            needs.append(Need(parameter.name, _read(*declared, namespace, chain)))
        elif not optional:
            what = "is positional-only" if declared else "is no resource and has no default"
            raise ResourceError(
                f"{chain[-1].name} cannot be called: its parameter {parameter.name!r} {what}; "
                f"write `{parameter.name}: Annotated[..., Resource(...)]`, or give it a default",
                code="AF062",
            )
    return tuple(needs)


def _evaluate(
    factory: Factory, parameter: inspect.Parameter, namespace: Mapping[str, Any], name: str, *, optional: bool
) -> object:
    if parameter.annotation is parameter.empty:
        return None
    function: Any = inspect.unwrap(_function(factory))
    module: object = sys.modules.get(getattr(factory, "__module__", ""))
    scope: dict[str, Any] = getattr(function, "__globals__", {}) or vars(module)
    names = {
        **namespace,
        **_closure(function),
        **{one.__name__: one for one in getattr(function, "__type_params__", ())},
    }
    holder = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        return typing.get_type_hints(holder, scope, names, include_extras=True)["it"]
    except Exception as error:
        # An annotation is any expression; one that nobody needs may be unreadable here.
        if optional and "Resource" not in str(parameter.annotation):
            return None
        raise ResourceError(
            f"the annotation of {name}'s parameter {parameter.name!r} cannot be read ({error}); import or define what it "
            "names at the top of the module, not only under TYPE_CHECKING",
            code="AF063",
        ) from error


def _closure(function: Any) -> dict[str, Any]:
    names: dict[str, Any] = {}
    code: types.CodeType | None = getattr(function, "__code__", None)
    for name, cell in zip(code.co_freevars if code else (), getattr(function, "__closure__", None) or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return names


def replaced(recipe: Recipe) -> Recipe:
    """A recipe as the `override` blocks around the caller would have it; the very same one outside of them.

    Example:
        >>> from actorflow.resources import override
        >>> def connect() -> str:
        ...     return "connected"
        >>> recipe = read_recipe(Annotated[str, Resource(connect)])
        >>> with override(connect, lambda: "fake"):
        ...     replaced(recipe).make()
        'fake'
    """
    overrides = current_overrides.get()
    return _replace(recipe, overrides) if overrides else recipe


def _replace(recipe: Recipe, overrides: Mapping[Hashable, Resource]) -> Recipe:
    replacement = overrides.get(recipe.factory)
    if replacement is not None:
        # Inside of it the original is itself again, so that a replacement may wrap it.
        overrides = {factory: other for factory, other in overrides.items() if factory != recipe.factory}
        made = _read(attrs.evolve(replacement, scope=recipe.scope), Any, {}, ())
        recipe = attrs.evolve(made, name=f"{made.name} (for {recipe.name})", key=(recipe.key, made.key))
    needs = tuple(attrs.evolve(need, recipe=_replace(need.recipe, overrides)) for need in recipe.needs)
    if all(new.recipe is old.recipe for new, old in zip(needs, recipe.needs, strict=True)):
        return recipe
    # Another key: who needs something else is something else, to those outside too.
    return attrs.evolve(recipe, key=(recipe.key, *(need.recipe.key for need in needs)), needs=needs)
