"""Judgments of answers: here a reward for every turn, by the recipe's checker or reward model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from eva_hpc.benchmarks.records import Answers, Judgments, Question, Turn
from eva_hpc.config.recipe import LabChecker, Reward
from eva_hpc.stages.chunks import read_chunks, run_chunks
from eva_hpc.stages.contract import Context, Counts, Inputs, Parallel, StageSpec
from eva_hpc.stages.score import Conversation, open_reward
from eva_hpc.store.records import read_jsonl, write_jsonl


class Spec(StageSpec):
    """Who judges; `fingerprint` is the hash of a reward model's content."""

    stage: ClassVar[str] = "judge"
    reward: Reward
    fingerprint: str = ""

    @property
    def parallel(self) -> Parallel:
        """A model is sharded; the checker needs one process."""
        return "one" if isinstance(self.reward, LabChecker) else "shards"


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Judge this shard's chunks. Inputs: ``questions``, ``answers``."""
    questions: list[Question] = read_jsonl(inputs["questions"] / "questions.jsonl")
    answers: list[Answers] = read_jsonl(inputs["answers"] / "answers.jsonl")
    reward = open_reward(spec.reward, spec.fingerprint, context)

    def judge(piece: Sequence[tuple[Question, Answers]]) -> list[Judgments]:
        conversations = [
            conversation
            for question, answer in piece
            for turns in [*answer["samples"], answer["greedy"] or []]
            for conversation in _conversations(question["turns"], turns)
        ]
        values = iter(reward(conversations))
        return [
            Judgments(
                question_id=question["id"],
                category=question["category"],
                samples=[[next(values) for _ in turns] for turns in answer["samples"]],
                greedy=[next(values) for _ in answer["greedy"]] if answer["greedy"] else None,
            )
            for question, answer in piece
        ]

    run_chunks(list(zip(questions, answers, strict=True)), context.engine.chunk_prompts, context, judge)
    return Counts(read=len(questions), written=0)


def finish(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Put the chunks together in the order of the questions."""
    count = len(read_jsonl(inputs["questions"] / "questions.jsonl"))
    written = write_jsonl(out / "judgments.jsonl", read_chunks(count, context.engine.chunk_prompts, context.work))
    return Counts(read=count, written=written)


def _conversations(questions: Sequence[str], turns: Sequence[Turn]) -> list[Conversation]:
    """One conversation per turn, each with the turns before it."""
    messages: list[dict[str, str]] = []
    conversations: list[Conversation] = []
    for question, turn in zip(questions, turns, strict=False):
        messages = [*messages, {"role": "user", "content": question}, {"role": "assistant", "content": turn["text"]}]
        conversations.append((messages, turn["finish"] == "stop"))
    return conversations
