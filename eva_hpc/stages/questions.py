"""The questions of a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from eva_hpc.benchmarks.records import Question
from eva_hpc.config.benchmark import LabBenchmark, RewardBenchmark
from eva_hpc.config.recipe import FilePrompts
from eva_hpc.stages.contract import Context, Counts, Inputs, StageSpec
from eva_hpc.stages.prompts import read_column, select_prompts, token_counter, token_limit
from eva_hpc.store.records import read_jsonl, write_jsonl
from eva_hpc.store.seeds import content_id

DIFFICULTIES = ("easy", "medium", "hard")


class Spec(StageSpec):
    """Which benchmark; `fingerprint` is the hash of its file's content."""

    stage: ClassVar[str] = "questions"
    benchmark: LabBenchmark | RewardBenchmark
    fingerprint: str = ""


def run(spec: Spec, inputs: Inputs, out: Path, context: Context) -> Counts:
    """Write ``questions.jsonl``. Inputs: ``policy``, the start policy (for its tokenizer), unless it is the lab's."""
    benchmark = spec.benchmark
    if isinstance(benchmark, LabBenchmark):
        questions = lab_questions(benchmark)
        return Counts(len(questions), write_jsonl(out / "questions.jsonl", questions))
    source = FilePrompts(path=benchmark.path, column=benchmark.column, limit=benchmark.limit, max_tokens=benchmark.max_tokens)
    counts = select_prompts(
        read_column(source, spec.fingerprint, context.work),
        out,
        origin=Path(benchmark.path).name,
        length=token_counter(inputs["policy"]),
        max_tokens=token_limit(inputs["policy"], benchmark.max_tokens),
        limit=benchmark.limit,
    )
    prompts = read_jsonl(out / "prompts.jsonl")
    write_jsonl(
        out / "questions.jsonl",
        (Question(id=prompt["id"], category="all", turns=[prompt["prompt"]]) for prompt in prompts),
    )
    return counts


def lab_questions(benchmark: LabBenchmark) -> list[Question]:
    """Held-out prompts of every difficulty, and dialogues of two turns."""
    from eva_hpc.lab.tasks import held_out, held_out_dialogues

    groups: list[tuple[str, list[list[str]]]] = []
    seen: set[str] = set()
    for difficulty in DIFFICULTIES:
        # Neighbouring difficulties share a few prompts; each is asked once, as the easier.
        drawn = held_out(benchmark.split, difficulty, benchmark.prompts + len(seen))
        new = [prompt for prompt in drawn if prompt not in seen][: benchmark.prompts]
        groups.append((difficulty, [[prompt] for prompt in new]))
        seen.update(new)
    groups.append(("dialogue", [list(turns) for turns in held_out_dialogues(benchmark.split, benchmark.prompts)]))
    return [
        Question(id=content_id("\n".join(turns)), category=category, turns=turns)
        for category, members in groups
        for turns in members
    ]
