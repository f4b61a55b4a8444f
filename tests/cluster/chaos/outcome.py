"""What is told of a disturbed sweep, and what must be true of it at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from eva_hpc.store.artifacts import SPEED
from eva_hpc.store.records import read_jsonl
from tests.cluster.sweeps import results_of

Note = Mapping[str, Any]
TABLES = ("metrics.jsonl", "table.tex", "table.md", "table.csv")


@dataclass
class Story:
    """What happened in one case, for the report."""

    case: str
    words: list[str] = field(default_factory=list)
    attempts: int = 0
    typed: int = 0
    repeated: str = ""
    seconds: float = 0.0
    identical: bool = False


@dataclass(frozen=True)
class Undisturbed:
    """What a sweep with these words gives: its tables, and the hash of every file of every artifact."""

    root: Path
    tables: dict[str, bytes]
    artifacts: dict[tuple[str, ...], str]

    @classmethod
    def of(cls, root: Path) -> Undisturbed:
        """Read it."""
        return cls(root, {name: (results_of(root) / name).read_bytes() for name in TABLES}, artifacts(root))


def artifacts(root: Path) -> dict[tuple[str, ...], str]:
    """SHA-256 by stage, key and file name, of all but what says how fast it was made."""
    found = {}
    for path in root.glob("store/*/*/manifest.json"):
        manifest = orjson.loads(path.read_bytes())
        if not path.parent.name.startswith("corrupt-"):
            for name, entry in manifest["files"].items():
                if name != SPEED:
                    found[manifest["identity"]["stage"], manifest["key"], name] = entry["sha256"]
    return found


def verify_records(root: Path, count: int, steps: int) -> None:
    """Each of `count` prompts has its responses and rewards once and in order, each of `steps` training steps its row."""
    (prompts,) = _committed(root, "prompts", "prompts.jsonl")
    names = [row["id"] for row in prompts]
    assert len(names) == len(set(names)) == count
    for stage, file in (("generate", "responses.jsonl"), ("score", "rewards.jsonl")):
        for rows in _committed(root, stage, file):
            assert [row["prompt_id"] for row in rows] == names, stage
    (log,) = _committed(root, "train", "train_log.jsonl")
    assert [row["step"] for row in log] == list(range(1, steps + 1))


def _committed(root: Path, stage: str, file: str) -> list[list[Any]]:
    """The records of a file in each artifact of a stage, without those that were set aside."""
    paths = root.glob(f"store/{stage}/*/{file}")
    return [read_jsonl(path) for path in paths if not path.parent.name.startswith("corrupt-")]


def steps_repeated(notes: Sequence[Note]) -> tuple[int, float]:
    """Training steps that were done again, and the seconds that they had taken before; from the notes of one rank."""
    steps, seconds = 0, 0.0
    reached: dict[int, float] = {}
    process = ""
    for note in notes:
        if note["process"] != process and reached and note["value"] < max(reached):
            steps += max(reached) - note["value"]
            seconds += max(reached.values()) - reached.get(note["value"], min(reached.values()))
            reached = {step: at for step, at in reached.items() if step <= note["value"]}
        process = note["process"]
        reached[note["value"]] = note["time"]
    return steps, seconds


def steps_within(seconds: float, notes: Sequence[Note]) -> int:
    """The most steps that a process did within so many seconds, and one each at the begin and at the end of them."""
    most = 0
    for first in notes:
        later = [note["time"] - first["time"] for note in notes if note["process"] == first["process"]]
        most = max(most, sum(0 <= time <= seconds for time in later))
    return most + 2
