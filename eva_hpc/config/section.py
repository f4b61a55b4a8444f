"""What every part of a file that a user writes is: immutable and strict."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

LATER = "later"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


def _address(value: str) -> str:
    if urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname:
        raise PydanticCustomError("address", "must be an address such as http://host:8000/v1")
    if urlsplit(value).username is not None or urlsplit(value).password is not None:
        raise PydanticCustomError("address", "must not hold a user or password; keys come from the environment (api_key_env)")
    return value


Address = Annotated[str, AfterValidator(_address)]
"""Of an OpenAI-compatible server."""
EnvironmentName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Section(BaseModel):
    """A part of a file a user writes: immutable; an unknown key, "2" or true for a number, and NaN are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def later(default: Any, **limits: Any) -> Any:
    """A field that came after artifacts had been made: at its default it is left out of their keys, which stay the same."""
    return Field(default=default, json_schema_extra={LATER: True}, **limits)


def broken_rule(key: str, problem: str) -> PydanticCustomError:
    """The error of a rule between several keys, reported at the dotted `key` of the section."""
    return PydanticCustomError("rule", "{problem}", {"problem": problem, "key": key})


def kind_of(value: Any) -> str | None:
    """The `kind` of a section, given as a mapping or a model; None lets pydantic list the allowed kinds."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) else None
