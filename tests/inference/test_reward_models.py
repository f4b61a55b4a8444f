"""Reward models of transformers: batching changes nothing, long conversations are cut and counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from eva_hpc.config.reward import SequenceClassification
from eva_hpc.inference.engine import EngineLimits, Message
from eva_hpc.inference.reward_models import open_reward_model
from eva_hpc.inference.reward_models.classification import TransformersRewardModel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["qwen2", "gemma2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_models import tiny_reward_model

    if request.param == "qwen2":
        return request.getfixturevalue("tiny_reward")
    return tiny_reward_model(tmp_path_factory.mktemp("models") / "reward", request.param)


def conversation(words: int) -> list[Message]:
    return [
        {"role": "user", "content": "Count to ten" + " and on" * words},
        {"role": "assistant", "content": "1 2 3" * (words % 4 + 1)},
    ]


def open_model(folder: Path, max_length: int = 512, batch_tokens: int = 400) -> TransformersRewardModel:
    settings = SequenceClassification(path=str(folder), dtype="float32", max_length=max_length)
    model = open_reward_model(settings, EngineLimits(batch_tokens=batch_tokens))
    assert isinstance(model, TransformersRewardModel)
    return model


def test_a_batch_scores_as_one_by_one_and_as_a_plain_forward_pass(folder: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    conversations = [conversation(words) for words in (3, 40, 0, 17, 9, 25, 1)]
    model = open_model(folder)

    scores = model.score(conversations)

    assert scores == pytest.approx([model.score([c])[0] for c in conversations], abs=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    for one, score in zip(conversations, scores, strict=True):
        ids = tokenizer.apply_chat_template(one, return_dict=False)
        assert ids.count(tokenizer.bos_token_id) == 1
        with torch.no_grad():
            assert score == pytest.approx(plain(torch.tensor([ids])).logits.item(), abs=1e-4)
    assert max(scores) - min(scores) > 0.1
    assert model.truncated == 0
    assert model.score([]) == []


def test_a_model_without_a_padding_token_scores_the_same(folder: Path, tmp_path: Path) -> None:
    unpadded = shutil.copytree(folder, tmp_path / "unpadded")
    config = json.loads((unpadded / "config.json").read_text())
    (unpadded / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    conversations = [conversation(words) for words in (3, 40, 0)]

    assert open_model(unpadded).score(conversations) == pytest.approx(open_model(folder).score(conversations), abs=1e-4)


def test_a_long_conversation_loses_the_start_of_its_prompt_but_not_bos_and_is_counted(folder: Path) -> None:
    model = open_model(folder, max_length=30)
    whole = open_model(folder)._renderer.render([conversation(40)])[0].tokens

    (cut,) = model._renderer.render([conversation(40)])
    assert cut.tokens == whole[:1] + whole[-29:]
    assert (cut.kept, cut.removed) == (1, len(whole) - 30)

    model.score([conversation(40), conversation(0), conversation(30)])
    model.score([conversation(35)])
    assert model.truncated == 3


def test_a_model_of_several_logits_is_refused(tiny_reward: Path, tmp_path: Path) -> None:
    several = shutil.copytree(tiny_reward, tmp_path / "several")
    config = json.loads((several / "config.json").read_text())
    config |= {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    (several / "config.json").write_text(json.dumps(config))

    with pytest.raises(ValueError, match="has 3 logits: a scalar reward model has exactly 1"):
        open_model(several)
