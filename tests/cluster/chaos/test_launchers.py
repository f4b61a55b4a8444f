"""Commands that are killed, typed again, and typed twice."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from eva_hpc.cluster import queue
from eva_hpc.cluster.devcluster.processes import wait_until
from eva_hpc.store.artifacts import CLAIM, WORK
from tests.cluster.chaos.disturb import Chaos

pytestmark = pytest.mark.slow


def sbatch_that(folder: Path, script: str) -> dict[str, str]:
    """An environment whose sbatch does something else once; the real one is $REAL."""
    folder.mkdir()
    path = folder / "sbatch"
    once = f'[ -e {folder}/called ] && exec $REAL "$@"; touch {folder}/called'
    path.write_text(f"#!/bin/bash\nREAL={shutil.which('sbatch')}\n{once}\n{script}\n")
    path.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.chaos
def test_the_command_is_typed_twice_at_once(chaos: Chaos) -> None:
    chaos.write_site(slow={"generate": 0.3})
    first = chaos.again()
    second = chaos.again()
    codes = {first.wait(timeout=600), second.wait(timeout=600)}

    if codes != {0}:  # one that came while the other submitted says so, and is typed again
        assert "another sweep is at work" in chaos.said() + chaos.said(1)
        chaos.again()
        chaos.finish()
    assert len(chaos.events("submitted")) == 1
    chaos.verify()


@pytest.mark.chaos
def test_two_drivers_do_the_same_tasks_at_once(chaos: Chaos) -> None:
    """As after a controller that took an array twice."""
    chaos.start(slow={"generate": 0.3})
    chaos.until(lambda: bool(chaos.events("begun")))
    (job,) = chaos.jobs()
    (pickled,) = chaos.root.glob(f"*/slurm/*/{job}_submitted.pkl")
    script = pickled.with_name(f"{job}_submission.sh")
    again = subprocess.run(["sbatch", "--parsable", str(script)], check=True, capture_output=True, text=True).stdout.strip()
    shutil.copy(pickled, pickled.with_name(f"{again}_submitted.pkl"))
    chaos.finish()
    assert wait_until(lambda: not queue.squeue([again]), timeout_s=60)

    assert {event["job"] for event in chaos.events("begun")} == {job, again}
    chaos.verify()


@pytest.mark.chaos
@pytest.mark.parametrize(
    "owner",
    [
        pytest.param("slurm 4242", id="a job"),
        pytest.param(f"process 1 (1) on {platform.node()}", id="a process"),
    ],
)
def test_a_claim_was_left_behind_by(chaos: Chaos, owner: str) -> None:
    chaos.start(slow={"generate": 0.3})
    chaos.until(lambda: len(chaos.chunks("generate")) >= 4)
    chaos.kill_launcher()
    chaos.end_jobs()
    (claim,) = chaos.root.glob(f"store/generate/*/{WORK}/{CLAIM}")
    claim.write_text(owner)
    chaos.again()
    chaos.finish()

    chaos.verify()


MOMENTS = ["launched", "submitting", "submitted", "begun", "started", "done"]


@pytest.mark.chaos
@pytest.mark.parametrize("moment", MOMENTS)
def test_the_launcher_is_killed_right_after_the_event(chaos: Chaos, moment: str) -> None:
    chaos.start(slow={"generate": 0.2})
    chaos.until(lambda: bool(chaos.events(moment)))
    chaos.kill_launcher()
    chaos.again()
    chaos.finish()

    chaos.verify()


@pytest.mark.parametrize(
    ("script", "begun"),
    [
        pytest.param('$REAL "$@" >/dev/null; kill -9 $PPID', 1, id="after slurm took the job"),
        pytest.param("kill -9 $PPID", 1, id="before slurm was asked", marks=pytest.mark.chaos),
    ],
)
def test_the_launcher_is_killed_between_submitting_and_submitted(chaos: Chaos, tmp_path: Path, script: str, begun: int) -> None:
    chaos.start(slow={"generate": 0.2}, environment=sbatch_that(tmp_path / "bin", script))
    assert chaos.process is not None
    assert chaos.process.wait(timeout=120) == -9
    assert not chaos.events("submitted")
    chaos.again()
    chaos.finish()

    assert len(chaos.events("begun")) == begun
    chaos.verify()


@pytest.mark.chaos
def test_the_launcher_is_killed_again_and_again(chaos: Chaos) -> None:
    chaos.start(slow={"generate": 0.4, "train": 0.3})
    for number in range(5, 25, 4):
        chaos.until(lambda number=number: len(chaos.events()) >= number)
        chaos.kill_launcher()
        chaos.again()
    chaos.finish()

    assert len(chaos.events("submitted")) == 1
    chaos.verify()
