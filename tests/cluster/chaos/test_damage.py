"""Files that are not what they were, and clocks that do not agree."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from eva_hpc.store.artifacts import WORK
from tests.cluster.chaos.disturb import ALL_STEPS, Chaos

pytestmark = pytest.mark.slow


def cut(path: Path) -> None:
    """Half of a file is gone."""
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """One bit of a file is another."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_unseen(path: Path) -> None:
    """One bit of a file is another, and its time is what it was."""
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def stop_in_training(chaos: Chaos) -> Path:
    """Start, and kill the command and its job when there is a checkpoint; returns the folder of the checkpoint."""
    chaos.start(slow={"train": 0.3})
    chaos.until(lambda: chaos.checkpoint() > 0 and chaos.steps() >= chaos.checkpoint() + 3)
    chaos.kill_launcher()
    chaos.end_jobs()
    return max(chaos.root.glob(f"store/train/*/{WORK}/checkpoints/*/COMPLETE")).parent


@pytest.mark.chaos
def test_a_checkpoint_was_cut_between_two_attempts(chaos: Chaos) -> None:
    checkpoint = stop_in_training(chaos)
    cut(max(checkpoint.glob("*.pt"), key=lambda path: path.stat().st_size))
    chaos.again()
    chaos.finish()

    assert "training starts again from the start policy" in chaos.log("train")
    chaos.verify(steps_again=ALL_STEPS)


@pytest.mark.chaos
def test_a_checkpoint_was_overwritten_between_two_attempts(chaos: Chaos) -> None:
    checkpoint = stop_in_training(chaos)
    for path in checkpoint.glob("*.pt"):
        path.write_bytes(bytes(path.stat().st_size))
    if chaos.again().wait():
        assert "cannot be loaded" in chaos.said(), chaos.told()
        chaos.again()
    chaos.finish()

    chaos.verify(steps_again=ALL_STEPS)


@pytest.mark.chaos
def test_the_training_log_was_cut_between_two_attempts(chaos: Chaos) -> None:
    checkpoint = stop_in_training(chaos)
    cut(checkpoint.parents[2] / "train_log.jsonl")
    chaos.again()
    chaos.finish()

    chaos.verify(steps_again=ALL_STEPS)


@pytest.mark.chaos
def test_a_chunk_was_cut_between_two_attempts(chaos: Chaos) -> None:
    chaos.start(slow={"generate": 0.4})
    chaos.until(lambda: len(chaos.chunks("generate")) >= 6)
    chaos.kill_launcher()
    chaos.end_jobs()
    cut(min(chaos.root.glob(f"store/generate/*/{WORK}/chunk-*.jsonl")))
    chaos.again()
    chaos.finish()

    chaos.verify(chunks_again=1)


@pytest.mark.parametrize("damage", [flip, pytest.param(cut, marks=pytest.mark.chaos)])
def test_a_result_was_damaged_after_the_sweep_had_ended(chaos: Chaos, damage: Callable[[Path], None]) -> None:
    chaos.start_from_finished()
    (path,) = chaos.root.glob("store/evaluate/*/metrics.jsonl")
    damage(path)
    chaos.again()
    chaos.finish()

    if damage is flip:
        assert "set aside: evaluate" in chaos.said()
    chaos.verify(made_again=["evaluate"])


@pytest.mark.chaos
@pytest.mark.parametrize("damage", [cut, flip, flip_unseen])
def test_a_model_was_damaged_before_a_stage_reads_it(chaos: Chaos, damage: Callable[[Path], None]) -> None:
    stop_in_training(chaos)
    (path,) = chaos.root.glob("store/start_policy/*/model/model.safetensors")
    damage(path)
    chaos.again()
    chaos.finish()

    chaos.verify(made_again=["start_policy"])


@pytest.mark.chaos
def test_the_clocks_of_the_files_do_not_agree(chaos: Chaos) -> None:
    chaos.start(slow={"generate": 0.4, "train": 0.3})
    chaos.until(lambda: len(chaos.chunks("generate")) >= 6)
    chaos.kill_launcher()
    chaos.end_jobs()
    skew(chaos.root)
    chaos.again()
    chaos.until(lambda: chaos.checkpoint() > 0 and chaos.steps() >= chaos.checkpoint() + 3)
    chaos.kill_launcher()
    chaos.end_jobs()
    skew(chaos.root)
    chaos.again()
    chaos.finish()

    assert "set aside" not in chaos.said()
    chaos.verify()


def skew(root: Path) -> None:
    """Give every file a time of its own, from ten days ago to ten days ahead."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    for number, path in enumerate(paths):
        time = path.stat().st_mtime + (number * 7 % 21 - 10) * 86400
        os.utime(path, (time, time))
