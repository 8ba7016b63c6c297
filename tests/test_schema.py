"""Schemas: what a form asks for and an API says that it takes."""

# pydantic knows nothing of Event's dataclass_transform, nor pyright of what a variable class is.
# pyright: reportGeneralTypeIssues=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownLambdaType=false

from __future__ import annotations

import dataclasses
import enum
import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from jsonschema import Draft202012Validator

from actorflow import Event, JsonSerializer, StartEvent
from actorflow.schema import DIALECT, schema_of

CHECKED = attrs.validators


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


@attrs.frozen
class Line:
    sku: str
    count: int = attrs.field(default=1, validator=[CHECKED.ge(1), CHECKED.lt(100)])


@dataclasses.dataclass
class Tree:
    name: str
    below: list[Tree] = dataclasses.field(default_factory=list["Tree"])


class Marked(msgspec.Struct):
    code: Annotated[str, msgspec.Meta(min_length=2, max_length=3, pattern="^[A-Z]+$", description="of a country")]
    share: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.5


class Part(pydantic.BaseModel):
    weight: float


class Model(pydantic.BaseModel, Event):
    size: int = pydantic.Field(ge=1, le=3)
    parts: list[Part] = []


class Local(Event):
    """What is asked for.

    The rest is not for forms.
    """

    text: str
    count: int
    ratio: float = 0.5
    agreed: bool = False
    size: Size = Size.LARGE
    at: datetime | None = None
    day: date
    lines: list[Line]
    pair: tuple[int, str] = (1, "a")
    tags: set[str] = attrs.field(factory=set[str])
    prices: dict[str, Decimal]
    mode: Literal["fast", "slow"] = "fast"
    either: int | Line
    key: UUID
    raw: bytes
    where: Path
    anything: Any = None
    grade: float | None = attrs.field(
        default=1.0, validator=cast("Any", CHECKED.optional([CHECKED.gt(0), CHECKED.le(6)]))
    )
    word: str = attrs.field(
        validator=CHECKED.and_(CHECKED.min_len(1), CHECKED.max_len(9), CHECKED.matches_re("[a-z]+"))
    )
    few: list[int] = attrs.field(validator=CHECKED.max_len(3), factory=list[int])
    one_of: str = attrs.field(default="x", validator=CHECKED.in_(["x", "y"]))


def test_every_kind_of_field() -> None:
    """Types, bounds, defaults and what is required, as draft 2020-12 writes them."""
    line = {"$ref": "#/$defs/Line"}
    assert schema_of(Local) == {
        "$schema": DIALECT,
        "title": "Local",
        "type": "object",
        "description": "What is asked for.",
        "properties": {
            "text": {"type": "string"},
            "count": {"type": "integer"},
            "ratio": {"type": "number", "default": 0.5},
            "agreed": {"type": "boolean", "default": False},
            "size": {"type": "string", "enum": ["SMALL", "LARGE"], "default": "LARGE"},
            "at": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}], "default": None},
            "day": {"type": "string", "format": "date"},
            "lines": {"type": "array", "items": line},
            "pair": {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
            "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
            "prices": {"type": "object", "additionalProperties": {"type": "string", "format": "decimal"}},
            "mode": {"enum": ["fast", "slow"], "default": "fast"},
            "either": {"anyOf": [{"type": "integer"}, line]},
            "key": {"type": "string", "format": "uuid"},
            "raw": {"type": "string", "contentEncoding": "base64"},
            "where": {"type": "string", "format": "path"},
            "anything": {"default": None},
            "grade": {
                "anyOf": [{"type": "number"}, {"type": "null"}],
                "exclusiveMinimum": 0,
                "maximum": 6,
                "default": 1.0,
            },
            "word": {"type": "string", "minLength": 1, "maxLength": 9, "pattern": "[a-z]+"},
            "few": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
            "one_of": {"type": "string", "enum": ["x", "y"], "default": "x"},
        },
        "required": ["text", "count", "day", "lines", "prices", "either", "key", "raw", "where", "word"],
        "additionalProperties": False,
        "$defs": {
            "Line": {
                "title": "Line",
                "type": "object",
                "properties": {
                    "sku": {"type": "string"},
                    "count": {"type": "integer", "minimum": 1, "exclusiveMaximum": 100, "default": 1},
                },
                "required": ["sku"],
                "additionalProperties": False,
            }
        },
    }


