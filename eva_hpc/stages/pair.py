"""Preference pairs of a round: prompts mixed by ratio, and of each the best of its first k responses against a worse one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import orjson

from eva_hpc.config.creator import Pairing
from eva_hpc.config.section import later
from eva_hpc.method.mixing import mix
from eva_hpc.method.pairing import pairs, win_probabilities
from eva_hpc.stages.contract import Context, Counts, Inputs, StageFailed, StageSpec
from eva_hpc.stages.mix import mixing_seed, read_base_and_evolved
from eva_hpc.stages.set_aside import SetAside
from eva_hpc.stages.slices import are_preferences, first_rewards, responses_of
from eva_hpc.store.artifacts import write_atomically
from eva_hpc.store.records import Pair, write_jsonl
from eva_hpc.store.seeds import derive_seed


class Spec(StageSpec):
    """How many responses of a prompt count, the ratio of evolved prompts, and how responses are paired."""

    stage: ClassVar[str] = "pair"
    version: ClassVar[int] = 2
    responses: int
    ratio: float
    seed: int
    round: int
    pairing: Pairing = later(Pairing())


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``pairs.jsonl``, and ``mixture.json``: how many prompts of either kind there are, and how many lack.

    Inputs: ``base``, ``base_responses``, ``base_rewards``, and the same of ``evolved`` unless the ratio is 0.

    Raises:
        StageFailed: no prompt gives a pair.
    """
    base, evolved = read_base_and_evolved(inputs)
    mixture = mix(list(base), list(evolved), spec.ratio, mixing_seed(spec.seed, spec.round))
    pairing = spec.pairing
    aside = SetAside()
    made: list[Pair] = []
    for role, chosen in (("evolved", mixture.evolved), ("base", mixture.base)):
        if not chosen:
            continue
        responses = responses_of(inputs[f"{role}_responses"], chosen, spec.responses)
        rewards = first_rewards(inputs[f"{role}_rewards"], spec.responses)
        compared = are_preferences(inputs[f"{role}_rewards"])
        new, refused = pairs(
            responses,
            rewards,
            choice=pairing.choice,
            min_margin=pairing.min_margin,
            seed=derive_seed(spec.seed, spec.round, "pair"),
            wins=rewards if compared else {name: win_probabilities(rewards[name], pairing.win_scale) for name in chosen},
        )
        made += new
        for record in refused:
            aside.add(record["reason"], {"prompt_id": record["prompt_id"]})
    if not made:
        raise StageFailed(f"none of the {len(mixture.prompt_ids)} prompts gives a pair: {aside.describe()}")
    write_jsonl(out / "pairs.jsonl", made)
    write_atomically(
        out / "mixture.json",
        orjson.dumps({"evolved": len(mixture.evolved), "base": len(mixture.base), "shortage": mixture.shortage}),
    )
    return Counts(len(mixture.prompt_ids), len(made), aside.write(out))
