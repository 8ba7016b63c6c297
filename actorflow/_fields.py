"""The fields of an event class: reading their annotations, compiling the constructor that checks them, and its words.

A constructor is compiled once, at the first construction, when forward references can be resolved: it explains unknown
and missing fields and checks the simply typed ones in the same pass, at about the price of attrs' own constructor.
"""

from __future__ import annotations

import copy
import difflib
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import attrs
from typing_extensions import TypeAliasType, is_protocol, is_typeddict

__all__ = [
    "Attribute",
    "attributes",
    "copy_mutable_defaults",
    "install_constructor",
    "no_field",
    "safe_repr",
    "shorten",
]

Attribute: TypeAlias = "attrs.Attribute[Any]"


def attributes(cls: type) -> tuple[Attribute, ...]:
    """The fields of an attrs class."""
    return cast("tuple[Attribute, ...]", attrs.fields(cls))


def copy_mutable_defaults(_cls: type, fields: list[Attribute]) -> list[Attribute]:
    """A field transformer of attrs: a list, dict or set written as a default is copied for each instance."""
    return [
        field.evolve(default=attrs.Factory(functools.partial(copy.deepcopy, field.default)))
        if type(field.default) in (list, dict, set)
        else field
        for field in fields
    ]


# -- compiling constructors


def install_constructor(cls: type, settle: Callable[[], Callable[..., None] | None]) -> None:
    """Gives an attrs class its constructor, to be compiled by the first construction.

    It becomes ``__init__``, or takes the place of ``__attrs_init__`` where the class has an ``__init__`` of its own.

    Args:
        cls: The class.
        settle: Called before the constructor is compiled; may give one that is to be used instead.
    """
    target = "__attrs_init__" if "__init__" in vars(cls) else "__init__"
    attrs_init: Callable[..., None] = cast("Any", cls).__attrs_init__

    def first(self: object, *positional: object, **fields: object) -> None:
        compiled = settle() or _dress(_compile(cls, attrs_init), attrs_init, cls, target)
        compiled(self, *positional, **fields)

    _dress(first, attrs_init, cls, target)


def _dress(init: Callable[..., None], attrs_init: Callable[..., None], cls: type, name: str) -> Callable[..., None]:
    """Puts a constructor into its class, with the signature that attrs wrote."""
    init.__name__, init.__qualname__, init.__module__ = name, f"{cls.__qualname__}.{name}", cls.__module__
    init.__annotations__ = attrs_init.__annotations__
    cast("Any", init).__signature__ = inspect.signature(attrs_init)
    setattr(cls, name, init)
    return init


class _Check(NamedTuple):
    """What a value must be: an instance of one of the types, or one of the literal values."""

    types: tuple[type, ...] = ()
    values: tuple[tuple[type, object], ...] = ()

    def fits(self, value: object) -> bool:
        return isinstance(value, self.types) or (type(value), value) in self.values


