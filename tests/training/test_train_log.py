from __future__ import annotations

from pathlib import Path

import pytest

from eva_hpc.training.train_log import Row, append, count, cut_back


def row(step: int) -> Row:
    return Row(
        step=step,
        loss=0.5,
        margin=0.1,
        accuracy=1.0,
        learning_rate=1e-6,
        grad_norm=2.0,
        chosen_logps=-1.0,
        rejected_logps=-2.0,
        pairs=4,
    )


def test_a_log_is_cut_back_to_the_steps_of_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "train_log.jsonl"
    for step in (1, 2, 3):
        append(path, row(step))
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + b'{"step":4,"lo')

    cut_back(path, 2)

    assert path.read_bytes() == b"".join(whole[:2])


def test_rows_count_up_to_the_first_that_is_torn_or_out_of_order(tmp_path: Path) -> None:
    path = tmp_path / "train_log.jsonl"
    assert count(path) == 0
    for step in (1, 2, 3):
        append(path, row(step))
    whole = path.read_bytes()
    assert count(path) == 3
    for damaged in (whole[:-1], whole[:-9] + b"\n", whole.replace(b'"step":3', b'"step":4')):
        path.write_bytes(damaged)
        assert count(path) == 2


def test_cutting_back_to_nothing_starts_an_empty_log(tmp_path: Path) -> None:
    cut_back(tmp_path / "train_log.jsonl", 0)

    assert (tmp_path / "train_log.jsonl").read_bytes() == b""


def test_a_log_with_fewer_rows_than_the_checkpoint_has_steps_is_an_error(tmp_path: Path) -> None:
    append(tmp_path / "train_log.jsonl", row(1))

    with pytest.raises(ValueError, match="has 1 rows but the checkpoint has seen 2 steps"):
        cut_back(tmp_path / "train_log.jsonl", 2)
