from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.scenarios import random_pairs

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("tokens_per_chunk", [1, 5, 10_000])
@pytest.mark.parametrize("family", ["tiny_gemma2", "tiny_qwen2"])
def test_chunked_log_probs_and_gradients_are_those_of_the_whole_logits(
    family: str, tokens_per_chunk: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from eva_hpc.training import logprobs
    from eva_hpc.training.packing import lay_out, trees_of

    path: Path = request.getfixturevalue(family)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", tokens_per_chunk * model.config.vocab_size)
    pairs = random_pairs(3)
    batch = lay_out([tree for pair in pairs for tree in trees_of(pair, False)], False, torch.device("cpu"))

    found = logprobs.SequenceLogProbs(model)(batch)
    (found * torch.arange(1.0, 7.0)).sum().backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters()}
    model.zero_grad()
    expected = []
    for pair in pairs:
        for side in ("chosen", "rejected"):
            prompt, response = pair["prompt_tokens"], pair[side]["tokens"]
            table = model(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
            expected.append(table[len(prompt) - 1 : -1].gather(1, torch.tensor(response)[:, None]).sum())
    (torch.stack(expected) * torch.arange(1.0, 7.0)).sum().backward()

    if family == "tiny_gemma2":
        assert model.config.final_logit_softcapping
    assert model.config.tie_word_embeddings
    assert found.tolist() == pytest.approx([value.item() for value in expected], abs=2e-4)
    for name, value in model.named_parameters():
        assert (gradients[name] - value.grad).abs().max() < 1e-4 * (1 + value.grad.abs().max()), name


def test_a_model_that_scales_its_logits_otherwise_is_refused() -> None:
    from transformers import CohereConfig, CohereForCausalLM

    from eva_hpc.training.logprobs import SequenceLogProbs

    config = CohereConfig(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, logit_scale=0.25
    )

    with pytest.raises(ValueError, match="scales its logits by logit_scale"):
        SequenceLogProbs(CohereForCausalLM(config))
