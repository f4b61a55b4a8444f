from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 100), min_size=1), st.integers(1, 150))
def test_files_hold_every_tensor_once_in_order_and_only_a_single_tensor_exceeds_the_limit(
    sizes: dict[str, int], limit: int
) -> None:
    from eva_hpc.training.export import split

    files = split(sizes, limit)

    assert [name for names in files for name in names] == list(sizes)
    assert all(len(names) == 1 or sum(sizes[name] for name in names) <= limit for names in files)
    for names, following in pairwise(files):
        assert sum(sizes[name] for name in names) + sizes[following[0]] > limit
