"""Preference pairs of a round: prompts mixed by ratio, and of each the best and the worst of its first k responses."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import orjson

from eva_hpc.method.mixing import mix
from eva_hpc.method.pairing import pairs
from eva_hpc.stages.contract import Context, Counts, Inputs, StageFailed, StageSpec
from eva_hpc.stages.mix import mixing_seed, read_base_and_evolved
from eva_hpc.stages.set_aside import SetAside
from eva_hpc.stages.slices import first_responses, first_rewards
from eva_hpc.store.artifacts import write_atomically
from eva_hpc.store.records import Pair, Responses, write_jsonl


class Spec(StageSpec):
    """How many responses of a prompt count, and the ratio of evolved prompts."""

    stage: ClassVar[str] = "pair"
    responses: int
    ratio: float
    seed: int
    round: int


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``pairs.jsonl``, and ``mixture.json``: how many prompts of either kind there are, and how many lack.

    Inputs: ``base``, ``base_responses``, ``base_rewards``, and the same of ``evolved`` unless the ratio is 0.

    Raises:
        StageFailed: no prompt gives a pair.
    """
    base, evolved = read_base_and_evolved(inputs)
    mixture = mix(list(base), list(evolved), spec.ratio, mixing_seed(spec.seed, spec.round))
    aside = SetAside()
    made: list[Pair] = []
    for role, chosen, fraction in (("evolved", mixture.evolved, spec.ratio), ("base", mixture.base, 1.0)):
        if not chosen:
            continue
        records = first_responses(inputs[f"{role}_responses"], inputs[role], fraction, spec.responses)
        responses: dict[str, Responses] = {record["prompt_id"]: record for record in records}
        rewards = first_rewards(inputs[f"{role}_rewards"], spec.responses)
        new, refused = pairs([responses[name] for name in chosen], rewards)
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
