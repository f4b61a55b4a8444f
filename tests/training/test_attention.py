"""Packed and shared computation against each text in a row of its own, in the architectures that differ in attention."""

from __future__ import annotations

from typing import Any

import pytest

from tests.training.scenarios import random_pairs

pytestmark = pytest.mark.slow

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
PAIRS = random_pairs(9)


def policy(family: str) -> Any:
    """A random model; the windows are shorter than many of the pairs."""
    import torch
    import transformers

    configs = {
        "gemma2": lambda: transformers.Gemma2Config(
            **SHAPE,
            head_dim=16,
            sliding_window=8,
            attn_logit_softcapping=5.0,
            final_logit_softcapping=10.0,
            query_pre_attn_scalar=16,
            attn_implementation="eager",
        ),
        "gemma3": lambda: transformers.Gemma3TextConfig(**SHAPE, head_dim=16, sliding_window=8),
        "llama": lambda: transformers.LlamaConfig(**SHAPE),
        "mistral": lambda: transformers.MistralConfig(**SHAPE, sliding_window=9),
        "qwen2": lambda: transformers.Qwen2Config(**SHAPE),
        "qwen3": lambda: transformers.Qwen3Config(**SHAPE, head_dim=16),
    }
    torch.manual_seed(1)
    config = configs[family]()
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def computed(model: Any, shared: bool, packed: bool) -> tuple[Any, dict[str, Any]]:
    """Log-probs of all completions, and the gradients of a sum of them with weights of either sign."""
    import torch

    from eva_hpc.training.logprobs import SequenceLogProbs
    from eva_hpc.training.packing import lay_out, trees_of

    batch = lay_out([tree for pair in PAIRS for tree in trees_of(pair, shared)], packed, torch.device("cpu"))
    model.zero_grad()
    logps = SequenceLogProbs(model)(batch)
    (logps * torch.linspace(-1, 1, len(logps))).sum().backward()
    return logps.detach(), {name: value.grad.clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "llama", "mistral", "qwen2", "qwen3"])
def test_packed_and_shared_log_probs_and_gradients_are_those_of_separate_rows(family: str) -> None:
    from eva_hpc.training.attention import TREE_ATTENTION, supports

    model = policy(family)
    assert supports(model.config)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    expected, gradients = computed(model, shared=False, packed=False)
    assert expected.std() > 1

    for shared, packed in ((True, False), (False, True), (True, True)):
        found, others = computed(model, shared, packed)
        assert model.config._attn_implementation == TREE_ATTENTION
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max(), (shared, packed)
        for name, value in gradients.items():
            assert (others[name] - value).abs().max() < 1e-4 * value.abs().max(), (shared, packed, name)


@pytest.mark.parametrize("family", ["gemma2", "qwen2"])
def test_flex_attention_with_its_block_mask_gives_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from eva_hpc.training import attention
    from eva_hpc.training.logprobs import SequenceLogProbs
    from eva_hpc.training.packing import lay_out, trees_of

    model = SequenceLogProbs(policy(family)).eval()
    batch = lay_out([tree for pair in PAIRS for tree in trees_of(pair, True)], True, torch.device("cpu"))
    calls = []

    def with_flex(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return attention._with_flex_attention(*arguments)

    # What a GPU would compile is interpreted here, and has no backward pass.
    monkeypatch.setattr(attention, "_compiled_flex_attention", lambda: attention.flex_attention)
    with torch.inference_mode():
        expected = model(batch)
        monkeypatch.setattr(attention, "_in_groups", with_flex)
        found = model(batch)

    assert len(calls) == SHAPE["num_hidden_layers"]
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_flex_attention_is_one_graph_with_the_cap_as_a_constant_whatever_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from eva_hpc.training import attention
    from eva_hpc.training.packing import Tree, lay_out

    graphs: list[str] = []

    def look(graph: Any, _: Any) -> Any:
        graphs.append(graph.print_readable(print_output=False))
        return graph.forward

    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compiler(function, backend=look, **options))
    compiled = attention._compiled_flex_attention.__wrapped__()
    monkeypatch.setattr(attention, "_compiled_flex_attention", lambda: compiled)
    torch.manual_seed(2)
    for tree in (
        Tree([0] * 190, ([0] * 70, [0] * 60)),
        Tree([0] * 330, ([0] * 140, [0] * 99)),
        Tree([0] * 200, ([0] * 40,) * 2),
    ):
        branches = lay_out([tree], True, torch.device("cpu")).branches
        assert branches is not None
        query, key, value = (torch.randn(heads, tree.size, 16) for heads in (4, 2, 2))
        with torch.no_grad():
            found = attention._with_flex_attention(query, key, value, branches, 0.25, 5.0, 40)
            expected = attention._in_groups(query, key, value, branches, 0.25, 5.0, 40)
        assert (found - expected).abs().max() < 1e-5

    assert len(graphs) == 1
    assert "5.0" in graphs[0]
    assert ".item()" not in graphs[0]


def test_architectures_with_other_layers_or_code_of_their_own_are_not_packed() -> None:
    from transformers import LlamaConfig, MambaConfig, PreTrainedConfig

    from eva_hpc.training.attention import supports

    class Own(PreTrainedConfig):
        pass

    assert supports(LlamaConfig())
    assert not supports(MambaConfig())
    assert not supports(Own())


@pytest.mark.parametrize("window", [None, 40, 200])
@pytest.mark.parametrize("packed", [True, False])
def test_the_block_mask_leaves_out_no_pair_of_tokens_and_skips_blocks(window: int | None, packed: bool) -> None:
    import torch

    from eva_hpc.training.attention import Branches
    from eva_hpc.training.packing import Tree, lay_out

    trees = [Tree([0] * 150, ([0] * 300, [0] * 310)), Tree([0] * 10, ([0] * 3, [0] * 5)), Tree([0] * 260, ([0] * 40,))]
    branches = lay_out(trees, packed, torch.device("cpu")).branches
    assert isinstance(branches, Branches)
    mask = branches.block_mask(window)

    tree, branch, position = branches.places
    distance = position[:, None] - position
    sees = (tree[:, None] == tree) & ((branch == 0) | (branch == branch[:, None])) & (distance >= 0)
    sees &= distance < (window or 10**9)
    blocks = mask.to_dense()[0, 0].bool()
    cells = blocks.repeat_interleave(128, 0).repeat_interleave(128, 1)[: len(tree), : len(tree)]
    assert not (sees & ~cells).any()
    needed = torch.stack([torch.stack([part.any() for part in row.split(128, 1)]) for row in sees.split(128)])
    assert blocks.sum() <= 1.6 * needed.sum()
    query, key = torch.meshgrid(torch.arange(len(tree)), torch.arange(len(tree)), indexing="ij")
    assert torch.equal(mask.mask_mod(None, None, query, key), sees)


def test_responses_of_a_prompt_share_it_however_many_they_are() -> None:
    import torch

    from eva_hpc.training.logprobs import SequenceLogProbs
    from eva_hpc.training.packing import Tree, lay_out

    model = SequenceLogProbs(policy("gemma2")).eval()
    tree = Tree(PAIRS[0]["prompt_tokens"], tuple(pair["chosen"]["tokens"] for pair in PAIRS))
    apart = [Tree(tree.prompt, (completion,)) for completion in tree.completions]
    with torch.inference_mode():
        found = model(lay_out([tree], True, torch.device("cpu")))
        expected = model(lay_out(apart, False, torch.device("cpu")))

    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
