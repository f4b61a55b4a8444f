"""The site file: where a sweep runs. Nothing here changes a result, so nothing here is part of a key."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from eva_hpc.config.recipe import Name, Section, broken_rule
from eva_hpc.config.sweep import Value


class Resources(Section):
    """What one stage gets. `nodes` x `ranks_per_node` processes are started for it, each with `gpus_per_rank` GPUs."""

    nodes: int = Field(default=1, ge=1)
    ranks_per_node: int = Field(default=1, ge=1)
    gpus_per_rank: int = Field(default=0, ge=0, description="1 for training; more gives tensor parallelism to vLLM")
    threads: int = Field(default=1, ge=1, description="CPU threads per rank")

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.nodes * self.ranks_per_node


class Slurm(Section):
    """What every job of this site asks of Slurm. A job's nodes and GPUs are the largest that any of its stages needs."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time_minutes: int = Field(default=60, ge=1)
    cpus_per_node: int | None = Field(default=None, ge=1)
    mem_gb: float | None = Field(default=None, gt=0, description="memory per node")
    gpu_type: str | None = Field(default=None, description="type in --gres=gpu:TYPE:N; without it --gres=gpu:N")
    max_parallel: int = Field(default=256, ge=1, description="tasks of one array that may run at once")
    signal_delay_s: int = Field(default=120, ge=1, description="seconds before the time limit at which stages are told to save")
    setup: tuple[str, ...] = Field(
        default=(), strict=False, description="shell lines run at the start of a job, e.g. module load"
    )
    additional: dict[str, Value] = Field(default_factory=dict, description="any other sbatch option")


class Engine(Section):
    """Limits of the inference engines and the trainer on this hardware."""

    micro_batch: int = Field(default=1, ge=1, description="pairs per rank in one forward pass of training")
    batch_tokens: int = Field(
        default=16384, ge=64, description="tokens, padding included, in one batch of the transformers engine"
    )
    chunk_prompts: int = Field(default=256, ge=1, description="prompts per committed chunk of generation")
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    max_model_len: int | None = Field(default=None, ge=1)
    checkpoint_minutes: float = Field(default=10.0, gt=0, description="minutes between checkpoints of training")


class Site(Section):
    """A place where sweeps run: this machine or a Slurm cluster."""

    name: Name
    executor: Literal["local", "slurm"]
    scale: Literal["lab", "full"] = Field(description="which recipe of a sweep this site runs by default")
    root: str = Field(
        default="logs",
        min_length=1,
        description="folder for results and artifacts, ~ and $VARIABLES allowed; on a cluster, on a shared file system",
    )
    slots: int = Field(default=2, ge=1, description="local executor: processes at work at once")
    slurm: Slurm = Slurm()
    engine: Engine = Engine()
    default: Resources = Resources()
    stages: dict[str, Resources] = Field(default_factory=dict, description="resources of single stages, by stage name")
    environment: dict[str, str] = Field(default_factory=dict, description="environment variables for every stage")

    @model_validator(mode="after")
    def _every_stage_finds_a_place(self) -> Site:
        for key, resources in {"default": self.default, **{f"stages.{name}": own for name, own in self.stages.items()}}.items():
            if self.executor == "local" and resources.world_size > self.slots:
                raise broken_rule(key, f"needs {resources.world_size} processes at once, but the site has slots: {self.slots}")
        return self

    def resources(self, stage: str) -> Resources:
        """The resources of a stage: its own entry, else the default."""
        return self.stages.get(stage, self.default)
