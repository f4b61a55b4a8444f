from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st


@settings(deadline=None)  # the first call imports torch
@given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 9))
def test_the_parts_of_all_ranks_are_the_whole_parameter_whoever_wrote_it(size: int, world_size: int, written_by: int) -> None:
    from eva_hpc.training.shards import pieces

    whole = list(range(1, size + 1))
    theirs = math.ceil(size / written_by)
    written = [[*whole[theirs * writer : theirs * (writer + 1)], *[0] * theirs][:theirs] for writer in range(written_by)]

    mine = math.ceil(size / world_size)
    parts = []
    for rank in range(world_size):
        part = [0] * mine
        for owner, there, here, length in pieces(size, rank, world_size, written_by):
            assert length > 0
            part[here : here + length] = written[owner][there : there + length]
        assert len(part) == mine
        parts += part

    assert parts == whole + [0] * (world_size * mine - size)


def test_with_the_same_number_of_ranks_each_reads_nothing_but_its_own_file() -> None:
    from eva_hpc.training.shards import pieces

    assert [list(pieces(10, rank, 4, 4)) for rank in range(4)] == [
        [(0, 0, 0, 3)],
        [(1, 0, 0, 3)],
        [(2, 0, 0, 3)],
        [(3, 0, 0, 1)],
    ]
