"""The reward of a recipe: who says how good a response is.

Pointwise kinds give each response a number, or none where they cannot say; pairwise kinds compare two responses to a prompt::

    reward: lab                                                        the lab's exact checker
    reward: {kind: lab, grading: exact, noise: 0.2}                    a worse reward model
    reward: Skywork/Skywork-Reward-Gemma-2-27B                         one logit
    reward: armorm                                                     RLHFlow/ArmoRM-Llama3-8B-v0.1
    reward: pairrm                                                     pairwise: llm-blender/PairRM-hf
    reward: {kind: openai, model: judge-1, base_url: "http://host:8000/v1"}
    reward: {kind: ensemble, members: [armorm, models/reward], weights: [1, 0.1]}
"""

from __future__ import annotations

from itertools import chain
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from eva_hpc.config.section import Section, broken_rule, kind_of, later
from eva_hpc.config.server import Server
from eva_hpc.config.shorthand import REWARD
from eva_hpc.config.yaml_file import KeyPath

Dtype = Literal["float32", "bfloat16", "float16"]


# ---------------------------------------------------------------------------- pointwise


class LabChecker(Section):
    """The lab's exact checker as reward; made worse on purpose, it stands for a reward model that errs or can be hacked."""

    kind: Literal["lab"] = "lab"
    grading: Literal["graded", "exact"] = later("graded", description="exact: close answers earn nothing")
    noise: float = later(0.0, ge=0, description="standard deviation of an error, fixed for each prompt and answer")
    length_bonus: float = later(0.0, description="reward per character of the answer, which a policy learns to exploit")
    pairwise: bool = later(
        False, description="compare answers, P(i beats j) = sigmoid(10 (r_i - r_j)), instead of giving rewards"
    )


class SequenceClassification(Section):
    """A reward model with one logit, e.g. Skywork-Reward."""

    kind: Literal["sequence_classification"] = "sequence_classification"
    path: str = Field(min_length=1, description="a local folder with config.json and *.safetensors, or a hub name")
    revision: str | None = None
    engine: Literal["transformers", "vllm"] = "transformers"
    dtype: Dtype = "bfloat16"
    max_length: int = Field(
        default=4096, ge=1, description="tokens of prompt and response together; longer ones are cut on the left of the prompt"
    )
    trust_remote_code: bool = later(False, description="only together with a revision")

    @model_validator(mode="after")
    def _remote_code_needs_a_revision(self) -> SequenceClassification:
        if self.trust_remote_code and not self.revision:
            raise broken_rule("trust_remote_code", "found true; needs a revision, the exact code that may run")
        return self


class ArmoRM(Section):
    """A reward model of several objectives, weighted by a gating network that reads the prompt (arXiv 2406.12845).

    Its network is part of this project: no remote code runs.
    """

    kind: Literal["armorm"] = "armorm"
    path: str = Field(
        default="RLHFlow/ArmoRM-Llama3-8B-v0.1",
        min_length=1,
        description="a local folder with config.json and *.safetensors, or a hub name",
    )
    revision: str | None = None
    dtype: Dtype = "bfloat16"
    max_length: int = Field(
        default=4096, ge=1, description="tokens of prompt and response together; longer ones are cut on the left of the prompt"
    )


class OpenAIScorer(Server):
    """Any OpenAI-compatible server rates answers from 1 to 10; the key comes from the environment variable named here."""

    kind: Literal["openai"] = "openai"
    temperature: float = Field(default=0.0, ge=0)
    max_new_tokens: int = Field(default=512, ge=1)
    repeats: int = Field(default=1, ge=1, description="times each answer is rated; the reward is the mean of the ratings")

    @model_validator(mode="after")
    def _repeats_can_differ(self) -> OpenAIScorer:
        if self.repeats > 1 and self.temperature == 0:
            raise broken_rule("repeats", f"found {self.repeats} at temperature 0; must be 1, or the temperature above 0")
        return self


