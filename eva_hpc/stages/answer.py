"""A policy's answers to a benchmark's questions, turn after turn: sampled, and greedy where the benchmark wants it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from eva_hpc.benchmarks.records import Answers, Question, Turn
from eva_hpc.config.recipe import Generation
from eva_hpc.inference.engine import Engine, Request, Sampling
from eva_hpc.stages.chunks import read_chunks, run_chunks
from eva_hpc.stages.contract import Context, Counts, Inputs, Parallel, StageSpec
from eva_hpc.stages.engines import LazyEngine
from eva_hpc.stages.policy import read_policy
from eva_hpc.store.records import read_jsonl, write_jsonl
from eva_hpc.store.seeds import derive_seed


class Spec(StageSpec):
    """Decoding, and how many answers."""

    stage: ClassVar[str] = "answer"
    generation: Generation
    samples: int
    greedy: bool
    seed: int

    @property
    def parallel(self) -> Parallel:
        """Each shard runs an engine of its own."""
        return "shards"


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Answer this shard's chunks. Inputs: ``policy``, ``questions``."""
    questions: list[Question] = read_jsonl(inputs["questions"] / "questions.jsonl")
    settings = spec.generation
    sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens)
    with LazyEngine(settings.engine, read_policy(inputs["policy"]), context) as lazy:

        def answer(piece: Sequence[Question]) -> list[Answers]:
            engine = lazy.get()
            sampled = _dialogues(engine, piece, sampling, spec.seed, spec.samples)
            greedy = None
            if spec.greedy:
                greedy = _dialogues(engine, piece, Sampling(0.0, 1.0, settings.max_new_tokens), spec.seed, 1)
            return [
                Answers(question_id=question["id"], greedy=greedy[i][0] if greedy else None, samples=sampled[i])
                for i, question in enumerate(piece)
            ]

        run_chunks(questions, context.engine.chunk_prompts, context, answer)
    return Counts(read=len(questions), written=0)


def finish(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Put the chunks together in the order of the questions."""
    count = len(read_jsonl(inputs["questions"] / "questions.jsonl"))
    written = write_jsonl(out / "answers.jsonl", read_chunks(count, context.engine.chunk_prompts, context.work))
    return Counts(read=count, written=written)


def _dialogues(
    engine: Engine, questions: Sequence[Question], sampling: Sampling, seed: int, samples: int
) -> list[list[list[Turn]]]:
    """Turns of `samples` answers per question; each later turn sees that sample's own earlier answers."""
    answers: list[list[list[Turn]]] = [[[] for _ in range(samples)] for _ in questions]
    for turn in range(max(len(question["turns"]) for question in questions)):
        asked = [(i, j) for i, question in enumerate(questions) if turn < len(question["turns"]) for j in range(samples)]
        requests = []
        for i, j in asked:
            messages = []
            for earlier in range(turn):
                messages.append({"role": "user", "content": questions[i]["turns"][earlier]})
                messages.append({"role": "assistant", "content": answers[i][j][earlier]["text"]})
            messages.append({"role": "user", "content": questions[i]["turns"][turn]})
            requests.append(Request(engine.render(messages), (derive_seed(seed, "answer", questions[i]["id"], turn, j),)))
        for (i, j), responses in zip(asked, engine.generate(requests, sampling), strict=True):
            answers[i][j].append(Turn(text=responses[0]["text"], finish=responses[0]["finish"]))
    return answers