def _compile(cls: type, attrs_init: Callable[..., None]) -> Callable[..., None]:
    """Writes the constructor of a class: fields by keyword, a test for mistakes, a test for wrong types, the stores.

    Mistakes are told apart only once there is one. Where a class uses no more of attrs than plain defaults and
    factories the values are stored here, else attrs' own constructor is called: that second call costs a third more.
    """
    names = {cast("str", field.alias): field for field in attributes(cls) if field.init}
    checks = {name: check for name, field in names.items() if (check := _check_of(cls, field))}
    space: dict[str, Any] = {
        "_af_NOTHING": attrs.NOTHING, "_af_isinstance": isinstance, "_af_type": type, "_af_attrs_init": attrs_init,
    }  # fmt: skip
    parameters: list[str] = []
    mistakes = ["_af_positional", "_af_unknown"]
    wrongs: list[str] = []
    for number, (name, field) in enumerate(names.items()):
        default = field.default
        made = _is_factory(default)
        space[f"_af_default{number}"] = attrs.NOTHING if made else default
        parameters.append(f"{name}=_af_default{number}")
        if default is attrs.NOTHING:
            mistakes.append(f"{name} is _af_NOTHING")
        if name in checks:
            wrongs.append(_condition(name, number, checks[name], space, optional=made))

    def mistake(positional: Sequence[object], unknown: Mapping[str, object], given: Mapping[str, object]) -> TypeError:
        return _mismatch(cls, names, positional, unknown, given)

    def verify(given: Mapping[str, object]) -> None:
        _verify(cls, names, checks, given)

    space |= {"_af_mistake": mistake, "_af_verify": verify}
    given = f"{{{', '.join(f'{name!r}: {name}' for name in names)}}}"
    lines = [
        f"def __init__({', '.join(['self', '*_af_positional', *parameters, '**_af_unknown'])}):",
        f"    if {' or '.join(mistakes)}:",
        f"        raise _af_mistake(_af_positional, _af_unknown, {given})",
    ]
    if wrongs:
        lines += [f"    if not ({' and '.join(wrongs)}):", f"        _af_verify({given})"]
    lines += _stores(cls, names, space)
    exec("\n".join(lines), space)  # noqa: S102 - made of field names, which are identifiers
    return cast("Callable[..., None]", space["__init__"])


def _stores(cls: type, names: Mapping[str, Attribute], space: dict[str, Any]) -> list[str]:
    plain = not hasattr(cls, "__attrs_pre_init__") and not hasattr(cls, "__attrs_post_init__")
    for field in attributes(cls):
        plain = plain and field.init and not _has_converter(field) and field.validator is None
        plain = plain and not getattr(field.default, "takes_self", False)
        plain = plain and not inspect.isdatadescriptor(getattr(cls, field.name, None))  # a slot of a mixin
    if not plain:
        return [f"    _af_attrs_init(self, {', '.join(f'{name}={name}' for name in names)})"]
    lines = ["    _af_fields = self.__dict__"]
    for number, (name, field) in enumerate(names.items()):
        value = name
        if _is_factory(field.default):
            space[f"_af_factory{number}"] = cast("Any", field.default).factory
            value = f"{name} if {name} is not _af_NOTHING else _af_factory{number}()"
        lines.append(f"    _af_fields[{field.name!r}] = {value}")
    return lines


def _has_converter(field: Attribute) -> bool:
    return cast("Any", field).converter is not None


def _is_factory(default: object) -> bool:
    return isinstance(default, cast("type", attrs.Factory))


def _condition(name: str, number: int, check: _Check, space: dict[str, Any], *, optional: bool) -> str:
    """Writes the test of one value; what only the slow `_verify` can tell fails it."""
    tests: list[str] = []
    if check.types:
        space[f"_af_types{number}"] = check.types[0] if len(check.types) == 1 else check.types
        tests.append(f"_af_isinstance({name}, _af_types{number})")
    if check.values:
        space[f"_af_values{number}"] = check.values
        tests.append(f"(_af_type({name}), {name}) in _af_values{number}")
    if optional:
        tests.append(f"{name} is _af_NOTHING")
    return tests[0] if len(tests) == 1 else f"({' or '.join(tests)})"


def _verify(
    cls: type, names: Mapping[str, Attribute], checks: Mapping[str, _Check], given: Mapping[str, object]
) -> None:
    """Raises for all values of a wrong type; a default is what the author wrote, `text: str = None` too."""
    wrong = [
        f"{cls.__name__}.{names[name].name} must be {_type_name(names[name].type)}, got {_got(given[name])}"
        for name, check in checks.items()
        if given[name] is not names[name].default
        and not (_is_factory(names[name].default) and given[name] is attrs.NOTHING)
        and not check.fits(given[name])
    ]
    if wrong:
        raise TypeError("\n".join(wrong))


def _got(value: object) -> str:
    return "None" if value is None else f"{type(value).__name__} ({shorten(safe_repr(value), 60)})"


def _check_of(cls: type, field: Attribute) -> _Check | None:
    return None if _has_converter(field) else _allowed(_resolve(cls, field))


