from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eva_hpc.config.site import Engine
from tests.training.scenarios import random_pairs

pytestmark = pytest.mark.slow


@pytest.fixture
def reader(tiny_gemma2: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from eva_hpc.training.distributed import Ranks
    from eva_hpc.training.logprobs import SequenceLogProbs
    from eva_hpc.training.reading import PairReader

    model = AutoModelForCausalLM.from_pretrained(tiny_gemma2, dtype=torch.float32, attn_implementation="eager")
    return PairReader(SequenceLogProbs(model), random_pairs(6), Engine(), Ranks(0, 1, torch.device("cpu")))


def test_pairs_are_packed_where_that_gives_what_padded_rows_give(reader: Any) -> None:
    import torch

    reader.choose_layout("fp32")
    assert (reader.packed, reader.shared_prompt) == (True, True)
    (batch,) = reader.micro_batches(range(6))
    with torch.no_grad():
        packed = reader(batch)
        reader.packed = reader.shared_prompt = False
        padded = reader(batch)
    assert (packed - padded).abs().max() < 1e-4 * padded.abs().max()


def test_pairs_are_padded_where_packing_gives_something_else(
    reader: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from eva_hpc.training import attention

    # As if a layer's window were not told to the attention.
    right = attention._in_groups
    monkeypatch.setattr(attention, "_in_groups", lambda *arguments: right(*arguments[:-1], None))

    reader.choose_layout("fp32")

    assert (reader.packed, reader.shared_prompt) == (False, False)
    assert "pairs are padded" in caplog.text


def test_a_layout_that_cannot_be_computed_is_an_error_that_says_what_to_set(
    reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eva_hpc.training import attention

    def no_kernel(*_: Any) -> None:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(attention, "_in_groups", no_kernel)

    with pytest.raises(ValueError, match=r"RuntimeError: no kernel\): set packing: false and shared_prompt: false"):
        reader.choose_layout("fp32")


def test_bf16_may_round_and_no_more() -> None:
    import torch

    from eva_hpc.training.reading import agree

    expected = torch.tensor([-300.0, -2.0])
    assert agree(expected + torch.tensor([2.0, 0.2]), expected, [400, 1], "bf16")
    assert not agree(expected + torch.tensor([3.0, 0.0]), expected, [400, 1], "bf16")
    assert not agree(torch.tensor([float("nan"), -2.0]), expected, [400, 1], "bf16")
    assert not agree(expected + torch.tensor([0.1, 0.0]), expected, [400, 1], "fp32")
