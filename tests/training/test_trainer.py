from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eva_hpc.store.records import read_jsonl
from tests.training.scenarios import PAIRS, SEED, SETTINGS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the scenarios left what they wrote."""
    path = tmp_path_factory.mktemp("trainings")
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.scenarios", str(path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=280)
    assert done.returncode == 0
    return path


def outcome(folder: Path, rank: int = 0) -> dict[str, Any]:
    return json.loads((folder / f"rank-{rank}.json").read_text())


def log_column(folder: Path, column: str) -> list[float]:
    return [row[column] for row in read_jsonl(folder / "train_log.jsonl")]


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")


def plain_training(model_path: Path) -> tuple[list[float], list[float], dict[str, Any]]:
    """DPO written out in plain PyTorch, one pair at a time: losses, gradient norms and final weights."""
    import torch
    from transformers import AutoModelForCausalLM

    from eva_hpc.training.batches import optimiser_steps

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    start = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": SETTINGS.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    )

    def log_prob(net: Any, prompt: list[int], response: list[int]) -> torch.Tensor:
        table = net(torch.tensor([prompt + response])).logits[0].double().log_softmax(-1)
        return sum(table[len(prompt) - 1 + i, token] for i, token in enumerate(response))

    losses, norms = [], []
    steps = optimiser_steps(len(PAIRS), SETTINGS.batch_size, SETTINGS.epochs, SEED)
    for step, indices in enumerate(steps):
        mean = torch.tensor(0.0, dtype=torch.float64)
        for pair in (PAIRS[index] for index in indices):
            sides = [(pair["prompt_tokens"], pair[side]["tokens"]) for side in ("chosen", "rejected")]
            chosen, rejected = (log_prob(model, *side) for side in sides)
            with torch.no_grad():
                reference_chosen, reference_rejected = (log_prob(start, *side) for side in sides)
            margin = SETTINGS.beta * (chosen - reference_chosen - rejected + reference_rejected)
            mean = mean + torch.log1p(torch.exp(-margin)) / len(indices)
        optimiser.zero_grad()
        mean.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.max_grad_norm)))
        warmup = 2  # 0.2 of 8 steps, rounded up
        rate = (step + 1) / warmup if step < warmup else 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / (len(steps) - warmup))
        for group in optimiser.param_groups:
            group["lr"] = rate * SETTINGS.learning_rate
        optimiser.step()
        losses.append(float(mean))
    return losses, norms, {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}


def test_training_is_dpo_as_written_out_in_plain_pytorch(folder: Path) -> None:
    losses, norms, expected = plain_training(folder / "llama")

    for name in ("two_ranks", "one_rank"):
        assert log_column(folder / name, "loss") == pytest.approx(losses, abs=2e-5)
        assert log_column(folder / name, "grad_norm") == pytest.approx(norms, rel=1e-3)
        found = weights(folder / name)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert (found[key] - value).abs().max() < 2e-4, key
    assert min(norms) < SETTINGS.max_grad_norm < max(norms)  # so some steps were clipped and some were not
    assert losses[-1] < 0.9 * losses[0]


def test_the_loss_of_the_first_step_is_log_2(folder: Path) -> None:
    assert log_column(folder / "two_ranks", "loss")[0] == pytest.approx(math.log(2), abs=1e-6)
    assert log_column(folder / "gemma2_trained", "loss")[0] == pytest.approx(math.log(2), abs=1e-6)
    assert log_column(folder / "bf16", "loss")[0] == pytest.approx(math.log(2), abs=2e-2)


def test_each_step_sees_its_share_of_the_pairs_and_the_last_of_an_epoch_the_rest(folder: Path) -> None:
    assert log_column(folder / "two_ranks", "pairs") == [6, 6, 6, 2] * 2
    assert log_column(folder / "two_ranks", "step") == list(range(1, 9))


def test_one_rank_and_two_ranks_give_the_same_log(folder: Path) -> None:
    for column in ("loss", "margin", "chosen_logps", "rejected_logps", "grad_norm"):
        assert log_column(folder / "one_rank", column) == pytest.approx(
            log_column(folder / "two_ranks", column), rel=1e-3, abs=2e-5
        )
    assert log_column(folder / "one_rank", "accuracy")[1:] == log_column(folder / "two_ranks", "accuracy")[1:]


def test_stopped_twice_and_resumed_is_the_same_to_the_last_bit_as_never_stopped(folder: Path) -> None:
    resumed, whole = folder / "resumed", folder / "two_ranks"

    for rank in (0, 1):
        assert outcome(folder / "stopped_in_reference", rank)["raised"] == "Interrupted"
        assert outcome(folder / "stopped", rank)["raised"] == "Interrupted"
    assert not (folder / "stopped_in_reference" / "train_log.jsonl").exists()
    assert len(read_jsonl(folder / "stopped" / "train_log.jsonl")) == 3
    assert outcome(resumed)["resumed_from"] == 3
    assert (resumed / "train_log.jsonl").read_bytes() == (whole / "train_log.jsonl").read_bytes()
    assert (resumed / "reference.safetensors").read_bytes() == (whole / "reference.safetensors").read_bytes()
    expected = weights(whole)
    assert all((value == expected[key]).all() for key, value in weights(resumed).items())


def test_with_another_world_size_training_starts_again_from_the_start_policy(folder: Path) -> None:
    assert outcome(folder / "fewer_ranks")["resumed_from"] == 0
    assert log_column(folder / "fewer_ranks", "loss") == pytest.approx(log_column(folder / "one_rank", "loss"), abs=2e-5)


def test_only_the_latest_checkpoint_is_kept_and_it_is_complete(folder: Path) -> None:
    checkpoints = list((folder / "stopped" / "work" / "checkpoints").glob("step-*"))

    assert [path.name for path in checkpoints] == ["step-00000003"]
    marker = json.loads((checkpoints[0] / "COMPLETE").read_text())
    assert (marker["step"], marker["world_size"]) == (3, 2)
    sizes = {path.name: path.stat().st_size for path in checkpoints[0].iterdir() if path.name != "COMPLETE"}
    assert marker["files"] == sizes
    assert len(sizes) >= 4, "weights and optimiser of two ranks"


@pytest.mark.parametrize(("name", "start"), [("two_ranks", "llama"), ("gemma2_trained", "gemma2"), ("bf16", "llama")])
def test_the_exported_policy_loads_in_transformers_and_has_learnt(folder: Path, name: str, start: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, report = AutoModelForCausalLM.from_pretrained(folder / name / "model", output_loading_info=True)
    before = AutoModelForCausalLM.from_pretrained(folder / start, dtype=model.dtype)
    text = "How many vowels?"

    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.dtype == (torch.bfloat16 if name == "bf16" else torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / name / "model")
    assert tokenizer(text).input_ids == AutoTokenizer.from_pretrained(folder / start)(text).input_ids
    assert tokenizer.chat_template
    assert model.generation_config.eos_token_id == before.generation_config.eos_token_id
    assert model.config.tie_word_embeddings
    difference = (model(torch.tensor([[1, 2, 3]])).logits - before(torch.tensor([[1, 2, 3]])).logits).abs().max()
    assert 1e-4 < difference < 10


def test_reference_log_probs_are_those_of_the_start_policy_in_transformers(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    for name, start, count in (("two_ranks", "llama", 20), ("gemma2_trained", "gemma2", 7)):
        model = AutoModelForCausalLM.from_pretrained(folder / start, dtype=torch.float32, attn_implementation="eager")
        held = load_file(folder / name / "reference.safetensors")
        for side in ("chosen", "rejected"):
            for pair, found in zip(PAIRS[:count], held[side], strict=True):
                prompt, response = pair["prompt_tokens"], pair[side]["tokens"]
                with torch.no_grad():
                    table = model(torch.tensor([prompt + response])).logits[0].double().log_softmax(-1)
                expected = table[len(prompt) - 1 : -1].gather(1, torch.tensor(response)[:, None]).sum()
                assert float(found) == pytest.approx(float(expected), abs=1e-4)


def test_the_reference_is_shared_through_the_cache_and_a_stale_one_is_refused(folder: Path) -> None:
    assert (folder / "cache").read_bytes() == (folder / "two_ranks" / "reference.safetensors").read_bytes()
    for rank in (0, 1):
        refused = outcome(folder / "stale_reference", rank)
        assert refused["raised"] == "ReferenceMismatch"
        assert refused["message"].endswith(f"{folder / 'stale_reference' / 'reference.safetensors'} and {folder / 'cache'}")
    assert not (folder / "stale_reference" / "model").exists()


def test_pairs_that_are_too_long_are_set_aside_kept_and_counted(folder: Path) -> None:
    report = outcome(folder / "two_ranks")

    assert (report["read"], report["trained"], report["set_aside"]) == (21, 20, {"prompt too long": 1})
    assert [record["prompt_id"] for record in read_jsonl(folder / "two_ranks" / "set_aside.jsonl")] == ["long"]


def test_no_usable_pair_is_an_error_that_says_why(folder: Path) -> None:
    raised = outcome(folder / "no_pairs")

    assert raised["raised"] == "ValueError"
    assert "no pair to train on: 1 given, set aside: {'prompt too long': 1}" in raised["message"]
