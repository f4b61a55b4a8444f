"""Preference optimisation of a policy with DeepSpeed ZeRO-3, from pairs to an exported model."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import AutoConfig

from eva_hpc.config.optimiser import ORPO, Optimiser, SimPO, needs_reference, needs_win_probabilities
from eva_hpc.config.site import Engine
from eva_hpc.store.artifacts import SPEED
from eva_hpc.store.records import Pair, write_jsonl
from eva_hpc.training import checkpoints, train_log
from eva_hpc.training.attention import supports
from eva_hpc.training.batches import MicroBatch, optimiser_steps, why_unusable
from eva_hpc.training.distributed import Ranks
from eva_hpc.training.engine import frozen, load, zero3
from eva_hpc.training.export import Source, export
from eva_hpc.training.flops import Flops
from eva_hpc.training.interrupt import Interrupted
from eva_hpc.training.losses import LOSSES, PairLogProbs
from eva_hpc.training.reading import PairReader
from eva_hpc.training.reference import check_first_step, complete
from eva_hpc.training.sampler_logps import Sampled
from eva_hpc.training.schedule import learning_rate
from eva_hpc.training.speed_log import SpeedLog

if TYPE_CHECKING:
    import deepspeed


SIDES: tuple[Literal["chosen"], Literal["rejected"]] = ("chosen", "rejected")


@dataclass(frozen=True)
class TrainReport:
    """What training did. `read` = `trained` + all set aside, in pairs; `resumed_from` is the step gone on from, 0 if none."""

    read: int
    trained: int
    set_aside: dict[str, int]
    steps: int
    resumed_from: int


@dataclass(frozen=True)
class Known:
    """What is known of all pairs before training, as [2, pairs]: of the chosen and of the rejected responses.

    Their lengths in tokens, and where the loss uses them reference log-probs and win probabilities.
    """

    tokens: torch.Tensor
    references: torch.Tensor | None
    wins: torch.Tensor | None

    def with_policy(self, logps: torch.Tensor, indices: Sequence[int]) -> PairLogProbs:
        """The pairs `indices`, whose log-probs under the policy, [2, len(indices)], were just computed."""
        columns: list[torch.Tensor | None] = []
        for column in (self.references, self.wins):
            columns += [None, None] if column is None else list(column[:, list(indices)])
        return PairLogProbs(*logps, *self.tokens[:, list(indices)], *columns)


def train(
    settings: Optimiser,
    policy: Source,
    pairs: Sequence[Pair],
    *,
    reference: Source | None = None,
    seed: int,
    out: Path,
    work: Path,
    ranks: Ranks,
    limits: Engine,
    reference_cache: Path | None,
    sampler: str | None = None,
    progress: Callable[[int, int], None],
    stop: Callable[[], bool],
) -> TrainReport:
    """Train `policy` on `pairs`; every rank of the process group calls this with the same arguments.

    Writes to `out`: ``model/`` (transformers, safetensors), with LoRA ``adapter/`` (peft), ``train_log.jsonl``, ``speed.jsonl``
    (:mod:`eva_hpc.training.speed_log`), ``reference.safetensors`` if the loss has a
    reference and, if there is any reason, ``set_aside.jsonl``. Keeps checkpoints in `work`; called again after an interruption
    it goes on from the last.

    Args:
        settings: loss and hyper-parameters.
        policy: the start policy.
        pairs: preference pairs; those that are too long are set aside.
        reference: the reference policy, None for the start policy. It is gone from memory before `policy` is loaded.
        seed: of the order of the pairs.
        out: folder for results, kept between attempts.
        work: folder for checkpoints, kept between attempts, seen by all ranks.
        ranks: the process group, see :func:`eva_hpc.training.distributed.distributed`.
        limits: how this hardware is used; changes no result beyond rounding.
        reference_cache: a file of reference log-probs shared with other runs with the same reference and pairs: used if
            there, else written.
        sampler: the key of the reference policy, so that the log-probs it noted when it sampled the pairs' responses can stand
            for computed ones; None: they do not.
        progress: called with steps done and steps in all.
        stop: whether to save and leave; asked on every rank after every step, and one rank's yes is enough.

    Raises:
        Interrupted: told to stop; everything is saved.
        ValueError: no pair to train on, one without the win probabilities that the loss needs, or see
            :class:`SequenceLogProbs` and :class:`ReferenceMismatch`.
        FloatingPointError: the loss is not finite.
    """
    zero3(settings, limits, ranks)  # what it refuses is refused before anything is computed
    usable, set_aside = _select(settings, pairs)
    wins = _win_probabilities(usable) if needs_win_probabilities(settings) else None
    if ranks.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        if set_aside:
            write_jsonl(out / "set_aside.jsonl", set_aside)
    held_in = [out / "reference.safetensors", *([reference_cache] if reference_cache else [])]
    sampled = None if sampler is None or isinstance(settings, SimPO | ORPO) else Sampled.of(usable, sampler, settings)
    known_how = {
        "precision": settings.precision,
        "checkpoint_minutes": limits.checkpoint_minutes,
        "stop": stop,
        "sampled": sampled,
    }
    references = None
    if needs_reference(settings) and reference is not None:
        with frozen(settings, reference, ranks, limits) as log_probs:
            reader = PairReader(log_probs, usable, limits, ranks, supported=_supported(reference))
            references = complete(reader, held_in, ranks, **known_how)
    engine = load(settings, policy, ranks, limits, seed=seed)
    reader = PairReader(engine, usable, limits, ranks, supported=_supported(policy), flops=Flops.of(engine.module.policy))
    if needs_reference(settings) and reference is None:
        # Before the checkpoint is loaded: afterwards the weights are no longer the start policy's.
        engine.eval()
        references = complete(reader, held_in, ranks, **known_how)
        engine.train()
    reader.choose_layout(settings.precision)
    log = out / "train_log.jsonl"
    start = checkpoints.restore(engine, work / "checkpoints", train_log.count(log), ranks)
    if ranks.rank == 0:
        train_log.cut_back(log, start)

    steps = optimiser_steps(len(usable), settings.batch_size, settings.epochs, seed, settings.steps)
    known = Known(
        tokens=torch.tensor([[len(pair[side]["tokens"]) for pair in usable] for side in SIDES], device=ranks.device),
        references=None if references is None else torch.stack([references.chosen, references.rejected]).to(ranks.device),
        wins=None if wins is None else wins.to(ranks.device),
    )
    progress(start, len(steps))
    speed = SpeedLog(out / SPEED, ranks, start)
    saved_at = time.monotonic()
    for step in range(start, len(steps)):
        rate = learning_rate(
            step,
            len(steps),
            peak=settings.learning_rate,
            warmup_ratio=settings.warmup_ratio,
            schedule=settings.schedule,
        )
        for group in engine.optimizer.param_groups:
            group["lr"] = rate
        batches = reader.micro_batches(steps[step])
        sums = _backward(engine, settings, reader, batches, known, ranks.device)
        engine.step()

        due = ranks.rank == 0 and time.monotonic() - saved_at > 60 * limits.checkpoint_minutes
        flags = torch.tensor([float(stop()), float(due)], device=ranks.device)
        total = ranks.sum(torch.cat([sums, flags])).tolist()
        loss, margin, accuracy, chosen, rejected, difference, size = (value / len(steps[step]) for value in total[:7])
        if step == 0 and known.references is not None and reference is None:
            check_first_step(difference, size, settings.precision, held_in)
        if not abs(loss) < float("inf"):
            raise FloatingPointError(f"the loss of step {step + 1} is {loss}: try a lower learning rate or fp32")
        if ranks.rank == 0:
            row = train_log.Row(
                step=step + 1,
                loss=loss,
                margin=margin,
                accuracy=accuracy,
                learning_rate=rate,
                grad_norm=float(engine.get_global_grad_norm()),
                chosen_logps=chosen,
                rejected_logps=rejected,
                pairs=len(steps[step]),
            )
            train_log.append(log, row)
        speed.step(step=step + 1, **_work(reader, batches, trained=2 if settings.lora is None else 1))
        stopped, due = total[7] > 0, total[8] > 0
        if stopped or due:
            if ranks.rank == 0:
                train_log.sync(log)
            checkpoints.save(engine, work / "checkpoints", step + 1, ranks)
            saved_at = time.monotonic()
            speed.restart()
        progress(step + 1, len(steps))
        if stopped:
            raise Interrupted(f"stopped after step {step + 1} of {len(steps)}")

    export(engine, policy, out / "model", ranks)
    engine.destroy()
    reasons = Counter(str(record["reason"]) for record in set_aside)
    return TrainReport(len(pairs), len(usable), dict(reasons), len(steps), start)


def _backward(
    engine: deepspeed.DeepSpeedEngine,
    settings: Optimiser,
    reader: PairReader,
    batches: Sequence[MicroBatch],
    known: Known,
    device: torch.device,
) -> torch.Tensor:
    """Forward and backward of this rank's part of one optimiser step.

    Returns:
        [7] sums over its pairs: loss, margin, margin > 0, log-probs of chosen and of rejected, and the absolute values of the
        log-ratios and of the reference log-probs, each averaged over chosen and rejected; without a reference the policy's.
    """
    sums = torch.zeros(7, device=device)
    for number, batch in enumerate(batches):
        engine.set_gradient_accumulation_boundary(number == len(batches) - 1)
        logps = reader(batch)
        weights = torch.tensor(batch.weights, device=device)
        result = LOSSES[settings.loss](known.with_policy(logps, batch.indices), settings)
        engine.backward((result.loss * weights).sum(), scale_wrt_gas=False)
        with torch.no_grad():
            refs = logps if known.references is None else known.references[:, list(batch.indices)]
            sizes = [(logps - refs).abs().mean(0), refs.abs().mean(0)]
            parts = [result.loss, result.margin, (result.margin > 0).float(), *logps, *sizes]
            sums += torch.stack(parts)[:, weights > 0].sum(1)
    return sums


def _supported(source: Source) -> bool:
    where = {"revision": source.revision, "trust_remote_code": source.trust_remote_code}
    return supports(AutoConfig.from_pretrained(source.path, **where))


def _work(reader: PairReader, batches: Sequence[MicroBatch], trained: int) -> dict[str, Any]:
    """What this rank did in an optimiser step; a backward pass costs `trained` forward passes, one where weights are frozen."""
    read = [index for batch in batches for index in batch.indices if index >= 0]
    return {
        "pairs": len(read),
        "tokens": sum(tree.size for index in read for tree in reader.trees(index)),
        "computed_tokens": sum(map(reader.computed, batches)),
        "flops": None if reader.flops is None else (1 + trained) * sum(map(reader.cost, read)),
    }


def _select(settings: Optimiser, pairs: Sequence[Pair]) -> tuple[list[Pair], list[dict[str, object]]]:
    usable: list[Pair] = []
    set_aside: list[dict[str, object]] = []
    for pair in pairs:
        reason = why_unusable(pair, settings.max_length, settings.max_prompt_length)
        if reason is None:
            usable.append(pair)
        else:
            set_aside.append({"reason": reason, **pair})
    if not usable:
        reasons = Counter(str(record["reason"]) for record in set_aside)
        raise ValueError(f"there is no pair to train on: {len(pairs)} given, set aside: {dict(reasons) or 'none'}")
    return usable, set_aside


def _win_probabilities(pairs: Sequence[Pair]) -> torch.Tensor:
    """[2, pairs]: of the chosen and of the rejected responses."""
    for pair in pairs:
        for side in SIDES:
            found = pair[side].get("win_probability")
            if found is None or not 0 <= found <= 1:
                raise ValueError(
                    f"the {side} response to prompt {pair['prompt_id']} has the win probability {found}, and soft SPPO needs"
                    " one from 0 to 1: make the pairs again, or train with win_probability: hard"
                )
    return torch.tensor([[pair[side]["win_probability"] for pair in pairs] for side in SIDES])
