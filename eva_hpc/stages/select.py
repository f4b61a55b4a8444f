"""The creator's choice: how informative each base prompt is under the current policy, and which prompts will be evolved."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from eva_hpc.method.informativeness import informativeness, weights
from eva_hpc.method.sampling import sample
from eva_hpc.stages.contract import Context, Counts, Inputs, StageSpec
from eva_hpc.stages.slices import first_rewards
from eva_hpc.store.records import Prompt, read_jsonl, write_jsonl
from eva_hpc.store.seeds import derive_seed


class Spec(StageSpec):
    """Metric and sampling over the first `responses` responses of every base prompt."""

    stage: ClassVar[str] = "select"
    informativeness: str
    sampling: str
    fraction: float
    responses: int
    seed: int
    round: int


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``prompts.jsonl`` (those to evolve) and ``informativeness.jsonl`` (all). Inputs: ``prompts``, ``rewards``."""
    prompts: list[Prompt] = read_jsonl(inputs["prompts"] / "prompts.jsonl")
    rewards = first_rewards(inputs["rewards"], spec.responses)
    values = informativeness(spec.informativeness, {prompt["id"]: rewards[prompt["id"]] for prompt in prompts})
    probability = weights(values)
    chosen = set(sample(probability, spec.fraction, derive_seed(spec.seed, spec.round, "select"), sampler=spec.sampling))
    write_jsonl(
        out / "informativeness.jsonl",
        (
            {"prompt_id": name, "informativeness": values[name], "weight": probability[name], "selected": name in chosen}
            for name in values
        ),
    )
    written = write_jsonl(out / "prompts.jsonl", (prompt for prompt in prompts if prompt["id"] in chosen))
    return Counts(read=len(prompts), written=written)
