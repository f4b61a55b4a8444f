"""How much the tasks of a plan have to do, from what the recipe says: records, and operations of a model. Estimates.

The amount of a task is what its time grows with: responses, rewrites, pairs times epochs. It can be told from a plan and from
the manifest of a finished artifact alike, so that the one can be priced by the other.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from eva_hpc.config.model_size import Size, Sizes
from eva_hpc.method.mixing import share
from eva_hpc.plan.plan import Plan, Task
from eva_hpc.store.keys import digest

PROMPT_TOKENS = 200
RESPONSE_SHARE = 0.3
"""Typical length of a response, as a share of `max_new_tokens`."""
INSTRUCTION_TOKENS = 300
"""What an evolver is told beside the prompt."""
UNKNOWN_PROMPTS = 10_000
QUESTIONS = {("alpaca_eval", ""): 805, ("arena_hard", "v0.1"): 500, ("arena_hard", "v2.0"): 750, ("mt_bench", ""): 80}
"""Of the official sets, by kind and version; own ones are taken to be as large."""
WITHOUT_REFERENCE = ("simpo", "orpo")
LAB_PARAMETERS = Size(0.37e6, "the lab's")

_share = functools.lru_cache(share)

NESTED = ("generate", "score", "response_logps")
"""Stages whose artifacts hold the first responses to the first prompts."""

Activity = Literal["training", "scoring", "generation (vllm)", "generation (transformers)"]


@dataclass(frozen=True)
class Slice:
    """The part of a nested artifact that one run needs: the first `responses` of the first `fraction` of the prompts."""

    responses: int
    fraction: float

    def joined(self, other: Slice | None) -> Slice:
        """The smallest slice that holds both."""
        return Slice(max(self.responses, other.responses), max(self.fraction, other.fraction)) if other is not None else self


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of a task, what it does with them, and the model that does it; `size` None if not known."""

    activity: Activity
    model: str
    size: Size | None
    tokens: float
    per_parameter_and_token: float = 2.0

    @property
    def flops(self) -> float | None:
        """2 N per token forward, 6 N forward and backward (Kaplan et al. 2020, arXiv 2001.08361, section 2.1)."""
        return None if self.size is None else self.per_parameter_and_token * self.size.count * self.tokens


def amount(stage: str, spec: Mapping[str, Any], read: float, written: float) -> float:
    """What the time of a task grows with, from its spec and its records in and out."""
    if stage in NESTED:
        return read * float(spec["responses"])
    if stage == "answer":
        return read * float(spec["samples"] + spec["greedy"])
    if stage == "train":
        optimiser = spec["optimiser"]
        return float((optimiser.get("steps") or 0) * optimiser["batch_size"]) or written * float(optimiser["epochs"])
    return 1.0 if stage == "start_policy" else read


_KINDS: dict[str, tuple[tuple[str, str], ...]] = {
    "generate": (("generation", "engine"), ("generation", "max_new_tokens")),
    "answer": (("generation", "engine"), ("generation", "max_new_tokens")),
    "train": (("optimiser", "precision"), ("optimiser", "max_length"), ("optimiser", "gradient_checkpointing")),
    "score": (("reward", ""), ("fingerprint", "")),
    "judge": (("reward", ""), ("fingerprint", "")),
    "ask_judge": (("kind", ""), ("judge", "model")),
    "evolve": (("evolver", ""), ("fingerprint", "")),
    "rewrite": (("writer", ""), ("fingerprint", "")),
}


def kind_of_work(stage: str, spec: Mapping[str, Any], policy: Mapping[str, Any] | None) -> str:
    """A word that is the same for tasks that take equally long for the same amount.

    Args:
        stage: of the task.
        spec: of the task.
        policy: spec of the start policy that the task's policy descends from; None if it reads none.
    """
    fields = [spec[section][name] if name else spec[section] for section, name in _KINDS.get(stage, ())]
    if stage == "start_policy":
        policy = spec
    return digest([stage, fields, _content(policy) if policy else None])


def _content(policy: Mapping[str, Any]) -> dict[str, Any]:
    return {**policy, "policy": {name: value for name, value in policy["policy"].items() if name != "path"}}


_READS = {
    "select": "prompts",
    "generate": "prompts",
    "score": "prompts",
    "response_logps": "prompts",
    "evolve": "selected",
    "admit": "rewrites",
    "recheck": "evolved",
    "rewrite": "pairs",
    "adopt": "pairs",
    "mix": "base",
    "pair": "base",
    "train": "pairs",
    "answer": "questions",
    "judge": "questions",
    "evaluate": "questions",
    "ask_judge": "questions",
    "judged_score": "questions",
}
"""The role of the input whose records a stage goes through."""


