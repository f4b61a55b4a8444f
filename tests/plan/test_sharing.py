"""What runs share, and what they must not share."""

from __future__ import annotations

import pytest

from eva_hpc.plan.plan import make_plan

ROUND = "round 1"


def nested(task):
    return dict(task.identity.nested)


def users(tasks):
    """For each task the number of runs that need it."""
    return [len(task.runs) for task in tasks]


def test_a_sweep_of_k_generates_for_the_base_prompts_once_per_seed_with_the_largest_k(plan_of, tasks_of):
    plan = plan_of({"responses_per_prompt": [2, 10, 6]})
    for stage in ("generate", "score"):
        base = [task for task in tasks_of(plan, stage, ROUND) if len(task.runs) == 3]
        assert len(base) == 2
        assert all(nested(task) == {"fraction": 1.0, "responses": 10} for task in base)
        assert all(task.spec["responses"] == 10 for task in base)


def test_a_sweep_of_k_selects_and_evolves_for_each_k_because_rewards_differ(plan_of, tasks_of):
    plan = plan_of({"responses_per_prompt": [2, 6]}, seeds=(1,))
    for stage in ("select", "evolve", "pair", "train"):
        assert users(tasks_of(plan, stage, ROUND)) == [1, 1]


def test_the_task_of_a_small_k_reads_the_large_one(plan_of, tasks_of):
    plan = plan_of({"responses_per_prompt": [2, 10]}, seeds=(1,))
    for task in tasks_of(plan, "pair", ROUND):
        assert dict(task.inputs["base_responses"].nested)["responses"] == 10
        assert dict(task.inputs["base_rewards"].nested)["responses"] == 10


def test_a_sweep_of_the_ratio_shares_all_up_to_the_evolved_responses(plan_of, tasks_of):
    plan = plan_of({"evolved_ratio": [1.0, 0.8, 0.2]}, seeds=(1,))
    assert users(tasks_of(plan, "select")) == users(tasks_of(plan, "evolve")) == [3]
    assert users(tasks_of(plan, "generate", ROUND)) == users(tasks_of(plan, "score", ROUND)) == [3, 3]
    assert users(tasks_of(plan, "pair", ROUND)) == users(tasks_of(plan, "train", ROUND)) == [1, 1, 1]
    (evolved,) = [task for task in tasks_of(plan, "generate", ROUND) if task.inputs["prompts"].stage == "admit"]
    assert nested(evolved)["fraction"] == 1.0


def test_the_largest_ratio_of_the_sweep_is_all_that_is_generated(plan_of, tasks_of):
    plan = plan_of({"evolved_ratio": [0.2, 0.5, 0.0]}, seeds=(1,))
    (evolved,) = [task for task in tasks_of(plan, "generate", ROUND) if task.inputs["prompts"].stage == "admit"]
    assert nested(evolved)["fraction"] == 0.5
    assert len(evolved.runs) == 2


def test_without_evolved_prompts_nothing_is_selected_or_evolved(plan_of, tasks_of):
    plan = plan_of({"evolved_ratio": [0.0]}, rounds=2)
    assert not tasks_of(plan, "select") + tasks_of(plan, "evolve") + tasks_of(plan, "mix")
    assert all("evolved" not in task.inputs for task in tasks_of(plan, "pair"))


def test_a_whole_number_as_ratio_means_the_same(plan_of):
    ends = [[run.evaluations for run in plan_of({"evolved_ratio": [ratio]}, seeds=(1,)).runs] for ratio in (1, 1.0)]
    assert ends[0] == ends[1]


def test_the_second_round_starts_from_the_mixture_and_the_new_policy(plan_of, tasks_of):
    plan = plan_of({"evolved_ratio": [0.8]}, seeds=(1,), rounds=2)
    (mixed,) = tasks_of(plan, "mix")
    (first,) = tasks_of(plan, "train", ROUND)
    base = [task for task in tasks_of(plan, "generate", "round 2") if task.inputs["prompts"] == mixed.identity]
    assert len(base) == 1
    assert base[0].inputs["policy"] == first.identity
    (second,) = tasks_of(plan, "train", "round 2")
    assert second.inputs["policy"] == first.identity


def test_the_warm_up_of_a_seed_is_shared_by_all_its_runs(plan_of, tasks_of):
    plan = plan_of({"responses_per_prompt": [2, 4], "evolved_ratio": [0.0, 0.8]})
    for stage in ("generate", "score", "pair", "train"):
        assert users(tasks_of(plan, stage, "warm-up")) == [4, 4]


