"""Which prompts a round trains on: as many as there are base prompts, a share of them evolved, each from a fixed seeded order.

With 5 base prompts a ratio of 0.8 takes the first 4 evolved and the first 1 base prompt. The order does not depend on the
ratio, so a smaller ratio's evolved prompts are a prefix of a larger one's and its work is reused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from eva_hpc.store.seeds import derive_seed


@dataclass(frozen=True)
class Mixture:
    """The ids of a round's prompts, how many prompts there were to take from, and how many evolved ones the ratio asks for."""

    evolved: tuple[str, ...]
    base: tuple[str, ...]
    n_evolved: int
    n_base: int
    wanted_evolved: int

    @property
    def prompt_ids(self) -> tuple[str, ...]:
        """All prompts of the round: evolved, then base."""
        return self.evolved + self.base

    @property
    def shortage(self) -> int:
        """By how many prompts the round is smaller than the base set, because too few were evolved or admitted."""
        return self.wanted_evolved - len(self.evolved)


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
    """share(n_base, ratio) evolved prompts and the rest of n_base from the base (arXiv 2411.00062: ratio 0.8).

    Ratio 0 is base prompts only ("no creator"), 1 evolved ones only. With too few evolved prompts all of them are taken, no
    base prompt replaces what lacks, and `Mixture.shortage` counts it. The authors take ratio * n_evolved evolved prompts:
    the same where there are as many as base prompts.

    Raises:
        ValueError: the ratio is outside [0, 1].
    """
    wanted = share(len(base), ratio)
    return Mixture(
        evolved=tuple(shuffled(evolved, seed)[:wanted]),
        base=tuple(shuffled(base, seed)[: len(base) - wanted]),
        n_evolved=len(evolved),
        n_base=len(base),
        wanted_evolved=wanted,
    )
