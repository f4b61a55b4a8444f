"""How informative a prompt is for the current policy, estimated from the rewards of its responses.

Three prompts with three responses each, and what `A_min` makes of them::

    rewards  {"easy": [1.0, 1.0, 1.0], "split": [0.0, 1.0, 0.5], "hard": [0.0, 0.0, 0.2]}
    A_min    {"easy": 0.0,             "split": 1.0,             "hard": 0.2}
    weights  {"easy": 0.0,             "split": 0.833…,          "hard": 0.166…}

The metrics are those of "Evolving Alignment via Asymmetric Self-Play" (arXiv 2411.00062), its section on the creator's
informativeness proxies and the ablation of them, and the alignment potential of arXiv 2503.01864. A new one is a function and
a line in `METRICS`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

RewardsOfPrompts = Mapping[str, Sequence[float]]
# Of the rewards and the implicit rewards of the same responses; these are empty where a metric does not need them.
Metric = Callable[[RewardsOfPrompts, RewardsOfPrompts], dict[str, float]]


def a_min(rewards: Sequence[float]) -> float:
    """Best minus worst reward: the regret proxy and default of offline eva (arXiv 2411.00062). One response gives 0."""
    return max(rewards) - min(rewards)


def a_avg(rewards: Sequence[float]) -> float:
    """Best minus mean reward: the best response's advantage, default of online eva (arXiv 2411.00062). One response gives 0."""
    return max(rewards) - mean(rewards)


def a_dts(rewards: Sequence[float]) -> float:
    """Best minus second best reward, after duelling Thompson sampling (arXiv 2411.00062). One response gives 0."""
    ranked = sorted(rewards, reverse=True)
    return ranked[0] - ranked[min(1, len(ranked) - 1)]


def variance(rewards: Sequence[float]) -> float:
    """Population variance of the rewards (arXiv 2411.00062, ablation of the metric)."""
    return float(statistics.pvariance(rewards))


def mean(rewards: Sequence[float]) -> float:
    """Mean reward (arXiv 2411.00062, ablation of the metric): prefers prompts that the policy already answers well."""
    return float(statistics.mean(rewards))  # exact: no rounding makes equal rewards differ from their mean


def uniform(rewards: Sequence[float]) -> float:
    """1 for every prompt: evolving without estimating (arXiv 2411.00062, ablation of the metric)."""
    return 1.0


def alignment_potential(rewards: RewardsOfPrompts, implicit: RewardsOfPrompts) -> dict[str, float]:
    """|explicit margin| - implicit margin of the best and the worst response (arXiv 2503.01864): what is left to learn.

    Negative where the policy prefers the best response by more than the reward does. One response gives 0.
    """
    potentials = {}
    for prompt_id, values in rewards.items():
        best, worst = values.index(max(values)), values.index(min(values))
        margin = implicit[prompt_id][best] - implicit[prompt_id][worst]
        potentials[prompt_id] = abs(values[best] - values[worst]) - margin
    return potentials


def of_each(function: Callable[[Sequence[float]], float]) -> Metric:
    """A metric that looks at the rewards of one prompt at a time."""
    return lambda rewards, implicit: {prompt_id: function(values) for prompt_id, values in rewards.items()}


def inverse(metric: Metric) -> Metric:
    """1 - minmax(metric) over the prompts, not a reciprocal (arXiv 2411.00062, negative control of the ablation)."""
    return lambda rewards, implicit: {prompt_id: 1.0 - value for prompt_id, value in minmax(metric(rewards, implicit)).items()}


METRICS: dict[str, Metric] = {
    "A_min": of_each(a_min),
    "A_avg": of_each(a_avg),
    "A_dts": of_each(a_dts),
    "var": of_each(variance),
    "avg": of_each(mean),
    "uniform": of_each(uniform),
    "inv_avg": inverse(of_each(mean)),
    "inv_A_min": inverse(of_each(a_min)),
    "alignment_potential": alignment_potential,
}
ROUNDING = 1e-12
"""Values that differ by less, relative to the largest, are equal but for rounding."""
NEEDS_IMPLICIT = {"alignment_potential"}


def informativeness(
    metric: str, rewards: Mapping[str, Sequence[float | None]], implicit: RewardsOfPrompts | None = None
) -> dict[str, float]:
    """The metric of every prompt, in the order of `rewards`: prompt id -> value, in units of reward (or of `METRICS[metric]`).

    A response whose reward is None is not used; a prompt without any reward is left out.

    Args:
        metric: a name in `METRICS`.
        rewards: prompt id -> reward of each response.
        implicit: prompt id -> implicit reward of each response, beta * (log pi - log pi_ref); for metrics in `NEEDS_IMPLICIT`.

    Raises:
        ValueError: the metric is unknown (the message lists the known ones); a reward, implicit or not, is not a finite number
            (the message names prompt and response); or implicit rewards are needed and are missing or differ in number.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown informativeness metric {metric!r}: choose from {', '.join(METRICS)}")
    for prompt_id, values in rewards.items():
        _check_finite(prompt_id, "reward", values)
    explicit = {prompt_id: [value for value in values if value is not None] for prompt_id, values in rewards.items()}
    explicit = {prompt_id: values for prompt_id, values in explicit.items() if values}
    if metric not in NEEDS_IMPLICIT:
        return METRICS[metric](explicit, {})
    if implicit is None:
        raise ValueError(f"the metric {metric} needs the implicit rewards of the responses")
    return METRICS[metric](explicit, {name: _implicit_of(name, implicit, rewards[name]) for name in explicit})


def _implicit_of(prompt_id: str, implicit: RewardsOfPrompts, rewards: Sequence[float | None]) -> list[float]:
    """The implicit rewards of the responses that have a reward."""
    values = implicit.get(prompt_id, ())
    if len(values) != len(rewards):
        raise ValueError(f"prompt {prompt_id} has {len(rewards)} rewards but {len(values)} implicit rewards")
    _check_finite(prompt_id, "implicit reward", values)
    return [value for value, reward in zip(values, rewards, strict=True) if reward is not None]


def _check_finite(prompt_id: str, kind: str, values: Sequence[float | None]) -> None:
    for j, value in enumerate(values):
        if value is not None and not math.isfinite(value):
            raise ValueError(f"prompt {prompt_id}: the {kind} of response {j} is {value}, not a finite number")


def minmax(values: Mapping[str, float]) -> dict[str, float]:
    """Values shifted and scaled to [0, 1] over the prompts; all equal gives 0 for all."""
    if not values:
        return {}
    low = min(values.values())
    spread = max(values.values()) - low
    if spread <= ROUNDING * max(map(abs, values.values())):
        spread = 0.0
    return {prompt_id: (value - low) / spread if spread > 0 else 0.0 for prompt_id, value in values.items()}


def weights(values: Mapping[str, float]) -> dict[str, float]:
    """Sampling weights: minmax over the prompts, normalised to sum 1 (arXiv 2411.00062). All values equal gives equal weights.

    The least informative prompt has weight 0.

    Raises:
        ValueError: a value is not a finite number; the message names its prompt.
    """
    for prompt_id, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"prompt {prompt_id}: its informativeness is {value}, not a finite number")
    scaled = minmax(values)
    total = math.fsum(scaled.values())
    if total == 0:
        return {prompt_id: 1.0 / len(scaled) for prompt_id in scaled}
    return {prompt_id: value / total for prompt_id, value in scaled.items()}
