"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(str, Enum):
    """How bad it is: a warning costs time or comfort, with a problem the sweep cannot work."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    `check` is what was looked at, `found` what is there, `means` what follows from it, `do` what the user can do, and
    `degrades` what the sweep does without, if anything; each a plain sentence without its full stop, or "".
    """

    level: Level
    check: str
    found: str
    means: str = ""
    do: str = ""
    degrades: str = ""


def ok(check: str, found: str, means: str = "") -> Finding:
    """Nothing to do."""
    return Finding(Level.OK, check, found, means)


def warning(check: str, found: str, means: str, do: str = "", degrades: str = "") -> Finding:
    """Works, but worse than it could."""
    return Finding(Level.WARNING, check, found, means, do, degrades)


def problem(check: str, found: str, means: str, do: str = "") -> Finding:
    """Does not work."""
    return Finding(Level.PROBLEM, check, found, means, do)
