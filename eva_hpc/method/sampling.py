"""Which prompts the creator evolves: some of the base prompts, by their weights.

>>> from eva_hpc.method.sampling import sample
>>> sorted(sample({"a": 0.5, "b": 0.5, "c": 0.0, "d": 0.0}, fraction=0.5, seed=1))
['a', 'b']

A sampler puts all prompts into an order that depends on the seed, their weights and their ids alone, and a sample is the
beginning of that order: so a smaller sample is always a prefix of a larger one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from eva_hpc.store.seeds import derive_seed

# Of the weights, the seed and the topics (prompt id -> topic; empty unless the sampler needs them): all prompts, in order.
Sampler = Callable[[Mapping[str, float], int, Mapping[str, int]], list[str]]

STRATA = 4


def weighted(weights: Mapping[str, float], seed: int, topics: Mapping[str, int]) -> list[str]:
    """Drawn one after the other without replacement, each time in proportion to the weights that are left.

    By exponential keys (Efraimidis and Spirakis 2006, "Weighted random sampling with a reservoir"): prompt i gets the key
    log(-log u_i) - log(w_i) and the smallest keys win. u_i depends only on the seed and the prompt's id, so neither the order
    nor the other prompts change it. Zero-weight prompts come, in random order, only after all with a positive weight.
    """

    def key(prompt_id: str) -> tuple[bool, float, str]:
        uniform = (derive_seed(seed, "sample", prompt_id) + 0.5) / 2**31  # strictly between 0 and 1
        weight = weights[prompt_id]
        return weight == 0, math.log(-math.log(uniform)) - (math.log(weight) if weight > 0 else 0.0), prompt_id

    return sorted(weights, key=key)


def greedy(weights: Mapping[str, float], seed: int, topics: Mapping[str, int]) -> list[str]:
    """The largest weights first (arXiv 2411.00062, ablation of the sampler); equal weights in random order."""
    return sorted(weights, key=lambda prompt_id: (-weights[prompt_id], derive_seed(seed, "tie", prompt_id), prompt_id))


def stratified(weights: Mapping[str, float], seed: int, topics: Mapping[str, int]) -> list[str]:
    """Evenly from `STRATA` equally large strata of the prompts by weight, uniformly within one."""
    ranked = greedy(weights, seed, topics)
    strata = {prompt_id: rank * STRATA // len(ranked) for rank, prompt_id in enumerate(ranked)}
    return in_turn(sorted(weights, key=lambda prompt_id: (derive_seed(seed, "sample", prompt_id), prompt_id)), strata, seed)


def topic(weights: Mapping[str, float], seed: int, topics: Mapping[str, int]) -> list[str]:
    """Evenly from the topics, `weighted` within one; a topic that runs out of prompts leaves its places to the others."""
    return in_turn(weighted(weights, seed, topics), topics, seed)


SAMPLERS: dict[str, Sampler] = {"weighted": weighted, "greedy": greedy, "stratified": stratified, "topic": topic}


def in_turn(prompt_ids: Sequence[str], groups: Mapping[str, int], seed: int) -> list[str]:
    """One prompt of each group, the groups in random order, then a second one of each that has one, and so on.

    A group's own prompts keep their order. So however many are taken, no two groups differ by more than one, unless one of
    them has run out.
    """
    taken: Counter[int] = Counter()
    keys = {}
    for prompt_id in prompt_ids:
        group = groups[prompt_id]
        turn = taken[group]
        taken[group] += 1
        keys[prompt_id] = (turn, derive_seed(seed, "group", group), group)
    return sorted(prompt_ids, key=keys.__getitem__)


def sample(
    weights: Mapping[str, float],
    *,
    fraction: float | None = None,
    count: int | None = None,
    seed: int,
    sampler: str = "weighted",
    topics: Mapping[str, int] | None = None,
) -> list[str]:
    """`count` of the n prompts, or floor(fraction * n) and at least one, in the order in which they were drawn.

    Args:
        weights: prompt id -> weight. Only their ratios matter.
        fraction: of the prompts, above 0 and at most 1 (arXiv 2411.00062: a quarter). It counts as the decimal number that it
            prints as: 0.29 of 100 prompts are 29, although 0.29 * 100 < 29 in floats.
        count: of prompts, at least 1; all of them where there are fewer.
        seed: of every random choice.
        sampler: a name in `SAMPLERS`.
        topics: prompt id -> topic, for the sampler `topic`.

    Raises:
        ValueError: no prompts, both or neither of fraction and count or one out of its range, a weight that is negative or not
            finite, a prompt without a topic where topics are needed, or an unknown sampler.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}: choose from {', '.join(SAMPLERS)}")
    if not weights:
        raise ValueError("there are no prompts to sample from")
    for prompt_id, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"prompt {prompt_id} has weight {weight}: weights are finite and not negative")
        if sampler == "topic" and prompt_id not in (topics or {}):
            raise ValueError(f"prompt {prompt_id} has no topic, which the sampler {sampler!r} needs")
    return SAMPLERS[sampler](weights, seed, topics or {})[: _size(len(weights), fraction, count)]


def _size(prompts: int, fraction: float | None, count: int | None) -> int:
    if (fraction is None) == (count is None):
        raise ValueError(f"a sample needs a fraction or a count, and not both: found fraction {fraction} and count {count}")
    if count is not None:
        if count < 1:
            raise ValueError(f"the number of prompts to evolve is {count}: it must be at least 1")
        return min(count, prompts)
    assert fraction is not None
    if not 0 < fraction <= 1:
        raise ValueError(f"the fraction of prompts to evolve is {fraction}: it must be above 0 and at most 1")
    return max(1, math.floor(Fraction(str(float(fraction))) * prompts))