def _resolve(cls: type, field: Attribute) -> Any:
    """Evaluates a field's annotation where it was written; Any where that fails."""
    owner = next(
        base
        for base in cls.__mro__
        if any(own.name == field.name and not own.inherited for own in vars(base).get("__attrs_attrs__", ()))
    )
    holder = types.SimpleNamespace(__annotations__={"field": field.type})
    module = sys.modules.get(owner.__module__)
    try:
        hints = typing.get_type_hints(holder, vars(module) if module else {}, dict(vars(owner)), include_extras=True)
    except Exception:  # noqa: BLE001 - an annotation is any expression; one we cannot read is not checked
        return Any
    return hints["field"]


def _allowed(hint: Any) -> _Check | None:
    """Tells what an annotation allows; None where that is not a question of plain classes and values."""
    origin: Any = typing.get_origin(hint)
    arguments: tuple[object, ...] = typing.get_args(hint)
    if origin is typing.Annotated or origin is typing.Final:
        return _allowed(arguments[0])
    if origin is Literal:
        return _Check(values=tuple((type(value), value) for value in arguments))
    if origin is typing.Union or origin is types.UnionType:
        members = [_allowed(argument) for argument in arguments]
        known = [member for member in members if member]
        if len(known) < len(members):
            return None
        return _Check(
            types=tuple(cls for member in known for cls in member.types),
            values=tuple(value for member in known for value in member.values),
        )
    if isinstance(hint, typing.NewType):
        return _allowed(hint.__supertype__)
    if isinstance(hint, TypeAliasType):
        return _allowed(hint.__value__)
    cls: Any = origin or hint
    if not isinstance(cls, type) or is_protocol(cls) or is_typeddict(cls):
        return None
    try:
        isinstance(None, cls)
    except TypeError:  # Any is a class, too
        return None
    return _Check(types=_PROMOTED.get(cls, (cls,)))


# What type checkers let pass, too.
_PROMOTED: Mapping[type, tuple[type, ...]] = {float: (float, int), complex: (complex, float, int)}


# -- saying what is wrong


def no_field(cls: type, name: str, fields: Sequence[str], candidates: Sequence[str] = ()) -> str:
    """Says that a class has no such field, and which is near or which there are."""
    near = difflib.get_close_matches(name, candidates or fields, 1)
    if near:
        return f"{cls.__name__} has no field {name!r}; did you mean {near[0]!r}?"
    have = f"its fields are {', '.join(map(repr, fields))}" if fields else "it has no fields"
    return f"{cls.__name__} has no field {name!r}; {have}"


def _mismatch(
    cls: type,
    names: Mapping[str, Attribute],
    positional: Sequence[object],
    unknown: Mapping[str, object],
    given: Mapping[str, object],
) -> TypeError:
    """Explains why the arguments do not fit: all that is unknown, then all that is missing and not just misspelt."""
    if positional:
        fields = ", ".join(f"{name}=..." for name in names)
        return TypeError(f"{cls.__name__} takes its fields by keyword: {cls.__name__}({fields})")
    lines = [no_field(cls, name, list(names)) for name in unknown]
    missing = [
        f"{name!r} ({_type_name(field.type)})"
        for name, field in names.items()
        if field.default is attrs.NOTHING
        and given[name] is attrs.NOTHING
        and not any(line.endswith(f"did you mean {name!r}?") for line in lines)
    ]
    if missing:
        lines.append(f"{cls.__name__} needs field{'s' if len(missing) > 1 else ''} {', '.join(missing)}")
    return TypeError("\n".join(lines))


def _type_name(annotation: object) -> str:
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return "any value" if annotation is None else repr(annotation).replace("typing.", "")


def safe_repr(value: object) -> str:
    """The repr of a value, or what kind of value has none."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a message about a value must not fail because of it
        return f"<unprintable {type(value).__name__}>"


def shorten(text: str, limit: int) -> str:
    """Text in one line of so many characters."""
    line = " ".join(part.strip() for part in text.splitlines())
    return line if len(line) <= limit else f"{line[: max(limit - 1, 0)]}…"
