"""Field types shared by HTTP bodies: ids as strings, models that refuse unknown fields."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema

MAX_INT64 = 2**63 - 1
ID_PATTERN = r"^[1-9][0-9]{0,18}$"


def parse_id(value: object) -> int:
    """An int64 id from its decimal string. Raises ValueError for anything else, so JSON numbers (inexact in browsers) too."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and value[0] != "0" and len(value) <= 19:
        number = int(value)
        if number <= MAX_INT64:
            return number
    raise ValueError("must be an id: a string of decimal digits")


def _from_python(value: object) -> object:
    # Answers are built from ints by our own code; requests come as strings.
    return value if type(value) is int else parse_id(value)


Id = Annotated[
    int,
    BeforeValidator(_from_python),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": ID_PATTERN, "examples": ["7291837465"]}),
]
"""int64 in Python, string in JSON."""


class Body(BaseModel):
    """A request body or query; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class AnswerModel(BaseModel):
    """A response body."""

    model_config = ConfigDict(frozen=True)