def test_a_class_that_holds_itself() -> None:
    """A recursive class refers to its own definition."""
    schema = schema_of(Tree)
    assert schema["properties"]["below"] == {"type": "array", "items": {"$ref": "#/$defs/Tree"}}
    assert schema["$defs"]["Tree"]["properties"] == schema["properties"]
    assert "$defs" not in schema_of(Line)


def test_marks_of_other_libraries() -> None:
    """Bounds and words in an Annotated are taken over."""
    assert schema_of(Marked)["properties"] == {
        "code": {
            "type": "string",
            "minLength": 2,
            "maxLength": 3,
            "pattern": "^[A-Z]+$",
            "description": "of a country",
        },
        "share": {"type": "number", "minimum": 0, "exclusiveMaximum": 1, "default": 0.5},
    }

    class Asked(Event):
        topic: Annotated[str, "What to write about"]

    assert schema_of(Asked)["properties"]["topic"]["description"] == "What to write about"


def test_a_model_describes_itself() -> None:
    """A pydantic event gives its own schema; inside of other classes its definitions keep out of the way."""
    schema = schema_of(Model)
    assert schema["properties"]["size"] == {"maximum": 3, "minimum": 1, "title": "Size", "type": "integer"}
    assert schema["properties"]["parts"]["items"] == {"$ref": "#/$defs/Model.Part"}
    assert list(schema["$defs"]) == ["Model.Part"]

    class Holder(Event):
        model: Model

    held = schema_of(Holder)
    assert held["properties"]["model"]["properties"] == schema["properties"]
    assert held["$defs"] == schema["$defs"]


def test_an_event_of_any_keyword() -> None:
    """A dynamic event is an object of any properties; what cannot be told is left open."""
    assert schema_of(StartEvent) == {"$schema": DIALECT, "type": "object"}

    class Odd(Event):
        thing: object = None
        either: int | Any = 0
        check: int = attrs.field(default=0, validator=CHECKED.instance_of(int))
        endless: float = float("inf")

    assert schema_of(Odd)["properties"] == {
        "thing": {"default": None},
        "either": {"default": 0},
        "check": {"type": "integer", "default": 0},
        "endless": {"type": "number"},
    }


def test_two_classes_of_one_name() -> None:
    """Each has a definition of its own."""

    def make(hint: Any) -> type[Any]:
        return attrs.make_class("Same", {"x": attrs.field(type=hint)})

    both = attrs.make_class("Both", {"a": attrs.field(type=make(int)), "b": attrs.field(type=make(str))})
    schema = schema_of(both)
    assert {name: one["properties"]["x"]["type"] for name, one in schema["$defs"].items()} == {
        "Same": "integer",
        "Same_": "string",
    }


@pytest.mark.parametrize("cls", [Local, Tree, Marked, Model, Line, StartEvent])
def test_schemas_are_schemas(cls: type[Any]) -> None:
    """What is given is JSON, and a schema by the rules of its draft."""
    Draft202012Validator.check_schema(json.loads(json.dumps(schema_of(cls), allow_nan=False)))


FULL: dict[str, Any] = {
    "text": "x", "count": 1, "day": "2024-01-01", "lines": [{"sku": "a", "count": 2}], "prices": {"a": "1.5"},
    "either": {"sku": "b"}, "key": str(UUID(int=1)), "raw": "YmVlcw==", "where": "a/b", "word": "abc",
    "at": "2024-01-01T00:00:00Z", "pair": [1, "a"], "tags": ["t"], "mode": "slow", "grade": 2, "few": [1], "size": "SMALL",
}  # fmt: skip


@pytest.mark.parametrize(
    ("cls", "form", "wrong"),
    [
        (Tree, {"name": "a", "below": [{"name": "b"}, {"name": "c", "below": []}]}, {"below": []}),
        (Local, FULL, {**FULL, "count": "1"}),
        (Local, FULL, {**FULL, "lines": [{"sku": "a", "count": 0}]}),
        (Local, FULL, {**FULL, "unknown": 1}),
        (Marked, {"code": "AB"}, {"code": "ab"}),
        (Model, {"size": 2, "parts": [{"weight": 0.5}]}, {"size": 4}),
    ],
)
def test_what_fits_a_schema_can_be_read(cls: type[Any], form: dict[str, Any], wrong: dict[str, Any]) -> None:
    """The schema tells of what the serializer reads with the class as its hint."""
    validator = Draft202012Validator(schema_of(cls))
    assert validator.is_valid(form)
    assert isinstance(JsonSerializer().deserialize_value(form, hint=cls), cls)
    assert not validator.is_valid(wrong)
