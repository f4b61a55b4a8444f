from __future__ import annotations

import functools
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eva_hpc.config.optimiser import SPPO
from eva_hpc.store.records import Pair, read_jsonl
from tests.training.scenarios import LOSSES, PAIRS, SEED, SETTINGS

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


def log_prob(net: Any, prompt: list[int], response: list[int]) -> Any:
    import torch

    table = net(torch.tensor([prompt + response])).logits[0].double().log_softmax(-1)
    return sum(table[len(prompt) - 1 + i, token] for i, token in enumerate(response))


def plain_training(
    model_path: Path,
    optimiser: Any,
    steps: list[list[int]],
    rates: list[float],
    pair_loss: Callable[[Pair, Any, Any], Any],
) -> tuple[list[float], list[float], dict[str, Any]]:
    """Preference optimisation in plain PyTorch, one pair at a time: losses, gradient norms and final weights.

    `pair_loss` gets a pair and the log-ratios of its responses to the start policy.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    start = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    rule = optimiser([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}])
    losses, norms = [], []
    for indices, rate in zip(steps, rates, strict=True):
        mean = torch.tensor(0.0, dtype=torch.float64)
        for pair in (PAIRS[index] for index in indices):
            sides = [(pair["prompt_tokens"], pair[side]["tokens"]) for side in ("chosen", "rejected")]
            with torch.no_grad():
                references = [log_prob(start, *side) for side in sides]
            ratios = [log_prob(model, *side) - reference for side, reference in zip(sides, references, strict=True)]
            mean = mean + pair_loss(pair, *ratios) / len(indices)
        rule.zero_grad()
        mean.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), SETTINGS.max_grad_norm)))
        for group in rule.param_groups:
            group["lr"] = rate
        rule.step()
        losses.append(float(mean))
    return losses, norms, {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}


def test_training_is_dpo_as_written_out_in_plain_pytorch(folder: Path) -> None:
    import torch

    from eva_hpc.training.batches import optimiser_steps

    def dpo(pair: Pair, chosen: Any, rejected: Any) -> Any:
        return torch.log1p(torch.exp(-SETTINGS.beta * (chosen - rejected)))

    steps = optimiser_steps(len(PAIRS), SETTINGS.batch_size, SETTINGS.epochs, SEED)
    # 0.2 of 8 steps, rounded up, are warm-up.
    rates = [SETTINGS.learning_rate * rate for rate in (0.5, 1, *(0.5 + 0.5 * math.cos(math.pi * i / 6) for i in range(6)))]
    adamw = functools.partial(torch.optim.AdamW, weight_decay=SETTINGS.weight_decay)
    losses, norms, expected = plain_training(folder / "llama", adamw, steps, rates, dpo)

    for name in ("one_rank", "two_ranks", "four_ranks"):
        assert log_column(folder / name, "loss") == pytest.approx(losses, abs=2e-5)
        assert log_column(folder / name, "grad_norm") == pytest.approx(norms, rel=1e-3)
        found = weights(folder / name)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert (found[key] - value).abs().max() < 2e-4, key
    assert min(norms) < SETTINGS.max_grad_norm < max(norms)  # so some steps were clipped and some were not
    assert losses[-1] < 0.9 * losses[0]


def test_log_probs_noted_by_the_sampler_stand_for_the_reference_if_a_part_computed_again_agrees(folder: Path) -> None:
    from eva_hpc.training.reference import read

    computed, sampled, refused = (
        read(PAIRS, [folder / name / "reference.safetensors"]) for name in ("two_ranks", "sampled", "sampled_wrongly")
    )

    differs = (sampled.chosen - computed.chosen).abs() > 5e-4
    assert int(differs.sum()) == 19 - 5  # of the pairs that were tried, and the first, which another policy sampled, it is ours
    assert not differs[0]
    assert log_column(folder / "sampled", "loss") == pytest.approx(log_column(folder / "two_ranks", "loss"), abs=1e-3)
    told = json.loads((folder / "sampled" / "reference.json").read_text())
    assert (told["taken"], told["tried"]) == (True, 5)
    assert told["mean_error"] == pytest.approx(SETTINGS.beta * 0.001, rel=0.2)

    assert (refused.chosen - computed.chosen).abs().max() < 1e-4
    assert not json.loads((folder / "sampled_wrongly" / "reference.json").read_text())["taken"]


def test_sppo_with_rmsprop_is_as_written_out_in_plain_pytorch(folder: Path) -> None:
    import torch

    from eva_hpc.training.batches import optimiser_steps

    settings = LOSSES["sppo"]
    assert isinstance(settings, SPPO)

    def sppo(pair: Pair, chosen: Any, rejected: Any) -> Any:
        aims = [(pair[side]["win_probability"] - 0.5) / settings.beta for side in ("chosen", "rejected")]
        return 0.5 * (chosen - aims[0]) ** 2 + 0.5 * (rejected - aims[1]) ** 2

    steps = optimiser_steps(7, settings.batch_size, 99, SEED, settings.steps)
    rates = [settings.learning_rate * rate for rate in (1, 1, 0.5)]  # linear, after one step of warm-up
    losses, norms, expected = plain_training(folder / "llama", torch.optim.RMSprop, steps, rates, sppo)

    assert log_column(folder / "sppo", "loss") == pytest.approx(losses, rel=1e-4)
    assert log_column(folder / "sppo", "grad_norm") == pytest.approx(norms, rel=1e-3)
    for key, value in expected.items():
        assert (weights(folder / "sppo")[key] - value).abs().max() < 1e-4, key


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_of_the_first_step_is_that_of_the_start_policy_and_the_reference_in_transformers(
    folder: Path, loss: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from eva_hpc.training import losses
    from eva_hpc.training.batches import optimiser_steps

    settings = LOSSES[loss]
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32, attn_implementation="eager")
        for name in ("llama", "gemma2" if loss == "ipo" else "llama")
    )
    pairs = [PAIRS[index] for index in optimiser_steps(7, settings.batch_size, 1, SEED)[0]]
    sides = [[(pair["prompt_tokens"], pair[side]["tokens"]) for pair in pairs] for side in ("chosen", "rejected")]
    with torch.no_grad():
        logps, refs = ([torch.stack([log_prob(net, *row) for row in side]) for side in sides] for net in (policy, reference))
    tokens = [torch.tensor([len(response) for _, response in side]) for side in sides]
    wins = [torch.tensor([pair[side]["win_probability"] for pair in pairs]) for side in ("chosen", "rejected")]
    expected = losses.LOSSES[loss](losses.PairLogProbs(*logps, *tokens, *refs, *wins), settings)

    assert log_column(folder / loss, "loss")[0] == pytest.approx(expected.loss.mean().item(), rel=1e-5)
    assert log_column(folder / loss, "margin")[0] == pytest.approx(expected.margin.mean().item(), rel=1e-5, abs=1e-5)
    assert (folder / loss / "reference.safetensors").exists() == (loss not in ("simpo", "orpo"))


def test_steps_are_exactly_as_many_as_asked_for_and_full(folder: Path) -> None:
    for loss in LOSSES:
        assert outcome(folder / loss)["steps"] == 3
        assert log_column(folder / loss, "pairs") == [4, 4, 4]


def test_sppo_with_rmsprop_resumed_is_the_same_to_the_last_bit_as_never_stopped(folder: Path) -> None:
    assert outcome(folder / "sppo_stopped")["raised"] == "Interrupted"
    assert len(read_jsonl(folder / "sppo_stopped" / "train_log.jsonl")) == 1
    assert outcome(folder / "sppo_resumed")["resumed_from"] == 1
    assert (folder / "sppo_resumed" / "train_log.jsonl").read_bytes() == (folder / "sppo" / "train_log.jsonl").read_bytes()
    expected = weights(folder / "sppo")
    assert all((value == expected[key]).all() for key, value in weights(folder / "sppo_resumed").items())


def test_a_frozen_reference_is_loaded_when_first_asked_and_gone_from_memory_afterwards(folder: Path) -> None:
    before, during, after = json.loads((folder / "frozen.json").read_text())

    assert before == after < during


def test_soft_sppo_without_a_win_probability_names_the_pair(folder: Path) -> None:
    raised = outcome(folder / "no_win_probability")

    assert raised["raised"] == "ValueError"
    assert raised["message"].startswith("the rejected response to prompt p0 has the win probability None, and soft SPPO needs")


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


def test_with_another_world_size_training_goes_on_from_the_same_step(folder: Path) -> None:
    assert outcome(folder / "fewer_ranks")["resumed_from"] == 3
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


def test_reference_log_probs_are_those_of_the_start_policy_or_of_the_fixed_reference_in_transformers(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    for name, start, count in (("two_ranks", "llama", 20), ("gemma2_trained", "gemma2", 7), ("ipo", "gemma2", 7)):
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
