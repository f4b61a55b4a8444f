"""The script that prices the two ablations: its projection is the planner's, its counts are those of the artifacts."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

from eva_hpc.config.model_size import model_size
from eva_hpc.plan.cost import PEAK_FLOPS, START_UP_S, UTILISATION, Measured, estimate
from eva_hpc.store.artifacts import Artifact
from eva_hpc.store.records import write_jsonl

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("sweep_cost", ROOT / "bench" / "sweep_cost.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["sweep_cost"] = module
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sweeps(script: ModuleType) -> list:
    return script.planned()


def test_at_the_planners_rates_gpu_hours_are_the_planners(script: ModuleType, sweeps: list) -> None:
    tokens_per_s = UTILISATION["generation (vllm)"] * PEAK_FLOPS["h100"] / (2 * script.GEMMA.parameters)
    rates = script.Rates(tokens_per_s, UTILISATION["scoring"], UTILISATION["training"], START_UP_S)
    for sweep, without, _ in sweeps:
        plan = sweep.plan
        price = {one.stage: one for one in estimate(plan, plan.tasks, sweep.site, script.SIZES, Measured()).stages}
        ours = script.planned_work(plan, plan.tasks, sweep.site, rates)
        naive = script.planned_work(without, without.tasks, sweep.site, rates)
        assert set(ours) == {"generate", "score", "evolve", "train", "answer"}
        for stage, work in ours.items():
            assert work.time == pytest.approx(price[stage].planned)
            assert naive[stage].time == pytest.approx(price[stage].naive)
            assert work.executions == price[stage].shared
            assert naive[stage].executions == price[stage].separate


def test_in_one_store_only_what_the_other_sweep_lacks_is_left(script: ModuleType, sweeps: list) -> None:
    (first, _, all_of_it), (second, _, left) = sweeps
    assert len(all_of_it) == len(first.plan.tasks)
    there = {task.identity for task in first.plan.tasks}
    assert 0 < len(left) < len(second.plan.tasks)
    assert not there & {task.identity for task in left}
    assert {task.stage for task in left}.isdisjoint({"start_policy", "prompts"})
    generated = [task for task in left if task.stage == "generate"]  # responses to base prompts are nested in the first's
    assert generated
    assert all(task.inputs["prompts"].stage == "admit" for task in generated)


def test_terms_are_written_as_they_are_added_up(script: ModuleType, sweeps: list) -> None:
    sweep, _, _ = sweeps[1]
    seeds = len({run.seed for run in sweep.plan.runs})
    text = script.terms(sweep.plan, "generate")
    assert text == f"{3 * seeds} x 10,000 x 6 = {3 * seeds * 60_000:,}"


@pytest.mark.parametrize("name", ["GEMMA", "ARMORM"])
def test_parameters_are_those_of_a_config_of_these_sizes(script: ModuleType, tmp_path: Path, name: str) -> None:
    shape = getattr(script, name)
    config = {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head,
        "intermediate_size": shape.inner,
        "vocab_size": shape.vocabulary,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    size = model_size(str(tmp_path))
    assert size is not None
    assert size.count == shape.parameters
    assert f"{shape.parameters / 1e9:.2f} B" in shape.sum
    assert eval(shape.sum.partition(" = ")[0].replace(" x ", " * ")) == shape.parameters


def artifact(folder: Path, stage: str, spec: dict, records: int, seconds: float, processes: int) -> Artifact:
    folder.mkdir()
    counts = {"in": records, "out": records, "set_aside": {}}
    return Artifact(folder, {"stage": stage, "spec": spec, "records": counts, "seconds": seconds, "processes": processes})


def test_measured_work_is_what_artifacts_say(script: ModuleType, tmp_path: Path) -> None:
    made = [artifact(tmp_path / name, "generate", {"responses": 2}, 3, 1.5, 1) for name in ("a", "b")]
    for one in made:
        row = {"responses": [{"tokens": [1, 2]}, {"tokens": [1, 2, 3]}]}
        write_jsonl(one.folder / "responses.jsonl", [row] * 3)
    optimiser = {"epochs": 2, "batch_size": 4, "steps": None}
    made.append(artifact(tmp_path / "c", "train", {"optimiser": optimiser}, 10, 4.0, 2))
    work = script.found_work(made)
    assert work["generate"] == script.Work(2, 12.0, 30, 3.0)
    assert work["train"] == script.Work(1, 20.0, 0, 8.0)
    assert script.total(work).executions == 3


def test_any_difference_in_results_is_found(script: ModuleType) -> None:
    first = {("run", "lab", "gain"): 1.0, ("run", "lab", "wins"): None}
    assert script.difference(first, dict(first)) == 0
    assert script.difference(first, {**first, ("run", "lab", "gain"): 1.5}) == 0.5
    assert script.difference(first, {("run", "lab", "gain"): 1.0}) == 0  # a number that is not there is None
    assert script.difference(first, {**first, ("run", "lab", "wins"): 2.0}) == math.inf
    assert script.difference(first, {("run", "lab", "wins"): None}) == math.inf
