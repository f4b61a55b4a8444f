"""Keys: what an artifact is, as a hash of everything that decides its content.

A key is the hash of stage name, stage version, the stage's own parameters and the keys of its inputs; never of paths,
resources or time.

Some stages are *nested*: the artifact for a larger parameter contains that for a smaller one (the first k of k_max
responses, the first share of the evolved prompts). Such an artifact is named by its *family*, the hash without the nested
parameters, and by their values.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

Number = int | float


def digest(value: Any) -> str:
    """20 hex digits of the SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:20]


@dataclass(frozen=True)
class Identity:
    """Which artifact is meant: a stage, its family, and the values of its nested parameters (none for most stages)."""

    stage: str
    family: str
    nested: tuple[tuple[str, Number], ...] = ()

    @property
    def key(self) -> str:
        """The key a consumer of exactly this artifact sees."""
        return digest([self.family, [list(pair) for pair in self.nested]]) if self.nested else self.family

    @property
    def name(self) -> str:
        """The folder name: ``FAMILY`` or ``FAMILY.fraction=1.0.responses=10``."""
        return ".".join([self.family, *(f"{field}={value}" for field, value in self.nested)])

    @classmethod
    def from_name(cls, stage: str, name: str) -> Identity:
        """The inverse of :attr:`name`.

        Raises:
            ValueError: no artifact has this name.
        """
        family, *pairs = re.split(r"\.(?=[A-Za-z_])", name)
        values = (pair.partition("=") for pair in pairs)
        found = cls(stage, family, tuple((field, orjson.loads(value)) for field, _, value in values))
        if found.name != name:
            raise ValueError(f"{name!r} is not the name of an artifact")
        return found

    @property
    def values(self) -> tuple[Number, ...]:
        """Its nested values. Of two artifacts of a family, one that contains the other has no smaller ones."""
        return tuple(value for _, value in self.nested)

    def contains(self, other: Identity) -> bool:
        """Whether this artifact holds all that `other` asks for."""
        mine, asked = dict(self.nested), dict(other.nested)
        return (self.stage, self.family, mine.keys()) == (other.stage, other.family, asked.keys()) and all(
            mine[field] >= value for field, value in asked.items()
        )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {"stage": self.stage, "family": self.family, "nested": dict(self.nested)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Identity:
        """The inverse of :meth:`to_json`."""
        return cls(value["stage"], value["family"], tuple(sorted(value["nested"].items())))


def containing(asked: Identity, names: Iterable[str]) -> list[Identity]:
    """Of the folder names of a family those that contain what is asked for, the smallest first. Other names are passed over."""
    held = []
    for name in names:
        with suppress(ValueError):
            held.append(Identity.from_name(asked.stage, name))
    return sorted((one for one in held if one.contains(asked)), key=lambda one: one.values)


def identify(
    stage: str,
    version: int,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Identity],
    nested: tuple[str, ...] = (),
    salt: str = "",
) -> Identity:
    """The identity of a stage's artifact.

    Args:
        stage: its registered name.
        version: raised whenever the stage would write something else for the same parameters.
        parameters: JSON values of its spec, nested ones included.
        inputs: identities of its inputs by role. An input nested in the same parameters with the same values counts by its
            family, so that the artifact is nested as well.
        nested: names of the parameters in which it is nested.
        salt: makes another artifact of what is the same otherwise; none if empty.
    """
    values = tuple(sorted((field, parameters[field]) for field in nested))
    family = digest(
        {
            "stage": stage,
            "version": version,
            "parameters": {field: value for field, value in parameters.items() if field not in nested},
            "inputs": {
                role: source.family if source.nested and source.nested == values else source.key
                for role, source in inputs.items()
            },
            **({"salt": salt} if salt else {}),
        }
    )
    return Identity(stage, family, values)
