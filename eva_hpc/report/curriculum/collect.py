"""What the store holds of the prompts of a sweep's rounds: texts, lineage, response lengths, rewards, what was set aside.

A part of a run, "warm-up" or "round 1", has a base set and, where the creator acts, an evolved set. The evolved set is all that
was admitted; the round trains on the first of them, as the ratio says, and only those have responses and rewards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

from eva_hpc.method.mixing import mix
from eva_hpc.plan.plan import Plan, PlannedRun, Task
from eva_hpc.stages.mix import mixing_seed
from eva_hpc.stages.slices import first_rewards
from eva_hpc.store.artifacts import Store
from eva_hpc.store.keys import Identity
from eva_hpc.store.records import Prompt, Responses, read_jsonl

Role = Literal["base", "evolved"]
ROLES: tuple[Role, ...] = ("base", "evolved")
_KEPT = 64
"""Artifacts of each kind that are held in memory: those of a few runs, so that what neighbouring runs share is read once."""


@dataclass(frozen=True)
class Part:
    """A part of a run by its tasks; `select` is missing where the creator does not act."""

    run: PlannedRun
    name: str
    number: int
    pair: Task
    select: Task | None
    admission: tuple[Task, ...]

    @property
    def roles(self) -> tuple[Role, ...]:
        """The sets it has."""
        return tuple(role for role in ROLES if role in self.pair.inputs)


class Tokens(NamedTuple):
    """Lengths in tokens: of a prompt in the policy's chat template, and of its responses in their order."""

    prompt: int
    responses: tuple[int, ...]


@dataclass(frozen=True)
class PromptSet:
    """One set of a part, as far as the store has it: `tokens` and `rewards` by prompt id, of the first k responses.

    Attributes:
        source: the artifact with the prompts.
        in_round: the prompts that the round trains on.
        creator: `informativeness`, `weight` and `selected` by prompt id, where the creator chose among these prompts.
    """

    part: Part
    role: Role
    source: Identity
    prompts: Sequence[Prompt]
    in_round: frozenset[str]
    tokens: Mapping[str, Tokens]
    rewards: Mapping[str, Sequence[float | None]]
    creator: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class AdmissionRow:
    """How many evolved prompts of a part a stage set aside for a reason, or let through (reason "kept")."""

    part: Part
    stage: str
    reason: str
    count: int
    read: int


ADMISSION_STAGES = ("evolve", "admit", "recheck")


def parts_of(plan: Plan, run: PlannedRun) -> list[Part]:
    """The parts of a run in their order."""
    tasks = plan.tasks_of(run.name)
    found = []
    for pair in (task for task in tasks if task.stage == "pair"):
        of_part = [task for task in tasks if task.part == pair.part]
        found.append(
            Part(
                run=run,
                name=pair.part,
                number=int(pair.spec["round"]),
                pair=pair,
                select=next((task for task in of_part if task.stage == "select"), None),
                admission=tuple(task for task in of_part if task.stage in ADMISSION_STAGES),
            )
        )
    return sorted(found, key=lambda part: part.number)


def is_lab(plan: Plan, run: PlannedRun) -> bool:
    """Whether all base prompts of a run are tasks of the lab."""
    sources = [task.spec["source"] for task in plan.tasks_of(run.name) if task.stage == "prompts"]
    return bool(sources) and all(source["kind"] == "lab" for source in sources)


