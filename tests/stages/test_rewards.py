"""Reward models read a chunk in pieces, and show that they live after each."""

from __future__ import annotations

from pathlib import Path

import pytest

import eva_hpc.inference.reward_models as reward_models
from eva_hpc.config.creator import LabRewriter
from eva_hpc.config.reward import Ensemble, LabChecker, PairRM, SequenceClassification
from eva_hpc.plan.graph import Node
from eva_hpc.stages.contract import Context
from eva_hpc.stages.evolve import Spec
from eva_hpc.stages.rewards import Candidates, Conversation, open_preferences, open_reward


class Model:
    """Rewards an answer with its number. Notes how many texts it is given at once, and whether it was seen alive since."""

    def __init__(self, alive: Path) -> None:
        self.truncated = 0
        self.alive = alive
        self.read: list[int] = []
        self.seen: list[bool] = []

    def note(self, texts: int) -> None:
        self.read.append(texts)
        self.seen.append(self.alive.exists())
        self.alive.unlink(missing_ok=True)

    def score(self, conversations):
        self.note(len(conversations))
        return [None if own[-1]["content"] == "-" else float(own[-1]["content"]) for own in conversations]

    def compare(self, prompts, responses):
        self.note(sum(len(own) * (len(own) - 1) for own in responses))
        return [[[float(text)] * len(own) for text in own] for own in responses]


@pytest.fixture
def context(bench) -> Context:
    node = Node(Spec(evolver=LabRewriter(), evolutions=1, seed=1, round=1), "round 1")
    return bench.prepare(node).context()


@pytest.fixture
def model(context, monkeypatch) -> Model:
    model = Model(context.work / ".alive-0")
    for name in ("open_reward_model", "open_pairwise_model"):
        monkeypatch.setattr(reward_models, name, lambda *_: model)
    return model


def conversation(text: str) -> Conversation:
    return Conversation([{"role": "user", "content": "Copy: ab"}, {"role": "assistant", "content": text}], True)


def test_conversations_are_scored_in_pieces_with_a_sign_of_life_after_each(context, model):
    rate = open_reward(SequenceClassification(path="x"), context)
    assert rate([conversation(str(n)) for n in range(600)]).rewards == list(range(600))
    assert model.read == [256, 256, 88]
    assert model.seen == [False, True, True]
    assert model.alive.exists()
    assert rate([]).rewards == []


def test_responses_are_compared_in_pieces_of_whole_prompts_with_a_sign_of_life_after_each(context, model):
    sizes = [2, 10, 10, 10, 20, 2, 1]
    asked = [Candidates("?", [(str(n), True)] * size) for n, size in enumerate(sizes)]
    preferences = open_preferences(PairRM(), context)(asked).preferences
    assert [(matrix[0][0], len(matrix)) for matrix in preferences] == list(enumerate(sizes))
    assert model.read == [2 + 90 + 90, 90, 380, 2]
    assert model.seen == [False, True, True, True]


def test_a_conversation_without_a_reward_comes_with_the_reason_in_ensembles_too(context, model):
    asked = [conversation(text) for text in ("1", "-", "2")]
    reward = SequenceClassification(path="x")
    for one in (reward, Ensemble(members=(LabChecker(), reward))):
        rated = open_reward(one, context)(asked)
        assert rated.rewards[1] is None
        assert rated.problems == {1: "too little of it fits into the model"}
