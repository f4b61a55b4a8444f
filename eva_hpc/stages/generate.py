"""Responses of a policy to prompts.

Response j of a prompt has its own seed, so the first k of k_max responses are the k-response experiment.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from eva_hpc.config.recipe import Generation
from eva_hpc.inference.engine import Engine, EngineName, Request, Sampling
from eva_hpc.stages.contract import Context, Counts, Inputs, Parallel, StageSpec
from eva_hpc.stages.engines import LazyEngine
from eva_hpc.stages.policy import read_policy
from eva_hpc.stages.slices import first_prompts
from eva_hpc.stages.streams import CHARACTERS_PER_TOKEN, Ask, Talk, read_stream, run_stream
from eva_hpc.store.records import Prompt, Responses, write_jsonl
from eva_hpc.store.seeds import derive_seed


class Spec(StageSpec):
    """`responses` for each of the first `fraction` of the prompts."""

    stage: ClassVar[str] = "generate"
    nested: ClassVar[tuple[str, ...]] = ("fraction", "responses")
    generation: Generation
    responses: int
    fraction: float
    seed: int
    round: int

    @property
    def parallel(self) -> Parallel:
        """Each shard runs an engine of its own."""
        return "shards"

    @property
    def policy_engine(self) -> EngineName:
        """That of its decoding."""
        return self.generation.engine


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Sample chunks. Inputs: ``policy``, ``prompts``."""
    prompts = _prompts(spec, inputs)
    settings = spec.generation
    sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens)

    def talk(engine: Engine, prompt: Prompt) -> Talk:
        request = Request(
            engine.render([{"role": "user", "content": prompt["prompt"]}]),
            tuple(derive_seed(spec.seed, spec.round, prompt["id"], j) for j in range(spec.responses)),
        )
        [responses] = yield [Ask(request, sampling)]
        return Responses(
            prompt_id=prompt["id"],
            prompt=prompt["prompt"],
            prompt_tokens=request.prompt_tokens,
            responses=responses,
            policy=inputs["policy"].name,
        )

    def cost(prompt: Prompt) -> float:
        return len(prompt["prompt"]) + spec.responses * CHARACTERS_PER_TOKEN * settings.max_new_tokens

    with LazyEngine(settings.engine, read_policy(inputs["policy"]), context) as lazy:
        run_stream(prompts, context.engine.chunk_prompts, context, lazy, talk=talk, cost=cost)
    return Counts(read=len(prompts), written=0)


def finish(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Put the chunks together in the order of the prompts."""
    count = len(_prompts(spec, inputs))
    chunks = read_stream(count, context.engine.chunk_prompts, context.work, spec.generation.engine)
    written = write_jsonl(out / "responses.jsonl", chunks)
    return Counts(read=count, written=written)


def _prompts(spec: Spec, inputs: Inputs) -> list[Prompt]:
    return first_prompts(inputs["prompts"], spec.fraction)
