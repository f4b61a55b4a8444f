"""Which evolved prompts enter the round, in the seeded order in which every ratio takes its share from the front.

prompts.jsonl       those admitted
set_aside.jsonl     the others, each with the reason
whole.json          {"whole": 320}      how many prompts a ratio of 1 asks for: as many as there are base prompts
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import ClassVar

from eva_hpc.config.creator import Admission
from eva_hpc.method.admission import admit
from eva_hpc.method.mixing import shuffled
from eva_hpc.stages.contract import Context, Counts, Inputs, StageFailed, StageSpec
from eva_hpc.stages.held_out import held_out_questions
from eva_hpc.stages.mix import mixing_seed
from eva_hpc.stages.prompts import token_counter, token_limit
from eva_hpc.stages.set_aside import SetAside
from eva_hpc.stages.slices import write_whole
from eva_hpc.store.records import Prompt, read_jsonl, write_jsonl


class Spec(StageSpec):
    """The filters, and the most tokens that a prompt may have (None: no such limit)."""

    stage: ClassVar[str] = "admit"
    admission: Admission
    max_tokens: int | None
    seed: int
    round: int


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``prompts.jsonl``.

    Inputs: ``rewrites``, ``base``; ``policy`` (for its tokenizer) if `max_tokens` is set; ``questions_0``, … to compare with.

    Raises:
        StageFailed: nothing is admitted.
    """
    chains = read_jsonl(inputs["rewrites"] / "rewrites.jsonl")
    base: list[Prompt] = read_jsonl(inputs["base"] / "prompts.jsonl")
    # Of duplicates the first is admitted, so their order must not be that of the base prompts.
    children: list[Prompt] = [child for chain in sorted(chains, key=lambda chain: chain["root"]) for child in chain["children"]]
    read, aside = len(children), SetAside()
    if spec.max_tokens is not None:
        children = _short_enough(children, inputs["policy"], spec.max_tokens, aside)
    admitted, refused = admit(base, children, spec.admission, held_out_questions(inputs))
    for prompt in refused:
        aside.add(prompt["reason"], prompt)
    by_id = {prompt["id"]: prompt for prompt in admitted}
    order = shuffled(by_id, mixing_seed(spec.seed, spec.round))
    written = write_jsonl(out / "prompts.jsonl", (by_id[name] for name in order))
    write_whole(out, len(base))
    counts = Counts(read, written, aside.write(out))
    if not written:
        raise StageFailed(f"none of the {read} evolved prompts can be used: {aside.describe()}")
    return counts


def _short_enough(prompts: Sequence[Prompt], policy: Path, max_tokens: int, aside: SetAside) -> list[Prompt]:
    length, longest = token_counter(policy), token_limit(policy, max_tokens)
    too_long = [length(prompt["prompt"]) > longest for prompt in prompts]
    for prompt in compress(prompts, too_long):
        aside.add("too long", prompt)
    return [prompt for prompt, long in zip(prompts, too_long, strict=True) if not long]
