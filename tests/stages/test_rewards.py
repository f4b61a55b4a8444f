"""Reward models read many texts at once, and show that they live while they do."""

from __future__ import annotations

import pytest

import eva_hpc.inference.reward_models as reward_models
from eva_hpc.config.creator import LabRewriter
from eva_hpc.config.reward import Ensemble, LabChecker, PairRM, SequenceClassification
from eva_hpc.plan.graph import Node
from eva_hpc.stages.contract import Context
from eva_hpc.stages.evolve import Spec
from eva_hpc.stages.rewards import Candidates, Conversation, open_preferences, open_reward


class Model:
    """Rewards an answer with its number. Notes how many texts it is given at once, and says that it is alive."""

    def __init__(self) -> None:
        self.truncated = 0
        self.read: list[int] = []

    def score(self, conversations, alive):
        self.read.append(len(conversations))
        alive()
        return [None if own[-1]["content"] == "-" else float(own[-1]["content"]) for own in conversations]

    def compare(self, prompts, responses, alive):
        self.read.append(sum(len(own) * (len(own) - 1) for own in responses))
        alive()
        return [[[float(text)] * len(own) for text in own] for own in responses]


@pytest.fixture
def context(bench) -> Context:
    node = Node(Spec(evolver=LabRewriter(), evolutions=1, seed=1, round=1), "round 1")
    return bench.prepare(node).context()


@pytest.fixture
def model(context, monkeypatch) -> Model:
    model = Model()
    for name in ("open_reward_model", "open_pairwise_model"):
        monkeypatch.setattr(reward_models, name, lambda *_: model)
    return model


def conversation(text: str) -> Conversation:
    return Conversation([{"role": "user", "content": "Copy: ab"}, {"role": "assistant", "content": text}], True)


def test_conversations_are_scored_many_at_once_with_a_sign_of_life(context, model):
    rate = open_reward(SequenceClassification(path="x"), context)
    assert not (context.work / ".alive-0").exists()
    assert rate([conversation(str(n)) for n in range(4500)]).rewards == list(range(4500))
    assert model.read == [2048, 2048, 404]
    assert (context.work / ".alive-0").exists()
    assert rate([]).rewards == []


def test_responses_are_compared_many_at_once_but_whole_prompts_with_a_sign_of_life(context, model):
    sizes = [2, 30, 30, 30, 50, 2, 1]
    asked = [Candidates("?", [(str(n), True)] * size) for n, size in enumerate(sizes)]
    preferences = open_preferences(PairRM(), context)(asked).preferences
    assert [(matrix[0][0], len(matrix)) for matrix in preferences] == list(enumerate(sizes))
    assert model.read == [2 + 870 + 870, 870, 2450, 2]
    assert (context.work / ".alive-0").exists()


def test_a_conversation_without_a_reward_comes_with_the_reason_in_ensembles_too(context, model):
    asked = [conversation(text) for text in ("1", "-", "2")]
    reward = SequenceClassification(path="x")
    for one in (reward, Ensemble(members=(LabChecker(), reward))):
        rated = open_reward(one, context)(asked)
        assert rated.rewards[1] is None
        assert rated.problems == {1: "too little of it fits into the model"}
