"""How the solver is trained on preference pairs: one section per loss, with the hyper-parameters of the eva paper as defaults.

Short form::

    optimiser: simpo                 {loss: simpo}                  also dpo, ipo, sppo, rpo, orpo
    optimiser: {lora: {}, learning_rate: 5e-5}                      DPO of low-rank adapters

Sources of the defaults: the scripts of eva's authors (github.com/ZIYU-DEEP/eva) for DPO, IPO, SPPO and RPO, those of SimPO's
authors (github.com/princeton-nlp/SimPO) for SimPO; ORPO's are not checked against any. `training/losses.py` has the formulas.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from eva_hpc.config.section import Section, broken_rule, later
from eva_hpc.config.shorthand import Shorthand

ALL_LINEAR = "all-linear"


class Lora(Section):
    """Low-rank adapters (arXiv 2106.09685): a layer's weight W becomes W + alpha / rank B A, and only A and B are trained."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    targets: Annotated[tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)] = Field(
        default=(ALL_LINEAR,),
        min_length=1,
        strict=False,
        description="names of linear layers, e.g. [q_proj, v_proj]; all-linear: all but the head",
    )

    @model_validator(mode="after")
    def _all_is_all(self) -> Lora:
        if ALL_LINEAR in self.targets and len(self.targets) > 1:
            raise broken_rule("targets", f"found {', '.join(self.targets)}; must be {ALL_LINEAR} alone or names of layers")
        return self


class Training(Section):
    """What all losses share. One optimiser step always sees `batch_size` pairs, whatever the world size."""

    loss: str
    learning_rate: float = Field(default=5e-7, gt=0)
    epochs: int = Field(default=2, ge=1)
    steps: int | None = later(
        None, ge=1, description="exactly this many optimiser steps, all of full batches, in place of the epochs"
    )
    batch_size: int = Field(default=64, ge=1, description="pairs per optimiser step over all ranks")
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    rule: Literal["adamw", "rmsprop"] = later("adamw", description="how gradients become updates")
    weight_decay: float = Field(default=0.0, ge=0, description="of matrices; by rmsprop it is added to the gradient")
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(
        default=2048, ge=2, description="tokens of prompt and response; longer pairs are set aside and counted"
    )
    max_prompt_length: int = Field(default=1024, ge=1)
    precision: Literal["fp32", "bf16"] = "bf16"
    gradient_checkpointing: bool = True
    lora: Lora | None = later(None, description="train low-rank adapters in place of the weights; the model comes out merged")

    @model_validator(mode="after")
    def _a_response_fits_beside_the_longest_prompt(self) -> Training:
        if self.max_prompt_length >= self.max_length:
            raise broken_rule(
                "max_prompt_length", f"found {self.max_prompt_length}; must be below max_length, {self.max_length}"
            )
        return self


class DPO(Training):
    """Direct Preference Optimisation; with label smoothing, conservative DPO."""

    loss: Literal["dpo"] = "dpo"
    beta: float = Field(default=0.05, gt=0)
    label_smoothing: float = later(0.0, ge=0, lt=0.5, description="assumed share of pairs whose preference is wrong")


class IPO(Training):
    """Identity Preference Optimisation."""

    loss: Literal["ipo"] = "ipo"
    beta: float = Field(default=0.6, gt=0)
    length_normalised: bool = Field(
        default=True,
        description="log-ratios per token, as eva's authors and TRL; false: sums, as in the paper arXiv 2310.12036",
    )


class SPPO(Training):
    """Self-Play Preference Optimisation."""

    loss: Literal["sppo"] = "sppo"
    beta: float = Field(default=0.001, gt=0)
    win_probability: Literal["soft", "hard"] = Field(
        default="soft", description="soft: what the rewards of all responses say; hard: 1 for the chosen and 0 for the rejected"
    )
    schedule: Literal["cosine", "linear", "constant"] = "linear"
    rule: Literal["adamw", "rmsprop"] = later("rmsprop", description="how gradients become updates")


class RPO(Training):
    """DPO plus the length-normalised negative log-likelihood of the chosen response."""

    loss: Literal["rpo"] = "rpo"
    beta: float = Field(default=0.1, gt=0)
    alpha: float = Field(default=1.0, ge=0, description="weight of the negative log-likelihood")
    epochs: int = Field(default=1, ge=1)


class SimPO(Training):
    """Simple Preference Optimisation; no reference policy."""

    loss: Literal["simpo"] = "simpo"
    beta: float = Field(default=10.0, gt=0)
    gamma_beta_ratio: float = Field(default=0.5, ge=0, description="the margin aimed at, over beta")
    learning_rate: float = Field(default=8e-7, gt=0)
    batch_size: int = Field(default=128, ge=1, description="pairs per optimiser step over all ranks")
    epochs: int = Field(default=1, ge=1)


class ORPO(Training):
    """Odds Ratio Preference Optimisation; no reference policy."""

    loss: Literal["orpo"] = "orpo"
    weight: float = Field(default=0.5, ge=0, description="of the odds ratio beside the likelihood, lambda in the paper")
    epochs: int = Field(default=1, ge=1)


_LOSSES = ("dpo", "ipo", "sppo", "rpo", "simpo", "orpo")


def _from_word(text: str) -> dict[str, Any]:
    if text in _LOSSES:
        return {"loss": text}
    near = difflib.get_close_matches(text.lower(), _LOSSES, n=1)
    raise ValueError(f"found {text!r}; must be {OPTIMISER.allowed}" + (f"; did you mean '{near[0]}'?" if near else ""))


def _loss_of(value: Any) -> str | None:
    """The `loss` of a section, DPO where none is named; None lets pydantic list the allowed ones."""
    loss = value.get("loss", "dpo") if isinstance(value, dict) else getattr(value, "loss", None)
    return loss if isinstance(loss, str) else None


OPTIMISER = Shorthand(_from_word, "dpo, ipo, sppo, rpo, simpo or orpo")
Optimiser = Annotated[
    Annotated[DPO, Tag("dpo")]
    | Annotated[IPO, Tag("ipo")]
    | Annotated[SPPO, Tag("sppo")]
    | Annotated[RPO, Tag("rpo")]
    | Annotated[SimPO, Tag("simpo")]
    | Annotated[ORPO, Tag("orpo")],
    Discriminator(_loss_of),
    OPTIMISER,
]


def needs_reference(settings: Optimiser) -> bool:
    """Whether the loss compares with a reference policy, so that its log-probs must be known."""
    return not isinstance(settings, SimPO | ORPO)


def needs_win_probabilities(settings: Optimiser) -> bool:
    """Whether each side of a pair must come with its `win_probability`."""
    return isinstance(settings, SPPO) and settings.win_probability == "soft"
