"""Log-probs of every pair under the reference policy, computed once before the first step and kept in a file.

    reference.safetensors
        key        [pairs] int64      hash of prompt id and tokens: a row says which pair it belongs to
        chosen     [pairs] float32    sum of the log-probs of the chosen response, natural log
        rejected   [pairs] float32

Where the reference is the start policy, the training engine computes them itself, with the kernels of training, so that DPO's
loss of the first step is log 2. Where it sampled the pairs' responses, what it noted then may stand for them
(:mod:`eva_hpc.training.sampler_logps`):

    reference.json {"taken": true, "tried": 64, "mean_error": 0.0004, "largest_error": 0.003}

A file with only some of the pairs is fine: the rest is computed. Whoever names a file answers
for its rows being of the same reference; if it is the start policy, :func:`check_first_step` finds out when they are not.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import torch
from safetensors.torch import load_file, save_file

from eva_hpc.store.artifacts import REFERENCE, write_atomically
from eva_hpc.store.records import Pair
from eva_hpc.training.distributed import Ranks
from eva_hpc.training.interrupt import Interrupted
from eva_hpc.training.reading import PairReader
from eva_hpc.training.sampler_logps import Agreement, Sampled

_log = logging.getLogger(__name__)


_AT_ONCE = 2048
"""Pairs that are dealt to micro-batches together."""


class ReferenceMismatch(ValueError):
    """Reference log-probs that are not those of the start policy."""


@dataclass(frozen=True)
class Reference:
    """Sums of log-probs under the reference, [pairs] float32 each, NaN where not known yet."""

    keys: torch.Tensor
    chosen: torch.Tensor
    rejected: torch.Tensor

    def missing(self) -> list[int]:
        """Positions of the pairs whose log-probs are not known."""
        return torch.nonzero(torch.isnan(self.chosen) | torch.isnan(self.rejected)).flatten().tolist()


def pair_key(pair: Pair) -> int:
    """A hash, in [0, 2**63), of all that decides a pair's log-probs under a given policy."""
    content = [pair["prompt_id"], pair["prompt_tokens"], pair["chosen"]["tokens"], pair["rejected"]["tokens"]]
    return int.from_bytes(hashlib.blake2b(orjson.dumps(content), digest_size=8).digest(), "big") >> 1


def read(pairs: Sequence[Pair], files: Sequence[Path]) -> Reference:
    """What the files that exist know of these pairs; an earlier file wins."""
    keys = [pair_key(pair) for pair in pairs]
    known: dict[int, tuple[float, float]] = {}
    for file in reversed(files):
        if file.exists():
            held = load_file(file)
            both = zip(held["chosen"].tolist(), held["rejected"].tolist(), strict=True)
            known.update(zip(held["key"].tolist(), both, strict=True))
    values = torch.tensor([known.get(key, (torch.nan, torch.nan)) for key in keys], dtype=torch.float32).reshape(-1, 2)
    return Reference(torch.tensor(keys, dtype=torch.int64), values[:, 0].clone(), values[:, 1].clone())


