"""Pseudo-values of the length-controlled win rate against the slow way: fitting resampled questions anew."""

from __future__ import annotations

import numpy as np
import pytest

from eva_hpc.benchmarks.alpaca_eval.annotated import read_annotations
from eva_hpc.benchmarks.alpaca_eval.arms import LengthControl, length_controlled_arm
from eva_hpc.benchmarks.alpaca_eval.difficulty import read_difficulty
from eva_hpc.benchmarks.alpaca_eval.influence import pseudo_values
from eva_hpc.benchmarks.alpaca_eval.length_control import read_gamed
from eva_hpc.benchmarks.alpaca_eval.resampling import length_controlled_difference, length_controlled_interval
from eva_hpc.benchmarks.statistics.paired import compare

pytestmark = pytest.mark.slow  # seconds of arithmetic on real data


@pytest.fixture(scope="module")
def models(shared_data):
    folder = shared_data / "alpaca_eval"
    gamed = read_gamed(folder / "reference/df_gamed_reconstructed.csv")
    control = LengthControl(read_difficulty(folder / "reference/instruction_difficulty_recovered.csv"), gamed, C=2.7825594022)
    names = ("claude-2.1", "FuseChat-Llama-3.2-1B-Instruct", "gpt35_turbo_instruct")
    rows = {name: read_annotations(folder / f"models/{name}/annotations.json.gz") for name in names}
    return {name: length_controlled_arm(own, control) for name, own in rows.items()}, gamed


@pytest.mark.parametrize("name", ["claude-2.1", "FuseChat-Llama-3.2-1B-Instruct", "gpt35_turbo_instruct"])
def test_their_mean_is_the_win_rate_and_their_spread_that_of_refits(models, name):
    arms, gamed = models
    fit = arms[name].fit(gamed)
    values = 100 * np.array(list(pseudo_values(arms[name], gamed, fit).values()))
    low, high = length_controlled_interval(arms[name], gamed)
    assert values.mean() == pytest.approx(fit.win_rate, abs=1e-9)
    assert values.std(ddof=1) / len(values) ** 0.5 == pytest.approx((high - low) / 3.92, rel=0.15)


def test_a_paired_difference_is_that_of_refits(models):
    arms, gamed = models
    one, other = arms["claude-2.1"], arms["gpt35_turbo_instruct"]
    quick = compare(*(pseudo_values(arm, gamed, arm.fit(gamed)) for arm in (one, other)))
    slow = length_controlled_difference(one, other, gamed)
    assert 100 * quick.difference == pytest.approx(slow.difference, abs=0.2)
    assert 100 * quick.low == pytest.approx(slow.low, abs=1.0)
    assert 100 * quick.high == pytest.approx(slow.high, abs=1.0)
    assert quick.p_value < 0.05
    assert slow.p < 0.05
