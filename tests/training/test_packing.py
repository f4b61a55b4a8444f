from __future__ import annotations

import pytest

pytest.importorskip("torch")

TREES = [((11, 12), ((13,), (14, 15))), ((21,), ((22, 23, 24), (25,)))]


def laid_out(shared: bool, packed: bool) -> object:
    import torch

    from eva_hpc.training.packing import Tree, lay_out

    trees = [Tree(list(prompt), tuple(map(list, completions))) for prompt, completions in TREES]
    if not shared:
        trees = [Tree(tree.prompt, (completion,)) for tree in trees for completion in tree.completions]
    return lay_out(trees, packed, torch.device("cpu"))


@pytest.mark.parametrize(
    ("shared", "packed", "rows"),
    [
        (False, False, [[11, 12, 13, 0], [11, 12, 14, 15], [21, 22, 23, 24], [21, 25, 0, 0]]),
        (True, False, [[11, 12, 13, 14, 15], [21, 22, 23, 24, 25]]),
        (False, True, [[11, 12, 13, 11, 12, 14, 15, 21, 22, 23, 24, 21, 25]]),
        (True, True, [[11, 12, 13, 14, 15, 21, 22, 23, 24, 25]]),
    ],
)
def test_every_token_of_a_completion_is_predicted_once_by_the_one_before_it(
    shared: bool, packed: bool, rows: list[list[int]]
) -> None:
    batch = laid_out(shared, packed)

    assert batch.tokens.tolist() == rows  # type: ignore[attr-defined]
    flat = batch.tokens.flatten().tolist()  # type: ignore[attr-defined]
    predicted = [(flat[p], t) for p, t in zip(batch.predictors.tolist(), batch.targets.tolist(), strict=True)]  # type: ignore[attr-defined]
    assert predicted == [(12, 13), (12, 14), (14, 15), (21, 22), (22, 23), (23, 24), (21, 25)]
    assert batch.lengths == (1, 2, 3, 1)  # type: ignore[attr-defined]


def test_positions_are_those_in_the_text_of_a_token_alone() -> None:
    batch = laid_out(shared=True, packed=True)

    assert batch.positions.tolist() == [[0, 1, 2, 2, 3, 0, 1, 2, 3, 1]]  # type: ignore[attr-defined]


def test_rows_of_one_text_each_need_no_mask() -> None:
    assert laid_out(shared=False, packed=False).branches is None  # type: ignore[attr-defined]
    assert laid_out(shared=False, packed=True).branches is not None  # type: ignore[attr-defined]


def test_a_dummy_has_the_form_of_a_pair() -> None:
    from eva_hpc.training.packing import trees_of

    assert [len(tree.completions) for tree in trees_of(None, True)] == [2]
    assert [len(tree.completions) for tree in trees_of(None, False)] == [1, 1]
