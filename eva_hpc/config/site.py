"""The site file: where a sweep runs. Nothing here changes a result, so nothing here is part of a key."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import Field, model_validator

from eva_hpc.config.section import Name, Section, broken_rule
from eva_hpc.config.sweep import Value


class JobOptions(Section):
    """What a job asks of Slurm. In a stage's `slurm:` what is given wins over the site's."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    reservation: str | None = None
    exclude: str | None = Field(default=None, description="nodes not to be used, e.g. gpu[03,07]")
    time_minutes: int | None = Field(default=None, ge=1, description="limit of one attempt of a job")
    cpus_per_node: int | None = Field(default=None, ge=1)
    mem_gb: float | None = Field(default=None, gt=0, description="memory per node")
    gpu_type: str | None = Field(default=None, description="type in --gres=gpu:TYPE:N; without it --gres=gpu:N")
    additional: dict[str, Value] = Field(default_factory=dict, description="any other sbatch option; true for a bare flag")


class Slurm(JobOptions):
    """What every job of this site asks of Slurm, and how the sweep behaves there."""

    time_minutes: int = Field(
        default=60, ge=1, description="limit of one attempt of a job; one that hits it goes on in the next"
    )
    max_parallel: int = Field(default=256, ge=1, description="tasks of one array that may run at once")
    signal_delay_s: int = Field(default=120, ge=1, description="seconds before the time limit at which stages are told to save")
    setup: tuple[str, ...] = Field(
        default=(), strict=False, description="shell lines run at the start of a job, e.g. module load"
    )
    retries: int = Field(
        default=2,
        ge=0,
        description="how often a stage is tried again after a failure that is neither the user's nor the code's",
    )
    exclude_node_after: int = Field(default=2, ge=1, description="failures of a node after which jobs avoid it")
    warm_start: bool = Field(
        default=True,
        description="a job imports torch and the like once on each node and forks its stages from there; false: every stage"
        " is started by an srun of its own",
    )


class Container(Section):
    """An image in which a stage's processes run."""

    runtime: Literal["apptainer", "pyxis"]
    image: str = Field(min_length=1, description="a .sif or .sqsh file, or what the runtime can pull")
    options: tuple[str, ...] = Field(
        default=(), strict=False, description="further options of apptainer exec, or of srun for pyxis"
    )


class Software(Section):
    """The software environment of a stage's processes. Without any, that of the launcher."""

    python: str | None = Field(default=None, description="interpreter, e.g. /shared/venvs/vllm/bin/python")
    setup: tuple[str, ...] = Field(
        default=(), strict=False, description="shell lines before the interpreter starts, e.g. module load, conda activate"
    )
    container: Container | None = None


class Resources(Section):
    """What one stage gets. `nodes` x `ranks_per_node` processes are started for it, each with `gpus_per_rank` GPUs."""

    nodes: int = Field(default=1, ge=1)
    ranks_per_node: int = Field(default=1, ge=1)
    gpus_per_rank: int = Field(default=0, ge=0, description="1 for training; more gives tensor parallelism to vLLM")
    threads: int = Field(default=1, ge=1, description="CPU threads per rank")
    slurm: JobOptions = Field(default=JobOptions(), description="what its job asks of Slurm, where that is not the site's")
    software: Software | None = Field(default=None, description="its software environment, where that is not the site's")

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.nodes * self.ranks_per_node


class Engine(Section):
    """Limits of the inference engines and the trainer on this hardware."""

    micro_batch_tokens: int = Field(
        default=8192,
        ge=64,
        description="tokens, padding included, per rank in one forward pass of training; a longer pair goes alone",
    )
    packing: bool = Field(default=True, description="training puts pairs end to end in one row; false: a padded row each")
    shared_prompt: bool = Field(
        default=True, description="training reads the prompt of a pair once for both responses, not once for each"
    )
    reference_logps: Literal["sampler", "computed"] = Field(
        default="sampler",
        description="sampler: where the reference sampled the responses, its log-probs are those noted then, if a random"
        " sample of them agrees with the trainer's; computed: always the trainer's",
    )
    offload: Literal["none", "optimiser", "all"] = Field(
        default="none", description="what training keeps in the memory of the CPU: optimiser states, or weights too"
    )
    hpz_ranks: int = Field(
        default=1,
        ge=1,
        description="ranks, of one node, that keep a second copy of the weights between them for the backward pass"
        " (ZeRO++ hpZ); 1: none",
    )
    batch_tokens: int = Field(
        default=16384, ge=64, description="tokens, padding included, in one batch of the transformers engine"
    )
    chunk_prompts: int = Field(default=256, ge=1, description="prompts per committed chunk of generation, at most")
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    max_model_len: int | None = Field(default=None, ge=1)
    checkpoint_minutes: float = Field(default=10.0, gt=0, description="minutes between checkpoints of training")
    hang_minutes: float = Field(
        default=60.0, gt=0, description="minutes without a sign of life before a stage is ended as hung"
    )


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
    software: Software = Field(default=Software(), description="software environment of every stage without one of its own")
    offline: bool = Field(default=False, description="compute nodes have no internet: everything must be there before")

    @model_validator(mode="after")
    def _every_stage_finds_a_place(self) -> Site:
        for key, resources in {"default": self.default, **{f"stages.{name}": own for name, own in self.stages.items()}}.items():
            if self.executor == "local" and resources.world_size > self.slots:
                raise broken_rule(key, f"needs {resources.world_size} processes at once, but the site has slots: {self.slots}")
        per_node = self.resources("train").ranks_per_node
        if per_node % self.engine.hpz_ranks:
            divisors = ", ".join(str(size) for size in range(1, per_node + 1) if not per_node % size)
            found = self.engine.hpz_ranks
            raise broken_rule(
                "engine.hpz_ranks", f"found {found}; must divide the {per_node} ranks of a node in training: {divisors}"
            )
        return self

    def resources(self, stage: str) -> Resources:
        """The resources of a stage: its own entry, else the default."""
        return self.stages.get(stage, self.default)

    def job_options(self, stage: str) -> JobOptions:
        """What the job of a stage asks of Slurm: the site's options, with those of the stage in their place."""
        return self._job_options[stage if stage in self.stages else None]

    @cached_property
    def _job_options(self) -> dict[str | None, JobOptions]:
        base = {name: getattr(self.slurm, name) for name in JobOptions.model_fields}
        owns: dict[str | None, JobOptions] = {
            None: self.default.slurm,
            **{name: need.slurm for name, need in self.stages.items()},
        }
        return {
            name: JobOptions(**base | {field: getattr(own, field) for field in own.model_fields_set})
            for name, own in owns.items()
        }

    def software_of(self, stage: str) -> Software:
        """The software environment of a stage."""
        return self.resources(stage).software or self.software
