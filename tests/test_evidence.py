"""The script behind docs/evidence.md: its sweeps load, and its arithmetic is that of a paired t test."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from eva_hpc.config.load import load_experiment, load_site
from eva_hpc.stages.registry import STAGES

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def evidence() -> ModuleType:
    specification = importlib.util.spec_from_file_location("evidence", ROOT / "bench" / "evidence.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["evidence"] = module
    specification.loader.exec_module(module)
    return module


def rows(values: dict[str, list[float]], axis: str, metrics: list[str]) -> list[dict]:
    """Two start policies, and as many seeds as it takes."""
    return [
        {"point": {axis: arm, "policy.seed": place % 2}, "seed": place // 2, "metric": metric, "value": value}
        for arm, of_arm in values.items()
        for place, value in enumerate(of_arm)
        for metric in metrics
    ]


def test_every_sweep_has_eight_seeds_two_start_policies_and_the_arm_to_compare_with(evidence: ModuleType) -> None:
    site = load_site("laptop", known_stages=set(STAGES))
    for name, (_, axis, reference) in evidence.QUESTIONS.items():
        experiment = load_experiment(ROOT / "sweeps" / "evidence" / f"{name}.yaml", site=site)
        assert len(experiment.sweep.seeds) >= 8
        assert len(experiment.sweep.values["policy.seed"]) >= 2
        assert reference is None or reference in map(str, experiment.sweep.values[axis])
        assert {recipe.optimiser.steps for _, recipe in experiment.points} == {20}
        assert {recipe.benchmarks["lab"].split for _, recipe in experiment.points} == {"test"}  # type: ignore[union-attr]


def test_differences_are_paired_by_start_policy_and_seed(evidence: ModuleType) -> None:
    a, b = [3.0, 4.0, 5.0, 9.0], [1.0, 3.0, 2.0, 8.0]
    values = evidence.by_arm(rows({"old": b, "new": a}, "arm", list(evidence.METRICS)), "arm")
    effect = evidence.Effect(
        "reward", "new", {one: values["reward"]["new"][one] - values["reward"]["old"][one] for one in values["reward"]["old"]}
    )
    test = stats.ttest_rel(a, b)
    low, high = test.confidence_interval(0.95)

    assert effect.mean == pytest.approx(np.mean(a) - np.mean(b))
    assert effect.p_value == pytest.approx(test.pvalue)
    assert [effect.mean - effect.margin, effect.mean + effect.margin] == pytest.approx([low, high])


def test_a_missing_run_stops_the_page(evidence: ModuleType) -> None:
    some = rows({"old": [1.0, 2.0], "new": [1.0, 2.0]}, "arm", list(evidence.METRICS))
    with pytest.raises(SystemExit, match="missing"):
        evidence.by_arm(some[:-1], "arm")
