"""Files and models outside the store are still what they were when the sweep was planned: keys name that content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from eva_hpc.config.fingerprint import fingerprint
from eva_hpc.stages.contract import StageFailed

_OF_CONTENT = "sha256:"


def check_unchanged(path: str, planned: str) -> None:
    """Compare a file or model folder with its fingerprint in the plan. Names on the hub have none: their revision is the key's.

    Raises:
        StageFailed: it is gone, or another; the message says what to do.
    """
    if not planned.startswith(_OF_CONTENT):
        return
    if not Path(path).exists():
        raise StageFailed(f"{path} is not there, or not on this node: it was when the sweep was planned; put it back")
    if fingerprint(path) != planned:
        raise StageFailed(
            f"{path} has changed since the sweep was planned: give the same command again, which plans with what is there now, "
            "or put back what was there"
        )


def check_all_unchanged(files: Mapping[str, str], planned: Mapping[str, str]) -> None:
    """Compare files with their fingerprints in the plan, both by role.

    Raises:
        StageFailed: one is gone, or another.
    """
    for role, path in files.items():
        check_unchanged(path, planned[role])
