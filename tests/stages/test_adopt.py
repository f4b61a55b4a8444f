"""The rewritten response becomes the chosen one where it is rewarded at least as well; what is not adopted is counted."""

from __future__ import annotations

import pytest

from eva_hpc.config.recipe import LabChecker
from eva_hpc.plan.graph import Node
from eva_hpc.stages import adopt, pair, rewrite, score
from eva_hpc.store.records import read_jsonl

TOLD = "rewriting rewarded less"


def response(text, finish="stop"):
    return {"text": text, "tokens": [*map(ord, text), 0], "finish": finish, "logprob": None}


@pytest.fixture
def adopted(bench, placeholder):
    """The pairs after adoption: of prompts to the rewards of the rewritten and of the chosen response, None without the first.

    The chosen response of a prompt is "old", the rewritten one "new" unless it is given.
    """
    pairs = Node(pair.Spec(responses=2, ratio=0.0, seed=1, round=1), "round 1", {"base": placeholder})
    written = Node(rewrite.Spec(writer={"kind": "lab"}, seed=1, round=1), "round 1", {"pairs": pairs, "policy": placeholder})
    reward = score.Spec(reward=LabChecker(), responses=2, fraction=1.0)
    rewards = Node(reward, "round 1", {"responses": written, "prompts": written})

    def make(of, only_if_better=True, text="new", preferences=False, **chosen):
        sides = {"chosen": {"text": "old", "tokens": [1], "reward": 0.6, "win_probability": 0.8}}
        sides["rejected"] = {"text": "bad", "tokens": [2], "reward": 0.1, "win_probability": 0.2}
        made = [{"prompt_id": name, "prompt": name, "prompt_tokens": [3], **sides} for name in of]
        bench.put(pairs, "mixture.json", [{"evolved": 0, "base": len(of), "shortage": 0}])
        bench.put(pairs, "pairs.jsonl", made)
        both = [response(text), response("old", **chosen)]
        given = {name: values for name, values in of.items() if values is not None}
        bench.put(written, "responses.jsonl", [{"prompt_id": name, "responses": both} for name in given])
        records = [{"prompt_id": name, "rewards": values} for name, values in given.items()]
        if preferences:
            for record in records:
                first = record["rewards"][0]
                record["preferences"] = [[0.5, first], [1 - first, 0.5]]
        bench.put(rewards, "rewards.jsonl", records)
        spec = adopt.Spec(only_if_better=only_if_better)
        node = Node(spec, "round 1", {"pairs": pairs, "rewritten": written, "rewards": rewards})
        if bench.store.find(node.identity) is not None:
            bench.again(node)
        bench.make(node)
        found = {one["prompt_id"]: one["chosen"] for one in bench.read(node, "pairs.jsonl")}
        assert list(found) == list(of), "as many pairs, in their order"
        assert all(one["rejected"] == sides["rejected"] for one in bench.read(node, "pairs.jsonl"))
        assert (bench.store.find(node.identity).folder / "mixture.json").read_bytes()
        return {name: (side["text"], side["reward"]) for name, side in found.items()}, bench.records(node)["set_aside"]

    return make


def test_a_better_one_and_one_as_good_are_adopted_and_a_worse_one_is_not(adopted):
    found, aside = adopted({"better": [0.9, 0.6], "tie": [0.6, 0.6], "worse": [0.5, 0.6], "failed": None})
    assert found == {"better": ("new", 0.9), "tie": ("new", 0.6), "worse": ("old", 0.6), "failed": ("old", 0.6)}
    assert aside == {TOLD: 1}


def test_it_can_be_adopted_in_any_case(adopted):
    found, aside = adopted({"better": [0.9, 0.6], "worse": [0.5, 0.6], "failed": None}, only_if_better=False)
    assert found == {"better": ("new", 0.9), "worse": ("new", 0.5), "failed": ("old", 0.6)}
    assert aside == {}


def test_compared_are_the_two_rewards_that_were_given_together(adopted):
    """Not the one in the pair: a scorer at a temperature, or one that compares, would give another number now."""
    found, _ = adopted({"a": [0.4, 0.3]})
    assert found == {"a": ("new", 0.4)}


@pytest.mark.parametrize("only_if_better", [True, False])
def test_the_chosen_response_is_never_one_that_is_rewarded_no_more_than_the_rejected_one(adopted, only_if_better):
    found, aside = adopted({"a": [0.1, 0.1], "b": [0.9, 0.6]}, only_if_better)
    assert found == {"a": ("old", 0.6), "b": ("new", 0.9)}
    assert aside == {"rewriting rewarded no more than the rejected response": 1}


@pytest.mark.parametrize(("rewards", "always"), [([None, 0.6], "old"), ([0.9, None], "new"), ([None, None], "old")])
def test_without_both_rewards_nobody_knows_which_is_better(adopted, rewards, always):
    found, aside = adopted({"a": rewards, "b": [0.9, 0.6]})
    assert (found["a"][0], found["b"][0], aside) == ("old", "new", {"rewriting without reward": 1})
    found, _ = adopted({"a": rewards, "b": [0.9, 0.6]}, only_if_better=False)
    assert found["a"][0] == always


def test_of_a_pairwise_model_the_one_that_wins_is_taken(adopted):
    found, aside = adopted({"wins": [0.7, 0.0], "loses": [0.2, 0.0], "tie": [0.5, 0.0]}, preferences=True)
    assert [text for text, _ in found.values()] == ["new", "old", "new"]
    assert aside == {TOLD: 1}


def test_a_repetition_is_no_rewriting_unless_it_ends_what_was_cut_off(adopted):
    assert adopted({"a": [0.6, 0.6]}, text="old") == ({"a": ("old", 0.6)}, {"rewriting changes nothing": 1})
    assert adopted({"a": [0.9, 0.6]}, text="old", finish="length") == ({"a": ("old", 0.9)}, {})


def test_what_no_policy_sampled_is_marked_and_has_the_new_tokens(adopted, bench):
    adopted({"a": [0.9, 0.6], "b": [0.1, 0.6]})
    (folder,) = (path for path in (bench.root / "store" / "adopt").iterdir() if path.is_dir())
    new, old = (one["chosen"] for one in read_jsonl(folder / "pairs.jsonl"))
    assert (new["rewritten"], new["tokens"]) == (True, response("new")["tokens"])
    assert ("rewritten" not in old, old["tokens"]) == (True, [1])
    assert new["win_probability"] == old["win_probability"] == 0.8
