"""The questions of a judged benchmark, from its official file or from one in the same format."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from eva_hpc.benchmarks.records import Question
from eva_hpc.benchmarks.registry import JUDGED
from eva_hpc.stages.contract import Context, Counts, Inputs, StageSpec
from eva_hpc.stages.set_aside import SetAside
from eva_hpc.stages.unchanged import check_all_unchanged
from eva_hpc.store.records import write_jsonl


class Spec(StageSpec):
    """Which benchmark, and how many of its questions. `fingerprints` are hashes of the content of `files`, by role."""

    stage: ClassVar[str] = "judged_questions"
    kind: str
    edition: str
    limit: int | None
    files: dict[str, str]
    fingerprints: dict[str, str]


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``questions.jsonl``."""
    check_all_unchanged(spec.files, spec.fingerprints)
    files = {role: Path(path) for role, path in spec.files.items()}
    asked = JUDGED[spec.kind].questions(spec.edition, files)
    aside = SetAside()
    for question in asked[spec.limit :] if spec.limit is not None else []:
        aside.add("beyond the limit", {"id": question["id"]})
    kept = [Question(id=one["id"], category=one["category"], turns=one["turns"]) for one in asked[: spec.limit]]
    return Counts(len(asked), write_jsonl(out / "questions.jsonl", kept), aside.write(out))
