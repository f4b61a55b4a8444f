"""The recipe: what is trained, on which prompts, judged by what. Its fields decide results; none says where anything runs.

Sections that come in kinds have short forms::

    policy: lab                      {kind: lab}
    policy: google/gemma-2-9b-it     {kind: pretrained, path: google/gemma-2-9b-it}
    prompts: lab                     {kind: lab}
    prompts: data/prompts.jsonl      {kind: file, path: data/prompts.jsonl}      also .parquet
    prompts: org/name                {kind: hub, name: org/name}
    reward: lab                      {kind: lab}
    reward: models/reward            {kind: sequence_classification, path: models/reward}
    optimiser: simpo                 {loss: simpo}                               also dpo, ipo, sppo, rpo, orpo
    benchmarks: {easy: lab}          {easy: {kind: lab}}                         also alpaca_eval, arena_hard, mt_bench

A relative path is looked for beside the file it is written in, then in the working directory (see `config/paths.py`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from eva_hpc.config.benchmark import Benchmark, BenchmarkName, Judge
from eva_hpc.config.creator import Creator, Pairing, Rewriter
from eva_hpc.config.optimiser import DPO, Optimiser
from eva_hpc.config.reward import LabChecker as LabChecker
from eva_hpc.config.reward import Reward as Reward
from eva_hpc.config.reward import SequenceClassification as SequenceClassification
from eva_hpc.config.section import Name, Section, broken_rule, kind_of
from eva_hpc.config.shorthand import POLICY, PROMPTS, QUESTIONS, REWRITER

Levels = Annotated[tuple[Annotated[int, Field(ge=1, le=9)], ...], Field(strict=False, min_length=1)]


# ---------------------------------------------------------------------------- policy


class LabPolicy(Section):
    """The lab's tiny start policy, trained on this machine from demonstrations of mixed quality."""

    kind: Literal["lab"] = "lab"
    seed: int = Field(
        default=0, ge=0, description="seed of its weights and demonstrations: another seed is another start policy"
    )
    steps: int = Field(default=800, ge=1, description="optimiser steps of supervised training")


class PretrainedPolicy(Section):
    """A causal language model from a local folder or the hub."""

    kind: Literal["pretrained"] = "pretrained"
    path: str = Field(min_length=1, description="a local folder with config.json and *.safetensors, or a hub name")
    revision: str | None = Field(default=None, description="hub commit; recommended, so that the key names the weights")
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    attention: Literal["eager", "sdpa", "flash_attention_2"] = "sdpa"
    trust_remote_code: bool = Field(default=False, description="only together with a revision")

    @model_validator(mode="after")
    def _remote_code_needs_a_revision(self) -> PretrainedPolicy:
        if self.trust_remote_code and not self.revision:
            raise broken_rule("trust_remote_code", "found true; needs a revision, the exact code that may run")
        return self


# ---------------------------------------------------------------------------- prompts


class LabPrompts(Section):
    """Base prompts of the lab world, drawn by seed."""

    kind: Literal["lab"] = "lab"
    count: int = Field(default=512, ge=4)
    levels: Levels = Field(default=(1, 2, 3), description="difficulty levels, 1 to 9, drawn uniformly")
    seed: int = Field(default=0, ge=0)


class FilePrompts(Section):
    """Prompts from a JSONL or Parquet file, read through `datasets`."""

    kind: Literal["file"] = "file"
    path: str = Field(min_length=1, description="a .jsonl or .parquet file")
    column: str = "prompt"
    limit: int | None = Field(default=None, ge=1, description="keep a seeded sample of this many prompts")
    max_tokens: int = Field(default=1024, ge=1, description="longer prompts are set aside and counted")


class HubPrompts(Section):
    """Prompts from a dataset on the hub."""

    kind: Literal["hub"] = "hub"
    name: str = Field(min_length=1, description="org/name on the hub")
    split: str = "train"
    column: str = "prompt"
    revision: str | None = None
    limit: int | None = Field(default=None, ge=1)
    max_tokens: int = Field(default=1024, ge=1)


