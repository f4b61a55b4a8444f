"""The stage graph of one run of eva: warm-up round, eva rounds, evaluation.

round 0   generate(theta0, X, k) -> score -> pair -> train -> theta1
round r   generate(theta, X, k) -> score -> select -> evolve -> generate(theta, X', k) -> score -> pair (mixed) -> train
end       answer(theta, benchmark) -> judge -> evaluate          for each benchmark
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
from eva_hpc.config.recipe import (
    FilePrompts,
    LabChecker,
    LabPrompts,
    ModelEvolver,
    PolicyEvolver,
    PretrainedPolicy,
    Recipe,
    SequenceClassification,
)
from eva_hpc.plan.graph import Node
from eva_hpc.stages import (
    answer,
    ask_judge,
    evaluate,
    evolve,
    generate,
    judge,
    judged_questions,
    judged_score,
    mix,
    pair,
    prompts,
    questions,
    score,
    select,
    start_policy,
    train,
)


@dataclass(frozen=True)
class Judging:
    """Who gives the numbers of a benchmark, in words for the table."""

    node: Node
    judge: str


def evaluations(recipe: Recipe, seed: int, fingerprints: Mapping[str, str], salt: str = "") -> dict[str, Judging]:
    """The last node of each benchmark; everything else hangs on these.

    Args:
        recipe: one grid point.
        seed: of the run: sampling, selection, evolving and the order of training.
        fingerprints: hash of the content of each external path or name in the recipe.
        salt: enters every key, so that runs of different salts share nothing.
    """
    return _Run(recipe, seed, fingerprints, salt).evaluations()


class _Run:
    def __init__(self, recipe: Recipe, seed: int, fingerprints: Mapping[str, str], salt: str) -> None:
        self.recipe = recipe
        self.seed = seed
        self.fingerprints = fingerprints
        self.salt = salt  # of the nodes that read no other one; everything else reads one of these
        policy = recipe.policy
        path = policy.path if isinstance(policy, PretrainedPolicy) else ""
        self.start = Node(start_policy.Spec(policy=policy, fingerprint=self._fingerprint(path)), "start", salt=salt)

    def evaluations(self) -> dict[str, Judging]:
        final = self._solver()
        return {name: self._benchmark(benchmark, final) for name, benchmark in self.recipe.benchmarks.items()}

    def _fingerprint(self, path: str) -> str:
        return self.fingerprints[path] if path else ""

    def _solver(self) -> Node:
        """The policy after all rounds."""
        recipe = self.recipe
        policy, base = self.start, self._prompts()
        if recipe.warmup is not None:
            count = recipe.warmup.responses_per_prompt
            responses, rewards = self._responses(policy, base, count, 1.0, 0)
            policy = self._train(policy, 0, count, 0.0, {"base": base, "base_responses": responses, "base_rewards": rewards})
        for number in range(1, recipe.rounds + 1):
            policy, base = self._round(policy, base, number)
        return policy

    def _round(self, policy: Node, base: Node, number: int) -> tuple[Node, Node]:
        """One eva round: the new policy, and the prompts it was trained on."""
        recipe, count, ratio = self.recipe, self.recipe.responses_per_prompt, self.recipe.evolved_ratio
        responses, rewards = self._responses(policy, base, count, 1.0, number)
        inputs = {"base": base, "base_responses": responses, "base_rewards": rewards}
        if ratio > 0:
            evolved = self._evolved(policy, base, rewards, number)
            evolved_responses, evolved_rewards = self._responses(policy, evolved, count, ratio, number)
            inputs |= {"evolved": evolved, "evolved_responses": evolved_responses, "evolved_rewards": evolved_rewards}
        trained = self._train(policy, number, count, ratio, inputs)
        if number < recipe.rounds and ratio > 0:
            mixed = mix.Spec(ratio=ratio, seed=self.seed, round=number)
            base = Node(mixed, _part(number), {role: inputs[role] for role in ("base", "evolved")})
        return trained, base

    def _prompts(self) -> Node:
        source = self.recipe.prompts
        path = source.path if isinstance(source, FilePrompts) else "" if isinstance(source, LabPrompts) else source.name
        inputs = {} if isinstance(source, LabPrompts) else {"policy": self.start}
        return Node(prompts.Spec(source=source, fingerprint=self._fingerprint(path)), "start", inputs, self.salt)

    def _responses(self, policy: Node, source: Node, count: int, fraction: float, number: int) -> tuple[Node, Node]:
        """Responses and their rewards."""
        spec = generate.Spec(
            generation=self.recipe.generation, responses=count, fraction=fraction, seed=self.seed, round=number
        )
        responses = Node(spec, _part(number), {"policy": policy, "prompts": source})
        reward = self.recipe.reward
        rewards = score.Spec(reward=reward, fingerprint=self._reward_fingerprint(), responses=count, fraction=fraction)
        return responses, Node(rewards, _part(number), {"responses": responses, "prompts": source})

    def _reward_fingerprint(self) -> str:
        reward = self.recipe.reward
        return self._fingerprint(reward.path) if isinstance(reward, SequenceClassification) else ""

    def _evolved(self, policy: Node, base: Node, rewards: Node, number: int) -> Node:
        creator = self.recipe.creator
        chosen = select.Spec(
            informativeness=creator.informativeness,
            sampling=creator.sampling,
            fraction=creator.fraction,
            responses=self.recipe.responses_per_prompt,
            seed=self.seed,
            round=number,
        )
        inputs = {"selected": Node(chosen, _part(number), {"prompts": base, "rewards": rewards}), "base": base}
        evolver = creator.evolver
        source = self.recipe.prompts
        max_tokens = None if isinstance(source, LabPrompts) else source.max_tokens
        if type(evolver) is PolicyEvolver:
            inputs["policy"] = policy
        elif max_tokens is not None:
            inputs["policy"] = self.start
        fingerprint = self._fingerprint(evolver.path) if isinstance(evolver, ModelEvolver) else ""
        spec = evolve.Spec(
            evolver=evolver,
            fingerprint=fingerprint,
            evolutions=creator.evolutions,
            max_chars=creator.max_chars,
            max_tokens=max_tokens,
            seed=self.seed,
            round=number,
        )
        return Node(spec, _part(number), inputs)

    def _train(self, policy: Node, number: int, count: int, ratio: float, inputs: Mapping[str, Node]) -> Node:
        pairs = Node(pair.Spec(responses=count, ratio=ratio, seed=self.seed, round=number), _part(number), inputs)
        spec = train.Spec(optimiser=self.recipe.optimiser, seed=self.seed, round=number)
        return Node(spec, _part(number), {"policy": policy, "pairs": pairs})

    def _benchmark(self, benchmark: Benchmark, final: Node) -> Judging:
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
            prints = {role: self._fingerprint(path) for role, path in some.items()}
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
        in_lab = isinstance(benchmark, LabBenchmark)
        path = "" if isinstance(benchmark, LabBenchmark) else benchmark.path
        asked = Node(
            questions.Spec(benchmark=benchmark, fingerprint=self._fingerprint(path)),
            "evaluation",
            {} if in_lab else {"policy": self.start},
            self.salt,
        )
        reward = self.recipe.reward

        def judged(policy: Node, seed: int) -> Node:
            spec = answer.Spec(generation=self.recipe.generation, samples=benchmark.samples, greedy=benchmark.greedy, seed=seed)
            answers = Node(spec, "evaluation", {"policy": policy, "questions": asked})
            judging = judge.Spec(reward=reward, fingerprint=self._reward_fingerprint())
            return Node(judging, "evaluation", {"questions": asked, "answers": answers})

        node = Node(
            evaluate.Spec(scale=100.0 if isinstance(reward, LabChecker) else 1.0),
            "evaluation",
            {"questions": asked, "judgments": judged(final, self.seed), "reference": judged(self.start, 0)},
        )
        judge_name = "lab checker" if isinstance(reward, LabChecker) else f"reward model {PurePath(reward.path).name}"
        return Judging(node, judge_name)


def _part(number: int) -> str:
    return f"round {number}" if number else "warm-up"
