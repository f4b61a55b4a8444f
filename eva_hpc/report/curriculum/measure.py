"""Everything measured: a row for each prompt of each set, and a row for each set. `columns.py` says what each measure is.

{"run": "evolved_ratio=0.8,seed=1", "point": {"evolved_ratio": 0.8}, "seed": 1, "part": "round 1", "round": 1,
 "set": "evolved", "id": "9f1c…", "prompt": "Reverse then Upper: kapol", "parent": "53aa…", "operator": "deepen",
 "in_round": true, "words": 4, "steps": 2, "topic": 7, "reward_mean": 0.41, "reward_gap": 0.8, …}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Any

from eva_hpc.plan.plan import Plan, PlannedRun
from eva_hpc.report.curriculum.collect import Collector, PromptSet, is_lab, parts_of
from eva_hpc.report.curriculum.columns import OF_A_PROMPT
from eva_hpc.report.curriculum.embeddings import Embedder
from eva_hpc.report.curriculum.judging import Ratings
from eva_hpc.report.curriculum.lab import lab_measures
from eva_hpc.report.curriculum.rewards import informativeness_of_all, reward_measures
from eva_hpc.report.curriculum.spread import Spread, spreads
from eva_hpc.report.curriculum.texts import text_measures
from eva_hpc.store.keys import Identity
from eva_hpc.store.records import Prompt

Row = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """A set with the rows of its prompts and its own."""

    of: PromptSet
    rows: list[Row]
    summary: Row


class Measurer:
    """Measures sets run by run; what runs have in common is measured once.

    Args:
        ratings: of a judge.
    """

    def __init__(self, plan: Plan, collector: Collector, embedder: Embedder, topics: int, ratings: Ratings) -> None:
        self.plan = plan
        self.collector = collector
        self.embedder = embedder
        self.topics = topics
        self.ratings = ratings
        self._spreads: dict[tuple[tuple[str, Identity], ...], list[Spread]] = {}
        self._text_rows = lru_cache(maxsize=64)(self._measure_texts)

    def runs(self) -> Iterator[list[Measured]]:
        """The sets of each run that the store has."""
        for run in self.plan.runs:
            yield self._of_run(run)

    def _of_run(self, run: PlannedRun) -> list[Measured]:
        sets = [one for part in parts_of(self.plan, run) for one in self.collector.sets_of(part)]
        key = tuple((f"{one.part.name} {one.role}", one.source) for one in sets)
        if key not in self._spreads:
            self._spreads[key] = spreads(sets, self.embedder, self.topics)
        lab = is_lab(self.plan, run)
        return [self._of_set(one, spread, lab) for one, spread in zip(sets, self._spreads[key], strict=True)]

    def _of_set(self, of: PromptSet, spread: Spread, lab: bool) -> Measured:
        run, part = of.part.run, of.part
        place: Row = {"run": run.name, "point": run.point, "seed": run.seed, "part": part.name, "round": part.number}
        place["set"] = of.role
        texts = self._text_rows(of.source, lab)
        informative = informativeness_of_all(of.rewards)
        ratings = self.ratings.get(of.source, {})
        rows = []
        for prompt, of_text, topic in zip(of.prompts, texts, spread.labels.tolist(), strict=True):
            name = prompt["id"]
            row = {**place, **_lineage(prompt), "in_round": name in of.in_round, **of_text, "topic": topic}
            tokens = of.tokens.get(name)
            row["prompt_tokens"] = None if tokens is None else tokens.prompt
            row["response_tokens"] = None if tokens is None or not tokens.responses else fmean(tokens.responses)
            rating = ratings.get(name)
            row["judged_complexity"] = None if rating is None else rating.complexity
            row["judged_quality"] = None if rating is None else rating.quality
            rewards = reward_measures(of.rewards.get(name, ()))
            row |= rewards if rewards is not None else dict.fromkeys(_REWARD_COLUMNS)
            row |= {f"informativeness_{metric}": values.get(name) for metric, values in informative.items()}
            creator = of.creator.get(name, {})
            row["creator_informativeness"] = creator.get("informativeness")
            row["creator_weight"] = creator.get("weight")
            row["selected"] = creator.get("selected")
            rows.append(row)
        return Measured(of, rows, {**place, **_summary(rows), **spread.measures})

    def _measure_texts(self, source: Identity, lab: bool) -> list[Row]:
        prompts = self.collector.prompts(source) or []
        return [
            {**text_measures(prompt["prompt"]), **(lab_measures(prompt["prompt"]) if lab else _NO_LAB)} for prompt in prompts
        ]


_NO_LAB: Row = dict.fromkeys(("steps", "content_length", "sensible"))
_REWARD_COLUMNS = ("reward_mean", "reward_best", "reward_worst", "reward_gap", "rewards_missing")


def _lineage(prompt: Prompt) -> Row:
    lineage = {name: prompt[name] for name in ("id", "prompt", "source", "parent", "operator", "depth")}
    return {**lineage, "made_in_round": prompt["round"]}


def _summary(rows: Sequence[Row]) -> Row:
    """Counts and means of a set; a mean is over the prompts that have the measure, None if none has."""
    summary: Row = {
        "n": len(rows),
        "n_in_round": sum(row["in_round"] for row in rows),
        "n_rewarded": sum(row["reward_mean"] is not None for row in rows),
        "n_judged": sum(row["judged_quality"] is not None for row in rows),
    }
    for name in rows[0] if rows else ():
        if name in OF_A_PROMPT or name.startswith("informativeness_"):
            values = [row[name] for row in rows if row[name] is not None]
            summary[name] = fmean(values) if values else None
    return summary
