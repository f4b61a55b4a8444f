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
    """Two starts, and as many seeds as it takes."""
    return [
        {"point": {axis: arm, "start": place % 2}, "seed": place // 2, "metric": metric, "value": value}
        for arm, of_arm in values.items()
        for place, value in enumerate(of_arm)
        for metric in metrics
    ]


def test_every_sweep_has_eight_seeds_two_starts_and_the_arm_to_compare_with(evidence: ModuleType) -> None:
    site = load_site("laptop", known_stages=set(STAGES))
    for name, question in evidence.QUESTIONS.items():
        experiment = load_experiment(ROOT / "sweeps" / "evidence" / f"{name}.yaml", site=site)
        assert len(experiment.sweep.seeds) >= 8
        arms = {str(value) for value in experiment.sweep.values[question.axis]}
        assert len({(recipe.policy.seed, recipe.prompts.seed) for _, recipe in experiment.points}) >= 2  # type: ignore[union-attr]
        assert {question.against, *question.unmatched, *(arm for pair in question.contrasts for arm in pair)} <= arms
        assert {recipe.optimiser.steps for _, recipe in experiment.points} == {20}
        assert {recipe.benchmarks["lab"].split for _, recipe in experiment.points} == {"test"}  # type: ignore[union-attr]


def test_differences_are_paired_by_start_policy_and_seed(evidence: ModuleType) -> None:
    a, b = [3.0, 4.0, 5.0, 9.0], [1.0, 3.0, 2.0, 8.0]
    values = evidence.by_arm(rows({"old": b, "new": a}, "arm", list(evidence.METRICS)), "arm")
    measured = evidence.Measured(evidence.Question("?", "arm", "old"), values, steps=1)
    effect = next(measured.effects())
    test = stats.ttest_rel(a, b)
    low, high = test.confidence_interval(0.95)

    assert effect.mean == pytest.approx(np.mean(a) - np.mean(b))
    assert effect.p_value == pytest.approx(test.pvalue)
    assert [effect.mean - effect.margin, effect.mean + effect.margin] == pytest.approx([low, high])


def test_a_missing_run_stops_the_page(evidence: ModuleType) -> None:
    some = rows({"old": [1.0, 2.0], "new": [1.0, 2.0]}, "arm", list(evidence.METRICS))
    with pytest.raises(SystemExit, match="missing"):
        evidence.by_arm(some[:-1], "arm")


def test_the_page_corrects_over_all_its_comparisons_and_prints_every_value(evidence: ModuleType) -> None:
    old, new = [1.0, 2.0, 3.0, 4.0], [3.0, 4.1, 5.0, 6.2]
    values = evidence.by_arm(rows({"old": old, "new": new}, "arm", list(evidence.METRICS)), "arm")
    measured = evidence.Measured(evidence.Question("?", "arm", "old"), values, steps=1)

    once, twice = evidence.page([measured]), evidence.page([measured, measured])

    assert all(f" {value:.1f} " in once for value in old + new)
    assert "all 6 comparisons" in once
    assert "all 12 comparisons" in twice
    p = stats.ttest_rel(new, old).pvalue
    assert [f"(p {6 * p:.2g})" in once, f"(p {12 * p:.2g})" in twice] == [True, True]
