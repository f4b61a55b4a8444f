"""Log-probs of given responses under a policy, on one device, in batches of similar length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import AutoModelForCausalLM

from eva_hpc.inference.engine import ModelSource
from eva_hpc.inference.loading import attention_implementation, load_config
from eva_hpc.training.logprobs import SequenceLogProbs


class TeacherForcing:
    """A loaded policy that reads responses instead of sampling them."""

    def __init__(self, model: ModelSource, threads: int, batch_tokens: int) -> None:
        """Load the policy, on the GPU if there is one.

        Raises:
            OSError: the model is not there.
            ValueError: see :class:`SequenceLogProbs`.
        """
        torch.set_num_threads(threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._batch_tokens = batch_tokens
        policy = AutoModelForCausalLM.from_pretrained(
            model.path,
            revision=model.revision,
            dtype=getattr(torch, model.dtype),
            use_safetensors=True,
            attn_implementation=attention_implementation(load_config(model), model.attention),
            trust_remote_code=model.trust_remote_code,
        )
        self._model = SequenceLogProbs(policy).to(self._device).eval()

    def log_probs(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Sum of the log-probs of each response's tokens, natural log; rows are (prompt tokens, response tokens), not empty."""
        order = sorted(range(len(rows)), key=lambda i: -sum(map(len, rows[i])))
        values = [0.0] * len(rows)
        while order:
            width = sum(map(len, rows[order[0]]))
            size = max(1, self._batch_tokens // width)
            batch, order = order[:size], order[size:]
            for i, value in zip(batch, self._batch([rows[i] for i in batch], width), strict=True):
                values[i] = value
        return values

    @torch.inference_mode()
    def _batch(self, rows: Sequence[tuple[list[int], list[int]]], width: int) -> list[float]:
        tokens, positions, targets = [], [], []
        for number, (prompt, response) in enumerate(rows):
            tokens.append(prompt + response + [0] * (width - len(prompt) - len(response)))
            first = number * width + len(prompt) - 1  # the logits at one position predict the token at the next
            positions += range(first, first + len(response))
            targets += response
        values = self._model(*(torch.tensor(part, device=self._device) for part in (tokens, positions, targets)))
        found: list[float] = values.double().tolist()
        return found
