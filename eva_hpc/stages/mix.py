"""The prompts of a round: a share of the evolved and the rest of the base, the base of the next round."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from eva_hpc.method.mixing import mix, shuffled
from eva_hpc.stages.contract import Context, Counts, Inputs, StageSpec
from eva_hpc.store.records import Prompt, read_jsonl, write_jsonl
from eva_hpc.store.seeds import derive_seed


class Spec(StageSpec):
    """The ratio of evolved prompts."""

    stage: ClassVar[str] = "mix"
    version: ClassVar[int] = 2
    ratio: float
    seed: int
    round: int


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``prompts.jsonl``. Inputs: ``base``, and ``evolved`` unless the ratio is 0."""
    base, evolved = read_base_and_evolved(inputs)
    seed = mixing_seed(spec.seed, spec.round)
    mixture = mix(list(base), list(evolved), spec.ratio, seed)
    # Where evolved prompts are lacking, more base prompts take their places: rounds must not shrink from one to the next.
    more = shuffled(base, seed)[len(mixture.base) : len(mixture.base) + mixture.shortage]
    written = write_jsonl(out / "prompts.jsonl", [(evolved | base)[name] for name in (*mixture.prompt_ids, *more)])
    return Counts(len(base) + len(evolved), written, {"beyond the ratio": len(base) + len(evolved) - written})


def mixing_seed(seed: int, number: int) -> int:
    """The seed of a round's order of prompts: evolve, pair and mix agree on it, so that every share is a prefix."""
    return derive_seed(seed, number, "mix")


def read_base_and_evolved(inputs: Inputs) -> tuple[dict[str, Prompt], dict[str, Prompt]]:
    """The prompts of both inputs by id; no evolved ones where the creator does not act."""
    base, evolved = (
        {prompt["id"]: prompt for prompt in read_jsonl(inputs[role] / "prompts.jsonl")} if role in inputs else {}
        for role in ("base", "evolved")
    )
    return base, evolved
