"""The training log: one JSON object per optimiser step, without wall-clock values, so that a resumed run writes the same file.

{"step": 1, "loss": 0.693147, "margin": 0.0, "accuracy": 0.0, "learning_rate": 5e-08, "grad_norm": 2.1,
 "chosen_logps": -31.2, "rejected_logps": -33.0, "pairs": 64}
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypedDict

import orjson

from eva_hpc.store.records import write_jsonl


class Row(TypedDict):
    """Means over the pairs of one optimiser step, before its update.

    `margin` is by how much the loss sees the chosen response preferred: beta times the difference of the log-ratios of chosen
    and rejected (the reward margin of DPO); for SimPO beta times that of the mean log-probs, for ORPO the log odds ratio.
    `accuracy` is the share of pairs where it is positive, `grad_norm` the norm before clipping.
    """

    step: int
    loss: float
    margin: float
    accuracy: float
    learning_rate: float
    grad_norm: float
    chosen_logps: float
    rejected_logps: float
    pairs: int


def count(path: Path) -> int:
    """Rows in the log; a torn last line and what follows a line that is no row do not count."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for index, line in enumerate(lines):
        try:
            if not line.endswith(b"\n") or orjson.loads(line)["step"] != index + 1:
                return index
        except (orjson.JSONDecodeError, TypeError, KeyError):
            return index
    return len(lines)


def cut_back(path: Path, steps: int) -> None:
    """Keep the rows of the first `steps` steps, which the checkpoint has seen; a torn last line goes too.

    Raises:
        ValueError: the log has fewer rows than that.
    """
    lines = path.read_bytes().splitlines(keepends=True)[:steps] if path.exists() else []
    write_jsonl(path, (orjson.loads(line) for line in lines))
    if len(lines) != steps:
        raise ValueError(f"{path} has {len(lines)} rows but the checkpoint has seen {steps} steps")


def append(path: Path, row: Row) -> None:
    """Add one row."""
    with path.open("ab") as file:
        file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def sync(path: Path) -> None:
    """Make sure that the rows survive the machine, before a checkpoint relies on them."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
