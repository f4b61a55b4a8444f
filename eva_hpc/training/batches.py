"""Which pairs an optimiser step sees, in which micro-batch, on which rank, with which weight.

Optimiser step s of an epoch takes pairs [s B, (s + 1) B) of the epoch's seeded order; the last, short step is kept. Where the
number of steps is given instead of that of epochs, step s takes [s B, (s + 1) B) of the epochs' orders one after the other, so
that every step is full; it may then see a pair twice.

The pairs of a step are dealt to the ranks longest first, so that the rows of a micro-batch are of like length and all ranks
work equally long; where pairs run out, a dummy of weight 0 keeps the ranks in step. The optimiser sees the mean loss over the
step's pairs, whatever the world size and the micro-batch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

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
    indices: Sequence[int], lengths: Sequence[int], rank: int, world_size: int, micro_batch: int
) -> list[MicroBatch]:
    """A rank's micro-batches of one optimiser step: the same number on every rank, at most `micro_batch` pairs each.

    The weights make the sum over micro-batches, averaged over ranks (as data-parallel training does), the mean over `indices`.
    """
    dealt = sorted(indices, key=lambda index: (-lengths[index], index))
    weight = world_size / len(dealt)
    batches = []
    for start in range(0, len(dealt), world_size * micro_batch):
        together = dealt[start : start + world_size * micro_batch]
        mine = together[rank::world_size] or [-1]
        batches.append(MicroBatch(tuple(mine), tuple(weight if index >= 0 else 0.0 for index in mine)))
    return batches


@dataclass(frozen=True)
class Rows:
    """The token rows of a micro-batch: all chosen, then all rejected. See :meth:`SequenceLogProbs.forward` for the shapes."""

    tokens: torch.Tensor
    positions: torch.Tensor
    targets: torch.Tensor


def rows(pairs: Sequence[Pair], batch: MicroBatch, device: torch.device) -> Rows:
    """The rows [prompt | response | padding] of a micro-batch, straight from the tokens of the records."""
    mine = [pairs[index] for index in batch.indices if index >= 0]
    pieces = [(pair["prompt_tokens"], pair[side]["tokens"]) for side in ("chosen", "rejected") for pair in mine]
    pieces = pieces or [([0], [0]), ([0], [0])]
    width = max(len(prompt) + len(response) for prompt, response in pieces)
    tokens: list[list[int]] = []
    positions: list[int] = []
    targets: list[int] = []
    for row, (prompt, response) in enumerate(pieces):
        tokens.append(prompt + response + [0] * (width - len(prompt) - len(response)))
        # The logits at one position predict the token at the next.
        first = row * width + len(prompt) - 1
        positions += range(first, first + len(response))
        targets += response
    return Rows(*(torch.tensor(values, device=device) for values in (tokens, positions, targets)))
