"""A policy's answers to a benchmark's questions, turn after turn: sampled, and greedy where the benchmark wants it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import orjson

from eva_hpc.benchmarks.records import Answers, Question, Turn
from eva_hpc.config.recipe import Generation
from eva_hpc.config.section import later
from eva_hpc.inference.engine import Engine, EngineName, Message, Request, Sampling
from eva_hpc.stages.contract import Context, Counts, Inputs, Parallel, StageSpec
from eva_hpc.stages.engines import LazyEngine
from eva_hpc.stages.policy import read_policy
from eva_hpc.stages.streams import CHARACTERS_PER_TOKEN, Ask, Talk, read_stream, run_stream
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

    @property
    def policy_engine(self) -> EngineName:
        """That of its decoding."""
        return self.generation.engine


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Answer chunks. Inputs: ``policy``, ``questions``.

    A turn that leaves no room for an answer gets none, and neither do the turns after it.
    """
    questions: list[Question] = read_jsonl(inputs["questions"] / "questions.jsonl")
    settings = spec.generation

    def sampling(question: Question) -> Sampling:
        temperature = spec.temperatures.get(question["category"], settings.temperature)
        return Sampling(temperature, settings.top_p, settings.max_new_tokens)

    def greedily(question: Question) -> Sampling:
        return Sampling(0.0, 1.0, settings.max_new_tokens)

    def talk(engine: Engine, question: Question) -> Talk:
        hows = [sampling(question)] * spec.samples + [greedily(question)] * spec.greedy
        seeds = [*range(spec.samples), 0]
        answers: list[list[Turn]] = [[] for _ in hows]
        for turn in range(len(question["turns"])):
            asked: list[tuple[list[Turn], Ask]] = []
            for answer, how, j in zip(answers, hows, seeds, strict=False):
                tokens = engine.render(_messages(question, answer))
                if len(tokens) >= engine.longest or (turn and answer[-1]["finish"] == "no room"):
                    answer.append(Turn(text="", finish="no room", prompt_sha256=_sha256(tokens)))
                else:
                    asked.append(
                        (answer, Ask(Request(tokens, (derive_seed(spec.seed, "answer", question["id"], turn, j),)), how))
                    )
            responses = yield [ask for _, ask in asked]
            for (answer, ask), (response,) in zip(asked, responses, strict=True):
                text = response["text"].strip() if spec.strip else response["text"]
                answer.append(Turn(text=text, finish=response["finish"], prompt_sha256=_sha256(ask.request.prompt_tokens)))
        return Answers(question_id=question["id"], greedy=answers[-1] if spec.greedy else None, samples=answers[: spec.samples])

    def cost(question: Question) -> float:
        return sum(map(len, question["turns"])) + len(question["turns"]) * CHARACTERS_PER_TOKEN * settings.max_new_tokens

    with LazyEngine(settings.engine, read_policy(inputs["policy"]), context) as lazy:
        run_stream(questions, context.engine.chunk_prompts, context, lazy, talk=talk, cost=cost)
    return Counts(read=len(questions), written=0)


def finish(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Put the chunks together in the order of the questions."""
    count = len(read_jsonl(inputs["questions"] / "questions.jsonl"))
    chunks = read_stream(count, context.engine.chunk_prompts, context.work, spec.generation.engine)
    written = write_jsonl(out / "answers.jsonl", chunks)
    return Counts(read=count, written=written)


def _messages(question: Question, answered: Sequence[Turn]) -> list[Message]:
    """The conversation up to the next turn."""
    messages = []
    for asked, answer in zip(question["turns"], answered, strict=False):
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer["text"]}]
    return [*messages, {"role": "user", "content": question["turns"][len(answered)]}]


def _sha256(tokens: Sequence[int]) -> str:
    """Hash of a rendered prompt: of its token ids, as JSON."""
    return hashlib.sha256(orjson.dumps(list(tokens))).hexdigest()
