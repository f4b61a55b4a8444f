from __future__ import annotations

import pytest


def test_several_ranks_without_a_master_to_meet_at_are_an_error() -> None:
    from eva_hpc.training.distributed import distributed

    with pytest.raises(ValueError, match="2 ranks need the host and port of rank 0"), distributed(0, 2, 0, None, 1):
        pass


def test_one_rank_needs_no_master_and_agrees_with_itself() -> None:
    import torch

    from eva_hpc.training.distributed import Ranks

    alone = Ranks(0, 1, torch.device("cpu"))

    assert alone.sum(torch.tensor([1.5, 2.0])).tolist() == [1.5, 2.0]
    assert alone.from_first(7) == 7