class _EvaluationQuestions(Section):
    """Questions that prompts are compared with: an official set, or a file with a column of prompts."""

    set: Literal["alpaca_eval", "arena_hard", "arena_hard_v2", "mt_bench"] | None = None
    path: str | None = Field(default=None, min_length=1, description="a .jsonl or .parquet file, in place of a set")
    column: str = "prompt"


EvaluationQuestions = Annotated[_EvaluationQuestions, QUESTIONS]


# ---------------------------------------------------------------------------- generation


class Generation(Section):
    """Decoding settings of the solver's responses, and the engine that samples them."""

    engine: Literal["transformers", "vllm"] = "transformers"
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_new_tokens: int = Field(default=2048, ge=1)


Policy = Annotated[
    Annotated[LabPolicy, Tag("lab")] | Annotated[PretrainedPolicy, Tag("pretrained")], Discriminator(kind_of), POLICY
]
Prompts = Annotated[
    Annotated[LabPrompts, Tag("lab")] | Annotated[FilePrompts, Tag("file")] | Annotated[HubPrompts, Tag("hub")],
    Discriminator(kind_of),
    PROMPTS,
]

# ---------------------------------------------------------------------------- solver


class Warmup(Section):
    """Round 0, before the creator acts: plain preference optimisation on the base prompts. Shared by all runs of a seed."""

    responses_per_prompt: int = Field(default=6, ge=2)


# ---------------------------------------------------------------------------- recipe


class Recipe(Section):
    """What is trained: policy, prompts, reward, creator, optimiser, benchmarks."""

    name: Name
    policy: Policy
    prompts: Prompts
    responses_per_prompt: int = Field(default=6, ge=2)
    evolved_ratio: float = Field(default=0.8, ge=0, le=1)
    rounds: int = Field(default=1, ge=0, description="rounds after the warm-up")
    rounds_on: Literal["evolved", "new", "repeated"] = Field(
        default="evolved",
        description="what a round trains on: evolved and base prompts (eva), the next fresh prompts of the source, "
        "or the pairs of the round before once more (more epochs)",
    )
    incremental: bool = Field(
        default=True, description="false: every round trains the start policy, from scratch, on the pairs of all rounds so far"
    )
    reference: Literal["round", "start"] = Field(
        default="round", description="the reference policy: the one that the training starts from, or always the start policy"
    )
    warmup: Warmup | None = Warmup()
    generation: Generation = Generation()
    reward: Reward
    creator: Creator
    pairing: Pairing = Pairing()
    rewriter: Annotated[Rewriter | None, REWRITER] = Field(
        default=None, description="improves the best response before pairing; null: off"
    )
    optimiser: Optimiser = DPO()
    judge: Judge | None = Field(default=None, description="of the judged benchmarks without one of their own")
    benchmarks: dict[BenchmarkName, Benchmark] = Field(min_length=1)
    decontaminate: tuple[EvaluationQuestions, ...] = Field(
        default=(),
        strict=False,
        description="evaluation questions that no prompt may contain; the rule is that of creator.admission.contamination",
    )
    variants: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="named sets of dotted keys, which axes of a sweep can choose"
    )
    quick: dict[str, Any] = Field(default_factory=dict, description="dotted keys that --quick sets, e.g. prompts.count: 64")

    @model_validator(mode="after")
    def _something_is_trained(self) -> Recipe:
        if self.warmup is None and self.rounds_on == "repeated":
            raise broken_rule("rounds_on", "found repeated and no warmup; there are no pairs to repeat, give a warmup")
        if self.warmup is None and self.rounds == 0:
            raise broken_rule(
                "rounds", "found 0 and no warmup; nothing would be trained, set rounds to 1 or more or give a warmup"
            )
        return self
