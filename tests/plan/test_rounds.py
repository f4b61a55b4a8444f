"""The graph that follows from each way to spend the rounds: what they train on, from where, against which reference."""

from __future__ import annotations

import pytest

from tests.plan.options import CONTENT, OFFICIAL, OPTIONS

ONE = {"evolved_ratio": [0.8]}


@pytest.fixture(scope="module")
def run_of(plan_of, full):
    """The plan of one run at full scale."""

    def make(axes=None, seeds=(1,), **changes):
        return plan_of(axes or ONE, seeds, full, CONTENT, **changes)

    return make


def by_part(plan, stage):
    """The only task of a stage in each part of the run."""
    found = {}
    for task in plan.tasks:
        if task.stage == stage and task.part != "evaluation":
            assert task.part not in found
            found[task.part] = task
    return found


def source(plan, task, role):
    return plan.provider(task.inputs[role])


# ---------------------------------------------------------------------------- new prompts


@pytest.mark.parametrize(("warmup", "splits"), [({"responses_per_prompt": 6}, [0, 1, 2, 3]), (None, [0, 1, 2])])
def test_every_round_on_new_prompts_takes_the_next_split(run_of, warmup, splits):
    plan = run_of(rounds=3, rounds_on="new", warmup=warmup, prompts__limit=100)
    asked = [source(plan, task, "prompts").spec["split"] for task in by_part(plan, "generate").values()]
    assert asked == splits
    assert len([task for task in plan.tasks if task.stage == "prompts"]) == len(splits)
    assert not {task.stage for task in plan.tasks} & {"select", "evolve", "admit", "mix"}
    assert all(task.spec["ratio"] == 0 for task in plan.tasks if task.stage == "pair")


def test_eva_and_new_prompts_share_the_warm_up(plan_of, full):
    plan = plan_of({"rounds_on": ["evolved", "new"]}, (1,), full, prompts__limit=100)
    warm_up = [task for task in plan.tasks if task.part == "warm-up"]
    assert [len(task.runs) for task in warm_up] == [2, 2, 2, 2]


def test_the_splits_are_shared_by_all_seeds_and_all_numbers_of_rounds(plan_of, full):
    plan = plan_of({"rounds": [1, 2, 3]}, (1, 2), full, rounds_on="new", prompts__limit=100)
    splits = {task.spec["split"]: len(task.runs) for task in plan.tasks if task.stage == "prompts"}
    assert splits == {0: 6, 1: 6, 2: 4, 3: 2}


# ---------------------------------------------------------------------------- more epochs from scratch


def test_more_epochs_train_the_last_policy_on_the_same_pairs(run_of):
    plan = run_of(rounds=2, rounds_on="repeated")
    trained = by_part(plan, "train")
    (pairs,) = {task.inputs["pairs"] for task in trained.values()}
    assert plan.provider(pairs).part == "warm-up"
    assert [source(plan, task, "policy").part for task in trained.values()] == ["start", "warm-up", "round 1"]
    assert len(by_part(plan, "generate")) == 1


@pytest.mark.parametrize("option", ["from scratch", "new prompts from scratch"])
def test_from_scratch_each_round_trains_the_start_policy_on_all_pairs_so_far(run_of, option):
    plan = run_of(rounds=3, **OPTIONS[option])
    trained = list(by_part(plan, "train").values())
    made = [task.inputs["pairs"] for task in trained]
    for number, task in enumerate(trained):
        assert source(plan, task, "policy").stage == "start_policy"
        assert {role: one for role, one in task.inputs.items() if role.startswith("pairs")} == {
            "pairs": made[number],
            **{f"pairs_{earlier}": made[earlier] for earlier in range(number)},
        }


def test_more_epochs_from_scratch_are_one_training_on_the_pairs_several_times(run_of):
    plan = run_of(rounds=3, **OPTIONS["more epochs from scratch"])
    (trained,) = by_part(plan, "train").values()
    pairs = [source(plan, trained, role).part for role in trained.inputs if role.startswith("pairs")]
    assert pairs == ["warm-up"] * 4


