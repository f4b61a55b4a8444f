"""The creator's choice: how informative each base prompt is under the current policy, and which prompts will be evolved."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from eva_hpc.config.section import later
from eva_hpc.method.informativeness import informativeness, weights
from eva_hpc.method.sampling import sample
from eva_hpc.method.topics import topics_of
from eva_hpc.stages.contract import Context, Counts, Inputs, StageFailed, StageSpec
from eva_hpc.stages.set_aside import SetAside
from eva_hpc.stages.slices import first_responses, first_rewards
from eva_hpc.store.records import Prompt, Response, read_jsonl, write_jsonl
from eva_hpc.store.seeds import derive_seed


class Spec(StageSpec):
    """Metric and sampling over the first `responses` responses of every base prompt; `count` prompts, or a fraction of them."""

    stage: ClassVar[str] = "select"
    informativeness: str
    implicit_beta: float | None = later(None)
    sampling: str
    fraction: float
    count: int | None = later(None)
    topics: int | None = later(None)
    responses: int
    seed: int
    round: int


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``prompts.jsonl`` (those to evolve) and ``informativeness.jsonl`` (all that have a reward).

    Inputs: ``prompts``, ``rewards``; ``responses`` and ``reference_logps`` for a metric of implicit rewards.

    Raises:
        StageFailed: no prompt has a reward.
    """
    prompts: list[Prompt] = read_jsonl(inputs["prompts"] / "prompts.jsonl")
    rewards = first_rewards(inputs["rewards"], spec.responses)
    asked = {prompt["id"]: rewards[prompt["id"]] for prompt in prompts}
    values = informativeness(spec.informativeness, asked, _implicit(spec, inputs))
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


def _implicit(spec: Spec, inputs: Inputs) -> dict[str, list[float]] | None:
    """Implicit rewards beta (log pi - log pi_start) of the first responses by prompt id; None where the metric needs none."""
    if spec.implicit_beta is None:
        return None
    implicit: dict[str, list[float]] = {}
    reference = {record["prompt_id"]: record["logps"] for record in read_jsonl(inputs["reference_logps"] / "logps.jsonl")}
    for record in first_responses(inputs["responses"], inputs["prompts"], 1.0, spec.responses):
        both = zip(record["responses"], reference[record["prompt_id"]], strict=False)
        implicit[record["prompt_id"]] = [spec.implicit_beta * (_sampled(response) - logp) for response, logp in both]
    return implicit


def _sampled(response: Response) -> float:
    """The log-prob that the sampler gave a response."""
    assert response["logprob"] is not None, "every response of a generation was sampled"
    return response["logprob"]
