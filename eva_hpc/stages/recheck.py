"""Evolved prompts that are still informative: what the current policy makes of them is measured as for the base prompts.

As many are measured as there are base prompts; at a ratio of 1 the round lacks every one that is dropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from eva_hpc.method.informativeness import informativeness
from eva_hpc.method.recheck import still_informative
from eva_hpc.stages.contract import Context, Counts, Inputs, StageFailed, StageSpec
from eva_hpc.stages.set_aside import SetAside
from eva_hpc.stages.slices import first_rewards, write_whole
from eva_hpc.store.records import Prompt, read_jsonl, write_jsonl


class Spec(StageSpec):
    """The metric over the first `responses` responses, and the quantile of the base prompts that a child must reach."""

    stage: ClassVar[str] = "recheck"
    informativeness: str
    quantile: float
    responses: int


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``prompts.jsonl``, in the order given. Inputs: ``base``, ``base_rewards``, ``evolved``, ``evolved_rewards``.

    Raises:
        StageFailed: none is.
    """
    prompts: list[Prompt] = read_jsonl(inputs["evolved"] / "prompts.jsonl")
    base = read_jsonl(inputs["base"] / "prompts.jsonl")
    rewards = {role: first_rewards(inputs[f"{role}_rewards"], spec.responses) for role in ("base", "evolved")}
    scored = [prompt["id"] for prompt in prompts if prompt["id"] in rewards["evolved"]]  # no more of them can be used
    asked = [prompt["id"] for prompt in base]
    values = informativeness(
        spec.informativeness,
        {**{name: rewards["base"][name] for name in asked}, **{name: rewards["evolved"][name] for name in scored}},
    )
    kept, dropped = still_informative(
        {name: values[name] for name in scored if name in values},
        {name: values[name] for name in asked if name in values},
        spec.quantile,
    )
    too_low, enough = set(dropped), set(kept)
    aside = SetAside()
    for prompt in prompts:
        if prompt["id"] in too_low:
            aside.add("no longer informative", {**prompt, "informativeness": values[prompt["id"]]})
        elif prompt["id"] not in enough:
            aside.add("no reward" if prompt["id"] in rewards["evolved"] else "beyond the ratio", prompt)
    by_id = {prompt["id"]: prompt for prompt in prompts}
    written = write_jsonl(out / "prompts.jsonl", (by_id[name] for name in kept))
    write_whole(out, len(base))
    counts = Counts(len(prompts), written, aside.write(out))
    if not written:
        raise StageFailed(f"none of the {len(prompts)} evolved prompts is informative enough: {aside.describe()}")
    return counts
