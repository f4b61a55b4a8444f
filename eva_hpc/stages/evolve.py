"""Evolved prompts: chains of rewrites of each selected prompt; every step is kept, what cannot be used is set aside."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from eva_hpc.config.recipe import Evolver, LabRewriter, ModelEvolver, OpenAIEvolver
from eva_hpc.inference.engine import ModelSource, Request, Sampling
from eva_hpc.method import evolving
from eva_hpc.method.admission import admit
from eva_hpc.method.mixing import shuffled
from eva_hpc.stages.chunks import read_chunks, run_chunks
from eva_hpc.stages.contract import Context, Counts, Inputs, Parallel, StageFailed, StageSpec
from eva_hpc.stages.engines import LazyEngine
from eva_hpc.stages.mix import mixing_seed
from eva_hpc.stages.policy import read_policy
from eva_hpc.stages.prompts import token_counter, token_limit
from eva_hpc.stages.set_aside import SetAside
from eva_hpc.stages.unchanged import check_unchanged
from eva_hpc.store.records import Prompt, read_jsonl, write_jsonl
from eva_hpc.store.seeds import derive_seed

if TYPE_CHECKING:
    from eva_hpc.inference.openai_client import ApiFailure

# What a server refuses because of the one request it is about; other refusals (no such model, no access) are about all of them.
_ONE_REQUEST = ("HTTP 400", "HTTP 413", "HTTP 422")


class Rewritten(NamedTuple):
    """A new prompt and the operator that made it, or None and the problem."""

    text: str | None
    operator: str
    problem: str = ""
    detail: str = ""


# Rewrites a list of prompts with one operator each. The seeds are one per prompt.
Rewrite = Callable[[Sequence[Prompt], Sequence[int]], list[Rewritten]]


class Spec(StageSpec):
    """Who rewrites, and how many times in a chain; `fingerprint` is the hash of the evolver model's content."""

    stage: ClassVar[str] = "evolve"
    evolver: Evolver
    fingerprint: str = ""
    evolutions: int
    max_chars: int
    max_tokens: int | None
    seed: int
    round: int

    @property
    def parallel(self) -> Parallel:
        """A model is sharded; rules and requests to a server need one process."""
        return "one" if isinstance(self.evolver, LabRewriter | OpenAIEvolver) else "shards"


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Evolve this shard's chunks. Inputs: ``selected``; ``policy`` if the policy is the evolver or `max_tokens` is set."""
    parents: list[Prompt] = read_jsonl(inputs["selected"] / "prompts.jsonl")
    evolver = spec.evolver
    if isinstance(evolver, LabRewriter):
        _run(spec, parents, context, _rewrite_by_rules)
    elif isinstance(evolver, OpenAIEvolver):
        _run(spec, parents, context, _rewrite_by_server(evolver))
    else:
        if isinstance(evolver, ModelEvolver):
            if context.rank == 0:
                check_unchanged(evolver.path, spec.fingerprint)
            model = ModelSource(path=evolver.path, revision=evolver.revision, dtype=evolver.dtype)
        else:
            model = read_policy(inputs["policy"])
        sampling = Sampling(evolver.temperature, evolver.top_p, evolver.max_new_tokens)
        with LazyEngine(evolver.engine, model, context) as lazy:
            _run(spec, parents, context, _rewrite_by_engine(lazy, sampling))
    return Counts(read=len(parents), written=0)


