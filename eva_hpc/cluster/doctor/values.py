"""Values in the texts of Slurm's clients: times, amounts of GPUs, features, who may use something."""

from __future__ import annotations

import re
from collections.abc import Collection

_UNLIMITED = {"", "UNLIMITED", "INFINITE", "NONE", "N/A", "(null)"}
_GPU = re.compile(r"(?:^|,)gpu(?::(?P<type>[^:,()]+))??:(?P<count>\d+)(?=[,(]|$)")
_AWAY = ("DOWN", "DRAIN", "FAIL", "NOT_RESPONDING", "FUTURE", "UNKNOWN", "POWERED_DOWN", "MAINT")


def minutes(text: str) -> float | None:
    """Minutes of a time limit such as "2-12:00:00", "01:30:00", "90:00" (minutes:seconds) or "45"; None: there is no limit."""
    if text in _UNLIMITED:
        return None
    days, dash, clock = text.rpartition("-")
    parts = [float(part) for part in clock.split(":")]
    if dash or len(parts) == 3:
        hours, mins, seconds = (*parts, 0.0, 0.0)[:3]
        return 1440 * float(days or 0) + 60 * hours + mins + seconds / 60
    return parts[0] + (parts[1] / 60 if len(parts) == 2 else 0)


def seconds(text: str) -> int:
    """Seconds of "30 sec", "20" or "00:00:30"; 0 if there is no number."""
    if ":" in text:
        return round(60 * (minutes(text) or 0))
    number = re.match(r"\d+", text)
    return int(number[0]) if number else 0


def count(text: str) -> int | None:
    """A number of nodes, jobs, …; None: there is no limit."""
    return None if text in _UNLIMITED else int(text)


def gpus(gres: str, kind: str | None) -> int:
    """GPUs of a type, or of any, in a node's Gres, e.g. "gpu:a100:8(S:0-1),nvme:1"."""
    matches = _GPU.finditer(gres)
    return sum(int(match["count"]) for match in matches if kind is None or match["type"] == kind)


def gpu_types(gres: str) -> set[str]:
    """The types of GPUs in a node's Gres."""
    return {match["type"] for match in _GPU.finditer(gres) if match["type"]}


def in_service(state: str) -> bool:
    """Whether a node's State, e.g. "MIXED" or "IDLE+DRAIN", lets it run jobs."""
    return not state.endswith("*") and not any(word in state for word in _AWAY)


def listed(text: str) -> list[str] | None:
    """The names in a list such as AllowAccounts; None for all."""
    return None if text in ("ALL", "(null)", "N/A", "") else text.split(",")


def features(expression: str) -> set[str]:
    """The features that a constraint names, e.g. of "a100&[rack1|rack2]", "ib*2" or "!old"."""
    return set(re.findall(r"[A-Za-z_][\w.:=-]*", expression))


def satisfies(available: Collection[str], expression: str) -> bool:
    """Whether a node with these features satisfies a constraint. Brackets, parentheses and "!" are not judged: it may."""
    if re.search(r"[\[\]()!*]", expression):
        return bool(features(expression) & set(available)) or "!" in expression
    if "|" in expression and not re.search("[&,]", expression):
        return any(name in available for name in expression.split("|"))
    if "|" in expression:
        return bool(features(expression) & set(available))
    return features(expression) <= set(available)
