"""Nodes that failed: one empty file for each failure, so that any driver sees at a glance which to avoid.

    RESULTS/failed_nodes/node3/12_4-0      node3 failed under attempt 0 of job 12_4

A driver that is started again and the launcher's accounting may both tell of the same failure: it is the same file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

FOLDER = "failed_nodes"


def blame(results: Path, nodes: Iterable[str], job: str, attempt: int) -> None:
    """Note that nodes failed under an attempt of a job."""
    for node in nodes:
        path = results / FOLDER / node / f"{job}-{attempt}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def blameworthy(nodes: Sequence[str], down: Collection[str]) -> list[str]:
    """Those nodes of an attempt that ended with a node failure that surely failed: its only one, or those that are down now."""
    return list(nodes) if len(nodes) == 1 else [node for node in nodes if node in down]


def bad_nodes(results: Path, after: int) -> list[str]:
    """Nodes that failed at least `after` times."""
    return sorted(path.name for path in (results / FOLDER).glob("*") if sum(1 for _ in path.iterdir()) >= after)
