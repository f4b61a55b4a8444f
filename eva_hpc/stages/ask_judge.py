"""Judgments of answers by a model behind an OpenAI-compatible server, in the row format of the official tool.

Every answer of the judge is on disk, in ROOT/judge_cache, before it is used: a stage that is killed, or done again, asks only
for what is not there.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from eva_hpc.benchmarks.judged import ModelAnswer
from eva_hpc.benchmarks.records import Answers, Question
from eva_hpc.benchmarks.registry import JUDGED
from eva_hpc.config.benchmark import Judge
from eva_hpc.stages.contract import Context, Counts, Inputs, StageFailed, StageSpec
from eva_hpc.stages.unchanged import check_all_unchanged
from eva_hpc.store.records import read_jsonl, write_jsonl

POLICY = "policy"
"""The name of the judged model in judgment rows: what it is, the artifact's key says."""


class Spec(StageSpec):
    """Who judges what. `fingerprints` are hashes of the content of `files`, by role."""

    stage: ClassVar[str] = "ask_judge"
    kind: str
    edition: str
    judge: Judge
    both_orders: bool
    labels: str
    files: dict[str, str]
    fingerprints: dict[str, str]


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``judgments.jsonl`` and ``usage.jsonl``. Inputs: ``questions``, ``answers``.

    Raises:
        StageFailed: the judge cannot be used, or could not be reached for some of the answers; what it said is kept.
        Interrupted: told to stop; what it said is kept.
    """
    from eva_hpc.benchmarks.consult import JudgeUnfit, JudgeUnreachable, consult, probe
    from eva_hpc.benchmarks.servers import server_of
    from eva_hpc.inference.completion_cache import CompletionCache

    check_all_unchanged(spec.files, spec.fingerprints)
    asked: list[Question] = read_jsonl(inputs["questions"] / "questions.jsonl")
    answers: list[Answers] = read_jsonl(inputs["answers"] / "answers.jsonl")
    files = {role: Path(path) for role, path in spec.files.items()}
    known = {question["id"]: question for question in JUDGED[spec.kind].questions(spec.edition, files)}
    benchmark = JUDGED[spec.kind].judging(spec.edition, files, spec.both_orders, spec.labels)
    items = [(known[question["id"]], _model_answer(answer)) for question, answer in zip(asked, answers, strict=True)]
    cache = CompletionCache(context.store.root.parent / "judge_cache", writer=out.name)
    server = server_of(spec.judge)
    try:
        for note in probe(benchmark, items, server, cache, stop=context.stop):
            print(note)
        consultation = consult(
            benchmark,
            items,
            server,
            cache,
            judge=spec.judge.model,
            repeats=spec.judge.repeats,
            progress=context.progress,
            stop=context.stop,
        )
    except (JudgeUnfit, JudgeUnreachable) as error:
        raise StageFailed(str(error)) from None
    for warning in consultation.warnings:
        print(f"warning: {warning}")
    write_jsonl(out / "usage.jsonl", [consultation.to_json()])
    return Counts(len(items), write_jsonl(out / "judgments.jsonl", consultation.rows))


def _model_answer(answer: Answers) -> ModelAnswer:
    turns = [None if turn["finish"] == "no room" else turn["text"] for turn in answer["samples"][0]]
    return ModelAnswer(question_id=answer["question_id"], model=POLICY, turns=turns)