def test_from_scratch_the_round_is_still_sampled_from_the_policy_before_it(run_of):
    plan = run_of(rounds=2, rounds_on="new", incremental=False, prompts__limit=100)
    sampled = by_part(plan, "generate")
    assert [source(plan, sampled[part], "policy").part for part in ("warm-up", "round 1", "round 2")] == [
        "start",
        "warm-up",
        "round 1",
    ]


# ---------------------------------------------------------------------------- the reference


@pytest.mark.parametrize("loss", ["dpo", "ipo", "sppo", "rpo", "simpo", "orpo"])
def test_a_fixed_reference_is_read_where_it_is_another_policy_and_the_loss_has_one(run_of, loss):
    trained = by_part(run_of(rounds=2, reference="start", optimiser={"loss": loss}), "train")
    needed = loss not in ("simpo", "orpo")
    assert ["reference" in task.inputs for task in trained.values()] == [False, needed, needed]
    plan = run_of(rounds=2, reference="start", optimiser={"loss": loss})
    assert all(source(plan, task, "reference").stage == "start_policy" for task in list(trained.values())[1:] if needed)


@pytest.mark.parametrize("changes", [{"optimiser": {"loss": "simpo"}}, {"incremental": False}, {"rounds": 0}])
def test_where_it_makes_no_difference_the_reference_is_in_no_key(run_of, changes):
    fixed, moving = run_of(reference="start", **changes), run_of(**changes)
    assert fixed.by_id.keys() == moving.by_id.keys()


def test_a_fixed_reference_changes_what_comes_after_the_warm_up_only(plan_of, full):
    plan = plan_of({"reference": ["round", "start"]}, (1,), full)
    apart = {(task.part, task.stage) for task in plan.tasks if len(task.runs) == 1}
    assert apart == {("round 1", "train"), ("evaluation", "answer"), ("evaluation", "judge"), ("evaluation", "evaluate")}


# ---------------------------------------------------------------------------- the creator


def test_without_an_evolver_the_round_trains_on_the_sampled_prompts_alone(run_of):
    plan = run_of(rounds=2, creator__evolver="none")
    assert not {task.stage for task in plan.tasks} & {"evolve", "admit", "mix"}
    for part in ("round 1", "round 2"):
        pairs = by_part(plan, "pair")[part]
        assert source(plan, pairs, "base").stage == "select"
        assert (pairs.spec["ratio"], "evolved" in pairs.inputs) == (0.0, False)
        assert source(plan, pairs, "base_responses").part == part
        assert source(plan, by_part(plan, "generate")[part], "prompts").stage == "prompts", "the next round samples anew"


def test_evolved_prompts_are_admitted_against_the_base_they_come_from(run_of):
    plan = run_of(rounds=2)
    for part, stage in (("round 1", "prompts"), ("round 2", "mix")):
        admitted = by_part(plan, "admit")[part]
        assert source(plan, admitted, "rewrites").stage == "evolve"
        assert source(plan, admitted, "base").stage == stage
        assert source(plan, admitted, "policy").stage == "start_policy"
        assert admitted.spec["max_tokens"] == 1024


def test_a_recheck_comes_between_the_rewards_and_the_pairs_and_needs_all_children(run_of):
    plan = run_of({"evolved_ratio": [0.5, 0.8]}, rounds=2, creator__recheck=0.25)
    (checked,) = (task for task in plan.tasks if task.stage == "recheck" and task.part == "round 1")
    assert len(checked.runs) == 2
    evolved = source(plan, source(plan, checked, "evolved_rewards"), "responses")
    assert source(plan, evolved, "prompts").stage == "admit"
    assert dict(evolved.identity.nested)["fraction"] == 1.0
    for stage in ("pair", "mix"):
        (one, *_) = [task for task in plan.tasks if task.stage == stage and task.part == "round 1"]
        assert source(plan, one, "evolved") == checked
    (pairs, *_) = [task for task in plan.tasks if task.stage == "pair" and task.part == "round 1"]
    assert source(plan, pairs, "evolved_responses") == evolved


