"""Seeds and ids are hashes of names: the same in every process, on every machine."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.store.seeds import content_id, derive_seed


@given(st.lists(st.integers() | st.text(st.characters(exclude_categories=["Cs"]))))
def test_a_seed_fits_into_31_bits(names):
    assert 0 <= derive_seed(*names) < 2**31


def test_seeds_never_change_between_versions():
    """A change here changes every result of every sweep: it needs new stage versions."""
    assert derive_seed(1, 0, "9f1c", 3) == 2027555737
    assert content_id("Reverse: kapol") == "9eeca04fdd9101e8"


def test_names_that_join_to_the_same_text_give_other_seeds():
    assert len({derive_seed("ab", "c"), derive_seed("a", "bc"), derive_seed("abc"), derive_seed("abc", "")}) == 4


def test_responses_of_a_prompt_have_seeds_of_their_own():
    seeds = {
        derive_seed(seed, round_, prompt, j) for seed in range(4) for round_ in range(3) for prompt in "abc" for j in range(10)
    }
    assert len(seeds) == 4 * 3 * 3 * 10
