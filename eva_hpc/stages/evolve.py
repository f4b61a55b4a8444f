"""Evolved prompts: chains of rewrites of each selected prompt; every step is kept, and so is every one that failed.

rewrites.jsonl    {"root": "9f1c…", "children": [{"id": …, "prompt": …, "parent": "9f1c…", "operator": "constraints", …}, …],
                   "failed": [{"parent": …, "operator": "persona", "step": 2, "problem": "refused", "detail": ""}]}
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from eva_hpc.config.creator import Evolver, Family, LabRewriter, NoEvolver, OpenAIEvolver, PolicyEvolver
from eva_hpc.config.section import later
from eva_hpc.inference.engine import EngineName
from eva_hpc.method import evolving
from eva_hpc.method.evolving import SELF_INSTRUCT
from eva_hpc.stages.chunks import read_chunks, run_chunks
from eva_hpc.stages.contract import Context, Counts, Inputs, Parallel, StageFailed, StageSpec
from eva_hpc.stages.set_aside import SetAside
from eva_hpc.stages.writers import Write, open_writer
from eva_hpc.store.records import Prompt, read_jsonl, write_jsonl
from eva_hpc.store.seeds import derive_seed

EXAMPLES = 3
"""Other selected prompts that an operator which invents new ones is shown."""


class Rewritten(NamedTuple):
    """A new prompt and the operator that made it, or None and the problem."""

    text: str | None
    operator: str
    problem: str = ""
    detail: str = ""


# Rewrites a list of prompts with one operator each. The seeds are one per prompt.
Rewrite = Callable[[Sequence[Prompt], Sequence[int]], list[Rewritten]]


class Spec(StageSpec):
    """Who rewrites, how, and how many times in a chain; `fingerprint` is the hash of the evolver model's content."""

    stage: ClassVar[str] = "evolve"
    version: ClassVar[int] = 2
    evolver: Evolver
    fingerprint: str = ""
    family: Family = later("evol_instruct")
    operators: tuple[str, ...] = later(())
    evolutions: int
    seed: int
    round: int

    @property
    def parallel(self) -> Parallel:
        """A model is sharded; rules and requests to a server need one process."""
        return "one" if isinstance(self.evolver, LabRewriter | OpenAIEvolver) else "shards"

    @property
    def policy_engine(self) -> EngineName | None:
        """That of the evolver, if it is the policy."""
        return self.evolver.engine if type(self.evolver) is PolicyEvolver else None


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Evolve this shard's chunks. Inputs: ``selected``; ``policy`` if the policy is the evolver."""
    parents: list[Prompt] = read_jsonl(inputs["selected"] / "prompts.jsonl")
    evolver = spec.evolver
    assert not isinstance(evolver, NoEvolver), "a round without an evolver has no such stage"
    if isinstance(evolver, LabRewriter):
        _run(spec, parents, context, _by_rules(spec))
    else:
        with open_writer(evolver, spec.fingerprint, inputs.get("policy"), context) as write:
            _run(spec, parents, context, _by_writer(spec, parents, write))
    return Counts(read=len(parents), written=0)


def finish(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Put the chunks together in the order of the selected prompts.

    Raises:
        StageFailed: there is no evolved prompt at all.
    """
    parents = read_jsonl(inputs["selected"] / "prompts.jsonl")
    chains = list(read_chunks(len(parents), context.engine.chunk_prompts, context.work))
    write_jsonl(out / "rewrites.jsonl", chains)
    made = sum(len(chain["children"]) for chain in chains)
    aside = SetAside()
    for failure in (failure for chain in chains for failure in chain["failed"]):
        aside.add(f"rewrite failed: {failure['problem']}", failure)
    counts = aside.write(out)
    if not made:
        raise StageFailed(f"none of the {sum(counts.values())} rewrites can be used: {aside.describe()}")
    return Counts(made + sum(counts.values()), made, counts)


def _run(spec: Spec, parents: list[Prompt], context: Context, rewrite: Rewrite) -> None:
    """Chains of `evolutions` rewrites; a failed step is noted and the chain goes on from the last good prompt."""

    def evolve(piece: Sequence[Prompt]) -> list[dict[str, Any]]:
        current = list(piece)
        records: list[dict[str, Any]] = [{"root": prompt["id"], "children": [], "failed": []} for prompt in piece]
        for step in range(spec.evolutions):
            seeds = [derive_seed(spec.seed, spec.round, "evolve", prompt["id"], step) for prompt in piece]
            for index, new in enumerate(rewrite(current, seeds)):
                child = _child(records[index], current[index], new, spec.round)
                if isinstance(child, str):
                    failure = {"parent": current[index]["id"], "operator": new.operator, "step": step}
                    records[index]["failed"].append({**failure, "problem": child, "detail": new.detail})
                else:
                    current[index] = child
                    records[index]["children"].append(child)
        return records

    run_chunks(parents, context.engine.chunk_prompts, context, evolve)


def _child(chain: Mapping[str, Any], parent: Prompt, new: Rewritten, number: int) -> Prompt | str:
    """The next prompt of a chain, or the problem. A text that the chain has already would be its own ancestor."""
    if new.text is None:
        return new.problem
    child = evolving.child(parent, new.text, new.operator, number)
    known = {chain["root"], *(one["id"] for one in chain["children"])}
    return "nothing new" if child["id"] in known else child


def _by_rules(spec: Spec) -> Rewrite:
    from eva_hpc.lab.rewriter import OPERATOR_FAMILIES, rewrite

    operators = evolving.operators_of(spec.family, spec.operators, OPERATOR_FAMILIES)

    def by_rules(prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Rewritten]:
        made = (rewrite(prompt["prompt"], seed, operators) for prompt, seed in zip(prompts, seeds, strict=True))
        return [Rewritten(text, operator, "" if text else "no such task") for text, operator in made]

    return by_rules


def _by_writer(spec: Spec, parents: Sequence[Prompt], write: Write) -> Rewrite:
    operators = evolving.operators_of(spec.family, spec.operators)
    texts = {prompt["id"]: prompt["prompt"] for prompt in sorted(parents, key=lambda prompt: prompt["id"])}

    def by_writer(prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Rewritten]:
        drawn = [evolving.draw_operator(seed, operators) for seed in seeds]
        requests = [
            evolving.instruction(operator, prompt["prompt"], _others(texts, prompt, seed) if operator in SELF_INSTRUCT else ())
            for operator, prompt, seed in zip(drawn, prompts, seeds, strict=True)
        ]
        answers = write(requests, seeds)
        return [
            Rewritten(None, operator, answer.problem, answer.detail) if answer.text is None else _parsed(answer.text, operator)
            for answer, operator in zip(answers, drawn, strict=True)
        ]

    return by_writer


def _others(texts: Mapping[str, str], prompt: Prompt, seed: int) -> list[str]:
    """A few other selected prompts, drawn for this one."""
    drawn = random.Random(derive_seed(seed, "examples")).sample(list(texts), min(EXAMPLES + 1, len(texts)))
    return [texts[name] for name in drawn if name != prompt["id"]][:EXAMPLES]


def _parsed(answer: str, operator: str) -> Rewritten:
    text = evolving.parse(answer)
    return Rewritten(text, operator, "" if text else evolving.why_failed(answer))
