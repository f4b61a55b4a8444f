"""Pairs whose chosen response is the rewritten one, where that was rewarded at least as well.

pairs.jsonl        as many as were read
set_aside.jsonl    {"reason": "rewriting rewarded less", "prompt_id": "9f1c…", "rewards": [0.3, 0.5]}    not adopted
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from eva_hpc.stages.contract import Context, Counts, Inputs, StageSpec
from eva_hpc.stages.set_aside import SetAside
from eva_hpc.stages.slices import are_preferences, first_rewards
from eva_hpc.store.artifacts import write_atomically
from eva_hpc.store.records import Pair, Response, Side, read_jsonl, write_jsonl


class Spec(StageSpec):
    """Whether a rewriting that is rewarded less than what it was made from is left."""

    stage: ClassVar[str] = "adopt"
    only_if_better: bool


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``pairs.jsonl``. Inputs: ``pairs``; ``rewritten`` and chosen responses, and the ``rewards`` of both."""
    pairs: list[Pair] = read_jsonl(inputs["pairs"] / "pairs.jsonl")
    written = {record["prompt_id"]: record["responses"] for record in read_jsonl(inputs["rewritten"] / "responses.jsonl")}
    rewards, compared = first_rewards(inputs["rewards"], 2), are_preferences(inputs["rewards"])
    aside = SetAside()

    def adopted(pair: Pair) -> Pair:
        name = pair["prompt_id"]
        if name not in written:
            return pair
        (new, old), (response, chosen) = rewards[name], written[name]
        problem = _why_not(spec, new, old, response, chosen)
        if not problem and not compared and new is not None and new <= pair["rejected"]["reward"]:
            problem = "rewriting rewarded no more than the rejected response"
        if problem:
            aside.add(problem, {"prompt_id": name, "rewards": [new, old]})
            return pair
        assert new is not None
        side: Side = {**pair["chosen"], "text": response["text"], "tokens": response["tokens"], "reward": new}
        return {**pair, "chosen": {**side, "rewritten": True}}

    write_jsonl(out / "pairs.jsonl", [adopted(pair) for pair in pairs])
    write_atomically(out / "mixture.json", (inputs["pairs"] / "mixture.json").read_bytes())
    return Counts(len(pairs), len(pairs), aside.write(out))


def _why_not(spec: Spec, new: float | None, old: float | None, rewritten: Response, chosen: Response) -> str:
    """Why a rewriting is not adopted; "" if it is."""
    if rewritten["text"] == chosen["text"] and chosen["finish"] == "stop":
        return "rewriting changes nothing"
    if new is None or (spec.only_if_better and old is None):
        return "rewriting without reward"
    return "rewriting rewarded less" if spec.only_if_better and old is not None and new < old else ""
