"""What makes a run another than it was."""

from __future__ import annotations

import orjson

from eva_hpc.plan.explain import Change, changes, of_run
from eva_hpc.plan.plan import Plan

RUN = "responses_per_prompt=2,seed=1"


def _compared(new: Plan, old: Plan, run: str = RUN) -> dict[str, tuple[Change, ...]]:
    earlier = of_run(orjson.loads(old.model_dump_json()), run)
    assert earlier is not None
    return changes(new, earlier, run)


def _own(found, plan, stage):
    """The changes of a stage that are its own, not those of what it reads."""
    of_stage = [found[task.id] for task in plan.tasks if task.stage == stage and task.id in found]
    return {change for some in of_stage for change in some if change.kind != "input"}


def test_the_same_plan_has_no_changes(plan_of):
    assert _compared(plan_of({"responses_per_prompt": (2, 6)}), plan_of({"responses_per_prompt": (2, 6)})) == {}


def test_a_changed_field_is_named_with_its_values(plan_of):
    new, old = plan_of({"responses_per_prompt": (2,)}, optimiser__beta=0.3), plan_of({"responses_per_prompt": (2,)})
    found = _compared(new, old)

    assert _own(found, new, "train") == {Change("field", "optimiser.beta", 0.05, 0.3)}
    first = next(task for task in new.tasks if task.stage == "train")
    assert [change.kind for change in found[first.id]] == ["field"], "what it reads is as before"
    assert all(change.kind == "input" for change in found[next(task.id for task in new.tasks if task.stage == "select")])
    assert not any(new.by_id[task].stage in ("start_policy", "prompts", "questions") for task in found)


def test_changed_content_of_a_file_is_told_by_the_file(plan_of, full):
    axes, content = {"responses_per_prompt": (2,)}, {"/models/policy": "p", "/models/reward": "r", "/data/heldout.jsonl": "h"}
    old = plan_of(axes, recipe=full, fingerprints={**content, "/data/prompts.jsonl": "before"})
    new = plan_of(axes, recipe=full, fingerprints={**content, "/data/prompts.jsonl": "after"})

    assert _own(_compared(new, old), new, "prompts") == {Change("content", "/data/prompts.jsonl", "before", "after")}


def test_another_place_of_the_same_content_changes_nothing(plan_of, full):
    content = {"/models/policy": "p", "/models/reward": "r", "/data/heldout.jsonl": "h"}
    old = plan_of({"responses_per_prompt": (2,)}, recipe=full, fingerprints={**content, "/data/prompts.jsonl": "same"})
    moved = {**full, "prompts": {"kind": "file", "path": "/elsewhere.jsonl"}}
    new = plan_of({"responses_per_prompt": (2,)}, recipe=moved, fingerprints={**content, "/elsewhere.jsonl": "same"})

    assert _compared(new, old) == {}


def test_more_responses_of_the_same_are_told_apart_from_other_responses(plan_of):
    old = plan_of({"responses_per_prompt": (2, 6)}, warmup=None)
    new = plan_of({"responses_per_prompt": (2, 6, 8)}, warmup=None)
    found = _compared(new, old)

    assert _own(found, new, "generate") == {Change("more", "responses", 6, 8)}
    assert not any(new.by_id[task].stage == "train" for task in found), "the run itself reads what it did"


def test_an_input_that_was_not_read_before_is_named(plan_of):
    old = plan_of({"responses_per_prompt": (2,)}, evolved_ratio=0.0)
    new = plan_of({"responses_per_prompt": (2,)}, evolved_ratio=0.8)
    found = _compared(new, old)

    pair = next(found[task.id] for task in new.tasks if task.stage == "pair" and task.part == "round 1")
    assert {change.what for change in pair if change.kind == "input" and change.before is None} >= {"evolved"}
    evolve = next(task.id for task in new.tasks if task.stage == "evolve" and task.part == "round 1")
    assert found[evolve] == (Change("new", "evolve"),)


def test_what_differs_in_nothing_that_the_plan_shows_is_another_version_of_the_code(plan_of, monkeypatch):
    from eva_hpc.stages import pair

    old = plan_of({"responses_per_prompt": (2,)})
    monkeypatch.setattr(pair.Spec, "version", pair.Spec.version + 1)
    new = plan_of({"responses_per_prompt": (2,)})
    found = _compared(new, old)

    first = next(task.id for task in new.tasks if task.stage == "pair")
    assert found[first] == (Change("code", "pair"),)


def test_a_plan_without_the_run_has_nothing_to_say(plan_of):
    assert (
        of_run(orjson.loads(plan_of({"responses_per_prompt": (2,)}).model_dump_json()), "responses_per_prompt=4,seed=1") is None
    )
