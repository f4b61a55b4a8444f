"""Conversations as token rows: rendered in the reward model's own chat template, cut to its length, batched by length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from eva_hpc.inference.chat import ChatTokenizer
from eva_hpc.inference.engine import Message, ModelSource
from eva_hpc.inference.loading import load_config

if TYPE_CHECKING:
    import torch


class Row(NamedTuple):
    """A rendered conversation; `removed` tokens of it are missing after the first `kept`."""

    tokens: list[int]
    removed: int
    kept: int


class Renderer:
    """Conversations to tokens in the reward model's own chat template, cut to its length."""

    def __init__(self, model: ModelSource, max_length: int) -> None:
        """Load config and tokenizer.

        Raises:
            OSError: the model is not there.
        """
        self.model = model
        self.config = load_config(model)
        self.chat = ChatTokenizer(model)
        self.max_length = min(max_length, self.config.get_text_config().max_position_embeddings)

    def render(self, conversations: Sequence[Sequence[Message]]) -> list[Row]:
        """The row of every conversation. A cut leaves a leading BOS: scores without it mean nothing.

        Raises:
            ValueError: the tokenizer has no chat template, or the template refuses a conversation.
        """
        return [self._row(self.chat.render(conversation, add_generation_prompt=False)) for conversation in conversations]

    def _row(self, tokens: list[int]) -> Row:
        removed = len(tokens) - self.max_length
        if removed <= 0:
            return Row(tokens, 0, 0)
        kept = int(tokens[0] == self.chat.tokenizer.bos_token_id and self.max_length > 1)
        return Row(tokens[:kept] + tokens[kept + removed :], removed, kept)


def length_sorted(rows: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of rows in batches, longest first, each of at most `batch_tokens` tokens with padding (or of one row)."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
    while order:
        size = max(1, batch_tokens // len(rows[order[0]]))
        yield order[:size]
        order = order[size:]


def right_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of rows, the longest first, each of shape (rows, longest)."""
    import torch

    width = len(rows[0])
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(width) < lengths.unsqueeze(1)).long()


def load_network(network: type[Any], source: ModelSource, **options: Any) -> Any:
    """A network with the weights of a checkpoint, in evaluation mode; `options` go to ``from_pretrained``.

    Raises:
        ValueError: the checkpoint lacks weights of the network, which would then be random.
        OSError: the model is not there.
    """
    import torch

    model, found = network.from_pretrained(
        source.path,
        revision=source.revision,
        dtype=getattr(torch, source.dtype),
        use_safetensors=True,
        output_loading_info=True,
        **options,
    )
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"{source.path} is another kind of reward model: it has no {', '.join(missing[:3])}")
    return model.eval()


def nothing() -> None:
    """Nobody watches whether a model gets on."""
