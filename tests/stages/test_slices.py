"""What stages read of nested artifacts: the first of them, and never fewer without saying so."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eva_hpc.method.mixing import mix, shuffled
from eva_hpc.stages.slices import are_preferences, first_prompts, first_responses, first_rewards, responses_of, write_whole
from eva_hpc.store.records import write_jsonl

RATIOS = st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]) | st.decimals(0, 1, places=3).map(float)
MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def folder_of(path, ids, whole=None):
    """A folder with these prompts."""
    path.mkdir(parents=True, exist_ok=True)
    write_jsonl(path / "prompts.jsonl", [{"id": name} for name in ids])
    (path / "whole.json").unlink(missing_ok=True)
    if whole is not None:
        write_whole(path, whole)
    return path


@given(st.integers(1, 40), st.integers(0, 60), RATIOS, st.integers(0, 5))
@MANY
def test_the_first_share_of_admitted_prompts_is_what_the_mixture_takes(tmp_path, n_base, n_evolved, ratio, seed):
    """So every response that is paid for is used, and none lacks, be there more or fewer evolved prompts than base ones."""
    evolved = [f"e{index}" for index in range(n_evolved)]
    mixture = mix([f"b{index}" for index in range(n_base)], evolved, ratio, seed)
    admitted = folder_of(tmp_path, shuffled(evolved, seed), whole=n_base)
    assert tuple(prompt["id"] for prompt in first_prompts(admitted, ratio)) == mixture.evolved
    assert len(mixture.evolved) + len(mixture.base) + mixture.shortage == n_base


@given(st.integers(1, 40), st.integers(0, 60), RATIOS, RATIOS)
@MANY
def test_a_smaller_ratio_takes_the_beginning_of_a_larger_one(tmp_path, n_base, n_evolved, one, other):
    admitted = folder_of(tmp_path, [str(index) for index in range(n_evolved)], whole=n_base)
    small, large = (first_prompts(admitted, ratio) for ratio in sorted((one, other)))
    assert large[: len(small)] == small


def test_without_a_whole_the_shares_are_of_the_prompts_that_are_there(tmp_path):
    folder = folder_of(tmp_path, ["a", "b", "c", "d"])
    assert [prompt["id"] for prompt in first_prompts(folder, 0.5)] == ["a", "b"]


@pytest.fixture
def answered(tmp_path):
    """Four prompts with three responses and rewards each, the records in another order than the prompts."""
    folder_of(tmp_path, ["a", "b", "c", "d"])
    records = [{"prompt_id": name, "responses": [{"text": f"{name}{j}"} for j in range(3)]} for name in "dbca"]
    write_jsonl(tmp_path / "responses.jsonl", records)
    write_jsonl(tmp_path / "rewards.jsonl", [{"prompt_id": name, "rewards": [0.1, None, 0.3]} for name in "dbca"])
    return tmp_path


def test_responses_are_cut_to_the_first_and_stand_in_the_order_asked_for(answered):
    found = first_responses(answered, answered, 0.5, 2)
    assert [(one["prompt_id"], [r["text"] for r in one["responses"]]) for one in found] == [
        ("a", ["a0", "a1"]),
        ("b", ["b0", "b1"]),
    ]
    assert [one["prompt_id"] for one in responses_of(answered, ["c", "a"], 3)] == ["c", "a"]


def test_too_few_responses_or_rewards_are_an_error(answered):
    with pytest.raises(ValueError, match="prompt a has 3 responses, not 4"):
        first_responses(answered, answered, 1.0, 4)
    with pytest.raises(ValueError, match="prompt nobody has 0 responses, not 1"):
        responses_of(answered, ["nobody"], 1)
    with pytest.raises(ValueError, match="prompt d has fewer than 4 rewards"):
        first_rewards(answered, 4)


def test_a_missing_reward_keeps_its_place(answered):
    assert first_rewards(answered, 2) == {name: [0.1, None] for name in "dbca"}
    assert not are_preferences(answered)


def test_rewards_of_a_pairwise_model_are_those_among_the_first(tmp_path):
    matrix = [[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]
    write_jsonl(tmp_path / "rewards.jsonl", [{"prompt_id": "a", "rewards": [0.5, 0.5, 0.5], "preferences": matrix}])
    assert first_rewards(tmp_path, 2) == {"a": [0.75, 0.25]}
    assert first_rewards(tmp_path, 3) == {"a": [0.5, 0.5, 0.5]}
    assert are_preferences(tmp_path)
