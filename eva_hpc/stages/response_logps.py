"""Log-probs of sampled responses under a policy. Those under the current and the start policy give implicit rewards.

Both are computed here, by the same kernels: the sampler's own differ from these by rounding, which the difference would keep.

logps.jsonl    {"prompt_id": "9f1c…", "logps": [-31.2, -28.9, …]}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from eva_hpc.stages.chunks import read_chunks, run_chunks
from eva_hpc.stages.contract import Context, Counts, Inputs, Parallel, StageSpec
from eva_hpc.stages.policy import read_policy
from eva_hpc.stages.slices import first_responses
from eva_hpc.store.records import Responses, write_jsonl


class Spec(StageSpec):
    """The nested slice of the responses."""

    stage: ClassVar[str] = "response_logps"
    nested: ClassVar[tuple[str, ...]] = ("fraction", "responses")
    responses: int
    fraction: float

    @property
    def parallel(self) -> Parallel:
        """Each shard loads the policy for itself."""
        return "shards"


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Read this shard's chunks. Inputs: ``policy``, ``responses``, ``prompts``."""
    from eva_hpc.training.packing import Tree
    from eva_hpc.training.teacher_forcing import TeacherForcing

    records = _records(spec, inputs)
    loaded: list[TeacherForcing] = []

    def read(piece: Sequence[Responses]) -> list[dict[str, Any]]:
        if not loaded:
            source = read_policy(inputs["policy"])
            loaded.append(TeacherForcing(source, context.resources.threads, context.engine.batch_tokens))
        trees = [
            Tree(record["prompt_tokens"], tuple(response["tokens"] for response in record["responses"])) for record in piece
        ]
        found = loaded[0].log_probs(trees)
        return [{"prompt_id": record["prompt_id"], "logps": logps} for record, logps in zip(piece, found, strict=True)]

    run_chunks(records, context.engine.chunk_prompts, context, read, cost=_tokens, tapered=True)
    return Counts(read=len(records), written=0)


def finish(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Put the chunks together in the order of the prompts."""
    count = len(_records(spec, inputs))
    written = write_jsonl(out / "logps.jsonl", read_chunks(count, context.engine.chunk_prompts, context.work, tapered=True))
    return Counts(read=count, written=written)


def _tokens(record: Responses) -> int:
    return len(record["prompt_tokens"]) + sum(len(response["tokens"]) for response in record["responses"])


def _records(spec: Spec, inputs: Inputs) -> list[Responses]:
    return first_responses(inputs["responses"], inputs["prompts"], spec.fraction, spec.responses)
