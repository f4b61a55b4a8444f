"""The creator's choice: how informative each base prompt is under the current policy, and which prompts will be evolved."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from eva_hpc.config.section import later
from eva_hpc.method.informativeness import informativeness, weights
from eva_hpc.method.sampling import sample
from eva_hpc.method.topics import topics_of
from eva_hpc.stages.contract import Context, Counts, Inputs, StageFailed, StageSpec
from eva_hpc.stages.set_aside import SetAside
from eva_hpc.stages.slices import first_rewards
from eva_hpc.store.records import Prompt, read_jsonl, write_jsonl
from eva_hpc.store.seeds import derive_seed


class Spec(StageSpec):
    """Metric and sampling over the first `responses` responses of every base prompt; `count` prompts, or a fraction of them."""

    stage: ClassVar[str] = "select"
    informativeness: str
    implicit_beta: float | None = later(None)
    reward_scale: float = later(1.0)
    sampling: str
    fraction: float
    count: int | None = later(None)
    topics: int | None = later(None)
    responses: int
    seed: int
    round: int


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``prompts.jsonl`` (those to evolve) and ``informativeness.jsonl`` (all that have a reward).

    Inputs: ``prompts``, ``rewards``; for a metric of implicit rewards ``policy_logps`` and ``start_logps``, if these differ.

    Raises:
        StageFailed: no prompt has a reward.
    """
    prompts: list[Prompt] = read_jsonl(inputs["prompts"] / "prompts.jsonl")
    rewards = first_rewards(inputs["rewards"], spec.responses)
    asked = {prompt["id"]: rewards[prompt["id"]] for prompt in prompts}
    scaled = {
        name: [value if value is None else spec.reward_scale * value for value in values] for name, values in asked.items()
    }
    values = informativeness(spec.informativeness, scaled, _implicit(spec, inputs, asked))
    if not values:
        raise StageFailed(f"none of the {len(prompts)} prompts has a reward")
    probability = weights(values)
    seed = derive_seed(spec.seed, spec.round, "select")
    texts = {prompt["id"]: prompt["prompt"] for prompt in prompts if prompt["id"] in values}
    drawn = sample(
        probability,
        fraction=spec.fraction if spec.count is None else None,
        count=spec.count,
        seed=seed,
        sampler=spec.sampling,
        topics=topics_of(texts, spec.topics, seed) if spec.topics is not None else None,
    )
    chosen = set(drawn)
    write_jsonl(
        out / "informativeness.jsonl",
        (
            {"prompt_id": name, "informativeness": values[name], "weight": probability[name], "selected": name in chosen}
            for name in values
        ),
    )
    aside = SetAside()
    for prompt in prompts:
        if prompt["id"] not in values:
            aside.add("no reward", prompt)
    written = write_jsonl(out / "prompts.jsonl", (prompt for prompt in prompts if prompt["id"] in chosen))
    return Counts(read=len(prompts), written=written, set_aside=aside.write(out))


def _implicit(spec: Spec, inputs: Inputs, names: Iterable[str]) -> dict[str, list[float]] | None:
    """Implicit rewards beta (log pi - log pi_start) of the first responses by prompt id; None where the metric needs none."""
    if spec.implicit_beta is None:
        return None
    if "policy_logps" not in inputs:  # the policy is the start policy
        return {name: [0.0] * spec.responses for name in names}
    policy, start = (
        {record["prompt_id"]: record["logps"] for record in read_jsonl(inputs[role] / "logps.jsonl")}
        for role in ("policy_logps", "start_logps")
    )
    return {
        name: [spec.implicit_beta * (a - b) for a, b in zip(policy[name], start[name], strict=True)][: spec.responses]
        for name in names
    }
