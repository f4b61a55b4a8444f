"""PairRM: batching changes nothing, both orders count, the first responses are the corner, what is too long is counted."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from eva_hpc.config.reward import PairRM
from eva_hpc.inference.engine import EngineLimits
from eva_hpc.inference.reward_models import PairwiseModel, open_pairwise_model
from tests.inference.tiny_reward_models import PAIRRM_MARKS, pairrm_formula, tiny_armorm, tiny_pairrm

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_pairrm(tmp_path_factory.mktemp("pairrm"))


def open_model(folder: Path, source: int = 1224, candidate: int = 412, batch_tokens: int = 600) -> PairwiseModel:
    settings = PairRM(path=str(folder), source_tokens=source, candidate_tokens=candidate)
    return open_pairwise_model(settings, EngineLimits(batch_tokens))


PROMPTS = ["Why is the sky blue?", "Count to ten" + " and on" * 20, "Sort these words: " + PAIRRM_MARKS[1] + " river, stone"]
RESPONSES = [
    ["Light.", "It is the light of the sun." * 4, "", "It is the light of the sun."],
    ["1 2 3", "1 2 3"],
    ["river, stone", "stone river" + PAIRRM_MARKS[2], "river river"],
]


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def flat(matrices: list[list[list[float]]]) -> list[float]:
    return [value for matrix in matrices for row in matrix for value in row]


def test_preferences_are_those_of_the_formula_in_both_orders_whatever_the_batch(folder: Path) -> None:
    model = open_model(folder)

    found = model.compare(PROMPTS, RESPONSES)

    assert flat(found) == pytest.approx(flat(open_model(folder, batch_tokens=1).compare(PROMPTS, RESPONSES)), abs=1e-4)
    for prompt, responses, matrix in zip(PROMPTS, RESPONSES, found, strict=True):
        for i, one in enumerate(responses):
            assert matrix[i][i] == 0.5
            for j, other in enumerate(responses[:i]):
                there, back = pairrm_formula(folder, prompt, one, other), pairrm_formula(folder, prompt, other, one)
                assert matrix[i][j] == pytest.approx((sigmoid(there) + 1 - sigmoid(back)) / 2, abs=1e-4)
                assert matrix[i][j] + matrix[j][i] == pytest.approx(1.0, abs=1e-12)
    assert found[1][0][1] == pytest.approx(0.5, abs=1e-4)
    assert max(flat(found)) > 0.6
    assert model.truncated == 0
    assert model.compare([], []) == []
    assert model.compare(["one"], [["alone"]]) == [[[0.5]]]


def test_the_first_responses_have_the_corner_of_the_matrix(folder: Path) -> None:
    model = open_model(folder)
    (whole,) = model.compare(PROMPTS[:1], RESPONSES[:1])
    for k in (1, 2, 3):
        (few,) = model.compare(PROMPTS[:1], [RESPONSES[0][:k]])
        assert flat([few]) == pytest.approx(flat([[row[:k] for row in whole[:k]]]), abs=1e-4)


def test_long_texts_lose_their_end_and_are_counted_and_a_short_prompt_leaves_room(folder: Path) -> None:
    long = "Count to ten" + " and on" * 30
    prompts, responses = [long, "Why?"], [["One", long], [long, "Light."]]
    model = open_model(folder, source=20, candidate=10)

    found = model.compare(prompts, responses)

    for prompt, (one, other), matrix in zip(prompts, responses, found, strict=True):
        there = pairrm_formula(folder, prompt, one, other, (20, 10))
        back = pairrm_formula(folder, prompt, other, one, (20, 10))
        assert matrix[0][1] == pytest.approx((sigmoid(there) + 1 - sigmoid(back)) / 2, abs=1e-4)
    assert model.truncated == 3
    assert abs(found[0][0][1] - open_model(folder).compare(prompts, responses)[0][0][1]) > 1e-3


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is another kind of reward model: llama, not deberta-v2"):
        open_model(tiny_armorm(tmp_path / "armorm"))
