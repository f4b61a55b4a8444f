from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("window", [None, 4])
def test_flops_are_those_that_pytorch_counts(window: int | None) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM, MistralConfig

    from eva_hpc.training.flops import Flops
    from eva_hpc.training.packing import Tree

    config = MistralConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=window,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    prompt, completion = [1] * 5, [2] * 6
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.tensor([prompt + completion]))
    # Eager attention computes every score, masked or not, and the head every position.
    heads, size, length = 4, 8, 11
    all_scores = 3 * 4 * heads * size * length**2
    rest = counter.get_total_flops() - all_scores - 2 * 32 * 100 * (length - len(completion))

    flops = Flops.of(model)
    assert flops is not None
    seen = sum(min(i + 1, window or length) for i in range(length))
    assert flops.forward(Tree(prompt, (completion,))) == rest + 3 * 4 * heads * size * seen


def test_a_shared_prompt_costs_once() -> None:
    from eva_hpc.training.flops import Flops
    from eva_hpc.training.packing import Tree

    flops = Flops(body=10.0, head=3.0, attention=2.0, windowed=0.0, window=0)

    apart = flops.forward(Tree([0] * 4, ([0] * 2,))) + flops.forward(Tree([0] * 4, ([0] * 3,)))
    together = flops.forward(Tree([0] * 4, ([0] * 2, [0] * 3)))

    assert apart - together == 10.0 * 4 + 2.0 * 10


def test_a_mixture_of_experts_is_not_counted() -> None:
    from transformers import AutoModelForCausalLM, MixtralConfig

    from eva_hpc.training.flops import Flops

    config = MixtralConfig(
        vocab_size=10, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
    )
    assert Flops.of(AutoModelForCausalLM.from_config(config)) is None
