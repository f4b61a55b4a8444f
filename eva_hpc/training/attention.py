"""Attention over trees of tokens, exact: a token sees the prompt of its tree and what is before it in its own completion.

Registered with transformers as an attention implementation, it serves every architecture that takes one. On a GPU it is
FlexAttention with a block mask, which skips what no token sees. Elsewhere the texts, each a prompt and one completion, are
brought side by side, for attention alone, in groups of like length; they go through PyTorch's causal attention, or plain matrix
products where scores are capped. What comes out for a prompt is the same in each of its texts, and taken from one.

Under a sliding window a token sees those at a distance below the window in its own text: positions count, not places in a row.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AutoModelForCausalLM, PretrainedConfig

TREE_ATTENTION = "eva_tree"
"""The name under which transformers knows this attention."""

Part = tuple[int, int, tuple[int, ...]]
"""A tree in a row of tokens: where it starts, tokens of its prompt, tokens of each completion."""

_LIKE_LENGTH = 0.75
_CHANGES_SCORES = ("s_aux", "position_bias")
_PADDING = -1
_BLOCK, _PIECE = 128, 16


class Branches:
    """Who sees whom among the tokens of one forward pass, whose rows count as one."""

    def __init__(self, parts: Sequence[Part], cells: int, device: torch.device) -> None:
        """`parts` are the trees and `cells` the places of all rows; places of no tree are padding, which nobody reads."""
        self._cells = cells
        self._device = device
        self._parts = sorted(parts)
        self._block_masks: dict[int | None, BlockMask] = {}

    @functools.cached_property
    def places(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tree, branch (0: the prompt, then the completions) and position of every place, [cells] each; tree -1 is padding."""
        tree = torch.full((self._cells,), _PADDING)
        branch, position = torch.zeros_like(tree), torch.arange(self._cells)
        for number, part in enumerate(self._parts):  # by place, so that a block holds neighbours
            own = slice(part[0], part[0] + _size(part))
            tree[own] = number
            branch[own], position[own] = _branch_and_position(part)
        tree, branch, position = (column.int().to(self._device) for column in (tree, branch, position))
        return tree, branch, position

    @functools.cached_property
    def texts(self) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Where the tokens of the texts are, in groups of like length, each [texts, longest]; and where each place of the rows
        is in all groups, one after the other, [cells]. Padding is anywhere."""
        groups: list[list[torch.Tensor]] = []
        for text in sorted((text for part in self._parts for text in _texts(part)), key=len, reverse=True):
            if not groups or len(text) < _LIKE_LENGTH * len(groups[-1][0]):
                groups.append([])
            groups[-1].append(text)
        back = torch.zeros(self._cells, dtype=torch.int64)
        before = 0
        for group in groups:
            for text in group:
                back[text] = before + torch.arange(len(text))
                before += len(group[0])
        padded = [pad_sequence(group, batch_first=True, padding_value=int(group[0][0])) for group in groups]
        return [places.to(self._device) for places in padded], back.to(self._device)

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
        # And in which every token sees all: those need no mask.
        fully = alone[:, None] & alone & (low[0][:, None] == low[0]) & ((low[1] == 0) | (low[1][:, None] == low[1]))
        fully &= (low[2][:, None] >= high[2]) & (high[2][:, None] - low[2] < reach)
        per_block = (len(maybe) * _PIECE // _BLOCK, _BLOCK // _PIECE) * 2
        full = fully.view(per_block).all(3).all(1)
        full[:, -1] = False  # it may reach beyond the last token
        partial = maybe.view(per_block).any(3).any(1) & ~full
        return BlockMask.from_kv_blocks(
            *_listed(partial),
            *_listed(full),
            BLOCK_SIZE=_BLOCK,
            mask_mod=sees,
            seq_lengths=(self._cells, self._cells),
        )


def _listed(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each row of [n, n] booleans how many are true, [1, 1, n], and which, before the others, [1, 1, n, n]."""
    return blocks.sum(1, dtype=torch.int32)[None, None], blocks.int().argsort(dim=1, descending=True, stable=True).int()[
        None, None
    ]


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


def _texts(part: Part) -> list[torch.Tensor]:
    """Where the tokens of the prompt and of one completion are, for each completion."""
    start, prompt, completions = part
    ends = list(itertools.accumulate(completions, initial=start + prompt))
    before = torch.arange(start, start + prompt)
    return [torch.cat([before, torch.arange(*span)]) for span in itertools.pairwise(ends)]


def _band(length: int, window: int | None, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What is added to the scores of a text, [length, length]: 0 for tokens up to oneself, within the window, else -inf."""
    hidden = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
    if window is not None:
        hidden |= hidden.new_ones(length, length).tril(-window)
    return torch.zeros(length, length, dtype=dtype, device=device).masked_fill_(hidden, -torch.inf)


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
    **others: Any,
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
        others: what other attentions are told; what would change the scores is refused.

    Returns:
        [rows, width, heads, d], and None for the weights.

    Raises:
        TypeError: the layer computes its scores in a way that is not reproduced here.
    """
    if unknown := [name for name in _CHANGES_SCORES if others.get(name) is not None]:
        raise TypeError(
            f"{type(module).__name__} computes its scores with {', '.join(unknown)}, which this attention does not know"
        )
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
    """[heads, cells, d] from [heads, cells, d] and [key heads, cells, d], a group of texts at a time."""
    heads, _, size = query.shape
    groups, back = branches.texts
    outputs = []
    for places in groups:
        texts, longest = places.shape
        q, k, v = (
            x.index_select(1, places.flatten()).view(x.shape[0], texts, longest, size).transpose(0, 1)
            for x in (query, key, value)
        )
        if heads != key.shape[0]:
            k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
        causal = softcap is None and (window is None or longest <= window)
        band = None if causal else _band(longest, window, query.dtype, query.device)
        if softcap is None:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=band, is_causal=causal, scale=scaling)
        else:
            assert band is not None
            out = _capped(q, k, v, band, scaling, softcap)
        outputs.append(out.transpose(0, 1).reshape(heads, texts * longest, size))
    return torch.cat(outputs, dim=1).index_select(1, back)


def _capped(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, band: torch.Tensor, scaling: float, softcap: float
) -> torch.Tensor:
    """Attention with capped scores, section 2 of the Gemma 2 report (arXiv 2408.00118); all [texts, heads, longest, d]."""
    scores = softcap * torch.tanh(query @ key.transpose(-1, -2) * (scaling / softcap))
    return torch.softmax(scores + band, dim=-1, dtype=torch.float32).to(value.dtype) @ value


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
        # Short rows would get the kernel for decoding, which lengths that vary are too much for.
        kernel_options={"FORCE_USE_FLEX_ATTENTION": True} if query.device.type == "cuda" else None,
        scale=scaling,
        enable_gqa=query.shape[0] != key.shape[0],
    )
    return out[0]


@functools.cache
def _compiled_flex_attention() -> Callable[..., torch.Tensor]:
    # The cap of the scores is a constant: as a variable it cannot be compiled. Where no kernel can be made it is better to know
    # than to have all scores in memory.
    torch._dynamo.config.specialize_float = True
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    # The number of tokens differs from batch to batch: one kernel serves all.
    compiled: Callable[..., torch.Tensor] = torch.compile(flex_attention, dynamic=True, fullgraph=True)
    return compiled


@functools.cache
def _cap(softcap: float | None) -> Callable[..., torch.Tensor] | None:
    if softcap is None:
        return None

    def capped(score: torch.Tensor, *_: Any) -> torch.Tensor:
        return softcap * torch.tanh(score / softcap)

    return capped
