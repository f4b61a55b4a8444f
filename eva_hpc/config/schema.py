"""What the models of this room allow, in words: which keys a section has, which values a key takes."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as limits
from pydantic import BaseModel, Tag

from eva_hpc.config.shorthand import Shorthand
from eva_hpc.config.yaml_file import KeyPath

_WORDS = {int: "an integer", float: "a number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Place:
    """A place in a model: its dotted path, its type (None for an unknown key) and the section it is in."""

    path: KeyPath
    type: Any
    section: type[BaseModel] | None


def place(model: type[BaseModel], location: Sequence[str | int]) -> Place:
    """Follow a location of a pydantic error (or a dotted key, split) through a model.

    Pydantic puts the tag of a tagged section and ``[key]`` into its locations; the path leaves both out.
    """
    path: KeyPath = ()
    current: Any = model
    section: type[BaseModel] | None = model
    key_type: Any = None
    for part in location:
        bare, _ = bare_type(current)
        if part == "[key]" and key_type is not None:
            return Place(path, key_type, section)
        key_type = None
        if _is_section(bare):
            section = bare
            path = (*path, part)
            current = bare.model_fields[part].rebuild_annotation() if part in bare.model_fields else None
        elif kinds(bare):
            if part not in kinds(bare):
                return Place((*path, part), None, None)
            current = kinds(bare)[str(part)]
        elif get_origin(bare) is dict:
            path, (key_type, current) = (*path, part), get_args(bare)
        elif get_origin(bare) is tuple:
            path, current = (*path, part), get_args(bare)[0]
        elif get_origin(bare) not in (Union, types.UnionType):
            return Place((*path, part), None, None)
    return Place(path, current, section)


def bare_type(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without ``Annotated`` and ``| None``, and all its metadata."""
    metadata: tuple[Any, ...] = ()
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *extra = get_args(annotation)
            metadata += tuple(extra)
            continue
        members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else ()
        if type(None) in members and len(members) == 2:
            annotation = next(member for member in members if member is not type(None))
            continue
        return annotation, metadata


def kinds(annotation: Any) -> dict[str, type[BaseModel]]:
    """The sections of a tagged union by tag; empty for any other type."""
    bare, _ = bare_type(annotation)
    result: dict[str, type[BaseModel]] = {}
    for member in get_args(bare) if get_origin(bare) in (Union, types.UnionType) else ():
        inner, metadata = bare_type(member)
        result |= {item.tag: inner for item in metadata if isinstance(item, Tag)}
    return result


def tag_key(annotation: Any) -> str:
    """The key that tells the sections of a tagged union apart, mostly `kind`: the one that takes nothing but their tags."""
    tag, section = next(iter(kinds(annotation).items()))
    return next(name for name, field in section.model_fields.items() if get_args(field.annotation) == (tag,))


def shorthand(annotation: Any) -> Shorthand | None:
    """The short form that a type takes, if any."""
    return next((item for item in bare_type(annotation)[1] if isinstance(item, Shorthand)), None)


def options(annotation: Any) -> list[str]:
    """The words a type allows: values of a Literal, tags of a tagged section."""
    bare, _ = bare_type(annotation)
    return [str(value) for value in get_args(bare)] if get_origin(bare) is Literal else list(kinds(bare))


def allowed(annotation: Any) -> str:
    """What a type allows, in words: ``a number, at least 0 and at most 1``."""
    bare, metadata = bare_type(annotation)
    null = " or null" if _optional(annotation) else ""
    if kinds(bare):
        short = shorthand(annotation)
        return f"a section with {tag_key(bare)}: {' | '.join(kinds(bare))}" + (f"; or {short.allowed}" if short else "") + null
    if _is_section(bare):
        return f"a section with the keys {', '.join(bare.model_fields)}" + null
    if get_origin(bare) is Literal:
        return f"one of {', '.join(options(bare))}" + null
    if get_origin(bare) is tuple:
        return f"a list, each item {allowed(get_args(bare)[0])}" + null
    if get_origin(bare) is dict:
        return "a section of names and values" + null
    if get_origin(bare) in (Union, types.UnionType):
        return "a finite number, text, true or false" + null
    bounds = " and ".join(_bounds(metadata))
    return _WORDS.get(bare, "a value") + null + (f", {bounds}" if bounds else "")


def dotted_keys(model: type[BaseModel]) -> list[str]:
    """Every dotted key that a model knows by name, through all kinds of its sections."""
    keys: dict[str, None] = {}
    for name, field in model.model_fields.items():
        keys[name] = None
        bare, _ = bare_type(field.annotation)
        for section in kinds(bare).values() or ([bare] if _is_section(bare) else []):
            keys |= {f"{name}.{key}": None for key in dotted_keys(section)}
    return list(keys)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _optional(annotation: Any) -> bool:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return type(None) in get_args(annotation)


def _bounds(metadata: Sequence[Any]) -> Iterator[str]:
    for item in metadata:
        for part in _flat(item):
            match part:
                case limits.Ge(ge=bound):
                    yield f"at least {bound}"
                case limits.Gt(gt=bound):
                    yield f"above {bound}"
                case limits.Le(le=bound):
                    yield f"at most {bound}"
                case limits.Lt(lt=bound):
                    yield f"below {bound}"
                case limits.MinLen(min_length=1):
                    yield "not empty"
                case object(pattern=str(pattern)):
                    yield f"matching {pattern}"


def _flat(item: Any) -> Sequence[Any]:
    """The limits inside a pydantic ``Field(...)`` used as metadata, or the item itself."""
    return item.metadata if hasattr(item, "metadata") else [item]
