"""The numbers of a judged benchmark, by the official arithmetic, from the judgments of a run's final policy."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from eva_hpc.benchmarks.records import Answers, Metric
from eva_hpc.benchmarks.registry import JUDGED, Options
from eva_hpc.stages.contract import Context, Counts, Inputs, StageSpec
from eva_hpc.stages.unchanged import check_all_unchanged
from eva_hpc.store.records import read_jsonl, write_jsonl


class Spec(StageSpec):
    """How numbers are made. `fingerprints` are hashes of the content of `files`, by role."""

    stage: ClassVar[str] = "judged_score"
    kind: str
    edition: str
    min_coverage: float
    difficulty_by: Literal["instruction", "position"]
    files: dict[str, str]
    fingerprints: dict[str, str]


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``metrics.jsonl``, ``score.jsonl`` (all the benchmark tells) and ``per_question.jsonl`` (for paired comparisons).

    Inputs: ``questions``, ``answers``, ``judgments``.
    """
    check_all_unchanged(spec.files, spec.fingerprints)
    rows = read_jsonl(inputs["judgments"] / "judgments.jsonl")
    files = {role: Path(path) for role, path in spec.files.items()}
    benchmark = JUDGED[spec.kind]
    asked = {question["id"] for question in read_jsonl(inputs["questions"] / "questions.jsonl")}
    questions = [question for question in benchmark.questions(spec.edition, files) if question["id"] in asked]
    options = Options(min_coverage=spec.min_coverage, difficulty_by=spec.difficulty_by)
    score = benchmark.score(spec.edition, rows, questions, files, options)
    truncated = _truncated(read_jsonl(inputs["answers"] / "answers.jsonl"))
    (usage,) = read_jsonl(inputs["judgments"] / "usage.jsonl")
    notes = [*score.told.get("warnings", ()), *usage["warnings"]]
    if truncated["value"]:
        notes.append(f"{truncated['value']:.3g} % of the answers were cut off at the limit of new tokens")
    for metric in score.metrics:
        metric["notes"] = notes
    write_jsonl(out / "score.jsonl", [score.told])
    write_jsonl(out / "per_question.jsonl", score.per_question)
    return Counts(len(rows), write_jsonl(out / "metrics.jsonl", [*score.metrics, truncated]))


def _truncated(answers: list[Answers]) -> Metric:
    """Percentage of answers cut off at the limit of new tokens."""
    cut = [any(turn["finish"] == "length" for turn in answer["samples"][0]) for answer in answers]
    return Metric(metric="truncated", value=100 * sum(cut) / len(cut), n=len(cut), coverage=1.0)
