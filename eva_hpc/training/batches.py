"""Which pairs an optimiser step sees, in which micro-batch, on which rank, with which weight.

Optimiser step s of an epoch takes pairs [s B, (s + 1) B) of the epoch's seeded order; the last, short step is kept. Where the
number of steps is given instead of that of epochs, step s takes [s B, (s + 1) B) of the epochs' orders one after the other, so
that every step is full; it may then see a pair twice.

The pairs of a step are dealt to micro-batches of limited tokens, so that all ranks work equally long; where pairs run out, a
dummy of weight 0 keeps the ranks in step. The optimiser sees the mean loss over the step's pairs, whatever the world size and
the micro-batches.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from eva_hpc.store.records import Pair
from eva_hpc.store.seeds import derive_seed


@dataclass(frozen=True)
class MicroBatch:
    """Pairs of one forward pass on one rank, by index, and their weights in the loss. A dummy has index -1 and weight 0."""

    indices: tuple[int, ...]
    weights: tuple[float, ...]


def length(pair: Pair) -> int:
    """Tokens of the longer row of a pair."""
    return len(pair["prompt_tokens"]) + max(len(pair["chosen"]["tokens"]), len(pair["rejected"]["tokens"]))


def why_unusable(pair: Pair, max_length: int, max_prompt_length: int) -> str | None:
    """The reason for which a pair cannot be trained on, or None if it can."""
    if not pair["prompt_tokens"] or not pair["chosen"]["tokens"] or not pair["rejected"]["tokens"]:
        return "empty"
    if len(pair["prompt_tokens"]) > max_prompt_length:
        return "prompt too long"
    return "pair too long" if length(pair) > max_length else None


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order in which an epoch goes through `count` pairs."""
    order = list(range(count))
    random.Random(derive_seed(seed, "order", epoch)).shuffle(order)
    return order


def optimiser_steps(count: int, batch_size: int, epochs: int, seed: int, steps: int | None = None) -> list[list[int]]:
    """The pairs of every optimiser step: ceil(count / batch_size) steps an epoch, or exactly `steps` full ones."""
    if steps is not None:
        epochs = -(-steps * batch_size // count)
        stream = [index for epoch in range(epochs) for index in epoch_order(count, seed, epoch)]
        return [stream[step * batch_size : (step + 1) * batch_size] for step in range(steps)]
    by_epoch = []
    for epoch in range(epochs):
        order = epoch_order(count, seed, epoch)
        by_epoch += [order[start : start + batch_size] for start in range(0, count, batch_size)]
    return by_epoch


def micro_batches(
    indices: Sequence[int],
    sizes: Mapping[int, int],
    costs: Mapping[int, float],
    rank: int,
    world_size: int,
    budget: int,
    packed: bool,
) -> list[MicroBatch]:
    """A rank's micro-batches of one optimiser step, or of one pass over pairs: the same number on every rank, as few as can be.

    The weights make the sum over micro-batches, averaged over ranks (as data-parallel training does), the mean over the pairs.

    Args:
        indices: the pairs, at least one; one may come twice.
        sizes: tokens of each pair if packed; else its rows times the longest of them.
        costs: the work for each pair, in any unit.
        rank: whose micro-batches.
        world_size: number of ranks.
        budget: tokens of a micro-batch, padding included; a pair with more goes alone.
        packed: whether a micro-batch is one row without padding, so that any pairs go well together; else those of like size.
    """
    deal = _deal_packed if packed else _deal_padded
    weight = world_size / len(indices)
    mine = [together[rank] for together in deal(indices, sizes, costs, world_size, budget)]
    return [MicroBatch(tuple(part), (weight,) * len(part)) if part else MicroBatch((-1,), (0.0,)) for part in mine]


def _deal_padded(
    indices: Sequence[int], sizes: Mapping[int, int], costs: Mapping[int, float], world_size: int, budget: int
) -> Iterator[list[list[int]]]:
    """For each micro-batch the pairs of every rank: the longest first, so that all ranks have rows of like length."""
    rest = sorted(indices, key=lambda index: (-sizes[index], -costs[index], index))
    while rest:
        count = world_size * max(1, budget // sizes[rest[0]])
        yield [rest[:count][rank::world_size] for rank in range(world_size)]
        rest = rest[count:]


def _deal_packed(
    indices: Sequence[int], sizes: Mapping[int, int], costs: Mapping[int, float], world_size: int, budget: int
) -> Iterator[list[list[int]]]:
    """As :func:`_deal_padded`; the fewest rounds of bins that hold all, each pair put into the bin with the least work so far.

    That is Graham's rule of longest processing time first: the largest bin has at most 4/3 of the least possible work.
    """
    order = sorted(indices, key=lambda index: (-costs[index], index))
    rounds = max(1, -(-sum(sizes[index] for index in indices) // (world_size * budget)))
    bins = None
    while bins is None:
        bins = _fill(order, sizes, costs, rounds * world_size, budget)
        rounds += max(1, rounds // 50)
    # Bins with the same work go together, since no rank starts the next micro-batch before all have done this one.
    bins.sort(key=lambda part: (-sum(costs[index] for index in part), part))
    for start in range(0, len(bins), world_size):
        yield bins[start : start + world_size]


def _fill(
    order: Sequence[int], sizes: Mapping[int, int], costs: Mapping[int, float], count: int, budget: int
) -> list[list[int]] | None:
    """`count` bins, or None if some pair finds no room. A pair above the budget has room in an empty bin."""
    bins: list[list[int]] = [[] for _ in range(count)]
    held = [0] * count
    by_work = [(0.0, number) for number in range(count)]
    for index in order:
        full = []
        while by_work:
            work, number = heapq.heappop(by_work)
            if not bins[number] or held[number] + sizes[index] <= budget:
                break
            full.append((work, number))
        else:
            return None
        bins[number].append(index)
        held[number] += sizes[index]
        for entry in (*full, (work + costs[index], number)):
            heapq.heappush(by_work, entry)
    return bins
