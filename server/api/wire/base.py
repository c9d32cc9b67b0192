"""What all wire models share: unknown fields are errors, and text means non-blank text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError


class Wire(BaseModel):
    """Base of every request body and its parts."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Nullable(Wire):
    """A part of which what is null is as if it were absent, fields that are not served too.

    Clients send such fields along, and send back what an answer had.
    """

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if value is not None}


def unsupported(message: str) -> PydanticCustomError:
    """The error of a valid part that this backbone cannot read."""
    return PydanticCustomError("unsupported_input", message)  # type: ignore[arg-type]


def invalid(message: str) -> PydanticCustomError:
    """The error of a value that breaks a rule between fields."""
    return PydanticCustomError("invalid", message.replace("{", "{{").replace("}", "}}"))  # type: ignore[arg-type]


def shape_of(*tags: tuple[type | tuple[type, ...], str]) -> Callable[[object], str | None]:
    """A discriminator by JSON type; its tags stand in angle brackets (`faults.field_path`)."""

    def tag(value: object) -> str | None:
        return next((name for kind, name in tags if isinstance(value, kind)), None)

    return tag


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be blank")
    return text


Text = Annotated[
    str,
    AfterValidator(_not_blank),
    WithJsonSchema({"type": "string", "minLength": 1, "pattern": r"\S"}),
]
"""A string with something in it."""
