"""ArmoRM: batching changes nothing, the gate is found in every row, what is no ArmoRM is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from eva_hpc.config.reward import ArmoRM, SequenceClassification
from eva_hpc.inference.engine import EngineLimits, Message
from eva_hpc.inference.reward_models import RewardModel, open_reward_model
from tests.inference.tiny_reward_models import GATE, armorm_formula, tiny_armorm

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_armorm(tmp_path_factory.mktemp("armorm"))


def open_model(folder: Path, max_length: int = 512, batch_tokens: int = 400) -> RewardModel:
    return open_reward_model(ArmoRM(path=str(folder), dtype="float32", max_length=max_length), EngineLimits(batch_tokens))


def turns(*texts: str) -> list[Message]:
    return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]


def rendered(folder: Path, conversation: list[Message]) -> list[int]:
    from transformers import AutoTokenizer

    return list(AutoTokenizer.from_pretrained(folder).apply_chat_template(conversation, return_dict=False))


def end_of_prompt(folder: Path, conversation: list[Message]) -> int:
    """The place of <|eot_id|> after the last user turn."""
    return len(rendered(folder, conversation[:-1])) - 1


CONVERSATIONS = [
    turns("Count to ten" + " and on" * 17, "1 2 3"),
    turns("Why is the sky blue?", "Light is scattered." * 9),
    turns("a", ""),
    turns("What comes after this?" + GATE + "Nothing.", "The answer is five."),
    turns("First", "One", "Second, and longer than the first", "Two"),
    turns("Continue.", "  It went on." + GATE + "and on"),
    turns("Sort: river, stone", "river, stone"),
]


def test_a_batch_scores_as_one_by_one_and_as_the_formula(folder: Path) -> None:
    model = open_model(folder)

    scores = model.score(CONVERSATIONS)

    assert scores == pytest.approx([model.score([one])[0] for one in CONVERSATIONS], abs=1e-4)
    assert scores == pytest.approx(open_model(folder, batch_tokens=100_000).score(CONVERSATIONS[::-1])[::-1], abs=1e-4)
    expected = [armorm_formula(folder, rendered(folder, one), end_of_prompt(folder, one)) for one in CONVERSATIONS]
    assert scores == pytest.approx(expected, abs=1e-4)
    assert len({round(score, 3) for score in scores}) == len(CONVERSATIONS)
    assert (model.truncated, model.score([])) == (0, [])


def test_the_gate_matters_and_an_answer_cannot_choose_its_own(folder: Path) -> None:
    spelled = CONVERSATIONS[5]
    tokens = rendered(folder, spelled)
    gate = end_of_prompt(folder, spelled)
    later = max(index for index, token in enumerate(tokens) if token == 4 and index < len(tokens) - 1)

    assert later > gate
    assert abs(armorm_formula(folder, tokens, gate) - armorm_formula(folder, tokens, later)) > 1e-2


def test_a_cut_moves_the_gate_and_an_answer_that_leaves_no_prompt_has_no_reward(folder: Path) -> None:
    long_prompt, long_answer = turns("Count to ten" + " and on" * 40, "1 2 3"), turns("Count", "1 2 3 " * 40)
    model = open_model(folder, max_length=60)

    scores = model.score([long_prompt, long_answer, CONVERSATIONS[2]])

    tokens = rendered(folder, long_prompt)
    cut = tokens[:1] + tokens[-59:]
    gate = end_of_prompt(folder, long_prompt) - (len(tokens) - 60)
    assert scores[0] == pytest.approx(armorm_formula(folder, cut, gate), abs=1e-4)
    assert scores[1] is None
    assert scores[2] == pytest.approx(open_model(folder).score([CONVERSATIONS[2]])[0], abs=1e-4)
    assert model.truncated == 2


def test_other_checkpoints_are_refused_instead_of_scored_with_random_weights(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is another kind of reward model: it has no score\.weight"):
        open_reward_model(SequenceClassification(path=str(folder), dtype="float32"), EngineLimits())

    lacking = shutil.copytree(folder, tmp_path / "lacking")
    weights = {name: w for name, w in load_file(folder / "model.safetensors").items() if not name.startswith("gating")}
    save_file(weights, lacking / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"it has no gating\.layers\.0\.bias"):
        open_model(lacking)


def test_a_template_without_the_gate_is_refused(folder: Path, tiny_qwen2: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_qwen2 / name, other / name)
    with pytest.raises(ValueError, match="its chat template does not begin an answer with"):
        open_model(other)
