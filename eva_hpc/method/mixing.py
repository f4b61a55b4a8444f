"""Which prompts a round trains on: a share of the evolved ones and the rest of the base ones, each from a fixed seeded order.

With 5 base and 5 evolved prompts a ratio of 0.8 takes the first 4 evolved and the first 1 base prompt. The order does not
depend on the ratio, so a smaller ratio's evolved prompts are a prefix of a larger one's and its work is reused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from eva_hpc.store.seeds import derive_seed


@dataclass(frozen=True)
class Mixture:
    """The ids of a round's prompts, and how many prompts there were to take from."""

    evolved: tuple[str, ...]
    base: tuple[str, ...]
    n_evolved: int
    n_base: int

    @property
    def prompt_ids(self) -> tuple[str, ...]:
        """All prompts of the round: evolved, then base."""
        return self.evolved + self.base

    @property
    def shortage(self) -> int:
        """By how many prompts the round is smaller than the base set, because too few were evolved or admitted."""
        return max(0, self.n_base - len(self.evolved) - len(self.base))


def shuffled(ids: Iterable[str], seed: int) -> list[str]:
    """The ids in an order that depends on the seed and the ids alone, not on the order in which they come."""
    return sorted(ids, key=lambda prompt_id: (derive_seed(seed, "mix", prompt_id), prompt_id))


def share(count: int, ratio: float) -> int:
    """floor(count * ratio + 1/2), exactly: the ratio counts as the decimal number that it prints as.

    So no float error decides a tie: 0.29 of 50 is 14.5 and gives 15.

    Raises:
        ValueError: the ratio is outside [0, 1].
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"the ratio is {ratio}: it must be between 0 and 1")
    return math.floor(count * Fraction(str(float(ratio))) + Fraction(1, 2))


def mix(base: Sequence[str], evolved: Sequence[str], ratio: float, seed: int) -> Mixture:
    """Take share(n_evolved, ratio) evolved and n_base - share(n_base, ratio) base prompts (arXiv 2411.00062: ratio 0.8).

    Ratio 0 is base prompts only ("no creator"), 1 evolved ones only. The round has as many prompts as the base set whenever
    there are as many evolved ones; otherwise `Mixture.shortage` says how many are lacking.
    """
    return Mixture(
        evolved=tuple(shuffled(evolved, seed)[: share(len(evolved), ratio)]),
        base=tuple(shuffled(base, seed)[: len(base) - share(len(base), ratio)]),
        n_evolved=len(evolved),
        n_base=len(base),
    )
