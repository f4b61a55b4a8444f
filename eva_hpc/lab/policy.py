"""The lab's start policy: a tiny Llama, trained here in about a minute to imitate demonstrations of mixed quality."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from eva_hpc.lab.batches import IGNORED, make_batch
from eva_hpc.lab.tokenizer import build_tokenizer
from eva_hpc.store.seeds import derive_seed

BATCH = 64
"""Demonstrations of one optimiser step, over all ranks."""

# Muon for the layers' matrices, which learnt the tasks faster here than AdamW; that one keeps the embedding and the norms.
_MATRIX_LEARNING_RATE = 0.012
_LEARNING_RATE = 5e-3
_WEIGHT_DECAY = 0.1
_WARMUP = 0.05
_CAREFUL = 0.6
"""Share of the steps whose demonstrations are all right: they teach the skills, the mixed ones after them teach the flaws."""


def new_policy(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A policy with fresh weights: 3 layers of width 96, about 0.37 M parameters, 1.5 MB.

    The head size is 32, the smallest that vLLM's CPU attention takes.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=288,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=32,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        initializer_range=0.02,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("lab policy", seed))
        return LlamaForCausalLM(config)


def train_start_policy(
    out: Path,
    *,
    seed: int,
    steps: int,
    rank: int,
    world_size: int,
    progress: Callable[[int, int], None],
    stop: Callable[[], bool],
) -> dict[str, Any]:
    """Train the start policy and save it, with its tokenizer, in `out` (rank 0 does).

    With more than one rank, torch.distributed must be initialised. The demonstrations of a step depend on seed and step only,
    so another world size gives the same policy up to float rounding. Told to stop, all ranks leave after the same step and
    nothing is saved: training is short enough to start over.

    Returns:
        ``steps`` done, ``loss`` of the last step in nats per token, ``parameters``.
    """
    tokenizer = build_tokenizer()
    model = new_policy(tokenizer, seed)
    weights = list(model.parameters())
    optimisers = _optimisers(model)
    schedules = [LambdaLR(optimiser, lambda step: _share_of_learning_rate(step, steps)) for optimiser in optimisers]
    loss = float("nan")
    for step in range(steps):
        batch = make_batch(tokenizer, seed, range(step * BATCH + rank, (step + 1) * BATCH, world_size), step < _CAREFUL * steps)
        hidden = model.model(batch.tokens, attention_mask=batch.mask, position_ids=batch.positions).last_hidden_state
        answers = batch.labels != IGNORED
        local = functional.cross_entropy(model.lm_head(hidden[answers]), batch.labels[answers], reduction="sum")
        model.zero_grad()
        local.backward()
        loss, told = _share_gradients(weights, local.detach(), int(answers.sum()), stop(), world_size)
        if told:
            return {"steps": step, "loss": loss, "parameters": model.num_parameters()}
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            schedule.step()
        progress(step + 1, steps)
    if rank == 0:
        model.generation_config.max_length = None
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
    return {"steps": steps, "loss": loss, "parameters": model.num_parameters()}


def _optimisers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    matrices = [weight for weight in model.model.layers.parameters() if weight.dim() == 2]
    chosen = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=_MATRIX_LEARNING_RATE, weight_decay=_WEIGHT_DECAY),
        torch.optim.AdamW(others, lr=_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=_WEIGHT_DECAY, fused=True),
    ]


def _share_gradients(
    weights: list[torch.nn.Parameter], loss: Tensor, count: int, stop: bool, world_size: int
) -> tuple[float, bool]:
    """Make every gradient the mean over the tokens of all ranks; returns the mean loss and whether any rank must stop.

    One message carries gradients, loss, token count and the wish to stop, so that all ranks leave at the same step.
    """
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    message = torch.cat([*(gradient.flatten() for gradient in gradients), torch.tensor([float(loss), count, stop])])
    if world_size > 1:
        torch.distributed.all_reduce(message)
    total, tokens, stopping = message[-3:].tolist()
    message /= tokens
    offset = 0
    for gradient in gradients:
        gradient.copy_(message[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()
    return total / tokens, stopping > 0


def _share_of_learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then linear decay to zero."""
    warmup = max(1, round(_WARMUP * steps))
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
