"""Rewards of responses, by the lab's checker, reward models or a server; from pairwise ones, preferences as well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, ClassVar

from eva_hpc.config.reward import Reward, is_pairwise
from eva_hpc.config.section import later
from eva_hpc.method.pairing import of_preferences
from eva_hpc.stages.chunks import follow_chunks, read_chunks, run_chunks
from eva_hpc.stages.contract import Context, Counts, Inputs, Parallel, StageFailed, StageSpec
from eva_hpc.stages.rewards import (
    Candidates,
    Conversation,
    Rated,
    asks_servers_alone,
    check_models,
    open_preferences,
    open_reward,
    parallel_of,
)
from eva_hpc.stages.set_aside import SetAside
from eva_hpc.stages.slices import first_prompts, first_responses
from eva_hpc.store.artifacts import WORK
from eva_hpc.store.records import Responses, write_jsonl

NO_REWARD = "response without reward"
CUT = "text cut to the length of the reward model"


class Spec(StageSpec):
    """The reward and the nested slice it is computed for.

    `fingerprint` is the hash of the reward model's content, `fingerprints` are those of an ensemble's models, in the order of
    `config.reward.model_paths`.
    """

    stage: ClassVar[str] = "score"
    nested: ClassVar[tuple[str, ...]] = ("fraction", "responses")
    reward: Reward
    fingerprint: str = ""
    fingerprints: tuple[str, ...] = later(())
    responses: int
    fraction: float

    @property
    def parallel(self) -> Parallel:
        """A model is sharded; the checker and a server need one process."""
        return parallel_of(self.reward)

    @property
    def ahead_of(self) -> str | None:
        """A server that rates responses can do so while more are sampled. A model would need what samples them."""
        return "responses" if asks_servers_alone(self.reward) else None


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Score chunks. Inputs: ``responses``, ``prompts``."""
    records = _records(spec, inputs)
    check_models(spec.reward, spec.fingerprint, spec.fingerprints, context)
    score = _pairwise(spec.reward, context) if is_pairwise(spec.reward) else _pointwise(spec.reward, context)
    run_chunks(records, context.engine.chunk_prompts, context, score, cost=_characters, tapered=_is_shared(spec))
    return Counts(read=len(records), written=0)


def ahead(spec: Spec, inputs: Inputs, out: Path, context: Context) -> None:
    """Have the responses rated that are there, while others are sampled: what a server answers is kept, and `run` finds it.

    Raises:
        Interrupted: when told to stop, as it is once the responses are all there.
    """
    wanted = {prompt["id"] for prompt in first_prompts(inputs["prompts"], spec.fraction)}
    rate = open_reward(spec.reward, context)
    for records in follow_chunks(inputs["responses"] / WORK, context):
        rate(
            [
                conversation
                for record in records
                if record["prompt_id"] in wanted
                for conversation in _conversations({**record, "responses": record["responses"][: spec.responses]})
            ]
        )


def finish(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Put the chunks together in the order of the prompts.

    A response without a reward keeps its place, and is counted; so are texts that were too long for the reward model.

    Raises:
        StageFailed: no response has a reward.
    """
    count = len(_records(spec, inputs))
    records = list(read_chunks(count, context.engine.chunk_prompts, context.work, tapered=_is_shared(spec)))
    cut = sum(record.pop("cut", 0) for record in records)
    aside, problems = SetAside(), []
    for record in records:
        details = record.pop("problems", [""] * len(record["rewards"]))
        problems += details
        for index, reward in enumerate(record["rewards"]):
            if reward is None:
                aside.add(NO_REWARD, {"prompt_id": record["prompt_id"], "response": index, "detail": details[index]})
    if records and all(reward is None for record in records for reward in record["rewards"]):
        kind, count = spec.reward.kind, len(records)
        raise StageFailed(
            f"{kind} has no reward for any response to the {count} prompts: {most_common(problems)}; to ask again, remove {out}"
        )
    written = write_jsonl(out / "rewards.jsonl", records)
    return Counts(len(records), written, aside.write(out) | ({CUT: cut} if cut else {}))


def _pointwise(reward: Reward, context: Context) -> Callable[[Sequence[Responses]], list[Any]]:
    rate = open_reward(reward, context)

    def score(piece: Sequence[Responses]) -> list[Any]:
        rated = rate([conversation for record in piece for conversation in _conversations(record)])
        ends = [0, *accumulate(len(record["responses"]) for record in piece)]
        records = [
            {"prompt_id": record["prompt_id"], **rewards_of(rated, start, end)}
            for record, (start, end) in zip(piece, pairwise(ends), strict=True)
        ]
        return with_cut(records, rated.cut)

    return score


def _conversations(record: Responses) -> list[Conversation]:
    """A prompt with each of its responses."""
    return [
        Conversation(
            [{"role": "user", "content": record["prompt"]}, {"role": "assistant", "content": response["text"]}],
            response["finish"] == "stop",
        )
        for response in record["responses"]
    ]


def rewards_of(rated: Rated, start: int, end: int) -> dict[str, Any]:
    """Rewards of some of the conversations; if not all have one also the problems, which `finish` takes out again."""
    rewards = rated.rewards[start:end]
    problems = [rated.problems.get(index, "") for index in range(start, end)]
    return {"rewards": rewards, "problems": problems} if None in rewards else {"rewards": rewards}


def most_common(problems: Iterable[str]) -> str:
    """The three most frequent problems, e.g. ``rejected: HTTP 400: content filter (12 times)``."""
    counts = Counter(problem for problem in problems if problem)
    return ", ".join(f"{problem} ({count} times)" for problem, count in counts.most_common(3))


def _pairwise(reward: Reward, context: Context) -> Callable[[Sequence[Responses]], list[Any]]:
    compare = open_preferences(reward, context)

    def score(piece: Sequence[Responses]) -> list[Any]:
        each = [[(response["text"], response["finish"] == "stop") for response in record["responses"]] for record in piece]
        compared = compare([Candidates(record["prompt"], texts) for record, texts in zip(piece, each, strict=True)])
        records = [
            {"prompt_id": record["prompt_id"], "rewards": of_preferences(matrix, len(matrix)), "preferences": matrix}
            for record, matrix in zip(piece, compared.preferences, strict=True)
        ]
        return with_cut(records, compared.cut)

    return score


def with_cut(records: Sequence[Any], cut: int) -> list[Any]:
    """The records of a chunk, the first of which carries how many texts of the chunk were cut, until `finish` counts them."""
    return [{**record, "cut": cut} if cut and index == 0 else record for index, record in enumerate(records)]


def _is_shared(spec: Spec) -> bool:
    return spec.parallel == "shards"


def _characters(record: Responses) -> int:
    return sum(len(record["prompt"]) + len(response["text"]) for response in record["responses"])


def _records(spec: Spec, inputs: Inputs) -> list[Responses]:
    return first_responses(inputs["responses"], inputs["prompts"], spec.fraction, spec.responses, keep_tokens=False)
