from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.scenarios import random_pairs

PAIRS = random_pairs(4)


def test_rows_are_found_by_the_tokens_of_the_pair_wherever_it_stands(tmp_path: Path) -> None:
    import torch

    from eva_hpc.training.reference import Reference, pair_key, read, write

    keys = torch.tensor([pair_key(pair) for pair in PAIRS[:3]])
    write(Reference(keys, torch.tensor([-1.0, -2.0, torch.nan]), torch.tensor([-4.0, -5.0, -6.0])), tmp_path / "known")

    found = read([PAIRS[3], PAIRS[1], PAIRS[2], PAIRS[0]], [tmp_path / "known", tmp_path / "not there"])

    assert found.missing() == [0, 2]
    assert found.chosen[[1, 3]].tolist() == [-2.0, -1.0]
    assert found.rejected[[1, 3]].tolist() == [-5.0, -4.0]


def test_another_response_to_the_same_prompt_is_another_row() -> None:
    from eva_hpc.training.reference import pair_key

    swapped = {**PAIRS[0], "chosen": PAIRS[0]["rejected"], "rejected": PAIRS[0]["chosen"]}

    assert pair_key(swapped) != pair_key(PAIRS[0])  # type: ignore[arg-type]


def test_a_reference_that_is_off_by_more_than_rounding_is_refused() -> None:
    from eva_hpc.training.reference import ReferenceMismatch, check_first_step

    check_first_step(difference=1e-5, size=60.0, precision="fp32", files=[Path("held")])
    check_first_step(difference=0.3, size=60.0, precision="bf16", files=[])
    with pytest.raises(ReferenceMismatch, match="not those of the start policy: delete held"):
        check_first_step(difference=0.3, size=60.0, precision="fp32", files=[Path("held")])
    with pytest.raises(ReferenceMismatch):
        check_first_step(difference=float("nan"), size=60.0, precision="fp32", files=[Path("held")])