def test_without_warm_up_the_first_round_starts_from_the_start_policy(plan_of, tasks_of):
    plan = plan_of({"evolved_ratio": [0.8]}, seeds=(1,), warmup=None)
    assert not [task for task in plan.tasks if task.part == "warm-up"]
    (train,) = tasks_of(plan, "train")
    assert train.inputs["policy"].stage == "start_policy"


def test_seeds_share_the_start_the_questions_and_the_reference_answers_only(plan_of, full):
    plan = plan_of({"evolved_ratio": [0.8]}, seeds=(1, 2, 3), recipe=full)
    shared = [(task.stage, len(task.runs)) for task in plan.tasks if len(task.runs) > 1]
    assert sorted(shared) == [("answer", 3), ("judge", 3), ("prompts", 3), ("questions", 3), ("start_policy", 3)]


def test_a_seed_of_zero_does_not_collide_with_the_reference_answers(plan_of, tasks_of):
    plan = plan_of({"evolved_ratio": [0.8]}, seeds=(0,))
    assert len(tasks_of(plan, "answer")) == 2


def test_only_training_and_what_follows_depends_on_the_learning_rate(plan_of, tasks_of):
    plan = plan_of({"optimiser.learning_rate": [1e-4, 1e-5]}, seeds=(1,), warmup=None)
    apart = {(task.part, task.stage) for task in plan.tasks if len(task.runs) == 1}
    assert apart == {
        (ROUND, "train"), ("evaluation", "answer"), ("evaluation", "judge"), ("evaluation", "evaluate"),
    }  # fmt: skip


def test_with_a_warm_up_the_learning_rate_already_changes_the_first_policy(plan_of, tasks_of):
    plan = plan_of({"optimiser.learning_rate": [1e-4, 1e-5]}, seeds=(1,))
    assert users(tasks_of(plan, "generate", "warm-up")) == users(tasks_of(plan, "pair", "warm-up")) == [2]
    assert users(tasks_of(plan, "train", "warm-up")) == [1, 1]
    assert all(count == 1 for count in users(tasks_of(plan, "generate", ROUND)))


MOVED = {
    "policy.path": "/other/policy",
    "prompts.path": "/other/p.jsonl",
    "reward.path": "/other/r",
    "benchmarks.heldout.path": "/other/h",
}


@pytest.mark.parametrize("moved", MOVED)
def test_a_moved_file_keeps_its_key_and_another_content_gets_another(experiment_of, full, moved):
    """The fingerprint of the content stands for the path."""
    section, *_, field = moved.split(".")
    old = full["benchmarks"]["heldout"][field] if section == "benchmarks" else full[section][field]
    content = experiment_of({"evolved_ratio": [0.8]}, recipe=full).fingerprints

    def ends(fingerprint, path):
        changed = experiment_of(
            {"evolved_ratio": [0.8]},
            recipe=full,
            fingerprints={**content, path: fingerprint},
            **{moved.replace(".", "__"): path},
        )
        return [run.evaluations for run in make_plan(changed).runs]

    assert ends(content[old], MOVED[moved]) == ends(content[old], old)
    assert ends("another", MOVED[moved]) != ends(content[old], old)


def test_where_a_server_is_and_how_it_is_asked_is_in_no_key_but_its_model_is(plan_of, full):
    def ends(**evolver):
        recipe = {**full, "creator": {"evolver": {"kind": "openai", "model": "m", **evolver}}}
        return [run.evaluations for run in plan_of({"evolved_ratio": [0.8]}, recipe=recipe).runs]

    assert ends(base_url="http://localhost:1/v1", api_key_env="MY_KEY", concurrency=3) == ends()
    assert ends(model="n") != ends()
    assert ends(temperature=0.1) != ends()


def test_the_current_policy_is_read_by_an_evolver_that_is_the_policy_only(plan_of, tasks_of, full):
    model = {"kind": "model", "path": "/models/policy"}
    (by_policy,) = tasks_of(plan_of({"evolved_ratio": [0.8]}, seeds=(1,), recipe=full), "evolve")
    (by_model,) = tasks_of(
        plan_of({"evolved_ratio": [0.8]}, seeds=(1,), recipe={**full, "creator": {"evolver": model}}), "evolve"
    )
    assert by_policy.inputs["policy"].stage == "train"
    assert "policy" not in by_model.inputs


def test_a_benchmark_more_changes_no_key_of_the_others(plan_of):
    axes = {"evolved_ratio": [0.8]}
    one = plan_of(axes)
    two = plan_of(axes, benchmarks__small={"kind": "lab", "prompts": 3})
    assert all(a.evaluations["lab"] == b.evaluations["lab"] for a, b in zip(one.runs, two.runs, strict=True))
    assert set(two.runs[0].evaluations) == {"lab", "small"}