class Workload:
    """The work of every task of a plan.

    Args:
        plan: the plan.
        sizes: of the models and prompt files that its recipes name.
        written: records that are known of tasks that are done, by task id.
    """

    def __init__(self, plan: Plan, sizes: Sizes, written: Mapping[str, int]) -> None:
        self.plan = plan
        self.sizes = sizes
        self.assumed: dict[str, None] = {}
        self._by_identity = {task.identity: task for task in plan.tasks}
        self._written: dict[str, float] = {}
        for task in plan.tasks:
            self._written[task.id] = float(written.get(task.id, self._estimated_output(task)))

    def amount(self, task: Task, part: Slice | None = None) -> float:
        """What its time grows with; of a nested task, of the part that a run needs."""
        spec = task.spec if part is None else {**task.spec, "responses": part.responses, "fraction": part.fraction}
        return amount(task.stage, spec, self._read(spec, task), self._written[task.id])

    def kind(self, task: Task) -> str:
        """See :func:`kind_of_work`."""
        start = self._start(task)
        return kind_of_work(task.stage, task.spec, start.spec if start else None)

    def needs(self) -> dict[str, dict[str, Slice]]:
        """What each run itself needs of the nested tasks: task id -> run -> slice.

        Pairs say it of responses and rewards, the creator's choice of rewards; rewards need their responses.
        """
        needs: dict[str, dict[str, Slice]] = {}

        def need(identity: Any, run: str, part: Slice) -> None:
            of_task = needs.setdefault(self._by_identity[identity].id, {})
            of_task[run] = part.joined(of_task.get(run))

        for task in self.plan.tasks:
            for role, part in _slices(task):
                for run in task.runs:
                    need(task.inputs[role], run, part)
        for task in self.plan.tasks:
            source = task.inputs.get("responses")
            if (
                task.stage in ("score", "response_logps")
                and source is not None
                and self._by_identity[source].stage == "generate"
            ):
                for run, part in needs.get(task.id, {}).items():
                    need(source, run, part)
        return needs

    def operations(self, task: Task, part: Slice | None = None) -> Operations | None:
        """What its model computes; None if it has none."""
        spec, amount = task.spec, self.amount(task, part)
        if task.stage in ("generate", "answer"):
            prompts = self._read(spec if part is None else {"fraction": part.fraction}, task)
            tokens = amount * _response_tokens(spec) + prompts * PROMPT_TOKENS
            return Operations(_generation(spec["generation"]["engine"]), *self._policy(task), tokens)
        if task.stage in ("evolve", "rewrite"):
            writer = spec["evolver" if task.stage == "evolve" else "writer"]
            if writer["kind"] not in ("policy", "model"):
                return None
            tokens = amount * (INSTRUCTION_TOKENS + PROMPT_TOKENS + RESPONSE_SHARE * writer["max_new_tokens"])
            model = self._policy(task) if writer["kind"] == "policy" else self._model(writer["path"])
            return Operations(_generation(writer["engine"]), *model, tokens)
        if task.stage == "response_logps":
            length = PROMPT_TOKENS + _response_tokens(self.sampled(task).spec)
            return Operations("scoring", *self._policy(task), amount * length)
        if task.stage in ("score", "judge") and (models := _models_of(spec["reward"])):
            answers = self.sampled(task) if task.stage == "score" else self.source(task, "answers")
            each = 1 if task.stage == "score" else answers.spec["samples"] + answers.spec["greedy"]
            tokens = amount * each * (PROMPT_TOKENS + _response_tokens(answers.spec))
            if spec["reward"]["kind"] == "pairrm":  # every response against every other, in both orders
                tokens *= 2 * max(1, spec.get("responses", 2) - 1)
            return Operations("scoring", *self._together(models), tokens)
        if task.stage == "train":
            responses = self.sampled(task)
            length = min(PROMPT_TOKENS + _response_tokens(responses.spec), spec["optimiser"]["max_length"])
            # Per pair and epoch: chosen and rejected, forward and backward; once before, both forward under the reference.
            optimiser = spec["optimiser"]
            reference = 0.0 if optimiser["loss"] in WITHOUT_REFERENCE else 2.0 / optimiser["epochs"]
            return Operations("training", *self._policy(task), amount * 2 * length, 6.0 + reference)
        return None

    def parameters(self, task: Task) -> Size | None:
        """Of the policy that a task reads or, being a training, writes."""
        return self._policy(task)[1]

    def _estimated_output(self, task: Task) -> float:
        """Records that a task will write, if all goes well."""
        spec = task.spec
        if task.stage == "prompts":
            return self._prompts(spec["source"])
        if task.stage == "judged_questions":
            count = QUESTIONS[spec["kind"], spec["edition"]]
            return float(min(count, spec["limit"] or count))
        if task.stage == "questions":
            benchmark = spec["benchmark"]
            return 4.0 * benchmark["prompts"] if benchmark["kind"] == "lab" else self._prompts(benchmark)
        read = self._read(spec, task)
        if task.stage == "select":
            return max(1.0, float(int(read * spec["fraction"]))) if spec["count"] is None else min(read, float(spec["count"]))
        return read

    def _read(self, spec: Mapping[str, Any], task: Task) -> float:
        """Records that a task reads, with these nested values."""
        role = _READS.get(task.stage)
        if role is None:
            return self._written.get(task.id, 1.0)
        if task.stage == "train":
            return sum(self._written[self.source(task, name).id] for name in task.inputs if name.startswith("pairs"))
        source = self.source(task, role)
        count = self._written[source.id]
        if task.stage in NESTED:
            whole = self._written[self.source(source, "base").id] if source.stage == "admit" else count
            return min(count, float(_share(round(whole), spec["fraction"])))
        return count * task.spec["evolutions"] if task.stage == "evolve" else count

    def _prompts(self, source: Mapping[str, Any]) -> float:
        if source["kind"] == "lab":
            return float(source["count"])
        size = self.sizes.prompts.get(source.get("path", ""))
        if size is None and source["limit"] is None:
            self.assumed[f"{source.get('name') or source['path']} has {UNKNOWN_PROMPTS:,} prompts"] = None
        count = size.count if size is not None else source["limit"] or UNKNOWN_PROMPTS
        return float(min(count, source["limit"] or count))

    def source(self, task: Task, role: str) -> Task:
        """The task that writes what a task reads in a role."""
        return self._by_identity[task.inputs[role]]

    def sampled(self, task: Task) -> Task:
        """The generation of the responses that a task reads, or that were made into the pairs it reads."""
        while task.stage != "generate":
            role = next(role for role in ("responses", "pairs", "base_responses") if role in task.inputs)
            task = self.source(task, role)
        return task

    def _together(self, paths: Sequence[str]) -> tuple[str, Size | None]:
        """Several models as one, of the size of all."""
        sizes = [self.sizes.models.get(path) for path in paths]
        known = [size for size in sizes if size is not None]
        if len(paths) == 1 or len(known) < len(sizes):
            return " and ".join(paths), sizes[0] if len(paths) == 1 else None
        return " and ".join(paths), Size(sum(size.count for size in known), known[0].basis)

    def _start(self, task: Task) -> Task | None:
        """The start policy that a task's policy descends from."""
        while task.stage != "start_policy":
            if "policy" not in task.inputs:
                return None
            task = self.source(task, "policy")
        return task

    def _policy(self, task: Task) -> tuple[str, Size | None]:
        start = self._start(task)
        assert start is not None, f"{task.stage} reads no policy"
        policy = start.spec["policy"]
        return ("lab policy", LAB_PARAMETERS) if policy["kind"] == "lab" else self._model(policy["path"])

    def _model(self, path: str) -> tuple[str, Size | None]:
        return path, self.sizes.models.get(path)


