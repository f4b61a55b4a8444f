"""The stage graph of one run: warm-up round, rounds of eva or of a baseline, evaluation.

warm-up   generate(theta0, X, k) -> score -> pair -> train -> theta1
round r   generate(theta, X, k) -> score -> select -> evolve -> admit -> generate(theta, X', k) -> score -> pair -> train
          on new prompts: generate(theta, X_r, k) -> score -> pair -> train;   on repeated pairs: train
options   recheck(X') before pair;   rewrite -> score -> adopt after pair;   response_logps before select
end       see evaluation.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eva_hpc.config.benchmark import OFFICIAL_SETS, RewardBenchmark
from eva_hpc.config.creator import ModelEvolver, NoEvolver, PolicyEvolver, Writer
from eva_hpc.config.optimiser import needs_reference, needs_win_probabilities
from eva_hpc.config.recipe import EvaluationQuestions, FilePrompts, LabPrompts, PretrainedPolicy, Recipe
from eva_hpc.plan.evaluation import Evaluation, Judging, fingerprints_of
from eva_hpc.plan.graph import Node
from eva_hpc.stages import (
    admit,
    adopt,
    evolve,
    generate,
    judged_questions,
    mix,
    pair,
    prompts,
    questions,
    recheck,
    response_logps,
    rewrite,
    score,
    select,
    start_policy,
    train,
)


def evaluations(recipe: Recipe, seed: int, fingerprints: Mapping[str, str], salt: str = "") -> dict[str, Judging]:
    """The last node of each benchmark; everything else hangs on these.

    Args:
        recipe: one grid point.
        seed: of the run: sampling, selection, evolving and the order of training.
        fingerprints: hash of the content of each external path or name in the recipe.
        salt: enters every key, so that runs of different salts share nothing.
    """
    run = _Run(recipe, seed, fingerprints, salt)
    final = run.solver()
    evaluation = Evaluation(recipe, seed, fingerprints, salt, run.start)
    return {name: evaluation.of(benchmark, final) for name, benchmark in recipe.benchmarks.items()}


LONGEST = 2**31 - 1
"""Tokens: no question is too long to be compared with."""


class _Run:
    def __init__(self, recipe: Recipe, seed: int, fingerprints: Mapping[str, str], salt: str) -> None:
        self.recipe = recipe
        self.seed = seed
        self.fingerprints = fingerprints
        self.salt = salt  # of the nodes that read no other one; everything else reads one of these
        policy = recipe.policy
        path = policy.path if isinstance(policy, PretrainedPolicy) else ""
        self.start = Node(start_policy.Spec(policy=policy, fingerprint=self._fingerprint(path)), "start", salt=salt)
        decontaminate = recipe.decontaminate if recipe.creator.admission.contamination is not None else ()
        self.held_out = {f"questions_{number}": self._held_out(which) for number, which in enumerate(decontaminate)}
        self.trained_on: list[Node] = []  # the pairs of every round so far

    def _fingerprint(self, path: str) -> str:
        return self.fingerprints[path] if path else ""

    # ------------------------------------------------------------------------ rounds

    def solver(self) -> Node:
        """The policy after all rounds."""
        recipe = self.recipe
        policy, base = self.start, self._prompts(0)
        if recipe.warmup is not None:
            policy = self._train(policy, self._plain_pairs(policy, base, recipe.warmup.responses_per_prompt, 0), 0)
        for number in range(1, recipe.rounds + 1):
            if recipe.rounds_on == "evolved":
                pairs, base = self._eva_round(policy, base, number)
            elif recipe.rounds_on == "new":
                fresh = self._prompts(number if recipe.warmup is not None else number - 1)
                pairs = self._plain_pairs(policy, fresh, recipe.responses_per_prompt, number)
            else:
                pairs = self.trained_on[-1]
            policy = self._train(policy, pairs, number)
        return policy

    def _plain_pairs(self, policy: Node, base: Node, count: int, number: int) -> Node:
        """Pairs of a round without a creator."""
        return self._pairs(policy, number, count, 0.0, self._scored(policy, base, "base", count, 1.0, number))

    def _eva_round(self, policy: Node, base: Node, number: int) -> tuple[Node, Node]:
        """The pairs of one eva round, and the prompts that the next one starts from."""
        recipe, count, ratio = self.recipe, self.recipe.responses_per_prompt, self.recipe.evolved_ratio
        inputs = self._scored(policy, base, "base", count, 1.0, number)
        if isinstance(recipe.creator.evolver, NoEvolver):
            sampled = self._selected(policy, inputs, number)
            return self._pairs(policy, number, count, 0.0, {**inputs, "base": sampled}), base
        if ratio == 0:
            return self._pairs(policy, number, count, ratio, inputs), base
        evolved = self._evolved(policy, inputs, number)
        checked = recipe.creator.recheck is not None
        inputs |= self._scored(policy, evolved, "evolved", count, 1.0 if checked else ratio, number)
        if recipe.creator.recheck is not None:
            settings = recheck.Spec(
                informativeness=recipe.creator.informativeness, quantile=recipe.creator.recheck, responses=count
            )
            roles = ("base", "base_rewards", "evolved", "evolved_rewards")
            inputs["evolved"] = Node(settings, _part(number), {role: inputs[role] for role in roles})
        pairs = self._pairs(policy, number, count, ratio, inputs)
        if number < recipe.rounds:
            mixed = mix.Spec(ratio=ratio, seed=self.seed, round=number)
            base = Node(mixed, _part(number), {role: inputs[role] for role in ("base", "evolved")})
        return pairs, base

    def _train(self, policy: Node, pairs: Node, number: int) -> Node:
        recipe = self.recipe
        earlier, self.trained_on = self.trained_on, [*self.trained_on, pairs]
        inputs = {"policy": policy, "pairs": pairs}
        if not recipe.incremental:
            inputs["policy"] = self.start
            inputs |= {f"pairs_{place}": one for place, one in enumerate(earlier)}
        if recipe.reference == "start" and needs_reference(recipe.optimiser) and inputs["policy"] is not self.start:
            inputs["reference"] = self.start
        optimiser = recipe.optimiser
        if optimiser.steps is not None:  # what changes nothing then must not be in the key
            optimiser = optimiser.model_copy(update={"epochs": type(optimiser).model_fields["epochs"].default})
        return Node(train.Spec(optimiser=optimiser, seed=self.seed, round=number), _part(number), inputs)

    # ------------------------------------------------------------------------ prompts

    def _prompts(self, split: int) -> Node:
        """Base prompts: of all that the source has, the next as many."""
        source = self.recipe.prompts
        path = source.path if isinstance(source, FilePrompts) else "" if isinstance(source, LabPrompts) else source.name
        inputs = {} if isinstance(source, LabPrompts) else {"policy": self.start, **self.held_out}
        spec = prompts.Spec(
            source=source, fingerprint=self._fingerprint(path), split=split, contamination=self._contamination()
        )
        return Node(spec, "start", inputs, self.salt)

    def _contamination(self) -> float | None:
        return self.recipe.creator.admission.contamination if self.held_out else None

    def _held_out(self, which: EvaluationQuestions) -> Node:
        """Questions that no prompt may contain."""
        assert which.path is not None, "paths of official files are filled in where recipes are loaded"
        of_content = self._fingerprint(which.path)
        if which.set is None:
            file = RewardBenchmark(path=which.path, column=which.column, max_tokens=LONGEST)
            return Node(questions.Spec(benchmark=file, fingerprint=of_content), "start", {"policy": self.start}, self.salt)
        kind, edition = OFFICIAL_SETS[which.set]
        spec = judged_questions.Spec(
            kind=kind, edition=edition, limit=None, files={"questions": which.path}, fingerprints={"questions": of_content}
        )
        return Node(spec, "start", salt=self.salt)

    # ------------------------------------------------------------------------ responses, rewards, pairs

    def _scored(self, policy: Node, source: Node, role: str, count: int, fraction: float, number: int) -> dict[str, Node]:
        """Prompts, their responses and the rewards of these, as inputs of the pairs."""
        spec = generate.Spec(
            generation=self.recipe.generation, responses=count, fraction=fraction, seed=self.seed, round=number
        )
        responses = Node(spec, _part(number), {"policy": policy, "prompts": source})
        rewards = self._rewards(responses, source, count, fraction, number)
        return {role: source, f"{role}_responses": responses, f"{role}_rewards": rewards}

    def _rewards(self, responses: Node, source: Node, count: int, fraction: float, number: int) -> Node:
        reward = self.recipe.reward
        spec = score.Spec(reward=reward, responses=count, fraction=fraction, **fingerprints_of(reward, self.fingerprints))
        return Node(spec, _part(number), {"responses": responses, "prompts": source})

    def _pairs(self, policy: Node, number: int, count: int, ratio: float, inputs: Mapping[str, Node]) -> Node:
        """Pairs of the mixed prompts, their chosen responses rewritten where the recipe says so."""
        recipe, part = self.recipe, _part(number)
        pairing = recipe.pairing
        if not needs_win_probabilities(recipe.optimiser):
            pairing = pairing.model_copy(update={"win_scale": 1.0})
        spec = pair.Spec(responses=count, ratio=ratio, seed=self.seed, round=number, pairing=pairing)
        pairs = Node(spec, part, inputs)
        if recipe.rewriter is None:
            return pairs
        writer = recipe.rewriter.by
        own = policy if type(writer) is PolicyEvolver else self.start  # for its tokenizer at least
        spec_of_writing = rewrite.Spec(writer=writer, fingerprint=self._writer(writer), seed=self.seed, round=number)
        written = Node(spec_of_writing, part, {"pairs": pairs, "policy": own})
        rewards = self._rewards(written, written, 2, 1.0, number)
        chosen = adopt.Spec(only_if_better=recipe.rewriter.only_if_better)
        return Node(chosen, part, {"pairs": pairs, "rewritten": written, "rewards": rewards})

    # ------------------------------------------------------------------------ the creator

    def _selected(self, policy: Node, inputs: Mapping[str, Node], number: int) -> Node:
        creator, count = self.recipe.creator, self.recipe.responses_per_prompt
        by_topic = {"topics": creator.topics} if creator.sampling == "topic" else {}
        reads = {"prompts": inputs["base"], "rewards": inputs["base_rewards"]}
        implicit: dict[str, Any] = {}
        if creator.informativeness == "alignment_potential":
            implicit = {"implicit_beta": creator.implicit_beta, "reward_scale": creator.reward_scale}
            if policy is not self.start:  # else the implicit rewards are 0
                both = {"responses": inputs["base_responses"], "prompts": inputs["base"]}
                spec_of_logps = response_logps.Spec(responses=count, fraction=1.0)
                reads["policy_logps"] = Node(spec_of_logps, _part(number), {"policy": policy, **both})
                reads["start_logps"] = Node(spec_of_logps, _part(number), {"policy": self.start, **both})
        spec = select.Spec(
            informativeness=creator.informativeness,
            sampling=creator.sampling,
            fraction=creator.fraction if creator.count is None else 1.0,
            count=creator.count,
            responses=count,
            seed=self.seed,
            round=number,
            **by_topic,
            **implicit,
        )
        return Node(spec, _part(number), reads)

    def _evolved(self, policy: Node, inputs: Mapping[str, Node], number: int) -> Node:
        """The evolved prompts that are admitted."""
        creator, source, part = self.recipe.creator, self.recipe.prompts, _part(number)
        reads = {"selected": self._selected(policy, inputs, number)}
        if type(creator.evolver) is PolicyEvolver:
            reads["policy"] = policy
        spec = evolve.Spec(
            evolver=creator.evolver,
            fingerprint=self._writer(creator.evolver),
            family=creator.family if not creator.operators else "evol_instruct",
            operators=creator.operators,
            evolutions=creator.evolutions,
            seed=self.seed,
            round=number,
        )
        max_tokens = None if isinstance(source, LabPrompts) else source.max_tokens
        filters = creator.admission if self.held_out else creator.admission.model_copy(update={"contamination": None})
        admission = admit.Spec(admission=filters, max_tokens=max_tokens, seed=self.seed, round=number)
        compared = {"base": inputs["base"], **({"policy": self.start} if max_tokens is not None else {}), **self.held_out}
        return Node(admission, part, {"rewrites": Node(spec, part, reads), **compared})

    def _writer(self, writer: Writer | NoEvolver) -> str:
        return self._fingerprint(writer.path) if isinstance(writer, ModelEvolver) else ""


def _part(number: int) -> str:
    return f"round {number}" if number else "warm-up"
