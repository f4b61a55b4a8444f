"""The solver's step: preference optimisation of the policy on the round's pairs."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import ClassVar

from eva_hpc.config.optimiser import Optimiser
from eva_hpc.stages.contract import Context, Counts, Inputs, Parallel, StageSpec
from eva_hpc.stages.policy import read_policy, write_policy
from eva_hpc.store.keys import digest
from eva_hpc.store.records import Pair, read_jsonl
from eva_hpc.store.seeds import derive_seed


class Spec(StageSpec):
    """The optimiser and its hyper-parameters."""

    stage: ClassVar[str] = "train"
    optimiser: Optimiser
    seed: int
    round: int

    @property
    def parallel(self) -> Parallel:
        """Ranks of one DeepSpeed ZeRO-3 job."""
        return "ranks"


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``model/``, ``policy.json``, ``train_log.jsonl``, ``speed.jsonl``; with LoRA ``adapter/`` beside the merged model.

    Inputs: ``policy``; ``pairs``, and ``pairs_0``, ``pairs_1``, … of earlier rounds where training starts over; ``reference``
    if that is another policy.
    """
    from eva_hpc.training.distributed import distributed
    from eva_hpc.training.trainer import train

    source = read_policy(inputs["policy"])
    folders = [inputs[role] for role in sorted(role for role in inputs if role.startswith("pairs"))]
    pairs: list[Pair] = [pair for folder in folders for pair in read_jsonl(folder / "pairs.jsonl")]
    reference = inputs.get("reference")
    cache = digest(
        {
            "policy": (reference or inputs["policy"]).name,
            "pairs": [folder.name for folder in folders],
            "precision": spec.optimiser.precision,
            "max_length": [spec.optimiser.max_length, spec.optimiser.max_prompt_length],
            "torch": importlib.metadata.version("torch"),
        }
    )
    place = (context.rank, context.world_size, context.local_rank, context.master, context.resources.threads)
    with distributed(*place) as ranks:
        report = train(
            spec.optimiser,
            source,
            pairs,
            reference=read_policy(reference) if reference is not None else None,
            seed=derive_seed(spec.seed, spec.round, "train"),
            out=out,
            work=context.work,
            ranks=ranks,
            limits=context.engine,
            sampler=(reference or inputs["policy"]).name if context.engine.reference_logps == "sampler" else None,
            reference_cache=context.store.cache("reference", f"{cache}.safetensors"),
            progress=context.progress,
            stop=context.stop,
        )
    if context.rank == 0:
        write_policy(
            out,
            dtype="bfloat16" if spec.optimiser.precision == "bf16" else "float32",
            attention=source.attention,
            trust_remote_code=source.trust_remote_code,
        )
    return Counts(report.read, report.trained, report.set_aside)
