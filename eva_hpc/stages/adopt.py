"""Pairs whose chosen response is the rewritten one, where that was rewarded at least as well."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from eva_hpc.stages.contract import Context, Counts, Inputs, StageSpec
from eva_hpc.stages.slices import first_rewards
from eva_hpc.store.artifacts import write_atomically
from eva_hpc.store.records import Pair, Response, Side, read_jsonl, write_jsonl


class Spec(StageSpec):
    """Whether a rewriting that is rewarded less than what it was made from is left."""

    stage: ClassVar[str] = "adopt"
    only_if_better: bool


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``pairs.jsonl``, as many as were read. Inputs: ``pairs``; ``rewritten`` responses, ``rewards`` of these."""
    pairs: list[Pair] = read_jsonl(inputs["pairs"] / "pairs.jsonl")
    written = {record["prompt_id"]: record["responses"][0] for record in read_jsonl(inputs["rewritten"] / "responses.jsonl")}
    rewards = first_rewards(inputs["rewards"], 2)
    write_jsonl(out / "pairs.jsonl", (_adopted(spec, pair, written, rewards) for pair in pairs))
    write_atomically(out / "mixture.json", (inputs["pairs"] / "mixture.json").read_bytes())
    return Counts(len(pairs), len(pairs))


def _adopted(spec: Spec, pair: Pair, written: dict[str, Response], rewards: dict[str, list[float | None]]) -> Pair:
    name = pair["prompt_id"]
    new, old = rewards.get(name, (None, None))
    if name not in written or new is None or (spec.only_if_better and old is not None and new < old):
        return pair
    response = written[name]
    chosen: Side = {**pair["chosen"], "text": response["text"], "tokens": response["tokens"], "reward": new, "rewritten": True}
    return {**pair, "chosen": chosen}
