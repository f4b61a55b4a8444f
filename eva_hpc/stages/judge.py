"""Judgments of answers: here a reward for every turn, by the recipe's checker or reward model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from eva_hpc.benchmarks.records import Answers, Judgments, Question, Turn
from eva_hpc.config.reward import Reward
from eva_hpc.config.section import later
from eva_hpc.stages.chunks import read_chunks, run_chunks
from eva_hpc.stages.contract import Context, Counts, Inputs, Parallel, StageFailed, StageSpec
from eva_hpc.stages.rewards import Conversation, check_models, open_reward, parallel_of
from eva_hpc.stages.score import CUT, most_common, with_cut
from eva_hpc.stages.set_aside import SetAside
from eva_hpc.store.records import read_jsonl, write_jsonl

NO_REWARD = "question with an answer without reward"


class Spec(StageSpec):
    """Who judges; fingerprints as in the stage `score`."""

    stage: ClassVar[str] = "judge"
    reward: Reward
    fingerprint: str = ""
    fingerprints: tuple[str, ...] = later(())

    @property
    def parallel(self) -> Parallel:
        """A model is sharded; the checker and a server need one process."""
        return parallel_of(self.reward)


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Judge this shard's chunks. Inputs: ``questions``, ``answers``.

    Raises:
        StageFailed: the reward is pairwise: it has none for one answer alone.
    """
    questions: list[Question] = read_jsonl(inputs["questions"] / "questions.jsonl")
    answers: list[Answers] = read_jsonl(inputs["answers"] / "answers.jsonl")
    check_models(spec.reward, spec.fingerprint, spec.fingerprints, context)
    rate = open_reward(spec.reward, context)

    def judge(piece: Sequence[tuple[Question, Answers]]) -> list[Any]:
        rated = rate(
            [
                conversation
                for question, answer in piece
                for turns in [*answer["samples"], answer["greedy"] or []]
                for conversation in _conversations(question["turns"], turns)
            ]
        )
        indices = count()

        def judgments(question: Question, answer: Answers) -> dict[str, Any]:
            places = [[next(indices) for _ in turns] for turns in [*answer["samples"], answer["greedy"] or []]]
            *samples, greedy = [[rated.rewards[place] for place in of_turns] for of_turns in places]
            problems = [rated.problems[place] for of_turns in places for place in of_turns if place in rated.problems]
            judged = {"question_id": question["id"], "category": question["category"]}
            record = {**judged, "samples": samples, "greedy": greedy or None}
            return {**record, "problems": problems} if problems else record

        return with_cut([judgments(question, answer) for question, answer in piece], rated.cut)

    run_chunks(list(zip(questions, answers, strict=True)), context.engine.chunk_prompts, context, judge)
    return Counts(read=len(questions), written=0)


def finish(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Put the chunks together in the order of the questions.

    A question with an answer that has no reward is set aside whole: its other answers are no fair sample of it. It is missing
    in the numbers, whose coverage falls.

    Raises:
        StageFailed: that leaves no question.
    """
    asked = len(read_jsonl(inputs["questions"] / "questions.jsonl"))
    records = list(read_chunks(asked, context.engine.chunk_prompts, context.work))
    cut = sum(record.pop("cut", 0) for record in records)
    aside, every = SetAside(), list[str]()
    judged: list[Judgments] = []
    for record in records:
        problems = record.pop("problems", [])
        every += problems
        if any(reward is None for turns in [*record["samples"], record["greedy"] or []] for reward in turns):
            aside.add(NO_REWARD, {**record, "problems": problems})
        else:
            judged.append(record)
    if records and not judged:
        raise StageFailed(
            f"{spec.reward.kind} left answers without a reward in each of the {len(records)} questions: "
            f"{most_common(every)}; to ask again, remove {out}"
        )
    written = write_jsonl(out / "judgments.jsonl", judged)
    return Counts(asked, written, aside.write(out) | ({CUT: cut} if cut else {}))


def _conversations(questions: Sequence[str], turns: Sequence[Turn]) -> list[Conversation]:
    """One conversation per turn, each with the turns before it."""
    messages: list[dict[str, str]] = []
    conversations: list[Conversation] = []
    for question, turn in zip(questions, turns, strict=False):
        messages = [*messages, {"role": "user", "content": question}, {"role": "assistant", "content": turn["text"]}]
        conversations.append(Conversation(messages, turn["finish"] == "stop"))
    return conversations
