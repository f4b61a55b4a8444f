"""What the processes of a stage say of their own failure: a file per rank, of which the first that explains anything counts.

    WORK/failure-3.json     {"kind": "OutOfMemoryError", "text": "CUDA out of memory. …", "where": "training/trainer.py:152"}

A rank whose partner died fails too, sometimes sooner than the file of the one that caused it is there: it is heard last.
"""

from __future__ import annotations

import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

import eva_hpc
from eva_hpc.cluster.causes import Cause, cause_of_exception


@dataclass(frozen=True)
class Failure:
    """An exception that ended a process: its type, its message, and the innermost line of ours that it passed through."""

    kind: str
    text: str
    where: str

    @property
    def cause(self) -> Cause:
        """What is behind it."""
        return cause_of_exception(self.kind, self.text)

    @property
    def reason(self) -> str:
        """For the reader. What a stage says of itself needs no type and no line."""
        says_all = self.kind in ("StageFailed", "StageUnavailable", "MissingInput")
        return self.text if says_all else f"{self.kind}: {self.text} ({self.where})"


def failure_of(error: BaseException) -> Failure:
    """An exception as a failure."""
    package = Path(eva_hpc.__file__).parent
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(package)]
    where = f"{Path(frames[-1].filename).relative_to(package)}:{frames[-1].lineno}" if frames else "outside eva_hpc"
    return Failure(type(error).__name__, str(error), where)


def record_failure(work: Path, rank: int, error: BaseException) -> None:
    """Leave the failure of a rank for whoever waits for the stage; on a full disk there may be no file."""
    partial = work / f".failure-{rank}.partial"
    try:
        partial.write_bytes(orjson.dumps(asdict(failure_of(error))))
        partial.rename(work / f"failure-{rank}.json")
    except OSError:
        partial.unlink(missing_ok=True)


def first_failure(work: Path) -> Failure | None:
    """The failure that explains the others: the earliest that is not about a lost partner, else the earliest."""
    found: list[tuple[bool, int, Failure]] = []
    for path in work.glob("failure-*.json"):
        failure = Failure(**orjson.loads(path.read_bytes()))
        found.append((failure.cause is Cause.PEER_LOST, path.stat().st_mtime_ns, failure))
    return min(found, key=lambda one: one[:2])[2] if found else None


def forget_failures(work: Path) -> None:
    """Remove the failures of an earlier attempt."""
    for path in work.glob("failure-*.json"):
        path.unlink(missing_ok=True)
