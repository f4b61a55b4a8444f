"""Sampling with any causal language model of transformers: one prefill per prompt, then all responses in one batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from eva_hpc.inference import engine
from eva_hpc.inference.chat import ChatTokenizer
from eva_hpc.inference.engine import Answered, EngineLimits, Message, ModelSource, Request, Sampling, check_prompt
from eva_hpc.inference.kv_cache import PreallocatedLayer, preallocated_cache
from eva_hpc.inference.loading import attention_implementation, load_config
from eva_hpc.inference.sampling import next_tokens, response_uniforms
from eva_hpc.store.records import Response

# Finished rows are dropped when they are at least this share of the batch: dropping copies the cache of the others.
_DROP_SHARE = 0.25
_ROUND = 64
"""Batches that are sorted by length together: more of them pad less, fewer are sooner whole."""
_STEP = 16
"""Tokens of each response between two looks at the world outside."""


@dataclass(frozen=True)
class _Row:
    """One response to sample: index of its request, its own index among the responses of that, and its seed."""

    request: int
    index: int
    seed: int


@dataclass
class _Waiting:
    """A request of which `left` responses are missing; those that are there, by their index."""

    name: Hashable
    request: Request
    left: int
    responses: dict[int, Response] = field(default_factory=dict)


@dataclass(frozen=True)
class _Batch:
    """Rows of a round's requests, and the work on them: it gives nothing while it goes on, and the tokens and log-probabilities
    of all rows at its end."""

    rows: list[_Row]
    requests: list[_Waiting]
    work: Iterator[tuple[list[list[int]], list[float]] | None]


class TransformersEngine:
    """An :class:`~eva_hpc.inference.engine.Engine` over transformers, on the GPU if there is one, else on CPU threads."""

    def __init__(self, model: ModelSource, limits: EngineLimits) -> None:
        """Load the model.

        Raises:
            OSError: the model is not there.
            ValueError: a layer is neither full nor sliding-window attention.
        """
        torch.set_num_threads(limits.threads)
        config = load_config(model)
        preallocated_cache(config, 1)
        self._chat = ChatTokenizer(model)
        self._stop = self._chat.stop_tokens(model, config)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            model.path,
            revision=model.revision,
            config=config,
            dtype=getattr(torch, model.dtype),
            attn_implementation=attention_implementation(config, model.attention),
            trust_remote_code=model.trust_remote_code,
        )
        self._model.to(self._device).eval()
        self._batch_tokens = limits.batch_tokens
        self._queue: dict[Sampling, list[tuple[Hashable, Request]]] = {}
        self._queued_tokens = 0
        self._round: deque[_Batch] = deque()
        self.longest = limits.max_model_len or config.get_text_config(decoder=True).max_position_embeddings

    def render(self, messages: Sequence[Message]) -> list[int]:
        """See :class:`~eva_hpc.inference.engine.Engine`."""
        return self._chat.render(messages)

    @property
    def hungry(self) -> bool:
        """See :class:`~eva_hpc.inference.engine.Engine`. While one round of batches is at work, the next one is gathered."""
        return self._queued_tokens < _ROUND * self._batch_tokens

    def submit(self, name: Hashable, request: Request, sampling: Sampling) -> None:
        """See :class:`~eva_hpc.inference.engine.Engine`."""
        check_prompt(name, request, self.longest)
        self._queue.setdefault(sampling, []).append((name, request))
        self._queued_tokens += len(request.seeds) * (len(request.prompt_tokens) + sampling.max_new_tokens)

    def step(self) -> list[Answered]:
        """See :class:`~eva_hpc.inference.engine.Engine`."""
        whole: list[Answered] = []
        if not self._round and self._queue:
            whole = self._begin_round()
        if self._round:
            batch = self._round[0]
            with torch.inference_mode():
                sampled = next(batch.work)
            if sampled is not None:
                self._round.popleft()
                whole += self._sorted_in(batch, *sampled)
        return whole

    def drop(self) -> None:
        """See :class:`~eva_hpc.inference.engine.Engine`."""
        self._queue.clear()
        self._queued_tokens = 0
        self._round.clear()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Response]]:
        """See :class:`~eva_hpc.inference.engine.Engine`."""
        return engine.generate(self, requests, sampling)

    def _begin_round(self) -> list[Answered]:
        """Cut all that is queued into batches; gives back what has no response to wait for."""
        empty: list[Answered] = []
        for sampling, queued in self._queue.items():
            requests = [request for _, request in queued]
            waiting = [_Waiting(name, request, len(request.seeds)) for name, request in queued]
            empty += [Answered(one.name, []) for one in waiting if one.left == 0]
            for rows in batches(requests, sampling.max_new_tokens, self._batch_tokens):
                self._round.append(_Batch(rows, waiting, self._sample(requests, rows, sampling)))
        self._queue, self._queued_tokens = {}, 0
        return empty

    def _sorted_in(self, batch: _Batch, tokens: list[list[int]], logprobs: list[float]) -> list[Answered]:
        """Hand the responses of a batch to their requests; gives back those that are whole now."""
        whole = []
        for row, response in zip(batch.rows, self._chat.responses(tokens, logprobs, self._stop), strict=True):
            waiting = batch.requests[row.request]
            waiting.responses[row.index] = response
            waiting.left -= 1
            if waiting.left == 0:
                whole.append(Answered(waiting.name, [waiting.responses[index] for index in range(len(waiting.responses))]))
        return whole

    def close(self) -> None:
        """See :class:`~eva_hpc.inference.engine.Engine`."""
        self.drop()
        self._model = None
        torch.cuda.empty_cache()

    def _sample(
        self, requests: Sequence[Request], rows: list[_Row], sampling: Sampling
    ) -> Generator[tuple[list[list[int]], list[float]] | None, None, None]:
        """Tokens and log-probabilities of the rows of one batch, after None for every few steps."""
        device = self._device
        prompts = sorted({row.request for row in rows})
        width = max(len(requests[i].prompt_tokens) for i in prompts)
        steps = min(sampling.max_new_tokens, self.longest - min(len(requests[i].prompt_tokens) for i in prompts))

        # Left padding, so that every prompt ends in the last column.
        ids = torch.zeros((len(prompts), width), dtype=torch.long)
        real = torch.zeros((len(prompts), width), dtype=torch.long)
        for line, i in enumerate(prompts):
            length = len(requests[i].prompt_tokens)
            ids[line, width - length :] = torch.tensor(requests[i].prompt_tokens)
            real[line, width - length :] = 1
        lengths = real.sum(dim=1)
        cache = preallocated_cache(self._model.config, width + steps)
        logits = self._model(
            input_ids=ids.to(device),
            attention_mask=real.to(device),
            position_ids=(real.cumsum(dim=1) - 1).clamp(min=0).to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

        # From here on a line is a response.
        line_of = {i: line for line, i in enumerate(prompts)}
        lines = torch.tensor([line_of[row.request] for row in rows], device=device)
        logits = logits[lines]
        for layer in cache.layers:
            layer.batch_select_indices(lines)
        lengths = lengths.to(device)[lines]
        limits = (self.longest - lengths).clamp(max=steps)
        masks = _DecodingMasks(width - lengths, width + steps, cache.layers, self._model.dtype)
        uniforms = response_uniforms([row.seed for row in rows], steps).to(device)
        stop = torch.zeros(logits.shape[-1], dtype=torch.bool, device=device)
        stop[list(self._stop)] = True

        # Results, in the order of `rows`. `alive` are the places there of the lines still in the batch; of these, the lines
        # that are not `running` have finished and wait to be dropped.
        sampled = torch.zeros((len(rows), steps), dtype=torch.long, device=device)
        total = torch.zeros(len(rows), dtype=torch.float64, device=device)
        ends = limits.clone()
        alive = torch.arange(len(rows), device=device)
        running = torch.ones(len(rows), dtype=torch.bool, device=device)
        for step in range(steps):
            if step % _STEP == _STEP - 1:
                yield None
            tokens, logprobs = next_tokens(logits.float(), uniforms[:, step], sampling)
            sampled[alive, step] = tokens
            total[alive] += torch.where(running, logprobs, 0.0)
            ended = running & stop[tokens]
            ends[alive[ended]] = step + 1
            running = running & ~stop[tokens] & (limits > step + 1)
            left = int(running.sum())
            if left == 0:
                break
            if left <= (1 - _DROP_SHARE) * len(running):
                keep = running.nonzero().squeeze(1)
                alive, tokens, uniforms, lengths, limits = (x[keep] for x in (alive, tokens, uniforms, lengths, limits))
                running = running[keep]
                masks.keep(keep)
                for layer in cache.layers:
                    layer.batch_select_indices(keep)
            logits = self._model(
                input_ids=tokens.unsqueeze(1),
                attention_mask=masks.at(width + step + 1),
                position_ids=(lengths + step).unsqueeze(1),
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
        if not total.isfinite().all():
            raise FloatingPointError("the model's logits are not finite: its weights are broken or its dtype is too small")
        table = sampled.tolist()
        yield [line[:end] for line, end in zip(table, ends.tolist(), strict=True)], total.tolist()


class _DecodingMasks:
    """The additive masks of single-token steps, built once per batch and sliced at each step.

    A query sees every real column, in a sliding layer the last `window` of them: the cache cuts its view to match.
    """

    def __init__(self, padding: torch.Tensor, columns: int, layers: list[PreallocatedLayer], dtype: torch.dtype) -> None:
        """`padding` [rows] is the number of padding columns at the left of each row."""
        hidden = torch.arange(columns, device=padding.device) < padding.unsqueeze(1)
        self._mask = torch.zeros(hidden.shape, dtype=dtype, device=padding.device)
        self._mask = self._mask.masked_fill_(hidden, torch.finfo(dtype).min)[:, None, None]
        self._windows = {layer.window for layer in layers}

    def keep(self, rows: torch.Tensor) -> None:
        """Drop every row but these."""
        self._mask = self._mask[rows]

    def at(self, length: int) -> torch.Tensor | dict[str, torch.Tensor]:
        """The mask when the newest token is in column `length` - 1: one tensor, or one for each layer type of a mixed model."""
        masks = {
            "full_attention" if window is None else "sliding_attention": self._mask[
                ..., max(0, length - (window or length)) : length
            ]
            for window in self._windows
        }
        return masks if len(masks) > 1 else next(iter(masks.values()))


def batches(requests: Sequence[Request], max_new_tokens: int, batch_tokens: int) -> Iterator[list[_Row]]:
    """Rows in batches of similar prompt length, longest first, each of at most `batch_tokens` padded tokens (or of one row).

    The responses of a request stay together, so that its prompt is computed once, unless they are too many for one batch.
    """
    order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt_tokens), reverse=True)
    batch: list[_Row] = []
    room = 0
    for i in order:
        rows = [_Row(i, index, seed) for index, seed in enumerate(requests[i].seeds)]
        if batch and len(batch) + len(rows) > room:
            yield batch
            batch = []
        if not batch:
            room = max(1, batch_tokens // (len(requests[i].prompt_tokens) + max_new_tokens))
        batch += rows
        while len(batch) > room:
            yield batch[:room]
            batch = batch[room:]
    if batch:
        yield batch
