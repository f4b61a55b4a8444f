"""A policy's answers to a benchmark's questions, turn after turn: sampled, and greedy where the benchmark wants it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import orjson

from eva_hpc.benchmarks.records import Answers, Question, Turn
from eva_hpc.config.recipe import Generation
from eva_hpc.config.section import later
from eva_hpc.inference.engine import Engine, Message, Request, Sampling
from eva_hpc.stages.chunks import read_chunks, run_chunks
from eva_hpc.stages.contract import Context, Counts, Inputs, Parallel, StageSpec
from eva_hpc.stages.engines import LazyEngine
from eva_hpc.stages.policy import read_policy
from eva_hpc.store.records import read_jsonl, write_jsonl
from eva_hpc.store.seeds import derive_seed


class Spec(StageSpec):
    """Decoding, and how many answers. `temperatures` are those of categories with one of their own. With `strip` answers lose
    the white space around them before anything reads them, the next turn included."""

    stage: ClassVar[str] = "answer"
    generation: Generation
    samples: int
    greedy: bool
    seed: int
    temperatures: dict[str, float] = later({})
    strip: bool = later(False)

    @property
    def parallel(self) -> Parallel:
        """Each shard runs an engine of its own."""
        return "shards"


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Answer this shard's chunks. Inputs: ``policy``, ``questions``."""
    questions: list[Question] = read_jsonl(inputs["questions"] / "questions.jsonl")
    settings = spec.generation

    def sampling(question: Question) -> Sampling:
        temperature = spec.temperatures.get(question["category"], settings.temperature)
        return Sampling(temperature, settings.top_p, settings.max_new_tokens)

    def greedily(question: Question) -> Sampling:
        return Sampling(0.0, 1.0, settings.max_new_tokens)

    with LazyEngine(settings.engine, read_policy(inputs["policy"]), context) as lazy:

        def answer(piece: Sequence[Question]) -> list[Answers]:
            engine = lazy.get()
            sampled = _dialogues(engine, piece, sampling, spec, spec.samples)
            greedy = None
            if spec.greedy:
                greedy = _dialogues(engine, piece, greedily, spec, 1)
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
    engine: Engine, questions: Sequence[Question], sampling: Callable[[Question], Sampling], spec: Spec, samples: int
) -> list[list[list[Turn]]]:
    """Turns of `samples` answers per question; each later turn sees that sample's own earlier answers.

    A turn that leaves no room for an answer gets none, and neither do the turns after it.
    """
    answers: list[list[list[Turn]]] = [[[] for _ in range(samples)] for _ in questions]
    for turn in range(max(len(question["turns"]) for question in questions)):
        asked: dict[Sampling, list[tuple[int, int, Request]]] = {}
        for i, question in enumerate(questions):
            for j in range(samples if turn < len(question["turns"]) else 0):
                tokens = engine.render(_messages(question, answers[i][j]))
                if len(tokens) >= engine.longest or (turn and answers[i][j][-1]["finish"] == "no room"):
                    answers[i][j].append(Turn(text="", finish="no room", prompt_sha256=_sha256(tokens)))
                else:
                    request = Request(tokens, (derive_seed(spec.seed, "answer", question["id"], turn, j),))
                    asked.setdefault(sampling(question), []).append((i, j, request))
        for how, requests in asked.items():
            responses = engine.generate([request for _, _, request in requests], how)
            for (i, j, request), (response,) in zip(requests, responses, strict=True):
                text = response["text"].strip() if spec.strip else response["text"]
                prompt = _sha256(request.prompt_tokens)
                answers[i][j].append(Turn(text=text, finish=response["finish"], prompt_sha256=prompt))
    return answers


def _messages(question: Question, answered: Sequence[Turn]) -> list[Message]:
    """The conversation up to the next turn."""
    messages = []
    for asked, answer in zip(question["turns"], answered, strict=False):
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer["text"]}]
    return [*messages, {"role": "user", "content": question["turns"][len(answered)]}]


def _sha256(tokens: Sequence[int]) -> str:
    """Hash of a rendered prompt: of its token ids, as JSON."""
    return hashlib.sha256(orjson.dumps(list(tokens))).hexdigest()
