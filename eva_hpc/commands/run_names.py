"""Which runs somebody means: by name, or by what is enough of it: ``6,1``, ``k=6 seed 1``, ``seed=1``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eva_hpc.config.errors import ConfigError, did_you_mean
from eva_hpc.plan.index import IndexedRun

SHARED = "shared"
_SHOWN = 12


def matching(words: str, runs: Sequence[IndexedRun]) -> list[IndexedRun]:
    """All runs that the words fit: the one of that name; else those with the values named; else those with them in their names.

    A value may stand alone or after its axis, whose name may be cut (``responses=6``) or, as in formulas, be one letter
    (``k=6``). Values that stand alone are in the order of the axes, the seed last.
    """
    for run in runs:
        if run.name == words.strip():
            return [run]
    wanted = _pairs(words, runs[0]) if runs else []
    found = [run for run in runs if _fits(wanted, run)]
    return found or [run for run in runs if words.strip() in run.name]


def one_run(words: str, runs: Sequence[IndexedRun]) -> IndexedRun:
    """The one run that the words fit.

    Raises:
        ConfigError: none or several do; the message lists them.
    """
    found = matching(words, runs)
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"RUN {words!r}: {len(found)} runs fit: {_listed([run.name for run in found])}")
    raise no_such_run(words, runs)


def no_such_run(words: str, runs: Sequence[IndexedRun]) -> ConfigError:
    """The mistake of words that fit no run."""
    names = [run.name for run in runs]
    return ConfigError(f"RUN {words!r}: no such run{did_you_mean(words, names)}; the runs are: {_listed(names)}")


def _pairs(words: str, example: IndexedRun) -> list[tuple[str, str]]:
    """(axis as written or "", value) of each word; ``seed 1`` is ``seed=1``."""
    names = [*example.point, "seed"]
    pairs: list[tuple[str, str]] = []
    name = ""
    for word in re.split(r"[,\s]+", re.sub(r"\s*=\s*", "=", words.strip())):
        before, sign, value = word.rpartition("=")
        if sign:
            pairs.append((before, value))
        elif not name and word.isidentifier() and any(word in axis for axis in names):
            name = word
            continue
        else:
            pairs.append((name, word))
        name = ""
    return [*pairs, (name, "")] if name else pairs


def _fits(wanted: Sequence[tuple[str, str]], run: IndexedRun) -> bool:
    """Whether each word fits an axis of the run, one after the other."""
    values = {**run.point, "seed": run.seed}
    rest = list(values)
    for name, value in wanted:
        candidates = list(values) if name else rest
        if name and not (len(name) == 1 and name not in values):
            candidates = [axis for axis in candidates if name == axis] or [axis for axis in candidates if name in axis]
        elif name:
            candidates = [axis for axis in candidates if axis != "seed"]
        axis = next((axis for axis in candidates if _same(values[axis], value)), None)
        if axis is None:
            return False
        if not name:
            rest = rest[rest.index(axis) + 1 :]
    return bool(wanted)


def _same(value: object, text: str) -> bool:
    if str(value) == text:
        return True
    try:
        return not isinstance(value, bool | str) and float(str(value)) == float(text)
    except ValueError:
        return False


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "; ".join(names[:_SHOWN]) + more
