"""The file system of the root is full. It is a small one in memory, which only root can mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.chaos.disturb import Chaos

pytestmark = pytest.mark.slow

SMALL_MB, LARGE_MB = 200, 400


@pytest.fixture
def small(chaos: Chaos) -> Iterator[Path]:
    """The root of the sweep, with little room."""
    chaos.root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_MB}m", "tmpfs", str(chaos.root)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a file system here")
    yield chaos.root
    chaos.kill_launcher()
    chaos.tell()
    subprocess.run(["umount", "--lazy", str(chaos.root)], check=True)


def fill(root: Path, leave: int = 0) -> None:
    """Take all the room but `leave` bytes."""
    with (root / "ballast").open("wb", buffering=0) as file:
        free = os.statvfs(root).f_bavail * os.statvfs(root).f_bsize - leave
        while free > 0:
            try:
                free -= file.write(bytes(min(free, 1 << 20)))
            except OSError:
                return


@pytest.mark.chaos
def test_the_disk_is_full_while_it_generates(chaos: Chaos, small: Path) -> None:
    chaos.start(slow={"generate": 0.4})
    chaos.until(lambda: len(chaos.chunks("generate")) >= 6)
    fill(small, leave=1 << 15)
    said = chaos.finish(code=1)

    assert [event["cause"] for event in chaos.events("failed")] == ["disk_full"], chaos.told()
    go_on(chaos, small, said)
    chaos.verify()


@pytest.mark.chaos
def test_the_disk_is_full_while_it_trains(chaos: Chaos, small: Path) -> None:
    chaos.start(slow={"train": 0.3})
    chaos.until(lambda: chaos.checkpoint() > 0)
    fill(small, leave=1 << 20)
    said = chaos.finish(code=1)

    assert [event["cause"] for event in chaos.events("failed")] == ["disk_full"], chaos.told()
    go_on(chaos, small, said)
    chaos.verify()


@pytest.mark.chaos
def test_the_disk_has_no_byte_left_not_even_for_the_ledger(chaos: Chaos, small: Path) -> None:
    chaos.start(slow={"generate": 0.4})
    chaos.until(lambda: len(chaos.chunks("generate")) >= 6)
    pad_ledger(chaos.root)
    fill(small)
    said = chaos.finish(code=1)

    go_on(chaos, small, said)
    chaos.verify()


def pad_ledger(root: Path) -> None:
    """Let the next event of each writer need another page of the disk."""
    for path in root.glob("*/ledger/*.jsonl"):
        with path.open("ab") as file:
            file.write(b" " * (-path.stat().st_size % 4096 - 1) + b"\n")


def go_on(chaos: Chaos, small: Path, said: str) -> None:
    """What the command said was clear; with more room the same command finishes."""
    assert "No space left on device" in said
    assert "Traceback" not in said
    subprocess.run(["mount", "-o", f"remount,size={LARGE_MB}m", str(small)], check=True)
    chaos.again()
    chaos.finish()