PointwiseReward = Annotated[
    Annotated[LabChecker, Tag("lab")]
    | Annotated[SequenceClassification, Tag("sequence_classification")]
    | Annotated[ArmoRM, Tag("armorm")]
    | Annotated[OpenAIScorer, Tag("openai")],
    Discriminator(kind_of),
    REWARD,
]


class Ensemble(Section):
    """Several pointwise rewards as one. A response without a reward from one member has none.

    All members run in one process and share its GPU.
    """

    kind: Literal["ensemble"] = "ensemble"
    members: tuple[PointwiseReward, ...] = Field(strict=False)
    weights: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(), strict=False, description="factor of each member's reward, which brings them to one scale; default: 1 each"
    )
    combine: Literal["mean", "min"] = Field(
        default="mean", description="weighted mean, or the least of the weighted rewards: all must be pleased"
    )

    @model_validator(mode="after")
    def _members_go_together(self) -> Ensemble:
        if len(self.members) < 2:
            raise broken_rule("members", f"found {len(self.members)}; must be two or more")
        if self.weights and len(self.weights) != len(self.members):
            found = f"found {len(self.weights)} for {len(self.members)} members"
            raise broken_rule("weights", f"{found}; must be one for each, or none")
        for index, member in enumerate(self.members):
            if is_pairwise(member):
                raise broken_rule("members", f"found pairwise in member {index}; must give each response a reward")
        vllm = [index for index, member in enumerate(self.members) if getattr(member, "engine", "") == "vllm"]
        if len(vllm) > 1:
            raise broken_rule("members", f"found engine vllm in members {vllm}; a process has room for one, use transformers")
        return self


# ---------------------------------------------------------------------------- pairwise


class PairRM(Section):
    """A pairwise reward model on DeBERTa (arXiv 2306.02561). Its network is part of this project: no remote code runs.

    Texts are cut at their end; room that the prompt leaves is shared by the two responses.
    """

    kind: Literal["pairrm"] = "pairrm"
    path: str = Field(
        default="llm-blender/PairRM-hf",
        min_length=1,
        description="a local folder with config.json and *.safetensors, or a hub name",
    )
    revision: str | None = None
    dtype: Dtype = "float32"
    source_tokens: int = Field(default=1224, ge=4, description="tokens of a prompt; more are cut and counted")
    candidate_tokens: int = Field(
        default=412, ge=4, description="tokens of a response beside a prompt of full length; more are cut and counted"
    )


Reward = Annotated[
    Annotated[LabChecker, Tag("lab")]
    | Annotated[SequenceClassification, Tag("sequence_classification")]
    | Annotated[ArmoRM, Tag("armorm")]
    | Annotated[OpenAIScorer, Tag("openai")]
    | Annotated[Ensemble, Tag("ensemble")]
    | Annotated[PairRM, Tag("pairrm")],
    Discriminator(kind_of),
    REWARD,
]


# ---------------------------------------------------------------------------- what a reward needs


def parts(reward: Reward, key: KeyPath = ("reward",)) -> list[tuple[KeyPath, Reward]]:
    """The rewards that are not made of others, with the key of each: ``("reward",)``, or ``("reward", "members", 0)``, …"""
    if isinstance(reward, Ensemble):
        return list(chain.from_iterable(parts(one, (*key, "members", i)) for i, one in enumerate(reward.members)))
    return [(key, reward)]


def model_paths(reward: Reward, key: KeyPath = ("reward",)) -> list[tuple[KeyPath, str]]:
    """Where the models are that a reward loads, with the key of each, e.g. ``("reward", "members", 0, "path")``."""
    return [
        ((*where, "path"), part.path)
        for where, part in parts(reward, key)
        if isinstance(part, SequenceClassification | ArmoRM | PairRM)
    ]


def is_pairwise(reward: Reward) -> bool:
    """Whether it compares responses, and has no reward for one alone."""
    return isinstance(reward, PairRM) or (isinstance(reward, LabChecker) and reward.pairwise)
