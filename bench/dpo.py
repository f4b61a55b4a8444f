"""DPO on the same pairs, in the same order: ours beside TRL's DPOTrainer, and what each technique of ours brings.

python bench/dpo.py [--model NAME …] [--precision bf16|fp32] [--scale 0.125] [--steps 3] [--repeats 2] [--rows 0 6 7]

Both train under ZeRO-3 in the same number of ranks, of as many threads, with AdamW at a constant rate, 8 pairs per rank and
optimiser step, which is TRL's default. Each row is measured in processes of its own; repeats go round all rows, and medians
are shown. Weights and tokens are random; the lengths are drawn from those of real prompts and answers, see LENGTHS in
_dpo_rows.py.

    pairs/s             of the optimiser steps after the first --warmup ones, the reference pass included; what is amortised
                        over epochs where it is made once is charged to a single epoch
    steps alone         the same without a reference pass made beforehand
    tokens/s            of what the pairs have, each prompt once; padding and repeated prompts are not counted
    CPU ms/pair         processor time of all ranks in those steps, on CPUs: steadier than a clock on a busy machine
    peak                of the rank with the highest, from the imports to the last step: on GPUs what PyTorch had allocated, on
                        CPUs anonymous memory, sampled every 5 ms, less that after the imports
    MFU                 on GPUs: FLOPs of the policy's forward and backward pass over the texts as they are read, without
                        padding and those of gradient checkpointing and the reference, over what the GPU can do
    loss, parameters    largest difference from the first row over all steps, over the loss there; norm of the difference of
                        the parameters after the last step over the norm of their way from the start

On GPUs the head of TRL's trainer is a Triton kernel. On CPUs it is PyTorch's operators, which also compute entropies and mean
logits for its log, and take much of its time and memory: there the ratios say more about that than about the layout of pairs,
for which the rows of ours may be compared with each other. The way on GPUs has not been run yet.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _dpo_rows import (
    MODELS,
    PAIRS_PER_RANK,
    ROWS,
    SEED,
    Plan,
    Row,
    anonymous_bytes,
    draw_pairs,
    from_config,
    on_rank,
    save_model,
)

# isort: split
import torch
from safetensors.torch import load_file
from tabulate import tabulate
from transformers import AutoConfig

from eva_hpc.training.batches import epoch_order
from eva_hpc.training.flops import Flops
from eva_hpc.training.packing import trees_of
from eva_hpc.training.speed_log import peak_tflops

TARGET_MFU = 0.45
KNOWN_FROM = 6
"""The row whose reference log-probs the rows with a known reference start from."""


@dataclass(frozen=True)
class Measured:
    """One run of a row."""

    pairs_per_s: float
    with_reference: float
    cpu_ms: float
    peak: float
    losses: list[float]


def measure(row: Row, plan: Plan, out: Path, context: Any) -> Measured:
    """Run a row in processes of its own.

    Raises:
        ChildProcessError: one of them failed.
    """
    print(f"{out.name}: {row.name}", file=sys.stderr)
    out.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = [context.Process(target=on_rank, args=(rank, port, row, plan, out)) for rank in range(plan.world_size)]
    for child in children:
        child.start()
    held: list[list[tuple[float, int]]] = [[] for _ in children]
    while any(child.is_alive() for child in children):
        for child, seen in zip(children, held, strict=True):
            seen.append((time.monotonic(), anonymous_bytes(child.pid)))
            if child.exitcode:
                for other in children:
                    other.kill()
        time.sleep(0.005)
    if any(child.exitcode for child in children):
        raise ChildProcessError(f"processes ended with {[child.exitcode for child in children]}, see above")
    ranks = [json.loads((out / f"rank-{rank}.json").read_text()) for rank in range(plan.world_size)]
    first, last = plan.warmup, plan.steps
    pairs = PAIRS_PER_RANK * plan.world_size
    seconds = max(rank["seconds"][last] - rank["seconds"][first] for rank in ranks) / (last - first) / pairs
    cpu = sum(rank["cpu_seconds"][last] - rank["cpu_seconds"][first] for rank in ranks) / (last - first) / pairs
    reference = max(rank["reference_seconds"] for rank in ranks) / len(plan.pairs)
    peaks = [
        rank["peak"] or max(count for at, count in seen if at <= rank["seconds"][last]) - rank["held_at_start"]
        for rank, seen in zip(ranks, held, strict=True)
    ]
    return Measured(1 / seconds, 1 / (seconds + reference), 1e3 * cpu, max(peaks), ranks[0]["losses"])


def parameters_apart(some: Path, other: Path, start: Path) -> float:
    """The norm of the difference of two models over the norm of the way of the second from the start."""

    def norm(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
        if one.keys() != two.keys():
            raise ValueError(f"models with different weights: {sorted(one.keys() ^ two.keys())}")
        return math.sqrt(sum((one[name].double() - two[name].double()).square().sum().item() for name in one))

    models = [_weights(folder) for folder in (some, other, start)]
    return norm(models[0], models[1]) / norm(models[1], models[2])


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: weight for file in sorted(folder.glob("*.safetensors")) for name, weight in load_file(file).items()}


def compare(name: str, words: argparse.Namespace, context: Any, folder: Path) -> None:
    """Measure all rows for a model, and print them."""
    world_size = torch.cuda.device_count() or words.ranks
    on_gpu = torch.cuda.is_available()
    plan = Plan(
        folder=folder,
        model=folder / "model",
        world_size=world_size,
        threads=max(1, (os.cpu_count() or 1) // world_size),
        steps=words.warmup + words.steps,
        warmup=words.warmup,
        precision=words.precision,
        scale=words.scale,
        profile=words.profile,
        pairs=draw_pairs(PAIRS_PER_RANK * world_size * (words.warmup + words.steps), words.scale, MODELS[name]["vocab_size"]),
    )
    save_model(plan.model, name, words.precision)
    rows = [ROWS[number] for number in words.rows]
    found: dict[Row, list[Measured]] = {row: [] for row in rows}
    apart: dict[Row, float] = {}
    if any(row.ours and row.reference_known for row in rows):
        measure(ROWS[KNOWN_FROM], plan, folder / "reference", context)
        (folder / "reference" / "reference.safetensors").rename(folder / "reference.safetensors")
    for repeat in range(words.repeats):
        for number, row in enumerate(tuple(rows)):
            out = folder / f"{repeat}-{number}"
            try:
                found[row].append(measure(row, plan, out, context))
            except ChildProcessError as error:
                if not number:
                    raise
                print(f"{name}: left out {row.name!r}: {error}")
                rows.remove(row)
                continue
            if repeat == 0:
                apart[row] = parameters_apart(out / "model", folder / "0-0" / "model", plan.model)
            if number or repeat:
                shutil.rmtree(out)
    _print(name, plan, rows, found, apart, on_gpu)


def _print(
    name: str, plan: Plan, rows: Sequence[Row], found: dict[Row, list[Measured]], apart: dict[Row, float], on_gpu: bool
) -> None:
    order = epoch_order(len(plan.pairs), SEED, 0)[plan.warmup * PAIRS_PER_RANK * plan.world_size :]
    timed = [plan.pairs[index] for index in order]
    tokens = sum(tree.size for pair in timed for tree in trees_of(pair, True)) / len(timed)
    with torch.device("meta"):
        flops = Flops.of(from_config(AutoConfig.from_pretrained(plan.model)))
    peak_flops = 1e12 * (peak_tflops(torch.cuda.get_device_name()) or 0) * plan.world_size if on_gpu else 0
    first = {of: statistics.median(getattr(one, of) for one in found[rows[0]]) for of in ("with_reference", "peak")}
    table = []
    utilised = {}
    for row in rows:
        speed, alone, cpu, peak = (
            statistics.median(getattr(one, of) for one in found[row])
            for of in ("with_reference", "pairs_per_s", "cpu_ms", "peak")
        )
        losses, expected = found[row][0].losses, found[rows[0]][0].losses
        loss_gap = max(abs(one - other) / other for one, other in zip(losses, expected, strict=True))
        line = [row.name, speed, speed / first["with_reference"], alone, speed * tokens]
        if on_gpu:
            shared = row.ours and row.shared_prompt
            needed = (
                3 * sum(flops.forward(tree) for pair in timed for tree in trees_of(pair, shared)) / len(timed) if flops else 0
            )
            utilised[row] = alone * needed / peak_flops if peak_flops else math.nan
            line.append(f"{utilised[row]:.1%}")
        else:
            line.append(cpu)
        table.append([*line, peak / 2**20, peak / first["peak"], f"{loss_gap:.1e}", f"{apart[row]:.1e}"])
    lengths = sorted(tree.size for pair in plan.pairs for tree in trees_of(pair, False))
    print(
        f"\n{name}, {plan.precision}, {plan.world_size} rank(s) of {plan.threads} thread(s) on"
        f" {torch.cuda.get_device_name() if on_gpu else 'CPUs'}: {plan.steps - plan.warmup} steps of"
        f" {PAIRS_PER_RANK * plan.world_size} pairs, after {plan.warmup}; lengths x {plan.scale:g}: a text has"
        f" {lengths[0]} to {lengths[-1]} tokens, median {statistics.median(lengths):g}"
    )
    headings = ["", "pairs/s", "ratio", "steps alone", "tokens/s", "MFU" if on_gpu else "CPU ms/pair"]
    print(
        tabulate(
            table,
            [*headings, "peak MiB", "ratio", "loss", "parameters"],
            floatfmt=("", ".2f", ".2f", ".2f", ".0f", ".1f", ".0f", ".2f"),
        )
    )
    for row, share in utilised.items():
        if row.ours and share < TARGET_MFU:
            computed = f"; with the repeated forward pass {4 / 3 * share:.1%}" if row.checkpointing else ""
            print(
                f"{row.name!r}: MFU {share:.1%}, below {TARGET_MFU:.0%}{computed}; --profile shows which kernels take the rest"
            )
    best = max((line for line, row in zip(table, rows, strict=True) if row.ours), key=lambda line: line[1], default=table[0])
    print(
        f"{name}: {best[0]!r} has {best[2]:.2f} times the pairs/s of {rows[0].name!r} and {best[7]:.2f} times its peak memory"
    )


def main() -> None:
    on_gpu = torch.cuda.is_available()
    arguments = argparse.ArgumentParser(
        description="DPO: ours beside TRL's trainer.", epilog="The head of the file says what the columns are."
    )
    arguments.add_argument(
        "--model", nargs="+", choices=MODELS, default=["qwen2-1.5b", "gemma-2-2b"] if on_gpu else ["small-qwen2"]
    )
    arguments.add_argument("--precision", choices=["bf16", "fp32"], default="bf16" if on_gpu else "fp32")
    arguments.add_argument("--scale", type=float, default=1.0 if on_gpu else 0.125, help="of all lengths")
    arguments.add_argument("--steps", type=int, default=20 if on_gpu else 3, help="optimiser steps that are timed")
    arguments.add_argument("--warmup", type=int, default=3 if on_gpu else 1, help="optimiser steps before those")
    arguments.add_argument(
        "--repeats", type=int, default=1 if on_gpu else 2, help="runs of each row, of which medians are shown"
    )
    arguments.add_argument("--ranks", type=int, default=2, help="processes on CPUs; on GPUs there is one for each")
    every = list(range(len(ROWS)))
    listed = ", ".join(f"{number}: {row.name}" for number, row in enumerate(ROWS))
    arguments.add_argument(
        "--rows", type=int, nargs="+", choices=every, default=every, help=f"the first is compared with ({listed})"
    )
    arguments.add_argument("--profile", action="store_true", help="print where the time of rank 0 goes, for each row")
    words = arguments.parse_args()
    # CUDA does not survive a fork; without it a server imports everything once, and forks the processes off.
    context = multiprocessing.get_context("spawn" if on_gpu else "forkserver")
    if not on_gpu:
        context.set_forkserver_preload(["eva_hpc.training.trainer", "trl.trainer.dpo_trainer", "datasets", "tabulate"])
    for name in words.model:
        with tempfile.TemporaryDirectory() as folder:
            compare(name, words, context, Path(folder))


if __name__ == "__main__":
    main()
