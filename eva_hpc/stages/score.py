"""Rewards of responses, by the lab's checker or a reward model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from eva_hpc.config.recipe import LabChecker, Reward
from eva_hpc.stages.chunks import read_chunks, run_chunks
from eva_hpc.stages.contract import Context, Counts, Inputs, Parallel, StageFailed, StageSpec
from eva_hpc.stages.engines import limits
from eva_hpc.stages.slices import first_responses
from eva_hpc.stages.unchanged import check_unchanged
from eva_hpc.store.records import Responses, Rewards, write_jsonl

# One conversation to score: its messages, and whether the answer was finished.
Conversation = tuple[list[dict[str, str]], bool]


class Spec(StageSpec):
    """The reward and the nested slice it is computed for; `fingerprint` is the hash of the reward model's content."""

    stage: ClassVar[str] = "score"
    nested: ClassVar[tuple[str, ...]] = ("fraction", "responses")
    reward: Reward
    fingerprint: str = ""
    responses: int
    fraction: float

    @property
    def parallel(self) -> Parallel:
        """A model is sharded; the checker needs one process."""
        return "one" if isinstance(self.reward, LabChecker) else "shards"


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Score this shard's chunks. Inputs: ``responses``, ``prompts``."""
    records = _records(spec, inputs)
    reward = open_reward(spec.reward, spec.fingerprint, context)

    def score(piece: Sequence[Responses]) -> list[Rewards]:
        conversations = [
            (
                [{"role": "user", "content": record["prompt"]}, {"role": "assistant", "content": response["text"]}],
                response["finish"] == "stop",
            )
            for record in piece
            for response in record["responses"]
        ]
        values = iter(reward(conversations))
        return [Rewards(prompt_id=record["prompt_id"], rewards=[next(values) for _ in record["responses"]]) for record in piece]

    run_chunks(records, context.engine.chunk_prompts, context, score)
    return Counts(read=len(records), written=0)


def finish(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Put the chunks together in the order of the prompts."""
    count = len(_records(spec, inputs))
    written = write_jsonl(out / "rewards.jsonl", read_chunks(count, context.engine.chunk_prompts, context.work))
    return Counts(read=count, written=written)


def open_reward(reward: Reward, planned: str, context: Context) -> Callable[[Sequence[Conversation]], list[float]]:
    """The reward as a function of conversations that end with an answer; a model is loaded at the first call.

    `planned` is the fingerprint of a model in the plan. The function raises :class:`StageFailed` when a reward is not a finite
    number: JSON has no such numbers.

    Raises:
        StageFailed: the model is not the one planned with any more.
    """
    if isinstance(reward, LabChecker):
        from eva_hpc.lab.checker import dialogue_rewards

        return lambda conversations: [
            dialogue_rewards(
                [message["content"] for message in messages if message["role"] == "user"],
                [message["content"] for message in messages if message["role"] == "assistant"],
                finished,
            )[-1]
            for messages, finished in conversations
        ]

    from eva_hpc.inference.reward_models import RewardModel, open_reward_model

    if context.rank == 0:
        check_unchanged(reward.path, planned)
    models: list[RewardModel] = []

    def score(conversations: Sequence[Conversation]) -> list[float]:
        if not models:
            models.append(open_reward_model(reward, limits(context)))
        before = models[0].truncated
        values = models[0].score([messages for messages, _ in conversations])
        if cut := models[0].truncated - before:
            print(f"{cut} of {len(values)} conversations were longer than max_length: the beginning of their prompt was cut")
        if bad := [value for value in values if not math.isfinite(value)]:
            raise StageFailed(
                f"{reward.path} gave {len(bad)} of {len(values)} rewards that are no finite numbers: try dtype float32"
            )
        return values

    return score


def _records(spec: Spec, inputs: Inputs) -> list[Responses]:
    return first_responses(inputs["responses"], inputs["prompts"], spec.fraction, spec.responses)