def test_alignment_potential_reads_the_log_probs_of_the_sampled_responses_under_both_policies(run_of):
    plan = run_of(creator__informativeness="alignment_potential")
    (selected,) = by_part(plan, "select").values()
    for role, part in (("policy_logps", "warm-up"), ("start_logps", "start")):
        logps = source(plan, selected, role)
        assert source(plan, logps, "policy").part == part
        assert logps.inputs["responses"] == source(plan, selected, "rewards").inputs["responses"]
        assert source(plan, source(plan, logps, "responses"), "policy").part == "warm-up"
    assert selected.spec["implicit_beta"] == 0.05


def test_before_any_training_there_are_no_log_probs_to_compare(run_of):
    plan = run_of(creator__informativeness="alignment_potential", warmup=None, rounds=2)
    assert [task.part for task in plan.tasks if task.stage == "response_logps"] == ["round 2", "round 2"]


def test_the_log_probs_for_the_largest_k_serve_all(run_of):
    plan = run_of({"responses_per_prompt": [2, 6, 4]}, creator__informativeness="alignment_potential")
    logps = [task for task in plan.tasks if task.stage == "response_logps"]
    assert [(task.spec["responses"], len(task.runs)) for task in logps] == [(6, 3), (6, 3)]
    assert len([task for task in plan.tasks if task.stage == "select"]) == 3


def test_another_metric_does_without_responses(run_of):
    (selected,) = by_part(run_of(), "select").values()
    assert set(selected.inputs) == {"prompts", "rewards"}
    assert selected.spec["implicit_beta"] is None


# ---------------------------------------------------------------------------- the rewriter


@pytest.mark.parametrize(("option", "policy"), [("the policy rewrites", "warm-up"), ("a server rewrites", "start")])
def test_a_rewriter_comes_after_the_pairs_of_every_round(run_of, option, policy):
    plan = run_of(**OPTIONS[option])
    for part, own in (("warm-up", "start"), ("round 1", policy)):
        adopted = source(plan, by_part(plan, "train")[part], "pairs")
        assert adopted.stage == "adopt"
        pairs, written, rewards = (source(plan, adopted, role) for role in ("pairs", "rewritten", "rewards"))
        assert (pairs.stage, written.stage, rewards.stage) == ("pair", "rewrite", "score")
        assert source(plan, written, "pairs") == pairs
        assert source(plan, written, "policy").part == own
        assert rewards.inputs["responses"] == rewards.inputs["prompts"] == written.identity
        assert (rewards.spec["responses"], rewards.spec["fraction"]) == (2, 1.0)
        assert rewards.spec["reward"] == source(plan, pairs, "base_rewards").spec["reward"]


def test_a_rewriter_leaves_the_pairs_it_works_on_as_they_are(plan_of, full):
    """So with and without it the same responses are compared."""
    with_one, without = (plan_of(ONE, (1,), full, **changes) for changes in ({"rewriter": "policy"}, {}))
    first = [next(task.id for task in plan.tasks if task.stage == "pair") for plan in (with_one, without)]
    assert first[0] == first[1]


# ---------------------------------------------------------------------------- contamination


def test_questions_are_kept_out_of_base_and_evolved_prompts_and_official_ones_are_the_benchmarks_own(run_of):
    official = {"kind": "mt_bench", "files": {"questions": "/q/mt", "prompt": "/q/mt", "reference": "/q/mt"}}
    held = ["/data/heldout.jsonl", OFFICIAL]
    plan = run_of(decontaminate=held, benchmarks__judged=official, judge={"model": "judge-1"}, rounds=2)
    (asked,) = (task for task in plan.tasks if task.stage == "judged_questions")
    filters = [task for task in plan.tasks if task.stage in ("prompts", "admit")]
    assert len(filters) == 3
    for task in filters:
        assert source(plan, task, "questions_0").spec["benchmark"]["path"] == "/data/heldout.jsonl"
        assert source(plan, task, "questions_1") == asked
        settings = task.spec if task.stage == "prompts" else task.spec["admission"]
        assert settings["contamination"] == 0.5
    assert len([task for task in plan.tasks if task.inputs.get("questions") == asked.identity and task.stage == "answer"]) == 1