def _slices(task: Task) -> Iterator[tuple[str, Slice]]:
    """What a task reads of its nested inputs, by role."""
    if task.stage in ("select", "recheck"):
        part = Slice(task.spec["responses"], 1.0)
        roles = ("rewards", "policy_logps", "start_logps", "base_rewards", "evolved_rewards")
        yield from ((role, part) for role in roles if role in task.inputs)
    if task.stage == "adopt":
        yield "rewards", Slice(2, 1.0)
    if task.stage == "pair":
        checked = "evolved" in task.inputs and task.inputs["evolved"].stage == "recheck"
        for kind, fraction in (("base", 1.0), ("evolved", 1.0 if checked else task.spec["ratio"])):
            if kind in task.inputs:
                part = Slice(task.spec["responses"], fraction)
                yield from ((f"{kind}_responses", part), (f"{kind}_rewards", part))


def _models_of(reward: Mapping[str, Any]) -> list[str]:
    """The models of a reward's spec."""
    if reward["kind"] == "ensemble":
        return [path for member in reward["members"] for path in _models_of(member)]
    return [reward["path"]] if "path" in reward else []


def _generation(engine: str) -> Activity:
    return "generation (vllm)" if engine == "vllm" else "generation (transformers)"


def _response_tokens(spec: Mapping[str, Any]) -> float:
    return float(spec["generation"]["max_new_tokens"]) * RESPONSE_SHARE
