"""Attention over trees of tokens, exact: a token sees the prompt of its tree and what is before it in its own completion.

Registered with transformers as an attention implementation, it serves every architecture that takes one. On a GPU it is
FlexAttention with a block mask, which skips what no token sees. Elsewhere the trees are brought side by side, for attention
alone, in groups of like size; they go through PyTorch's scaled dot-product attention, or plain matrix products where scores are
capped.

Under a sliding window a token sees those at a distance below the window in its own text: positions count, not places in a row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from transformers import AttentionInterface, AutoModelForCausalLM, PretrainedConfig

TREE_ATTENTION = "eva_tree"
"""The name under which transformers knows this attention."""

Part = tuple[int, int, tuple[int, ...]]
"""A tree in a row of tokens: where it starts, tokens of its prompt, tokens of each completion."""

_LIKE_SIZE = 0.75
_PADDING = -1
_BLOCK, _PIECE = 128, 16


@dataclass(frozen=True)
class _Group:
    """Trees of like size side by side: `places` [trees, longest] in the row, padded with the tree's first.

    `branch` and `position` [trees, longest] as in :class:`Branches`; those of padding are -1.
    """

    places: torch.Tensor
    branch: torch.Tensor
    position: torch.Tensor


class Branches:
    """Who sees whom among the tokens of one forward pass, whose rows count as one."""

    def __init__(self, parts: Sequence[Part], cells: int, device: torch.device) -> None:
        """`parts` are the trees and `cells` the places of all rows; places of no tree are padding, which nobody reads."""
        self._cells = cells
        self._device = device
        self._parts = sorted(parts, key=lambda part: -_size(part))
        self._block_masks: dict[int | None, BlockMask] = {}
        self._biases: dict[tuple[int | None, torch.dtype], list[torch.Tensor | None]] = {}

    @functools.cached_property
    def places(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tree, branch (0: the prompt, then the completions) and position of every place, [cells] each; tree -1 is padding."""
        tree = torch.full((self._cells,), _PADDING)
        branch, position = torch.zeros_like(tree), torch.arange(self._cells)
        for number, part in enumerate(sorted(self._parts)):  # by place, so that a block holds neighbours
            own = slice(part[0], part[0] + _size(part))
            tree[own] = number
            branch[own], position[own] = _branch_and_position(part)
        return tree.to(self._device), branch.to(self._device), position.to(self._device)

    @functools.cached_property
    def groups(self) -> list[_Group]:
        """The trees, largest first, in groups that need little padding."""
        groups: list[list[Part]] = []
        for part in self._parts:
            if not groups or _size(part) < _LIKE_SIZE * _size(groups[-1][0]):
                groups.append([])
            groups[-1].append(part)
        return [self._group(parts) for parts in groups]

    def _group(self, parts: Sequence[Part]) -> _Group:
        longest = _size(parts[0])
        places = torch.tensor([part[0] for part in parts])[:, None].repeat(1, longest)
        branch = torch.full((len(parts), longest), _PADDING)
        position = branch.clone()
        for line, part in enumerate(parts):
            places[line, : _size(part)] += torch.arange(_size(part))
            branch[line, : _size(part)], position[line, : _size(part)] = _branch_and_position(part)
        return _Group(places.to(self._device), branch.to(self._device), position.to(self._device))

    @functools.cached_property
    def back(self) -> torch.Tensor:
        """[cells]: where each place of the rows is among those of all groups, one after the other; padding reads any."""
        back = torch.zeros(self._cells, dtype=torch.int64, device=self._device)
        before = 0
        for group in self.groups:
            real = group.branch.flatten() != _PADDING
            back[group.places.flatten()[real]] = before + real.nonzero().flatten()
            before += real.numel()
        return back

    def biases(self, window: int | None, dtype: torch.dtype) -> list[torch.Tensor | None]:
        """For each group what is added to its scores, [trees, 1, longest, longest]; None where a causal mask does it all."""
        if (window, dtype) not in self._biases:
            self._biases[window, dtype] = [_bias(group, window, dtype) for group in self.groups]
        return self._biases[window, dtype]

    def block_mask(self, window: int | None) -> BlockMask:
        """The mask of FlexAttention."""
        if window not in self._block_masks:
            self._block_masks[window] = self._made_of_blocks(window)
        return self._block_masks[window]

    def _made_of_blocks(self, window: int | None) -> BlockMask:
        tree, branch, position = self.places
        reach = self._cells if window is None else window

        def sees(_batch: Any, _head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            distance = position[query] - position[key]
            same = (tree[query] == tree[key]) & ((branch[key] == 0) | (branch[key] == branch[query]))
            return same & (distance >= 0) & (distance < reach)

        # Which pieces may hold two tokens of which one sees the other, from the least and the largest values in each: a mask of
        # cells x cells never exists.
        low, high = zip(*(_extremes(values) for values in self.places), strict=True)
        alone = (low[0] == high[0]) & (low[1] == high[1])
        maybe = (low[0][:, None] <= high[0]) & (high[0][:, None] >= low[0])
        maybe &= (low[2][:, None] - high[2] < reach) & (high[2][:, None] - low[2] >= 0)
        maybe &= ~(alone[:, None] & alone & (low[0][:, None] == low[0]) & (low[1][:, None] != low[1]) & (low[1] != 0))
        maybe = maybe.tril()  # whom a token sees comes before it in the row
        blocks = len(maybe) * _PIECE // _BLOCK
        maybe = maybe.view(blocks, _BLOCK // _PIECE, blocks, _BLOCK // _PIECE).any(3).any(1)
        return BlockMask.from_kv_blocks(
            maybe.sum(1, dtype=torch.int32)[None, None],
            maybe.int().argsort(dim=1, descending=True, stable=True).int()[None, None],
            BLOCK_SIZE=_BLOCK,
            mask_mod=sees,
            seq_lengths=(self._cells, self._cells),
        )


def _extremes(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The least and the largest of each piece of [cells] values, up to a whole number of blocks."""
    whole = -(-len(values) // _BLOCK) * _BLOCK
    pieces = torch.cat([values, values[-1:].expand(whole - len(values))]).view(-1, _PIECE)
    return pieces.amin(1), pieces.amax(1)


def _size(part: Part) -> int:
    return part[1] + sum(part[2])


def _branch_and_position(part: Part) -> tuple[torch.Tensor, torch.Tensor]:
    _, prompt, completions = part
    branch = torch.cat([torch.full((length,), number) for number, length in enumerate((prompt, *completions))])
    position = torch.cat([torch.arange(prompt), *(torch.arange(prompt, prompt + length) for length in completions)])
    return branch, position


def _bias(group: _Group, window: int | None, dtype: torch.dtype) -> torch.Tensor | None:
    longest = group.branch.shape[1]
    if int(group.branch.max()) <= 1 and (window is None or longest <= window):
        return None
    query, key = group.branch[:, :, None], group.branch[:, None, :]
    distance = group.position[:, :, None] - group.position[:, None, :]
    sees = ((key == 0) | (key == query)) & (distance >= 0)
    if window is not None:
        sees &= distance < window
    sees |= query == _PADDING  # a query that sees nothing would give NaN
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill_(~sees, -torch.inf)[:, None]


def supports(config: PretrainedConfig) -> bool:
    """Whether transformers lets a model of this configuration use another attention, and this one knows all its layers."""
    mapping = AutoModelForCausalLM._model_mapping
    model = mapping.get(type(config), None)  # of models with code of their own nothing is known
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ())
    return bool(getattr(model, "_supports_attention_backend", False)) and kinds <= {"full_attention", "sliding_attention"}


def tree_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    branches: Branches,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it.

    Args:
        module: the attention layer; not used.
        query: [rows, heads, width, d], with the rotary embedding of each token's position already in it.
        key: [rows, key heads, width, d], of which each serves heads / key heads heads.
        value: as `key`.
        attention_mask: not used; transformers makes none for an attention that it does not know the mask of.
        branches: who sees whom, for rows x width places.
        scaling: of the scores; None is 1 / sqrt(d).
        softcap: scores s become softcap * tanh(s / softcap), as in Gemma 2.
        sliding_window: the window of this layer, None without.

    Returns:
        [rows, width, heads, d], and None for the weights.
    """
    rows, heads, width, size = query.shape
    flat = [x.transpose(0, 1).reshape(x.shape[1], rows * width, size) for x in (query, key, value)]  # [heads, cells, d]
    scaling = size**-0.5 if scaling is None else scaling
    attend = _with_flex_attention if query.device.type == "cuda" else _in_groups
    out = attend(*flat, branches, scaling, softcap, sliding_window)
    return out.view(heads, rows, width, size).permute(1, 2, 0, 3), None


AttentionInterface.register(TREE_ATTENTION, tree_attention)


def _in_groups(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    branches: Branches,
    scaling: float,
    softcap: float | None,
    window: int | None,
) -> torch.Tensor:
    """[heads, cells, d] from [heads, cells, d] and [key heads, cells, d], a group of trees at a time."""
    heads, _, size = query.shape
    outputs = []
    for group, bias in zip(branches.groups, branches.biases(window, query.dtype), strict=True):
        trees, longest = group.places.shape
        places = group.places.flatten()
        q, k, v = (
            x.index_select(1, places).view(x.shape[0], trees, longest, size).transpose(0, 1) for x in (query, key, value)
        )
        if heads != key.shape[0]:
            k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
        if softcap is None:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=bias is None, scale=scaling)
        else:
            out = _capped(q, k, v, bias, scaling, softcap)
        outputs.append(out.transpose(0, 1).reshape(heads, trees * longest, size))
    return torch.cat(outputs, dim=1).index_select(1, branches.back)


def _capped(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None, scaling: float, softcap: float
) -> torch.Tensor:
    """Attention with capped scores, section 2 of the Gemma 2 report (arXiv 2408.00118); all [trees, heads, longest, d]."""
    scores = softcap * torch.tanh(query @ key.transpose(-1, -2) * (scaling / softcap))
    if bias is None:
        longest = scores.shape[-1]
        bias = torch.full((longest, longest), -torch.inf, dtype=scores.dtype, device=scores.device).triu(1)
    return torch.softmax(scores + bias, dim=-1, dtype=torch.float32).to(value.dtype) @ value


def _with_flex_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    branches: Branches,
    scaling: float,
    softcap: float | None,
    window: int | None,
) -> torch.Tensor:
    """As :func:`_in_groups`."""
    out: torch.Tensor = _compiled_flex_attention()(
        query[None],
        key[None],
        value[None],
        score_mod=_cap(softcap),
        block_mask=branches.block_mask(window),
        scale=scaling,
        enable_gqa=query.shape[0] != key.shape[0],
    )
    return out[0]


@functools.cache
def _compiled_flex_attention() -> Callable[..., torch.Tensor]:
    # The number of tokens differs from batch to batch: one kernel serves all.
    compiled: Callable[..., torch.Tensor] = torch.compile(flex_attention, dynamic=True)
    return compiled


@functools.cache
def _cap(softcap: float | None) -> Callable[..., torch.Tensor] | None:
    if softcap is None:
        return None

    def capped(score: torch.Tensor, *_: Any) -> torch.Tensor:
        return softcap * torch.tanh(score / softcap)

    return capped
