"""A small evaluation with a known truth: preferences that depend on length, difficulty and the model."""

from __future__ import annotations

import numpy as np

from eva_hpc.benchmarks.alpaca_eval.length_control import Gamed


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def annotations(n=60, model=-0.5, length=-1.0, seed=0, name="policy"):
    """Rows of a model that is worse than the baseline by `model`, and gains by length as given."""
    random = np.random.default_rng(seed)
    rows = []
    for number, (one, two, noise) in enumerate(
        zip(random.integers(50, 400, n), random.integers(50, 400, n), random.normal(0, 0.7, n), strict=True)
    ):
        won = sigmoid(model + length * np.tanh((one - two) / 140) + noise)
        rows.append(
            {
                "instruction": f"question {number}",
                "output_1": "b" * int(one),
                "generator_1": "baseline",
                "dataset": "made up",
                "output_2": "p" * int(two),
                "generator_2": name,
                "annotator": "a judge",
                "preference": 1 + float(won),
            }
        )
    return rows


def difficulties(n=60, seed=1):
    return np.random.default_rng(seed).normal(0, 1, n)


def gamed(n=120, seed=2):
    random = np.random.default_rng(seed)
    features = np.column_stack([np.tanh(random.normal(0, 1, n)), random.normal(0, 1, n), np.zeros(n)])
    return Gamed(features, sigmoid(features @ [-1.0, 0.5, 0] + random.normal(0, 0.5, n)))


def questions(n=60):
    return [f"question {number}" for number in range(n)]