def write(reference: Reference, path: Path) -> None:
    """Write the known rows; the file is there as a whole or not at all."""
    known = torch.ones(len(reference.keys), dtype=torch.bool)
    known[reference.missing()] = False
    columns = {"key": reference.keys, "chosen": reference.chosen, "rejected": reference.rejected}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    save_file({name: column[known] for name, column in columns.items()}, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.rename(path)


def complete(
    reader: PairReader,
    files: Sequence[Path],
    ranks: Ranks,
    *,
    precision: str,
    checkpoint_minutes: float,
    stop: Callable[[], bool],
    sampled: Sampled | None = None,
) -> Reference:
    """The reference log-probs of all pairs: those in the files, else the sampler's, else computed by all ranks.

    What was computed is written to all files, what was sampled to the first only. Told to stop, and every now and then, it
    writes what it has to the first.

    Args:
        reader: of the pairs to train on, with the reference policy in evaluation mode. Not used if the files know all.
        files: the file of this run, and perhaps one shared with other runs with the same reference.
        ranks: who computes.
        precision: "fp32" or "bf16".
        checkpoint_minutes: minutes between writes of a file that is not full yet.
        stop: asked after every forward pass.
        sampled: what the reference noted when it sampled the responses; taken if a random part of it, computed again, agrees.

    Raises:
        Interrupted: told to stop before all were known.
        FloatingPointError: a log-prob is NaN.
    """
    own, shared = files[0], files[1:]
    reference = _first_view(reader.pairs, files, ranks)
    known = not reference.missing()
    whole = reference
    if not known:
        compute = functools.partial(_compute, reader, reference, own, ranks, checkpoint_minutes, stop)
        reader.choose_layout(precision)
        taken = sampled is not None and _agrees(sampled, reference, compute, own.with_name(REFERENCE), ranks)
        compute((reference if not taken else _filled(reference, sampled)).missing())
        whole = reference if not taken else _filled(reference, sampled)
    if unknown := len(whole.missing()):
        raise FloatingPointError(f"the reference policy gives NaN for {unknown} of {len(reader.pairs)} pairs")
    if ranks.rank == 0:
        if not (known and own.exists()):
            write(whole, own)
        for file in shared if not known else ():
            write(reference, file)  # what was computed: how much rounding a loss can bear is another's for another loss
    return whole


def _agrees(sampled: Sampled, reference: Reference, compute: Callable[[Sequence[int]], None], told: Path, ranks: Ranks) -> bool:
    """Whether the sampler's log-probs can stand for computed ones, found out on some; writes `told` if there are any."""
    tried = sampled.to_try(reference.keys)
    unknown = set(reference.missing())
    compute([index for index in tried if index in unknown])
    agreement = sampled.compare(reference.chosen, reference.rejected, tried)
    if ranks.rank == 0 and tried:
        _tell(agreement, told)
    return agreement.taken


def _filled(reference: Reference, sampled: Sampled | None) -> Reference:
    """The reference with the sampler's log-probs where it has none."""
    assert sampled is not None
    index = torch.tensor(reference.missing(), dtype=torch.int64)
    columns = []
    for ours, theirs in ((reference.chosen, sampled.chosen), (reference.rejected, sampled.rejected)):
        columns.append(ours.clone())
        columns[-1][index] = theirs[index]
    return Reference(reference.keys, *columns)


def _tell(agreement: Agreement, path: Path) -> None:
    write_atomically(path, orjson.dumps({"taken": agreement.taken, **dataclasses.asdict(agreement)}))
    if not agreement.taken:
        _log.warning(
            "the sampler's log-probs change the margins of %d pairs by %.2g on average and by %.2g at most:"
            " they are refused, and the reference is computed",
            *dataclasses.astuple(agreement),
        )


def _compute(
    reader: PairReader,
    reference: Reference,
    file: Path,
    ranks: Ranks,
    checkpoint_minutes: float,
    stop: Callable[[], bool],
    todo: Sequence[int],
) -> None:
    """Fill in the pairs `todo`, and write `file` now and then."""
    saved_at = time.monotonic()
    computed = torch.zeros(3, len(reader.pairs), dtype=torch.float64)
    parts = [todo[start : start + _AT_ONCE] for start in range(0, len(todo), _AT_ONCE)]
    # Without gradients twice the tokens fit.
    batches = [batch for part in parts for batch in reader.micro_batches(part, fold=2)]
    for batch in batches:
        with torch.no_grad():
            values = reader(batch)
        mine = [index for index in batch.indices if index >= 0]
        if mine:
            computed[:2, mine] = values.double().cpu()
            computed[2, mine] = 1.0
        due = ranks.rank == 0 and time.monotonic() - saved_at > 60 * checkpoint_minutes
        stopped, save = ranks.sum(torch.tensor([float(stop()), float(due)])).bool().tolist()
        if stopped or save or batch is batches[-1]:
            _add(reference, ranks.sum(computed))
            computed.zero_()
            saved_at = time.monotonic()
            if ranks.rank == 0:
                write(reference, file)
        if stopped and reference.missing():
            raise Interrupted("stopped while the reference log-probs were computed")


def _first_view(pairs: Sequence[Pair], files: Sequence[Path], ranks: Ranks) -> Reference:
    """What rank 0 reads, on every rank: file systems may show a new file to one node before another."""
    keys = torch.tensor([pair_key(pair) for pair in pairs], dtype=torch.int64)
    values = torch.zeros(2, len(pairs))
    if ranks.rank == 0:
        held = read(pairs, files)
        values = torch.stack([held.chosen, held.rejected])
    chosen, rejected = ranks.sum(values).float()
    return Reference(keys, chosen, rejected)


def _add(reference: Reference, computed: torch.Tensor) -> None:
    chosen, rejected, count = computed
    reference.chosen[count > 0] = chosen[count > 0].float()
    reference.rejected[count > 0] = rejected[count > 0].float()


def check_first_step(difference: float, size: float, precision: str, files: Sequence[Path]) -> None:
    """Before the first update the policy is the reference, so their log-probs must agree up to rounding.

    Args:
        difference: mean absolute difference between the policy's and the reference's log-probs.
        size: mean absolute log-prob of the reference.
        precision: "fp32" or "bf16".
        files: where the reference came from.

    Raises:
        ReferenceMismatch: they do not agree: the file is another policy's, or its rows are not what they say.
    """
    tolerance = 1e-4 if precision == "fp32" else 2e-2
    if not difference <= tolerance * (1 + size):  # NaN is not either
        raise ReferenceMismatch(
            f"before the first step the policy's log-probs differ from the reference by {difference:.4g} on average"
            f" (of {size:.4g}), so they are not those of the start policy: delete {' and '.join(map(str, files))}"
        )
