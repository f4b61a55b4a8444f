"""The judge's verdict: the label in its text, e.g. ``[[A>>B]]``, and what a label counts.

The two versions differ in both. v0.1 wants one distinct label in the whole text. v2.0 takes the last one, in any case, in
single brackets if there are none in double ones, and also knows labels written from the other side, such as ``A<<B``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from eva_hpc.config.errors import ConfigError

Version = Literal["v0.1", "v2.0"]

PATTERNS: dict[Version, tuple[str, ...]] = {
    "v0.1": (r"\[\[([AB<>=]+)\]\]",),
    "v2.0": (r"\[\[([AB<>=]+)\]\]", r"\[([AB<>=]+)\]"),
}
STRONG = 3
"""A verdict of "significantly better" counts as this many games."""

_OUTCOMES = {"A>>B": (1.0, STRONG), "A>B": (1.0, 1), "A=B": (0.5, 1), "B>A": (0.0, 1), "B>>A": (0.0, STRONG)}
OUTCOMES: dict[Version, dict[str, tuple[float, int]]] = {
    "v0.1": _OUTCOMES,
    "v2.0": _OUTCOMES | {"A<<B": (0.0, STRONG), "A<B": (0.0, 1), "B=A": (0.5, 1), "B<<A": (1.0, STRONG), "B<A": (1.0, 1)},
}
"""Label -> A's share of the game (1 won, 0.5 tie, 0 lost) and how many games it counts. Other labels count nothing."""


def labels(text: str, patterns: Sequence[str] = PATTERNS["v0.1"]) -> list[str]:
    """The labels in a text, in order, of the first pattern that finds any."""
    for pattern in patterns:
        if found := [label for label in re.findall(pattern, text) if label]:
            return found
    return []


def parse(text: str, version: Version, patterns: Sequence[str] | None = None) -> str | None:
    """The label that the official parser of this version gives for a judgment; None if it gives none."""
    patterns = patterns or PATTERNS[version]
    if version == "v2.0":
        found = labels(text.upper(), patterns)
        return found[-1] if found else None
    found = labels(text, patterns)
    return found[0] if len(set(found)) == 1 else None


def check_version(name: str) -> Version:
    """The version of that name.

    Raises:
        ConfigError: there is no such version.
    """
    for version in PATTERNS:
        if version == name:
            return version
    raise ConfigError(f"Arena-Hard version: found {name}; must be one of {', '.join(PATTERNS)}")
