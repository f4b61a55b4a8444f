"""The evaluation of a run: answers of its final policy to every benchmark, judged and scored.

answer(theta, benchmark) -> judge -> evaluate                              by the recipe's reward, against the start policy
judged_questions -> answer(theta) -> ask_judge -> judged_score             by a server, in the official arithmetic
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from eva_hpc.config.benchmark import (
    JUDGED_WITH,
    SCORED_WITH,
    AlpacaEval,
    ArenaHard,
    Benchmark,
    JudgedBenchmark,
    LabBenchmark,
    MtBench,
    RewardBenchmark,
    judge_in_words,
)
from eva_hpc.config.recipe import Recipe
from eva_hpc.config.reward import Ensemble, LabChecker, OpenAIScorer, Reward, model_paths
from eva_hpc.plan.graph import Node
from eva_hpc.stages import answer, ask_judge, evaluate, judge, judged_questions, judged_score, questions


@dataclass(frozen=True)
class Judging:
    """Who gives the numbers of a benchmark, in words for the table."""

    node: Node
    judge: str


@dataclass(frozen=True)
class Evaluation:
    """What all benchmarks of a run share: its recipe and seed, the fingerprints of what the recipe names, the start policy."""

    recipe: Recipe
    seed: int
    fingerprints: Mapping[str, str]
    salt: str
    start: Node

    def of(self, benchmark: Benchmark, final: Node) -> Judging:
        """The last node of a benchmark of the final policy."""
        if isinstance(benchmark, LabBenchmark | RewardBenchmark):
            return self._rewarded(benchmark, final)
        return self._judged(benchmark, final)

    def _judged(self, benchmark: JudgedBenchmark, final: Node) -> Judging:
        """Answers of the final policy, judged by a server."""
        named: dict[str, str | None] = benchmark.files.model_dump()
        files = {role: path for role, path in named.items() if path is not None}
        edition = benchmark.version if isinstance(benchmark, ArenaHard) else ""
        judge = benchmark.judge or self.recipe.judge
        assert judge is not None, "a benchmark without a judge is refused where recipes are checked"

        def about(*roles: str) -> dict[str, Any]:
            """What a stage reads of the files, with their fingerprints."""
            some = {role: files[role] for role in roles if role in files}
            prints = {role: self.fingerprints[path] for role, path in some.items()}
            return {"kind": benchmark.kind, "edition": edition, "files": some, "fingerprints": prints}

        asked = Node(judged_questions.Spec(limit=benchmark.limit, **about("questions")), "evaluation", salt=self.salt)
        decoding = self.recipe.generation.model_copy(
            update={name: getattr(benchmark, name) for name in ("temperature", "top_p", "max_new_tokens")}
        )
        temperatures = benchmark.temperatures if isinstance(benchmark, MtBench) else {}
        answers = Node(
            answer.Spec(
                generation=decoding,
                samples=1,
                greedy=False,
                seed=self.seed,
                temperatures=temperatures,
                strip=isinstance(benchmark, MtBench),  # as FastChat does
            ),
            "evaluation",
            {"policy": final, "questions": asked},
        )
        alpaca = benchmark if isinstance(benchmark, AlpacaEval) else AlpacaEval()
        judgments = Node(
            ask_judge.Spec(
                judge=judge,
                both_orders=alpaca.both_orders,
                labels=alpaca.labels,
                least_answered=benchmark.min_coverage,
                **about("questions", *JUDGED_WITH),
            ),
            "evaluation",
            {"questions": asked, "answers": answers},
        )
        node = Node(
            judged_score.Spec(
                min_coverage=benchmark.min_coverage,
                difficulty_by=alpaca.difficulty_by,
                **about("questions", *SCORED_WITH),
            ),
            "evaluation",
            {"questions": asked, "answers": answers, "judgments": judgments},
        )
        return Judging(node, judge_in_words(benchmark, judge))

    def _rewarded(self, benchmark: LabBenchmark | RewardBenchmark, final: Node) -> Judging:
        """Answers of the final and of the start policy, judged alike. The start policy's are shared by all runs."""
        if isinstance(benchmark, LabBenchmark):
            reward: Reward = LabChecker()  # exact, whatever the policy was trained on
            asked = Node(questions.Spec(benchmark=benchmark), "evaluation", salt=self.salt)
        else:
            reward = benchmark.reward or self.recipe.reward
            file = benchmark.model_copy(update={"reward": None})
            spec = questions.Spec(benchmark=file, fingerprint=self.fingerprints[benchmark.path])
            asked = Node(spec, "evaluation", {"policy": self.start}, self.salt)

        def judged(policy: Node, seed: int) -> Node:
            spec = answer.Spec(generation=self.recipe.generation, samples=benchmark.samples, greedy=benchmark.greedy, seed=seed)
            answers = Node(spec, "evaluation", {"policy": policy, "questions": asked})
            judging = judge.Spec(reward=reward, **fingerprints_of(reward, self.fingerprints))
            return Node(judging, "evaluation", {"questions": asked, "answers": answers})

        node = Node(
            evaluate.Spec(scale=100.0 if isinstance(reward, LabChecker) else 1.0),
            "evaluation",
            {"questions": asked, "judgments": judged(final, self.seed), "reference": judged(self.start, 0)},
        )
        return Judging(node, _in_words(reward))


def fingerprints_of(reward: Reward, fingerprints: Mapping[str, str]) -> dict[str, Any]:
    """The fingerprints of a reward's models as fields of a stage's spec."""
    found = tuple(fingerprints[path] for _, path in model_paths(reward))
    return {"fingerprints": found} if len(found) > 1 else {"fingerprint": "".join(found)}


def _in_words(reward: Reward) -> str:
    """Who judges, for the table."""
    if isinstance(reward, LabChecker):
        return "lab checker"
    if isinstance(reward, OpenAIScorer):
        return f"ratings by {reward.model}"
    if isinstance(reward, Ensemble):
        return " and ".join(_in_words(member) for member in reward.members)
    return f"reward model {PurePath(reward.path).name}"
