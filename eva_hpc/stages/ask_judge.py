"""Judgments of answers by a model behind an OpenAI-compatible server, in the row format of the official tool.

Every answer of the judge is on disk, in ROOT/judge_cache, before it is used: a stage that is killed, or done again, asks only
for what is not there.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from eva_hpc.benchmarks.judging.protocol import ModelAnswer
from eva_hpc.benchmarks.records import Answers, Question
from eva_hpc.benchmarks.registry import JUDGED
from eva_hpc.benchmarks.statistics.coverage import LEAST_COVERAGE
from eva_hpc.config.benchmark import Judge
from eva_hpc.stages.contract import Context, Counts, Inputs, StageFailed, StageSpec, StageUnavailable
from eva_hpc.stages.unchanged import check_all_unchanged
from eva_hpc.store.records import read_jsonl, write_jsonl

POLICY = "policy"
"""The name of the judged model in judgment rows: what it is, the artifact's key says."""

_ANSWERS = "answers"
_LEAVE_S = 5.0
"""Seconds that leaving takes once no request is waited for any more."""


class Spec(StageSpec):
    """Who judges what. `fingerprints` are hashes of the content of `files`, by role.

    There is no result if the server refused so many requests for good that less than `least_answered` of them are answered.
    """

    stage: ClassVar[str] = "ask_judge"
    kind: str
    edition: str
    judge: Judge
    both_orders: bool
    labels: str
    files: dict[str, str]
    fingerprints: dict[str, str]
    least_answered: float = LEAST_COVERAGE


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``judgments.jsonl`` and ``usage.jsonl``. Inputs: ``questions``, ``answers``.

    Raises:
        StageFailed: the judge cannot be used, or refused too many requests for good; what it said is kept.
        StageUnavailable: the judge could not be reached for some of the answers; what it said is kept.
        Interrupted: told to stop; what it said is kept.
    """
    from eva_hpc.benchmarks.judging.consult import JudgeUnfit, JudgeUnreachable, consult, probe
    from eva_hpc.benchmarks.judging.servers import server_of
    from eva_hpc.inference.completion_cache import CompletionCache, Record

    class Cache(CompletionCache):
        """Leaves a mark in the work folder for every answer: what lies elsewhere is no progress to whoever runs the stage."""

        def add(self, record: Record) -> None:
            super().add(record)
            with (context.work / _ANSWERS).open("ab") as file:
                file.write(b".")

    check_all_unchanged(spec.files, spec.fingerprints)
    asked: list[Question] = read_jsonl(inputs["questions"] / "questions.jsonl")
    answers: list[Answers] = read_jsonl(inputs["answers"] / "answers.jsonl")
    files = {role: Path(path) for role, path in spec.files.items()}
    known = {question["id"]: question for question in JUDGED[spec.kind].questions(spec.edition, files)}
    benchmark = JUDGED[spec.kind].judging(spec.edition, files, spec.both_orders, spec.labels)
    items = [(known[question["id"]], _model_answer(answer)) for question, answer in zip(asked, answers, strict=True)]
    cache = Cache(context.store.root.parent / "judge_cache", writer=out.name)
    server = server_of(spec.judge)
    server = replace(server, retry=replace(server.retry, drain_s=max(1.0, context.grace_s - _LEAVE_S)))
    say = partial(print, flush=True)
    try:
        probed = probe(benchmark, items, server, cache, stop=context.stop, say=say)
        for note in probed.notes:
            say(note)
        consultation = consult(
            benchmark,
            items,
            server,
            cache,
            judge=spec.judge.model,
            repeats=spec.judge.repeats,
            probed=probed,
            progress=context.progress,
            stop=context.stop,
            say=say,
        )
    except JudgeUnfit as error:
        raise StageFailed(str(error)) from None
    except JudgeUnreachable as error:
        raise StageUnavailable(str(error)) from None
    for warning in consultation.warnings:
        say(f"warning: {warning}")
    if refused := sum(consultation.failures.values()):
        answered = consultation.asked.calls + consultation.from_cache.calls
        if answered < spec.least_answered * (answered + refused):
            raise StageFailed(
                f"only {answered} of {answered + refused} requests to {spec.judge.model} have an answer; below "
                f"{100 * spec.least_answered:.10g}% (min_coverage) there is no number: {'; '.join(consultation.warnings)}. "
                "The answers are kept, and the same command asks only for the rest"
            )
        say(f"what was refused counts as failed; to ask it again, remove {out} and run the same command")
    write_jsonl(out / "usage.jsonl", [consultation.to_json()])
    return Counts(len(items), write_jsonl(out / "judgments.jsonl", consultation.rows))


def _model_answer(answer: Answers) -> ModelAnswer:
    turns = [None if turn["finish"] == "no room" else turn["text"] for turn in answer["samples"][0]]
    return ModelAnswer(question_id=answer["question_id"], model=POLICY, turns=turns)
