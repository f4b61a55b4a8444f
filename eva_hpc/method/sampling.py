"""Which prompts the creator evolves: a share of the base prompts, drawn by their weights.

>>> from eva_hpc.method.sampling import sample
>>> sorted(sample({"a": 0.5, "b": 0.5, "c": 0.0, "d": 0.0}, fraction=0.5, seed=1))
['a', 'b']
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from eva_hpc.store.seeds import derive_seed

Sampler = Callable[[Mapping[str, float], int, int], list[str]]


def weighted(weights: Mapping[str, float], count: int, seed: int) -> list[str]:
    """`count` prompts drawn one after the other without replacement, each time in proportion to the weights that are left.

    By exponential keys (Efraimidis and Spirakis 2006, "Weighted random sampling with a reservoir"): prompt i gets the key
    log(-log u_i) - log(w_i) and the smallest keys win. u_i depends only on the seed and the prompt's id, so neither the order
    nor the other prompts change it. Zero-weight prompts come, in random order, only after all with a positive weight.
    """

    def key(prompt_id: str) -> tuple[bool, float, str]:
        uniform = (derive_seed(seed, "sample", prompt_id) + 0.5) / 2**31  # strictly between 0 and 1
        weight = weights[prompt_id]
        return weight == 0, math.log(-math.log(uniform)) - (math.log(weight) if weight > 0 else 0.0), prompt_id

    return sorted(weights, key=key)[:count]


SAMPLERS: dict[str, Sampler] = {"weighted": weighted}


def sample(weights: Mapping[str, float], fraction: float, seed: int, sampler: str = "weighted") -> list[str]:
    """floor(fraction * n) of the n prompts, at least one, in the order in which they were drawn (arXiv 2411.00062: a quarter).

    `fraction` counts as the decimal number that it prints as: 0.29 of 100 prompts are 29, although 0.29 * 100 < 29 in floats.
    Zero-weight prompts are used only when too few have a positive weight.

    Raises:
        ValueError: no prompts, a fraction outside (0, 1], a weight that is negative or not finite, or an unknown sampler.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}: choose from {', '.join(SAMPLERS)}")
    if not weights:
        raise ValueError("there are no prompts to sample from")
    if not 0 < fraction <= 1:
        raise ValueError(f"the fraction of prompts to evolve is {fraction}: it must be above 0 and at most 1")
    for prompt_id, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"prompt {prompt_id} has weight {weight}: weights are finite and not negative")
    count = max(1, math.floor(Fraction(str(float(fraction))) * len(weights)))
    return SAMPLERS[sampler](weights, count, seed)
