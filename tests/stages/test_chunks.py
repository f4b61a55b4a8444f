"""Work in chunks: the same chunks for any number of ranks, whoever does them; none done twice, none half."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.config.site import Engine, Resources
from eva_hpc.stages.chunks import Heap, read_chunks, run_chunks, spans
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


@given(st.integers(0, 5000), st.integers(1, 300))
def test_tapered_spans_cover_every_item_once_and_get_smaller(count, size):
    pieces = spans(count, size, tapered=True)
    sizes = [end - start for start, end in pieces]
    assert [item for start, end in pieces for item in range(start, end)] == list(range(count))
    assert sizes == sorted(sizes, reverse=True)
    assert all(length <= size for length in sizes)
    # No chunk holds up the end: it is small, or a small share of what comes after it.
    assert all(end - start <= max(32, (count - start) // 16) for start, end in pieces)


def test_a_rank_that_is_held_up_leaves_the_rest_to_the_others(tmp_path):
    """Rank 0 takes one chunk, and ends only when everything else is done."""
    done = {rank: [] for rank in range(3)}
    slow_has_begun, others_are_done = threading.Event(), threading.Event()

    def work(rank, piece):
        if rank == 0:
            slow_has_begun.set()
            assert others_are_done.wait(60)
        done[rank] += piece
        if sum(map(len, done.values())) == 190:
            others_are_done.set()
        return double(piece)

    def run(rank):
        if rank:
            assert slow_has_begun.wait(60)
        run_chunks(range(200), 10, context(tmp_path, rank, 3), lambda piece: work(rank, piece))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, range(3)))
    assert sorted(chain(*done.values())) == list(range(200))
    assert len(done[0]) == 10
    assert list(read_chunks(200, 10, tmp_path)) == double(range(200))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".claim")] == []


def test_the_most_expensive_chunks_come_first(tmp_path):
    seen = []
    costs = [1, 1, 9, 9, 5, 5, 2, 9]
    run_chunks(range(8), 2, context(tmp_path), lambda piece: seen.append(piece[0]) or double(piece), cost=costs.__getitem__)
    assert seen == [2, 6, 4, 0]


def test_a_rank_takes_ahead_no_more_than_its_share_of_what_is_open(tmp_path):
    first = Heap(range(100), 10, context(tmp_path, 0, 2), None, tapered=False)
    taken = [first.take() for _ in range(6)]
    assert taken == [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50), None]
    second = Heap(range(100), 10, context(tmp_path, 1, 2), None, tapered=False)
    assert [second.take() for _ in range(6)] == [(50, 60), (60, 70), (70, 80), (80, 90), (90, 100), None]


def test_a_claim_of_an_attempt_that_died_stands_in_nobodys_way(tmp_path, monkeypatch):
    for name, value in (("SLURM_JOB_ID", "4"), ("SLURM_STEP_ID", "1")):
        monkeypatch.setenv(name, value)
    killed = Heap(range(50), 10, context(tmp_path, 0, 2), None, tapered=False)
    assert killed.take() == (0, 10)
    partner = []
    run_chunks(range(50), 10, context(tmp_path, 1, 2), lambda piece: partner.append(piece[0]) or double(piece))
    assert partner == [10, 20, 30, 40]

    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run_chunks(range(50), 10, context(tmp_path, 1, 2), double)
    assert list(read_chunks(50, 10, tmp_path)) == double(range(50))


def test_an_attempt_is_the_children_of_one_process():
    one = "from eva_hpc.stages.chunks import _this_attempt; print(_this_attempt())"
    two = f"import subprocess, sys\nfor _ in range(2): subprocess.run([sys.executable, '-c', {one!r}], check=True)"
    names = [subprocess.run([sys.executable, "-c", two], capture_output=True, text=True, check=True).stdout for _ in range(2)]
    first, second = (set(said.split()) for said in names)
    assert len(first) == len(second) == 1
    assert first != second


def test_a_rank_that_fails_gives_back_what_it_had_taken(tmp_path):
    def failing(piece):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        run_chunks(range(20), 10, context(tmp_path, 0, 2), failing)
    run_chunks(range(20), 10, context(tmp_path, 1, 2), double)
    assert list(read_chunks(20, 10, tmp_path)) == double(range(20))


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


def test_progress_of_all_ranks_adds_up_to_the_whole(tmp_path):
    run_chunks(range(10), 10, context(tmp_path), double)
    said = {}

    def progress_of(rank):
        return lambda done, total: said.update({rank: (done, total)})

    heaps = [Heap(range(95), 10, context(tmp_path, n, 3, progress=progress_of(n)), None, tapered=False) for n in range(3)]
    for turn in (0, 1, 0, 2, 1, 0, 0, 0, 2, 1):
        if (span := heaps[turn].take()) is not None:
            heaps[turn].commit(span, double(range(*span)))
    for heap in heaps:
        heap.__exit__(None)
    assert [sum(part) for part in zip(*said.values(), strict=True)] == [95, 95]


def test_a_missing_chunk_is_an_error(tmp_path):
    run_chunks(range(20), 10, context(tmp_path), double)
    (tmp_path / "chunk-000010-000020.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="chunk-000010-000020"):
        list(read_chunks(20, 10, tmp_path))


def test_no_items_are_no_chunks(tmp_path):
    run_chunks([], 10, context(tmp_path), double)
    assert list(read_chunks(0, 10, tmp_path)) == []
