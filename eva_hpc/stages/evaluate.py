"""The numbers of a benchmark, from the judgments of a run's final policy and of the start policy."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from eva_hpc.benchmarks.records import QuestionValue
from eva_hpc.benchmarks.rewards import by_question, summarise
from eva_hpc.stages.contract import Context, Counts, Inputs, StageSpec
from eva_hpc.store.records import read_jsonl, write_jsonl


class Spec(StageSpec):
    """What rewards are multiplied by: 100 where they lie in [0, 1]."""

    stage: ClassVar[str] = "evaluate"
    version: ClassVar[int] = 2
    scale: float


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``metrics.jsonl`` and ``per_question.jsonl``. Inputs: ``questions``, ``judgments``, ``reference``."""
    questions = read_jsonl(inputs["questions"] / "questions.jsonl")
    judgments = read_jsonl(inputs["judgments"] / "judgments.jsonl")
    reference = read_jsonl(inputs["reference"] / "judgments.jsonl")
    metrics = summarise(questions, judgments, reference, spec.scale)
    values = by_question(questions, judgments, reference, spec.scale)
    rows = (
        QuestionValue(metric=metric, question_id=name, value=value, weight=1.0)
        for metric, own in values.items()
        for name, value in own.items()
    )
    write_jsonl(out / "per_question.jsonl", rows)
    return Counts(len(judgments), write_jsonl(out / "metrics.jsonl", metrics))