def finish(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Admit what is usable and new, in the seeded order in which ratios take their share. Inputs also: ``base``.

    Raises:
        StageFailed: nothing is.
    """
    parents = read_jsonl(inputs["selected"] / "prompts.jsonl")
    base: list[Prompt] = read_jsonl(inputs["base"] / "prompts.jsonl")
    aside = SetAside()
    children: list[Prompt] = []
    attempts = 0
    for record in read_chunks(len(parents), context.engine.chunk_prompts, context.work):
        attempts += len(record["children"]) + len(record["failed"])
        children += record["children"]
        for failure in record["failed"]:
            aside.add(f"rewrite failed: {failure['problem']}", failure)
    if spec.max_tokens is not None:
        length, longest = token_counter(inputs["policy"]), token_limit(inputs["policy"], spec.max_tokens)
        too_long = [length(prompt["prompt"]) > longest for prompt in children]
        for prompt in compress(children, too_long):
            aside.add("too long", prompt)
        children = [prompt for prompt, long in zip(children, too_long, strict=True) if not long]
    admitted, refused = admit(base, children, spec.max_chars)
    for prompt in refused:
        aside.add(prompt["reason"], prompt)
    by_id = {prompt["id"]: prompt for prompt in admitted}
    order = shuffled(by_id, mixing_seed(spec.seed, spec.round))
    written = write_jsonl(out / "prompts.jsonl", (by_id[name] for name in order))
    counts = Counts(attempts, written, aside.write(out))
    if not written:
        raise StageFailed(f"none of the {attempts} evolved prompts can be used: {aside.describe()}")
    return counts


def _run(spec: Spec, parents: list[Prompt], context: Context, rewrite: Rewrite) -> None:
    """Chains of `evolutions` rewrites; a failed step is noted and the chain goes on from the last good prompt."""

    def evolve(piece: Sequence[Prompt]) -> list[dict[str, Any]]:
        current = list(piece)
        records: list[dict[str, Any]] = [{"root": prompt["id"], "children": [], "failed": []} for prompt in piece]
        for step in range(spec.evolutions):
            seeds = [derive_seed(spec.seed, spec.round, "evolve", prompt["id"], step) for prompt in piece]
            for index, new in enumerate(rewrite(current, seeds)):
                if new.text is None:
                    failure = {"parent": current[index]["id"], "operator": new.operator, "step": step}
                    records[index]["failed"].append({**failure, "problem": new.problem, "detail": new.detail})
                else:
                    current[index] = evolving.child(current[index], new.text, new.operator, spec.round)
                    records[index]["children"].append(current[index])
        return records

    run_chunks(parents, context.engine.chunk_prompts, context, evolve)


def _rewrite_by_rules(prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Rewritten]:
    from eva_hpc.lab.rewriter import rewrite

    return [Rewritten(*rewrite(prompt["prompt"], seed)) for prompt, seed in zip(prompts, seeds, strict=True)]


def _rewrite_by_engine(lazy: LazyEngine, sampling: Sampling) -> Rewrite:
    def rewrite(prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Rewritten]:
        engine = lazy.get()
        operators = [evolving.draw_operator(seed) for seed in seeds]
        requests = [
            Request(engine.render(_message(operator, prompt)), (seed,))
            for operator, prompt, seed in zip(operators, prompts, seeds, strict=True)
        ]
        fits = [len(request.prompt_tokens) < engine.longest for request in requests]
        answers = iter(engine.generate(list(compress(requests, fits)), sampling))
        return [
            _parsed(next(answers)[0]["text"], operator)
            if fit
            else Rewritten(
                None, operator, "too long for the evolver", f"{len(request.prompt_tokens)} tokens with the instruction"
            )
            for fit, operator, request in zip(fits, operators, requests, strict=True)
        ]

    return rewrite


def _rewrite_by_server(evolver: OpenAIEvolver) -> Rewrite:
    def rewrite(prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Rewritten]:
        from eva_hpc.inference.openai_client import ApiFailure, complete

        operators = [evolving.draw_operator(seed) for seed in seeds]
        answers = asyncio.run(
            complete(
                evolver.base_url,
                evolver.model,
                os.environ.get(evolver.api_key_env),
                [_message(operator, prompt) for operator, prompt in zip(operators, prompts, strict=True)],
                temperature=evolver.temperature,
                max_tokens=evolver.max_new_tokens,
                concurrency=evolver.concurrency,
                seeds=seeds,
            )
        )
        failures = [answer for answer in answers if isinstance(answer, ApiFailure)]
        if hopeless := [failure for failure in failures if not _is_about_one_request(failure)]:
            detail = f"{hopeless[0].reason}: {hopeless[0].detail}"
            raise StageFailed(f"{len(hopeless)} of {len(answers)} requests to {evolver.base_url} failed: {detail}")
        return [
            Rewritten(None, operator, answer.reason, answer.detail)
            if isinstance(answer, ApiFailure)
            else _parsed(answer, operator)
            for answer, operator in zip(answers, operators, strict=True)
        ]

    return rewrite


def _is_about_one_request(failure: ApiFailure) -> bool:
    return failure.reason in ("malformed", "empty") or failure.detail.startswith(_ONE_REQUEST)


def _parsed(answer: str, operator: str) -> Rewritten:
    """The new prompt in an evolver's answer. Half a surrogate pair, which JSON can hold and UTF-8 cannot, makes it unusable."""
    text = evolving.parse(answer)
    if text is None:
        return Rewritten(None, operator, "no new prompt in the answer")
    try:
        text.encode()
    except UnicodeEncodeError:
        return Rewritten(None, operator, "not valid Unicode")
    return Rewritten(text, operator)


def _message(operator: str, prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": "user", "content": evolving.instruction(operator, prompt["prompt"])}]
