"""Token rows of one forward pass: prompts with their completions, as trees of tokens put end to end or padded.

A tree is a prompt and the completions that go on from it, [prompt | completion 1 | completion 2 | …]. A pair is one tree of two
completions that share the prompt's computation, or two trees of one completion each. Each token's position is that in its own
text, and in attention it sees what is before it there, the prompt and its own completion (:mod:`eva_hpc.training.attention`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from eva_hpc.store.records import Pair
from eva_hpc.training.attention import Branches


class Tree(NamedTuple):
    """A prompt, of at least one token, and the completions that go on from it, each of at least one token."""

    prompt: Sequence[int]
    completions: tuple[Sequence[int], ...]

    @property
    def size(self) -> int:
        """Tokens."""
        return len(self.prompt) + sum(map(len, self.completions))


_DUMMY = Tree([0], ([0], [0]))


@dataclass(frozen=True)
class Batch:
    """What one forward pass reads.

    Attributes:
        tokens: [rows, width] token ids; rows may end in padding.
        positions: [rows, width] of each token in its own text.
        predictors: [completion tokens] indices, into the flattened tokens, of the tokens before those of the completions.
        targets: [completion tokens] the tokens of all completions, one after the other.
        lengths: tokens of each completion, in the order of `targets`.
        branches: who sees whom; None if every row is one text and padding at its right, as under a causal mask.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    predictors: torch.Tensor
    targets: torch.Tensor
    lengths: tuple[int, ...]
    branches: Branches | None


def trees_of(pair: Pair | None, shared_prompt: bool) -> list[Tree]:
    """One tree of the chosen and the rejected response, or one of each; None gives a dummy of the same form."""
    tree = _DUMMY if pair is None else Tree(pair["prompt_tokens"], (pair["chosen"]["tokens"], pair["rejected"]["tokens"]))
    return [tree] if shared_prompt else [Tree(tree.prompt, (completion,)) for completion in tree.completions]


def lay_out(trees: Sequence[Tree], packed: bool, device: torch.device) -> Batch:
    """Put trees into one row without padding, or each into a row of its own.

    The completions of a batch are those of the first tree, those of the second, and so on.
    """
    sizes = [tree.size for tree in trees]
    width = sum(sizes) if packed else max(sizes)
    starts = [sum(sizes[:number]) if packed else number * width for number in range(len(trees))]
    cells = width if packed else width * len(trees)
    tokens, positions = torch.zeros(cells, dtype=torch.int64), torch.zeros(cells, dtype=torch.int64)
    predictors: list[torch.Tensor] = []
    targets: list[int] = []
    for start, tree in zip(starts, trees, strict=True):
        own = [token for part in (tree.prompt, *tree.completions) for token in part]
        tokens[start : start + len(own)] = torch.tensor(own)
        prompt = len(tree.prompt)
        positions[start : start + prompt] = torch.arange(prompt)
        begin = start + prompt
        for completion in tree.completions:
            end = begin + len(completion)
            positions[begin:end] = torch.arange(prompt, prompt + len(completion))
            # The first token of every completion is predicted by the last of the prompt, each other by the one before it.
            predictors += [torch.tensor([start + prompt - 1]), torch.arange(begin, end - 1)]
            targets += completion
            begin = end
    plain = all(len(tree.completions) == 1 for tree in trees) and (not packed or len(trees) == 1)
    parts = [(start, len(tree.prompt), tuple(map(len, tree.completions))) for start, tree in zip(starts, trees, strict=True)]
    return Batch(
        tokens=tokens.view(-1, width).to(device),
        positions=positions.view(-1, width).to(device),
        predictors=torch.cat(predictors).to(device),
        targets=torch.tensor(targets, device=device),
        lengths=tuple(len(completion) for tree in trees for completion in tree.completions),
        branches=None if plain else Branches(parts, cells, device),
    )
