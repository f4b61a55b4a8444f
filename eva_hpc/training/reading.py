"""Pairs through a policy: which pairs each forward pass reads on each rank, and the log-probs that come out.

Pairs are packed and share their prompts where the site wants it and the architecture can. Whether it can is tried out on pairs
of the data before the first is trained on: both ways of reading must agree, or pairs are padded, each response with its prompt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch

from eva_hpc.config.site import Engine
from eva_hpc.store.records import Pair
from eva_hpc.training.batches import MicroBatch, micro_batches
from eva_hpc.training.distributed import Ranks
from eva_hpc.training.flops import Flops
from eva_hpc.training.packing import Batch, Tree, lay_out, trees_of

_log = logging.getLogger(__name__)

LogProbs = Callable[[Batch], torch.Tensor]
"""A policy: [completions] float32, the sum of the log-probs of each completion's tokens. All ranks call it equally often."""


def agree(found: torch.Tensor, expected: torch.Tensor, lengths: Sequence[int], precision: str) -> bool:
    """Whether two ways of reading give the same sums of log-probs, [completions], up to rounding; NaN is not the same.

    In bf16 a token may be off by a tenth, at random, so that a sum over n tokens is off by the square root of n tenths; two
    more are for the rounding of large logits, which a short completion cannot average out.
    """
    bounds = [
        1e-4 * (1 + abs(value)) if precision == "fp32" else 0.1 * (2 + n**0.5)
        for value, n in zip(expected, lengths, strict=True)
    ]
    return all(abs(ours - theirs) <= bound for ours, theirs, bound in zip(found, expected, bounds, strict=True))


class PairReader:
    """Reads pairs with a policy. All ranks make one and call its methods in the same order.

    Attributes:
        packed: whether the pairs of a forward pass form one row.
        shared_prompt: whether the two responses of a pair share the prompt's computation.
        flops: of a token; None where they are not known.
    """

    def __init__(
        self,
        log_probs: LogProbs,
        pairs: Sequence[Pair],
        limits: Engine,
        ranks: Ranks,
        *,
        supported: bool = True,
        flops: Flops | None = None,
    ) -> None:
        """`supported` says whether the architecture can be packed, see :func:`eva_hpc.training.attention.supports`."""
        self.log_probs = log_probs
        self.pairs = pairs
        self.packed = limits.packing and supported
        self.shared_prompt = limits.shared_prompt and supported
        self.flops = flops
        self._chosen = False
        self._ranks = ranks
        self._budget = limits.micro_batch_tokens

    def choose_layout(self, precision: str) -> None:
        """Try the layout out, and fall back to padded rows if it does not give what they give.

        Each rank reads a pair of its own, from the longest on, together with the shortest.

        Raises:
            ValueError: the layout cannot be computed at all.
        """
        if self._chosen or not (self.packed or self.shared_prompt):
            return
        self._chosen = True
        order = sorted(range(len(self.pairs)), key=lambda index: (-self.size(index), index))
        tried = [self.pairs[index] for index in (order[self._ranks.rank % len(order)], order[-1])]
        with torch.no_grad():
            expected = self._read([tree for pair in tried for tree in trees_of(pair, False)], False)
            try:
                found = self._read([tree for pair in tried for tree in trees_of(pair, self.shared_prompt)], self.packed)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                raise ValueError(
                    f"packed pairs cannot be computed here ({type(error).__name__}: {error}):"
                    " set packing: false and shared_prompt: false in the site's engine section"
                ) from error
        lengths = [len(pair[side]["tokens"]) for pair in tried for side in ("chosen", "rejected")]  # type: ignore[literal-required]
        same = agree(found.cpu(), expected.cpu(), lengths, precision)
        if self._ranks.sum(torch.tensor([float(not same)])).item():
            worst = (found - expected).abs().max().item()
            _log.warning("packed log-probs are off by up to %.2g: pairs are padded, each response with its prompt", worst)
            self.packed = self.shared_prompt = False

    def trees(self, index: int) -> list[Tree]:
        """The trees of a pair; index -1 is a dummy."""
        return trees_of(self.pairs[index] if index >= 0 else None, self.shared_prompt)

    def size(self, index: int) -> int:
        """Tokens that a pair adds to a forward pass; if padded, its rows times the longest."""
        sizes = [tree.size for tree in self.trees(index)]
        return sum(sizes) if self.packed else len(sizes) * max(sizes)

    def computed(self, batch: MicroBatch) -> int:
        """Tokens of a forward pass, padding and dummies included."""
        sizes = [tree.size for index in batch.indices for tree in self.trees(index)]
        return sum(sizes) if self.packed else len(sizes) * max(sizes)

    def cost(self, index: int) -> float:
        """FLOPs of a forward pass over a pair; where they are not known, its tokens."""
        trees = self.trees(index)
        return sum(self.flops.forward(tree) if self.flops else tree.size for tree in trees)

    def micro_batches(self, indices: Sequence[int], *, fold: int = 1) -> list[MicroBatch]:
        """This rank's micro-batches of pairs, of up to `fold` times the site's tokens."""
        sizes = {index: self.size(index) for index in indices}
        costs = {index: self.cost(index) for index in indices}
        place = (self._ranks.rank, self._ranks.world_size)
        return micro_batches(indices, sizes, costs, *place, fold * self._budget, self.packed)

    def __call__(self, batch: MicroBatch) -> torch.Tensor:
        """Log-probs of the chosen and the rejected responses of a micro-batch, [2, pairs]."""
        trees = [tree for index in batch.indices for tree in self.trees(index)]
        return self._read(trees, self.packed).view(-1, 2).t()

    def _read(self, trees: Sequence[Tree], packed: bool) -> torch.Tensor:
        return self.log_probs(lay_out(trees, packed, self._ranks.device))
