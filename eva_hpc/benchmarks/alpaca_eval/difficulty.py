"""How hard each instruction is, and which difficulty belongs to which row of annotations.

The official file lists a number by the position of the question in the evaluation set:

    index,instruction_difficulty
    0,8.202534348e-10

The official tool looks it up by the position of the row among the annotations, so that after a missing row every later row gets
another instruction's difficulty. Here rows are joined by their instruction; the official lookup is there on request. Which
instruction is the how-manieth is known from instruction_order.txt, hashes of the 805 official ones in their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eva_hpc.benchmarks.files import read_csv
from eva_hpc.config.errors import ConfigError
from eva_hpc.store.seeds import content_id

JOINS = ("instruction", "position")


@lru_cache
def official_order() -> dict[str, int]:
    """Position in the official evaluation set by the instruction's content id."""
    text = (files(__package__) / "instruction_order.txt").read_text(encoding="ascii")
    return {name: position for position, name in enumerate(text.split())}


def read_difficulty(path: Path) -> npt.NDArray[np.float64]:
    """Difficulties in the order of the questions, from instruction_difficulty.csv or, as the official tool does, df_gamed.csv.

    Raises:
        ConfigError: the file cannot be read, or a position is missing, double or not a number.
    """
    rows = read_csv(path, needs=("instruction_difficulty",))
    by_position: dict[int, float] = {}
    for line, row in enumerate(rows, start=2):
        place = row.get("index", next(iter(row.values())))
        try:
            position, value = int(place), float(row["instruction_difficulty"])
        except (TypeError, ValueError):
            found = f"{place!r} and {row['instruction_difficulty']!r}"
            raise ConfigError(f"{path}:{line}: found {found}; must be a position and a number") from None
        if not math.isfinite(value):
            raise ConfigError(f"{path}:{line}: found {value}; must be a finite number")
        if by_position.setdefault(position, value) != value:
            raise ConfigError(f"{path}:{line}: position {position} has two difficulties: {by_position[position]} and {value}")
    if sorted(by_position) != list(range(len(by_position))):
        gap = next(position for position in range(len(by_position)) if position not in by_position)
        raise ConfigError(f"{path}: has no difficulty for position {gap}; must have all from 0 to {max(by_position)}")
    return np.array([by_position[position] for position in range(len(by_position))])


def positions(instructions: Sequence[str], n: int, join: str, questions: Sequence[str] | None = None) -> list[int | None]:
    """Which of `n` difficulties each row has; None for an instruction that is in neither the official set nor `questions`.

    Args:
        instructions: of the rows, in their order.
        n: number of difficulties.
        join: "instruction", or "position" for the official lookup by row.
        questions: instructions of an own evaluation set of `n` questions, in the order of its difficulties.

    Raises:
        ConfigError: by position, and there are more rows than difficulties.
    """
    if join == "position":
        if len(instructions) > n:
            raise ConfigError(f"{len(instructions)} rows, but {n} difficulties; by position there must be one for every row")
        return list(range(len(instructions)))
    order: dict[str, int] = {}
    if n == len(official_order()):
        order |= official_order()
    if questions is not None and len(questions) == n:
        for position, question in enumerate(questions):
            order.setdefault(content_id(question), position)
    return [order.get(content_id(instruction)) for instruction in instructions]
