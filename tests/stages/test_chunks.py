"""Work in chunks: the same chunks for any number of ranks, none done twice, none half."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.config.site import Engine, Resources
from eva_hpc.stages.chunks import read_chunks, run_chunks, spans
from eva_hpc.stages.contract import Context, Interrupted
from eva_hpc.store.artifacts import Store


def context(work: Path, rank: int = 0, world_size: int = 1, stop=lambda: False, progress=lambda done, total: None) -> Context:
    return Context(rank, world_size, rank, None, Resources(), Engine(), work, Store(work), progress, stop)


def double(piece):
    return [2 * item for item in piece]


@given(st.integers(0, 300), st.integers(1, 50))
def test_spans_cover_every_item_once_in_order(count, size):
    pieces = spans(count, size)
    assert [item for start, end in pieces for item in range(start, end)] == list(range(count))
    assert all(end - start == size for start, end in pieces[:-1])


@pytest.mark.parametrize("world_size", [1, 2, 3, 7, 20])
def test_the_chunks_do_not_depend_on_the_number_of_ranks(tmp_path, world_size):
    for rank in range(world_size):
        run_chunks(range(50), 8, context(tmp_path, rank, world_size), double)
    assert list(read_chunks(50, 8, tmp_path)) == double(range(50))
    assert len(list(tmp_path.iterdir())) == 7


def test_ranks_share_the_chunks_evenly(tmp_path):
    done = []
    for rank in range(3):
        run_chunks(range(60), 10, context(tmp_path, rank, 3), lambda piece, rank=rank: done.append(rank) or double(piece))
    assert [done.count(rank) for rank in range(3)] == [2, 2, 2]


def test_a_resumed_stage_does_the_missing_chunks_only(tmp_path):
    run_chunks(range(50), 10, context(tmp_path), double)
    (tmp_path / "chunk-000020-000030.jsonl").unlink()
    seen = []
    run_chunks(range(50), 10, context(tmp_path), lambda piece: seen.append(list(piece)) or double(piece))
    assert seen == [list(range(20, 30))]
    assert list(read_chunks(50, 10, tmp_path)) == double(range(50))


@pytest.mark.parametrize("damage", [lambda whole: whole[:-3], lambda whole: whole[: whole.index(b"\n") + 1], lambda whole: b""])
def test_a_chunk_that_was_cut_is_made_again(tmp_path, damage):
    run_chunks(range(50), 10, context(tmp_path), double)
    path = tmp_path / "chunk-000020-000030.jsonl"
    path.write_bytes(damage(path.read_bytes()))
    seen = []
    run_chunks(range(50), 10, context(tmp_path), lambda piece: seen.append(list(piece)) or double(piece))
    assert seen == [list(range(20, 30))]
    assert list(read_chunks(50, 10, tmp_path)) == double(range(50))


def test_a_stage_may_go_on_with_another_number_of_ranks(tmp_path):
    run_chunks(range(50), 10, context(tmp_path, 0, 2), double)
    for rank in range(3):
        run_chunks(range(50), 10, context(tmp_path, rank, 3), double)
    assert list(read_chunks(50, 10, tmp_path)) == double(range(50))


def test_told_to_stop_it_leaves_between_chunks_and_keeps_what_is_done(tmp_path):
    finished = []
    stop = context(tmp_path, stop=lambda: len(finished) == 2)
    with pytest.raises(Interrupted):
        run_chunks(range(50), 10, stop, lambda piece: finished.append(piece) or double(piece))
    assert len(list(tmp_path.iterdir())) == 2
    run_chunks(range(50), 10, context(tmp_path), double)
    assert list(read_chunks(50, 10, tmp_path)) == double(range(50))


def test_told_to_stop_when_all_is_done_it_ends_well(tmp_path):
    run_chunks(range(20), 10, context(tmp_path), double)
    run_chunks(range(20), 10, context(tmp_path, stop=lambda: True), double)


def test_a_chunk_that_fails_leaves_nothing_behind(tmp_path):
    def failing(piece):
        if piece[0] == 10:
            raise RuntimeError("out of memory")
        return double(piece)

    with pytest.raises(RuntimeError, match="out of memory"):
        run_chunks(range(30), 10, context(tmp_path), failing)
    assert [path.name for path in tmp_path.iterdir()] == ["chunk-000000-000010.jsonl"]


def test_progress_counts_this_ranks_items_and_those_done_before(tmp_path):
    run_chunks(range(10), 10, context(tmp_path), double)
    seen = []
    run_chunks(range(25), 10, context(tmp_path, progress=lambda done, total: seen.append((done, total))), double)
    assert seen == [(10, 25), (20, 25), (25, 25)]


def test_a_missing_chunk_is_an_error(tmp_path):
    run_chunks(range(20), 10, context(tmp_path, 0, 2), double)
    with pytest.raises(FileNotFoundError, match="chunk-000010-000020"):
        list(read_chunks(20, 10, tmp_path))


def test_no_items_are_no_chunks(tmp_path):
    run_chunks([], 10, context(tmp_path), double)
    assert list(read_chunks(0, 10, tmp_path)) == []