class Collector:
    """Reads sets from the store.

    Attributes:
        missing: what was asked for and is not there, e.g. "rewards of the evolved prompts, round 1 of seed=1".
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.missing: dict[str, None] = {}
        self.prompts = lru_cache(maxsize=_KEPT)(self._prompts)
        self._tokens_of = lru_cache(maxsize=_KEPT)(self._tokens)
        self._rewards_of = lru_cache(maxsize=_KEPT)(self._rewards)

    def sets_of(self, part: Part) -> list[PromptSet]:
        """The sets of a part whose prompts are there."""
        inputs, spec = part.pair.inputs, part.pair.spec
        prompts = {role: there for role in part.roles if (there := self.prompts(inputs[role])) is not None}
        in_round: Mapping[Role, Sequence[str]] = {}
        if len(prompts) == len(part.roles):
            ids = {role: [prompt["id"] for prompt in prompts.get(role, ())] for role in ROLES}
            seed = mixing_seed(spec["seed"], spec["round"])
            mixture = mix(ids["base"], ids["evolved"], spec["ratio"], seed)
            in_round = {"base": mixture.base, "evolved": mixture.evolved}
        found: list[PromptSet] = []
        for role in part.roles:
            if role not in prompts:
                self._miss(part, f"the {role} prompts")
                continue
            # A larger ratio's artifact has rewards of more evolved prompts; this run has those of its own alone.
            asked = {prompt["id"] for prompt in prompts[role]} if role == "base" else frozenset(in_round.get(role, ()))
            tokens = self._tokens_of(inputs[f"{role}_responses"])
            rewards = self._rewards_of(inputs[f"{role}_rewards"], spec["responses"])
            for what, of_artifact in (("responses to", tokens), ("rewards of", rewards)):
                if of_artifact is None:
                    self._miss(part, f"{what} the {role} prompts")
            first = spec["responses"]
            found.append(
                PromptSet(
                    part=part,
                    role=role,
                    source=inputs[role],
                    prompts=prompts[role],
                    in_round=frozenset(in_round.get(role, ())),
                    tokens={
                        name: Tokens(one.prompt, one.responses[:first]) for name, one in (tokens or {}).items() if name in asked
                    },
                    rewards={name: values for name, values in (rewards or {}).items() if name in asked},
                    creator=self._creator(part) if role == "base" else {},
                )
            )
        return found

    def admission_of(self, part: Part) -> list[AdmissionRow]:
        """What each stage of admission that is done let through and set aside, as its manifest counts it."""
        rows = []
        for task in part.admission:
            artifact = self.store.find(task.identity)
            if artifact is None:
                self._miss(part, f"what {task.stage} set aside")
                continue
            records = artifact.manifest["records"]
            counts = {"kept": records["out"], **records["set_aside"]}
            rows += [AdmissionRow(part, task.stage, reason, count, records["in"]) for reason, count in counts.items()]
        return rows

    def _miss(self, part: Part, what: str) -> None:
        self.missing[f"{what}, {part.name} of {part.run.name}"] = None

    def _folder(self, identity: Identity) -> Path | None:
        artifact = self.store.find(identity)
        return None if artifact is None else artifact.folder

    def _prompts(self, identity: Identity) -> list[Prompt] | None:
        folder = self._folder(identity)
        return None if folder is None else read_jsonl(folder / "prompts.jsonl")

    def _tokens(self, identity: Identity) -> dict[str, Tokens] | None:
        """Lengths alone are kept: the responses of a set may not fit into memory."""
        folder = self._folder(identity)
        return None if folder is None else dict(_lengths(folder / "responses.jsonl"))

    def _rewards(self, identity: Identity, count: int) -> Mapping[str, Sequence[float | None]] | None:
        folder = self._folder(identity)
        return None if folder is None else first_rewards(folder, count)

    def _creator(self, part: Part) -> dict[str, Mapping[str, Any]]:
        folder = None if part.select is None else self._folder(part.select.identity)
        if folder is None:
            return {}
        return {record["prompt_id"]: record for record in read_jsonl(folder / "informativeness.jsonl")}


def _lengths(path: Path) -> Iterator[tuple[str, Tokens]]:
    with path.open("rb") as file:
        for line in file:
            record: Responses = orjson.loads(line)
            lengths = tuple(len(response["tokens"]) for response in record["responses"])
            yield record["prompt_id"], Tokens(len(record["prompt_tokens"]), lengths)
