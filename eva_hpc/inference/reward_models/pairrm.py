"""PairRM: DeBERTa reads a prompt and two responses and says which one is better (LLM-Blender, arXiv 2306.02561).

    [CLS] <|source|> prompt [SEP] [CLS] <|candidate1|> response A [SEP] [CLS] <|candidate2|> response B [SEP]
    s(A) = head(h(<|source|>), h(<|candidate1|>)), s(B) likewise
    logit(A better than B) = mean over tasks of s(A) - s(B)

The order of the two matters a little, so both are asked and

    P(A better than B) = (sigmoid(logit(A, B)) + sigmoid(-logit(B, A))) / 2.

The network reads the published checkpoint (in its transformers form) by its parameter names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import DebertaV2Model, DebertaV2PreTrainedModel

from eva_hpc.config.reward import PairRM
from eva_hpc.inference.engine import EngineLimits, ModelSource
from eva_hpc.inference.loading import load_config
from eva_hpc.inference.reward_models.rows import length_sorted, load_network, nothing, right_padded

_MARKS = ("<|source|>", "<|candidate1|>", "<|candidate2|>")


class PairRMNetwork(DebertaV2PreTrainedModel):  # type: ignore[no-untyped-call]
    """DeBERTa with a head on the marks of the prompt and of a response."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.pretrained_model = DebertaV2Model(config)  # type: ignore[no-untyped-call]
        # The checkpoint numbers its parts with the two dropouts of training.
        self.head_layer = nn.Sequential(
            nn.Identity(), nn.Linear(2 * width, width), nn.Tanh(), nn.Identity(), nn.Linear(width, config.n_tasks)
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
        """The logit of "the first is better" for every row; `marks` are the places of the three marks, of shape (rows, 3)."""
        hidden = self.pretrained_model(input_ids=ids, attention_mask=mask).last_hidden_state
        at_marks = hidden[torch.arange(len(ids), device=ids.device).unsqueeze(1), marks]
        source, first, second = at_marks.unbind(dim=1)
        scores: list[torch.Tensor] = [self.head_layer(torch.cat([source, one], dim=-1)) for one in (first, second)]
        return (scores[0] - scores[1]).mean(dim=-1)


class _Text(NamedTuple):
    """A text as tokens, the place of its mark among them, and whether it lost its end."""

    tokens: list[int]
    mark: int
    cut: bool


class _Comparison(NamedTuple):
    """Response i before response j of a prompt, as tokens, with the places of the marks; `which` is (prompt, i, j)."""

    which: tuple[int, int, int]
    tokens: list[int]
    marks: list[int]


class PairRMModel:
    """Compares in right-padded batches of similar length; equal to comparing one by one, up to floating-point noise."""

    def __init__(self, settings: PairRM, limits: EngineLimits) -> None:
        """Load the model, on the GPU if there is one.

        Raises:
            ValueError: the checkpoint is another kind of model, or its tokenizer lacks the marks.
            OSError: the model is not there.
        """
        from transformers import AutoTokenizer

        torch.set_num_threads(limits.threads)
        self.truncated = 0
        self._source_tokens = settings.source_tokens
        self._all_tokens = settings.source_tokens + 2 * settings.candidate_tokens
        source = ModelSource(settings.path, settings.revision, settings.dtype)
        config = load_config(source)
        if config.model_type != "deberta-v2":
            raise ValueError(f"{settings.path} is another kind of reward model: {config.model_type}, not deberta-v2")
        self._tokenizer: Any = AutoTokenizer.from_pretrained(settings.path, revision=settings.revision)
        if lacking := [mark for mark in _MARKS if len(self._tokenizer.encode(mark, add_special_tokens=False)) != 1]:
            raise ValueError(f"the tokenizer of {settings.path} has no token {', '.join(lacking)}: PairRM's has")
        self._pad = config.pad_token_id or 0
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._network: Any = load_network(PairRMNetwork, source, config=config).to(self._device)
        self._batch_tokens = limits.batch_tokens

    def compare(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], alive: Callable[[], None] = nothing
    ) -> list[list[list[float]]]:
        """See :class:`~eva_hpc.inference.reward_models.PairwiseModel`."""
        comparisons = [
            comparison
            for index, (prompt, answers) in enumerate(zip(prompts, responses, strict=True))
            for comparison in self._comparisons(index, prompt, answers)
        ]
        logits = self._logits(comparisons, alive)
        matrices = [[[0.5] * len(answers) for _ in answers] for answers in responses]
        for index, answers in enumerate(responses):
            for i in range(len(answers)):
                for j in range(i):
                    one, other = logits[index, i, j], logits[index, j, i]
                    won = (_sigmoid(one) + _sigmoid(-other)) / 2
                    matrices[index][i][j], matrices[index][j][i] = won, 1 - won
        return matrices

    def close(self) -> None:
        """See :class:`~eva_hpc.inference.reward_models.PairwiseModel`."""
        self._network = None
        torch.cuda.empty_cache()

    def _comparisons(self, index: int, prompt: str, answers: Sequence[str]) -> list[_Comparison]:
        """Every ordered pair of the answers to a prompt."""
        source = self._encoded(_MARKS[0], prompt, self._source_tokens)
        room = (self._all_tokens - len(source.tokens)) // 2
        first, second = ([self._encoded(mark, answer, room) for answer in answers] for mark in _MARKS[1:])
        self.truncated += source.cut + sum(text.cut for text in first)
        result = []
        for i, j in permutations(range(len(answers)), 2):
            tokens: list[int] = []
            marks = []
            for text in (source, first[i], second[j]):
                marks.append(len(tokens) + text.mark)
                tokens += text.tokens
            result.append(_Comparison((index, i, j), tokens, marks))
        return result

    def _encoded(self, mark: str, text: str, limit: int) -> _Text:
        """A text behind its mark, between the tokenizer's own special tokens, cut at its end to `limit` tokens."""
        tokens = self._tokenizer.encode(mark + text)
        cut = len(tokens) > limit
        if cut:
            tokens = self._tokenizer.encode(mark + text, truncation=True, max_length=limit)
        return _Text(tokens, tokens.index(self._tokenizer.convert_tokens_to_ids(mark)), cut)

    def _logits(self, comparisons: Sequence[_Comparison], alive: Callable[[], None]) -> dict[tuple[int, int, int], float]:
        """The logit of every comparison."""
        logits: dict[tuple[int, int, int], float] = {}
        with torch.inference_mode():
            for batch in length_sorted([one.tokens for one in comparisons], self._batch_tokens):
                ids, mask = right_padded([comparisons[i].tokens for i in batch], self._pad)
                marks = torch.tensor([comparisons[i].marks for i in batch])
                found = self._network(*(tensor.to(self._device) for tensor in (ids, mask, marks)))
                logits.update(zip((comparisons[i].which for i in batch), found.float().tolist(), strict=True))
                alive()
        return logits


def _sigmoid(logit: float) -> float:
    return (1 + math.tanh(logit / 2)) / 2
