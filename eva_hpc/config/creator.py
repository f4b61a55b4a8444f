"""The creator of a recipe, and what turns its prompts into pairs: who evolves, which prompts enter, how responses are paired.

Short forms::

    evolver: lab                     {kind: lab}                    also policy; none: sampled prompts are used as they are
    rewriter: lab                    {by: {kind: lab}}              also policy
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from eva_hpc.config.section import Section, broken_rule, kind_of, later
from eva_hpc.config.server import Server
from eva_hpc.config.shorthand import EVOLVER, WRITER

Metric = Literal["A_min", "A_avg", "A_dts", "var", "avg", "uniform", "inv_avg", "inv_A_min", "alignment_potential"]
Family = Literal["evol_instruct", "evol_complexity", "evol_quality", "self_instruct"]
OPERATORS = (
    "constraints",
    "deepening",
    "concretizing",
    "reasoning",
    "expansion",
    "persona",
    "shift-in",
    "shift-out",
    "mix",
    "abstract",
    "clarity",
    "completeness",
    "relevance",
    "precision",
    "engagement",
    "self-instruct",
)
"""Of `method/evolving.py`."""
LAB_OPERATORS = ("deepen", "lengthen", "switch", "renew", "invent")
"""Of `lab/rewriter.py`."""
Quantile = Annotated[float, Field(ge=0, le=1)]


# ---------------------------------------------------------------------------- who writes


class LabRewriter(Section):
    """The lab's rules: they rewrite its prompts, and mend its answers."""

    kind: Literal["lab"] = "lab"


class NoEvolver(Section):
    """Nobody: the sampled prompts are used as they are, and the round trains on them alone."""

    kind: Literal["none"] = "none"


class PolicyEvolver(Section):
    """The current policy rewrites the prompts itself."""

    kind: Literal["policy"] = "policy"
    engine: Literal["transformers", "vllm"] = "transformers"
    temperature: float = Field(default=0.88, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=666, ge=1)


class ModelEvolver(PolicyEvolver):
    """Another model, run here, rewrites the prompts."""

    kind: Literal["model"] = "model"  # type: ignore[assignment]
    path: str = Field(min_length=1, description="a local folder with config.json and *.safetensors, or a hub name")
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"


class OpenAIEvolver(Server):
    """Any OpenAI-compatible server rewrites the prompts; the key comes from the environment variable named here."""

    kind: Literal["openai"] = "openai"
    temperature: float = Field(default=0.88, ge=0)
    max_new_tokens: int = Field(default=666, ge=1)


Writer = Annotated[
    Annotated[LabRewriter, Tag("lab")]
    | Annotated[PolicyEvolver, Tag("policy")]
    | Annotated[ModelEvolver, Tag("model")]
    | Annotated[OpenAIEvolver, Tag("openai")],
    Discriminator(kind_of),
    WRITER,
]
Evolver = Annotated[
    Annotated[LabRewriter, Tag("lab")]
    | Annotated[PolicyEvolver, Tag("policy")]
    | Annotated[ModelEvolver, Tag("model")]
    | Annotated[OpenAIEvolver, Tag("openai")]
    | Annotated[NoEvolver, Tag("none")],
    Discriminator(kind_of),
    EVOLVER,
]


# ---------------------------------------------------------------------------- the creator


class Admission(Section):
    """Which evolved prompts enter. What a filter sets aside is kept and counted; each can be turned off."""

    refusals: bool = Field(default=True, description="set aside what is a refusal to write a prompt")
    leaked_instructions: bool = Field(default=True, description="set aside what repeats the instruction to the evolver")
    min_chars: int = Field(default=10, ge=0, description="shorter evolved prompts are set aside")
    max_chars: int = Field(default=8000, ge=1, description="longer evolved prompts are set aside")
    duplicates: bool = Field(default=True, description="set aside what equals another prompt but for case and white space")
    near_duplicates: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=0.9, description="set aside what has this Jaccard similarity of word 3-shingles with another prompt; null: off"
    )
    contamination: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=0.5,
        description="set aside what shares this part of an evaluation question, in runs of 8 words; null: off. "
        "The questions are those of `decontaminate`",
    )

    @model_validator(mode="after")
    def _some_length_is_left(self) -> Admission:
        if self.min_chars > self.max_chars:
            raise broken_rule("min_chars", f"found {self.min_chars}; must be at most max_chars, {self.max_chars}")
        return self


class Creator(Section):
    """How the creator estimates, samples and evolves prompts."""

    informativeness: Metric = "A_min"
    implicit_beta: float = later(
        0.05, gt=0, description="of the implicit reward beta log(policy / start), for alignment_potential"
    )
    reward_scale: float = later(1.0, gt=0, description="of reward gaps beside implicit ones, for alignment_potential")
    sampling: Literal["weighted", "greedy", "stratified", "topic"] = "weighted"
    fraction: float = Field(default=0.25, gt=0, le=1, description="share of the base prompts that is evolved")
    count: int | None = later(None, ge=1, description="how many base prompts are evolved, in place of the fraction")
    topics: int = later(8, ge=2, description="clusters of prompts that the topic-balanced sample is spread over")
    family: Family = later("evol_instruct", description="the operators that evolve prompts")
    operators: tuple[str, ...] = later((), strict=False, description="operators by name, in place of the family's")
    evolutions: int = Field(default=4, ge=1, description="evolutions chained on each sampled prompt; all are kept")
    evolver: Evolver
    admission: Admission = Admission()
    recheck: Quantile | None = Field(
        default=None, description="drop evolved prompts less informative than this quantile of the base prompts; null: off"
    )

    @model_validator(mode="after")
    def _operators_exist(self) -> Creator:
        known = LAB_OPERATORS if isinstance(self.evolver, LabRewriter) else OPERATORS
        if unknown := [name for name in self.operators if name not in known]:
            raise broken_rule("operators", f"found {unknown[0]!r}; must be among {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _children_can_be_measured(self) -> Creator:
        if self.recheck is not None and self.informativeness == "alignment_potential":
            raise broken_rule("recheck", "needs a metric of rewards only; found alignment_potential, set recheck to null")
        return self


# ---------------------------------------------------------------------------- pairs


class Pairing(Section):
    """How the responses of a prompt make a pair."""

    choice: Literal["best_worst", "best_random"] = later(
        "best_worst", description="the rejected one: the worst, or any worse one"
    )
    min_margin: float = later(0.0, ge=0, description="prompts whose pair has a smaller reward gap are set aside")
    win_scale: float = later(
        1.0, gt=0, description="what reward differences are multiplied by in win probabilities, sigmoid(scale (r_i - r_j))"
    )


class Rewriter(Section):
    """Improves the best response of every prompt before pairing."""

    by: Writer = Field(description="who rewrites")
    only_if_better: bool = Field(default=True, description="keep the response where its rewriting is rewarded less")
