"""How much a sweep will write: what stays, and how much more there is while trainings keep their checkpoints.

A policy of 9 billion parameters is 18 GB exported in bf16, and 126 GB as a checkpoint: weights, fp32 copies of them and the two
moments of Adam. A training keeps its last checkpoint until it has written the next, and none once its policy is committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.filesize import decimal

from eva_hpc.config.model_size import Sizes
from eva_hpc.config.site import Site
from eva_hpc.plan.jobs import task_resources
from eva_hpc.plan.plan import Plan, Task
from eva_hpc.plan.work import PROMPT_TOKENS, RESPONSE_SHARE, Workload

EXPORT_BYTES = {"bf16": 2, "fp32": 4}
CHECKPOINT_BYTES = {"bf16": 14, "fp32": 16}
"""Per parameter: weights, fp32 master weights, Adam's two moments in fp32."""
TOKEN_BYTES = 10
"""Of a token in JSON: its id, a comma, and its piece of the text."""


@dataclass(frozen=True)
class Disk:
    """Bytes that are still to be written; those of models whose size is not known are missing, `unknown` names the models.

    `lasting` stays in the store. `peak` is the most there is at once, when `trainings` run at the same time, each with its last
    checkpoint and the one it is writing.
    """

    lasting: float
    peak: float
    trainings: int
    unknown: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{decimal(round(self.lasting))} to be written"
        if self.trainings:
            count = "one training keeps" if self.trainings == 1 else f"{self.trainings} trainings keep"
            text += f", {decimal(round(self.peak))} at once while {count} checkpoints"
        return text + (f" (without {', '.join(self.unknown)}, of unknown size)" if self.unknown else "")


def disk_needed(plan: Plan, pending: Sequence[Task], site: Site, sizes: Sizes, written: Mapping[str, int]) -> Disk:
    """What the tasks that are still to do will write.

    Args:
        plan: the plan.
        pending: its tasks that are still to do.
        site: how many run at once.
        sizes: of the models and prompt files that its recipes name.
        written: records that are known of tasks that are done, by task id.
    """
    work = Workload(plan, sizes, written)
    lasting, checkpoint = 0.0, 0.0
    unknown: dict[str, None] = {}
    trainings = [task for task in pending if task.stage == "train"]
    for task in pending:
        if task.stage != "train":
            lasting += _text(task, work)
            continue
        operations = work.operations(task)
        assert operations is not None
        if operations.size is None:
            unknown[operations.model] = None
            continue
        precision = task.spec["optimiser"]["precision"]
        lasting += operations.size.count * EXPORT_BYTES[precision]
        checkpoint = max(checkpoint, operations.size.count * CHECKPOINT_BYTES[precision])
    at_once = min(len(trainings), _parallel(trainings[0], site)) if trainings else 0
    return Disk(lasting, lasting + 2 * checkpoint * at_once, at_once, tuple(unknown))


def shortage(need: Disk, free: int) -> str | None:
    """What is wrong with the room that there is: it is too little for what stays, or for what there is at once; else None."""
    if need.lasting > free:
        return f"the disk has no room: {need}, and only {decimal(free)} free"
    return f"the disk may become full: {need}, and {decimal(free)} free" if need.peak > free else None


def _text(task: Task, work: Workload) -> float:
    """Bytes of the records of a stage that writes text."""
    amount = work.amount(task)
    if task.stage in ("generate", "answer"):
        return amount * float(task.spec["generation"]["max_new_tokens"]) * RESPONSE_SHARE * TOKEN_BYTES
    if task.stage in ("pair", "adopt", "rewrite"):
        responses = work.sampled(task)
        length = PROMPT_TOKENS + float(responses.spec["generation"]["max_new_tokens"]) * RESPONSE_SHARE
        return amount * 2 * length * TOKEN_BYTES
    of_prompts = task.stage in ("prompts", "select", "evolve", "admit", "recheck", "mix")
    return amount * (PROMPT_TOKENS * TOKEN_BYTES if of_prompts else 100.0)


def _parallel(training: Task, site: Site) -> int:
    """How many trainings may run at once."""
    if site.executor == "local":
        return max(1, site.slots // task_resources(training, site).world_size)
    return site.slurm.max_parallel
