"""Demonstrations as packed tensors: several conversations in one row, none sees another.

Conversations differ in length so much that padding would be more than half of a batch; packed, it is a twentieth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from eva_hpc.lab.demonstrations import demonstration
from eva_hpc.lab.tokenizer import ASSISTANT, END, USER

IGNORED = -100

_WIDTH = 64


@dataclass(frozen=True)
class Batch:
    """Rows of packed conversations.

    `tokens`, `positions` (from 0 in each conversation) and `labels` (next token, -100 outside the last answers) have shape
    (rows, width); `mask` (true where a token may look) has shape (rows, 1, width, width).
    """

    tokens: Tensor
    positions: Tensor
    labels: Tensor
    mask: Tensor


def make_batch(tokenizer: PreTrainedTokenizerFast, seed: int, indices: range, careful: bool = False) -> Batch:
    """Pack the demonstrations of these indices. Only the last answer of each, with its end-of-turn token, has labels.

    `careful` is that of :func:`~eva_hpc.lab.demonstrations.demonstration`.
    """
    texts = [
        "".join(f"{USER}{prompt}{ASSISTANT}{said}{END}" for prompt, said in demonstration(seed, index, careful))
        for index in indices
    ]
    encoded: list[list[int]] = tokenizer(texts)["input_ids"]
    rows = _first_fit(encoded)
    width = max(_WIDTH, *(sum(len(tokens) - 1 for tokens in row) for row in rows))
    shape = (len(rows), width)
    batch = Batch(
        tokens=torch.full(shape, tokenizer.pad_token_id),
        positions=torch.zeros(shape, dtype=torch.long),
        labels=torch.full(shape, IGNORED),
        mask=torch.zeros(len(rows), 1, width, width, dtype=torch.bool),
    )
    begin_answer = tokenizer.convert_tokens_to_ids(ASSISTANT)
    batch.mask[:, 0].diagonal(dim1=1, dim2=2).fill_(True)  # padding looks at itself: a softmax over nothing is not a number
    for place, row in enumerate(rows):
        offset = 0
        for tokens in row:
            end = offset + len(tokens) - 1
            answer = len(tokens) - tokens[::-1].index(begin_answer)
            batch.tokens[place, offset:end] = torch.tensor(tokens[:-1])
            batch.positions[place, offset:end] = torch.arange(end - offset)
            batch.labels[place, offset + answer - 1 : end] = torch.tensor(tokens[answer:])
            batch.mask[place, 0, offset:end, offset:end] = torch.ones(end - offset, end - offset, dtype=torch.bool).tril()
            offset = end
    return batch


def _first_fit(conversations: list[list[int]]) -> list[list[list[int]]]:
    """Longest first, each into the first row that has room for all but its last token, which is only ever a label."""
    rows: list[list[list[int]]] = []
    room: list[int] = []
    for tokens in sorted(conversations, key=len, reverse=True):
        need = len(tokens) - 1
        place = next((place for place, free in enumerate(room) if free >= need), None)
        if place is None:
            rows.append([])
            room.append(_WIDTH)
            place = len(rows) - 1
        rows[place].append(tokens)
        room[place] -= need
    return rows
