"""Sets of prompts as the store has them, and what is measured of each prompt and each set."""

from __future__ import annotations

import pytest

from eva_hpc.report.curriculum.collect import Collector, parts_of
from eva_hpc.report.curriculum.columns import OF_A_PROMPT, OF_A_SET
from eva_hpc.report.curriculum.embeddings import WordEmbedder
from eva_hpc.report.curriculum.judging import Rating
from eva_hpc.report.curriculum.measure import Measurer
from eva_hpc.store.artifacts import Store
from eva_hpc.store.seeds import content_id
from tests.report.curriculum.made_up import BASE, EVOLVED, fill, fill_set, plan_of


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def measured(plan, store, ratings=None):
    collector = Collector(store)
    (sets,) = Measurer(plan, collector, WordEmbedder(), 3, ratings or {}).runs()
    return {(one.of.part.name, one.of.role): one for one in sets}, collector


def test_a_round_has_a_base_and_an_evolved_set_with_exact_measures(store):
    plan = plan_of(responses_per_prompt=4)
    fill(store, plan, plan.runs[0])

    rated = parts_of(plan, plan.runs[0])[1].pair.inputs["base"]
    found, collector = measured(plan, store, {rated: {content_id(BASE[1]): Rating(2, 9)}})

    assert list(found) == [("warm-up", "base"), ("round 1", "base"), ("round 1", "evolved")]
    assert not collector.missing
    base, evolved = (found["round 1", role].summary for role in ("base", "evolved"))
    assert (base["n"], base["n_in_round"], base["n_rewarded"], base["n_judged"]) == (4, 2, 4, 1)
    assert (base["steps"], base["content_length"], base["sensible"]) == (1, (5 + 5 + 3 + 2) / 4, 1)
    assert (base["judged_complexity"], base["judged_quality"]) == (2, 9)
    assert (evolved["steps"], evolved["content_length"], evolved["sensible"]) == (2, (7 + 5 + 4) / 3, 0.75)
    assert evolved["depth"] == 1


def test_only_the_first_k_responses_count_and_only_evolved_prompts_of_the_round_have_rewards(store):
    plan = plan_of(responses_per_prompt=4)
    fill(store, plan, plan.runs[0])

    found, _ = measured(plan, store)

    base = found["round 1", "base"].summary
    assert base["response_tokens"] == (1 + 2 + 3 + 4) / 4
    assert (base["reward_mean"], base["reward_best"], base["reward_gap"], base["rewards_missing"]) == (1.0, 2.0, 2.0, 1)
    assert base["informativeness_A_min"] == 2.0
    evolved = found["round 1", "evolved"]
    assert evolved.summary["n_in_round"] == evolved.summary["n_rewarded"] == 2, "half of four, the ratio being 0.5"
    assert {row["reward_gap"] for row in evolved.rows} == {2.0, None}
    assert all((row["reward_gap"] is None) == (not row["in_round"]) for row in evolved.rows)


def test_what_was_sampled_for_a_larger_k_is_cut_to_the_run_s_own(store):
    plan = plan_of(warmup={"responses_per_prompt": 2}, responses_per_prompt=4)
    fill(store, plan, plan.runs[0])
    for part in parts_of(plan, plan.runs[0]):
        k = part.pair.spec["responses"]
        (base, *_) = Collector(store).sets_of(part)
        assert {len(tokens.responses) for tokens in base.tokens.values()} == {k}
        assert {len(rewards) for rewards in base.rewards.values()} == {k}


def test_the_creator_s_choice_and_the_lineage_are_with_the_prompts(store):
    plan = plan_of()
    fill(store, plan, plan.runs[0])

    found, _ = measured(plan, store)

    first, second, *_ = found["round 1", "base"].rows
    assert (first["selected"], second["selected"], first["creator_weight"]) == (True, False, 0.25)
    assert found["warm-up", "base"].rows[0]["selected"] is None
    child = found["round 1", "evolved"].rows[0]
    assert (child["parent"], child["operator"], child["depth"]) == (content_id(BASE[0]), "deepen", 1)


def test_shift_is_of_the_evolved_set_only_and_every_set_has_its_distance_from_the_start(store):
    plan = plan_of()
    fill(store, plan, plan.runs[0])

    found, _ = measured(plan, store)

    start, base, evolved = (one.summary for one in found.values())
    assert start["centroid_shift_from_start"] == base["centroid_shift_from_start"] == 0
    assert base["topic_divergence"] is None
    assert evolved["topic_divergence"] == evolved["topic_divergence_from_start"] > 0
    assert 0 < evolved["diversity"] < 1


def test_the_order_of_the_prompts_changes_nothing(tmp_path):
    plan, summaries = plan_of(), []
    for name, texts in {"a": {"base": BASE, "evolved": EVOLVED}, "b": {"base": BASE[::-1], "evolved": EVOLVED[::-1]}}.items():
        store = Store(tmp_path / name)
        fill(store, plan, plan.runs[0], texts)
        summaries.append([one.summary for one in measured(plan, store)[0].values()])
    assert summaries[0] == summaries[1]


def test_what_is_missing_is_named_and_the_rest_is_measured(store):
    plan = plan_of(seeds=(1,))
    for part in parts_of(plan, plan.runs[0]):
        fill_set(store, part, "base", BASE, rewards=part.number == 0)

    found, collector = measured(plan, store)

    assert list(found) == [("warm-up", "base"), ("round 1", "base")]
    assert found["round 1", "base"].summary["reward_mean"] is None
    assert found["round 1", "base"].summary["steps"] == 1
    run = plan.runs[0].name
    assert f"the evolved prompts, round 1 of {run}" in collector.missing
    assert f"rewards of the base prompts, round 1 of {run}" in collector.missing


def test_prompts_of_a_file_have_no_lab_measures(store):
    plan = plan_of(prompts={"kind": "file", "path": "p.jsonl"})
    texts = {"base": ("Name a river.", "Name a lake."), "evolved": ("Name two rivers, and say why.", "Name ten lakes.")}
    fill(store, plan, plan.runs[0], texts)

    found, _ = measured(plan, store)

    assert found["round 1", "base"].summary["steps"] is None
    assert found["round 1", "evolved"].summary["clauses"] == 1.5


def test_every_column_is_explained(store):
    plan = plan_of()
    fill(store, plan, plan.runs[0])
    summary = measured(plan, store)[0]["round 1", "evolved"].summary
    place = {"run", "point", "seed", "part", "round", "set"}
    named = {name for name in summary if not name.startswith("informativeness_")} - place
    assert named <= OF_A_PROMPT.keys() | OF_A_SET.keys()
