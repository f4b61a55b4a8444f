"""From a document to a model, with pydantic's errors told in the user's terms: file, line, key, found, allowed, nearest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from eva_hpc.config.errors import ConfigError, did_you_mean
from eva_hpc.config.schema import Place, allowed, dotted_keys, kinds, options, place, tag_key
from eva_hpc.config.yaml_file import Document, found

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], document: Document) -> Model:
    """The model that a document describes.

    Raises:
        ConfigError: one line for each mistake in the document, in the order of its lines.
    """
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        problems = [_problem(model, document, details) for details in error.errors(include_url=False)]
    lines = sorted((line for line in problems if line is not None), key=lambda line: line[0])
    raise ConfigError(*(text for _, text in lines))


def _problem(model: type[BaseModel], document: Document, details: ErrorDetails) -> tuple[int, str] | None:
    """Line number and text of one error; None for one that only repeats another."""
    where = place(model, details["loc"])
    if details["type"] == "too_short" and details["input"]:
        return None  # the items have errors of their own, and none was left
    path = where.path
    context = details.get("ctx", {})
    if details["type"] == "rule":
        path = (*path, *context["key"].split("."))
    text, of_key = _TEXTS.get(details["type"], _wrong_value)(model, where, details)
    if details["type"].startswith("union_tag") and isinstance(details["input"], dict):
        path = (*path, tag_key(where.type))
    origin = document.origin(path)
    return (origin.key_line if of_key else origin.line) or 0, document.at(path, text, of_key=of_key)


_Text = tuple[str, bool]


def _unknown_key(model: type[BaseModel], where: Place, details: ErrorDetails) -> _Text:
    name = str(where.path[-1])
    names = list(where.section.model_fields) if where.section else []
    near = did_you_mean(name, names) or _of_another_kind(model, name, details) or _elsewhere(model, name)
    return f"unknown key; allowed: {', '.join(names)}{near}", True


def _of_another_kind(model: type[BaseModel], name: str, details: ErrorDetails) -> str:
    """The tags whose sections have this key, where the section it was found in is one of several."""
    *outer, tag = details["loc"][:-1] or ("",)
    union = place(model, outer).type
    if tag not in kinds(union):
        return ""
    tags = [other for other, section in kinds(union).items() if name in section.model_fields]
    return f"; it is a key of {tag_key(union)}: {' | '.join(tags)}" if tags else ""


def _elsewhere(model: type[BaseModel], name: str) -> str:
    """The place of a key that exists, but in another section."""
    places = [key for key in dotted_keys(model) if key.rsplit(".", 1)[-1] == name]
    return f"; did you mean '{places[0]}'?" if places else ""


def _missing(model: type[BaseModel], where: Place, details: ErrorDetails) -> _Text:
    field = where.section.model_fields[str(where.path[-1])] if where.section else None
    description = f" ({field.description})" if field and field.description else ""
    return f"missing; must be {allowed(where.type)}{description}", True


def _kind(model: type[BaseModel], where: Place, details: ErrorDetails) -> _Text:
    value = details["input"]
    names = options(where.type)
    if not isinstance(value, dict):
        return f"found {found(value)}; must be {allowed(where.type)}", False
    key = tag_key(where.type)
    if key not in value:
        return f"missing; must be one of {', '.join(names)}", True
    tag = value[key]
    return f"found {found(tag)}; must be one of {', '.join(names)}{did_you_mean(str(tag), names)}", False


def _empty(model: type[BaseModel], where: Place, details: ErrorDetails) -> _Text:
    return "has no values; give at least one", False


def _own_words(model: type[BaseModel], where: Place, details: ErrorDetails) -> _Text:
    return details["msg"], False


def _found_own_words(model: type[BaseModel], where: Place, details: ErrorDetails) -> _Text:
    return f"found {found(details['input'])}; {details['msg']}", False


def _wrong_value(model: type[BaseModel], where: Place, details: ErrorDetails) -> _Text:
    value = details["input"]
    near = did_you_mean(value, options(where.type)) if isinstance(value, str) else ""
    quotes = "; put quotes around it" if details["type"] == "string_type" and isinstance(value, bool | int | float) else ""
    words = allowed(where.type)
    if details["type"] == "finite_number":
        words = words.replace("a number", "a finite number", 1)
    return f"found {found(value)}; must be {words}{near}{quotes}", details["loc"][-1:] == ("[key]",)


_TEXTS: Mapping[str, Callable[[type[BaseModel], Place, ErrorDetails], _Text]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing,
    "union_tag_invalid": _kind,
    "union_tag_not_found": _kind,
    "too_short": _empty,
    "rule": _own_words,
    "repeated": _own_words,
    "shorthand": _own_words,
    "plain_value": _found_own_words,
    "bundle": _found_own_words,
    "label": _found_own_words,
    "recipe_files": _found_own_words,
    "address": _own_words,
}
