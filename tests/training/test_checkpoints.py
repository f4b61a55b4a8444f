from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest


def checkpoint(folder: Path, step: int, world_size: int | None) -> None:
    """A checkpoint's folder; without a world size it is one whose writing was cut short."""
    path = folder / f"step-{step:08d}"
    path.mkdir()
    (path / "shard.pt").write_bytes(b"...")
    if world_size is not None:
        (path / "COMPLETE").write_text(json.dumps({"step": step, "world_size": world_size, "files": {"shard.pt": 3}}))


def test_the_latest_complete_checkpoint_counts_and_a_torn_one_does_not(tmp_path: Path) -> None:
    from eva_hpc.training.checkpoints import latest_step

    assert latest_step(tmp_path / "never", 10) == 0
    checkpoint(tmp_path, 9, 2)
    checkpoint(tmp_path, 10, 2)
    checkpoint(tmp_path, 11, None)

    assert latest_step(tmp_path, 10) == 10


def test_a_checkpoint_counts_whoever_wrote_it(tmp_path: Path) -> None:
    from eva_hpc.training.checkpoints import latest_step

    checkpoint(tmp_path, 9, 2)
    checkpoint(tmp_path, 10, 4)

    assert latest_step(tmp_path, 10) == 10


def test_a_checkpoint_with_a_cut_or_missing_file_is_not_used_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from eva_hpc.training.checkpoints import latest_step

    for step in (5, 6, 7):
        checkpoint(tmp_path, step, 2)
    (tmp_path / "step-00000006" / "shard.pt").write_bytes(b"..")
    (tmp_path / "step-00000007" / "shard.pt").unlink()

    with caplog.at_level(logging.WARNING):
        assert latest_step(tmp_path, 10) == 5
    assert "step 6 has 2 of the 3 bytes of shard.pt" in caplog.text
    assert "step 7 has 0 of the 3 bytes of shard.pt" in caplog.text


def test_a_checkpoint_ahead_of_the_log_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from eva_hpc.training.checkpoints import latest_step

    checkpoint(tmp_path, 10, 2)

    with caplog.at_level(logging.WARNING):
        assert latest_step(tmp_path, 9) == 0
    assert "step 10 is ahead of the training log, which has 9 steps" in caplog.text


def test_a_checkpoint_whose_mark_was_overwritten_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from eva_hpc.training.checkpoints import latest_step

    for step in (8, 9, 10):
        checkpoint(tmp_path, step, 2)
    (tmp_path / "step-00000009" / "COMPLETE").write_text("{}")
    (tmp_path / "step-00000010" / "COMPLETE").write_bytes(bytes(40))

    with caplog.at_level(logging.WARNING):
        assert latest_step(tmp_path, 10) == 8
    assert "step 9 has a mark that cannot be read" in caplog.text
    assert "step 10 has a mark that cannot be read" in caplog.text