def test_no_question_is_left_out_because_it_is_long(run_of):
    """A benchmark asks only what the policy can read; what no prompt may contain is another thing."""
    plan = run_of(decontaminate=["/data/heldout.jsonl"])
    admitted = by_part(plan, "admit")["round 1"]
    assert source(plan, admitted, "questions_0").spec["benchmark"]["max_tokens"] > 10**6


def test_with_the_rule_turned_off_questions_are_no_inputs(run_of):
    off = {"creator__admission": {"contamination": None}}
    assert run_of(decontaminate=["/data/heldout.jsonl"], **off).by_id.keys() == run_of(**off).by_id.keys()


def test_other_questions_make_other_prompts(run_of):
    one, other = (run_of(decontaminate=[{"set": name, "path": "/q/mt"}]) for name in ("mt_bench", "alpaca_eval"))
    prompts = [next(task.id for task in plan.tasks if task.stage == "prompts") for plan in (one, other, run_of())]
    assert len(set(prompts)) == 3


# ---------------------------------------------------------------------------- sharing, with every option


@pytest.mark.parametrize("option", OPTIONS)
def test_more_rounds_go_on_from_fewer(run_of, option):
    plan = run_of({"rounds": [1, 2, 3, 4, 5]}, **OPTIONS[option])
    alone = run_of({"rounds": [5]}, **OPTIONS[option])
    assert {task.id for task in alone.tasks} <= plan.by_id.keys()
    more = {task.stage for task in plan.tasks if task.id not in alone.by_id}
    last = {"train"} if option == "more epochs from scratch" else set()
    assert more == {"answer", "judge", "evaluate", *last}, "all else that the smaller ones need is a part of the largest"


EVOLVING = [name for name, option in OPTIONS.items() if "rounds_on" not in option and name != "no evolving"]


@pytest.mark.parametrize("option", EVOLVING)
def test_ratios_share_the_evolved_responses_of_the_largest_one(run_of, option):
    changes = OPTIONS[option]
    plan = run_of({"evolved_ratio": [0.8, 0.2, 0.5]}, **changes)
    sampled = [task for task in plan.tasks if task.stage == "generate" and source(plan, task, "prompts").stage == "admit"]
    assert [len(task.runs) for task in sampled] == [3]
    assert dict(sampled[0].identity.nested)["fraction"] == (1.0 if "creator__recheck" in changes else 0.8)


@pytest.mark.parametrize("option", OPTIONS)
def test_the_base_prompts_of_a_round_are_answered_once_for_all_k(run_of, option):
    changes = OPTIONS[option]
    plan = run_of({"responses_per_prompt": [2, 6]}, **changes)
    answered = [
        task
        for task in plan.tasks
        if task.stage == "generate" and task.part == "round 1" and source(plan, task, "prompts").stage == "prompts"
    ]
    assert [(len(task.runs), task.spec["responses"]) for task in answered] == (
        [] if changes.get("rounds_on") == "repeated" else [(2, 6)]
    )


def test_the_defaults_of_every_option_are_in_no_key(run_of):
    """What is written out at its default makes the same keys as what is left out."""
    spelled_out = run_of(
        rounds_on="evolved",
        incremental=True,
        reference="round",
        rewriter=None,
        decontaminate=[],
        pairing={"choice": "best_worst", "min_margin": 0.0},
        creator__family="evol_instruct",
        creator__topics=8,
        creator__implicit_beta=0.05,
        creator__recheck=None,
    )
    assert spelled_out.by_id.keys() == run_of().by_id.keys()


@pytest.mark.parametrize("changes", [{"creator__topics": 5}, {"creator__implicit_beta": 0.3}])
def test_what_a_sampler_or_a_metric_does_not_use_is_in_no_key(run_of, changes):
    assert run_of(**changes).by_id.keys() == run_of().by_id.keys()
