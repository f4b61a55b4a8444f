"""The policy a sweep starts from: the lab's, trained here, or a pointer to a pretrained model."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from eva_hpc.config.recipe import LabPolicy, Policy
from eva_hpc.stages.contract import Context, Counts, Inputs, Interrupted, Parallel, StageSpec
from eva_hpc.stages.policy import read_policy, write_policy
from eva_hpc.stages.unchanged import check_unchanged


class Spec(StageSpec):
    """Which policy; `fingerprint` is the hash of a pretrained model's content."""

    stage: ClassVar[str] = "start_policy"
    policy: Policy
    fingerprint: str = ""

    @property
    def parallel(self) -> Parallel:
        """Training takes ranks; a pointer takes none."""
        return "ranks" if isinstance(self.policy, LabPolicy) else "one"


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Train the lab's policy or write the pointer."""
    policy = spec.policy
    if not isinstance(policy, LabPolicy):
        path = Path(policy.path)
        check_unchanged(policy.path, spec.fingerprint)
        write_policy(
            out,
            location=str(path.resolve()) if path.exists() else policy.path,
            revision=policy.revision,
            dtype=policy.dtype,
            attention=policy.attention,
            trust_remote_code=policy.trust_remote_code,
        )
        return Counts(read=0, written=1)

    from eva_hpc.lab.policy import train_start_policy
    from eva_hpc.training.distributed import distributed

    with distributed(context.rank, context.world_size, context.local_rank, context.master, context.resources.threads):
        report = train_start_policy(
            out / "model",
            seed=policy.seed,
            steps=policy.steps,
            rank=context.rank,
            world_size=context.world_size,
            progress=context.progress,
            stop=context.stop,
        )
    # Not `context.stop()`: the ranks leave together when any of them was told to, so this one may not know.
    if report["steps"] < policy.steps:
        raise Interrupted
    if context.rank == 0:
        write_policy(out, dtype="float32", attention="sdpa")
    return Counts(read=policy.steps, written=1)


def check(folder: Path) -> str | None:
    """Why this artifact cannot be used any more: the model it points to has been moved or deleted."""
    path = Path(read_policy(folder).path)
    return f"{path} is gone" if path.is_absolute() and not path.exists() else None
