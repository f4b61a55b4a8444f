"""What the lab shows, and what it does not: three sweeps with eight seeds and two starts, every seed printed.

python bench/evidence.py                  runs (or goes on with) the sweeps of sweeps/evidence, then writes docs/evidence.md
python bench/evidence.py --quick          small sizes and one seed: whether it works, not what is true

A start is a start policy with base prompts of its own; a replicate is a start and a seed. Two arms are compared on the same
replicates by a paired t test over them, with a 95 % interval. Holm's correction is over all comparisons of the page: contrasts
times metrics of all sweeps. The questions are those of the test split; what was tuned was tuned on another one.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats
from tabulate import tabulate

from eva_hpc.benchmarks.statistics.paired import holm
from eva_hpc.report.aggregate import MetricRow
from eva_hpc.report.collect import collect
from eva_hpc.request import Opened, Request, open_request

ROOT = Path(__file__).parents[1]
METRICS = {
    "reward": "sampled, all",
    "reward_easy": "sampled, easy",
    "reward_medium": "sampled, medium",
    "reward_hard": "sampled, hard",
    "reward_dialogue": "sampled, two turns",
    "greedy": "greedy, all",
}
LEVEL = 0.95
SIGNIFICANT = 0.05

Replicate = tuple[str, int]
Values = dict[str, dict[str, dict[Replicate, float]]]
"""By metric, arm and replicate."""


@dataclass(frozen=True)
class Question:
    """A sweep: which axis, the arm that all others are compared with, and further contrasts.

    Arms in `unmatched` are shown for orientation: they took another number of optimiser steps and are in no comparison.
    """

    title: str
    axis: str
    against: str
    contrasts: tuple[tuple[str, str], ...] = ()
    unmatched: tuple[str, ...] = ()


QUESTIONS: Mapping[str, Question] = {
    "round": Question(
        "Does a round of eva beat the same number of updates without a creator?",
        "arm",
        "base prompts again",
        (("eva", "eva sampled uniformly"), ("eva", "new prompts"), ("eva", "more epochs")),
        ("warm-up only",),
    ),
    "evolved_ratio": Question("How much of a round should be evolved prompts?", "evolved_ratio", "0.0"),
    "responses_per_prompt": Question("How many responses per prompt?", "responses_per_prompt", "2"),
}


@dataclass(frozen=True)
class Effect:
    """One arm minus another in one metric, over replicates."""

    metric: str
    arm: str
    against: str
    differences: Mapping[Replicate, float]

    @property
    def mean(self) -> float:
        """Mean difference."""
        return statistics.fmean(self.differences.values())

    @property
    def margin(self) -> float:
        """Half of the interval (Student's t)."""
        return margin(list(self.differences.values()))

    @property
    def p_value(self) -> float:
        """Of the paired t test, two-sided; 1 for a single replicate."""
        values = list(self.differences.values())
        if len(values) == 1 or not any(values):
            return 1.0
        return float(stats.ttest_1samp(values, 0.0).pvalue)


@dataclass(frozen=True)
class Measured:
    """The values of a sweep, and its comparisons."""

    question: Question
    values: Values
    steps: int

    @property
    def arms(self) -> list[str]:
        """In the order of the sweep."""
        return list(self.values["reward"])

    @property
    def replicates(self) -> list[Replicate]:
        """In the order of the sweep."""
        return list(self.values["reward"][self.arms[0]])

    def contrasts(self) -> list[tuple[str, str]]:
        """Pairs of arms that are compared."""
        question = self.question
        others = [arm for arm in self.arms if arm != question.against and arm not in question.unmatched]
        return [*((arm, question.against) for arm in others), *question.contrasts]

    def effects(self) -> Iterator[Effect]:
        """All comparisons."""
        for arm, against in self.contrasts():
            for metric in METRICS:
                a, b = self.values[metric][arm], self.values[metric][against]
                yield Effect(metric, arm, against, {one: a[one] - b[one] for one in a})


def main() -> None:
    """Run the sweeps and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes and one seed")
    parser.add_argument("--site", default="laptop")
    parser.add_argument("--set", action="append", default=[], help="as of the sweep command")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "evidence.md")
    options = parser.parse_args()
    found = []
    for name, question in QUESTIONS.items():
        file = ROOT / "sweeps" / "evidence" / f"{name}.yaml"
        words = ["--site", options.site, *(["--quick"] if options.quick else [])]
        words += [word for one in options.set for word in ("--set", one)]
        done = subprocess.run([sys.executable, "-m", "eva_hpc.sweep", str(file), *words], cwd=ROOT, check=False)
        if done.returncode:
            sys.exit(f"{file.name} ended with exit code {done.returncode}: the same command goes on from where it stopped")
        sweep = open_request(Request(file, options.site, settings=tuple(options.set), quick=options.quick))
        found.append(Measured(question, by_arm(collect(sweep.plan, sweep.store), question.axis), steps(sweep, question)))
    text = page(found)
    print(text)
    if not options.quick:
        options.out.write_text(text, encoding="utf-8")


def by_arm(rows: Sequence[MetricRow], axis: str) -> Values:
    """The values of the lab benchmark."""
    values: Values = {metric: {} for metric in METRICS}
    for row in rows:
        if row["metric"] in METRICS and row["value"] is not None:
            replicate = (str(row["point"]["start"]), row["seed"])
            values[row["metric"]].setdefault(str(row["point"][axis]), {})[replicate] = row["value"]
    for metric, arms in values.items():
        if len({frozenset(found) for found in arms.values()}) != 1:
            sys.exit(f"{metric}: the arms do not have the same replicates; some runs are missing")
    return values


def steps(sweep: Opened, question: Question) -> int:
    """The optimiser steps of a run, which must be the same in all arms that are compared."""
    taken = set()
    for run in sweep.plan.runs:
        if str(run.point[question.axis]) not in question.unmatched:
            logs = [sweep.store.find(task.identity) for task in sweep.plan.tasks_of(run.name) if task.stage == "train"]
            taken.add(sum(len((log.folder / "train_log.jsonl").read_bytes().splitlines()) for log in logs if log is not None))
    if len(taken) != 1:
        sys.exit(f"{question.title}: runs took {sorted(taken)} optimiser steps; arms must be matched")
    return taken.pop()


# ---------------------------------------------------------------------------- the page

HEAD = """# What the lab shows

Written by `python bench/evidence.py`, which runs the sweeps of `sweeps/evidence` and prints all of their seeds. A start is a
start policy with base prompts of its own, a replicate is a start and a seed. ± is a 95 % interval over replicates (Student's
t). A star marks p < 0.05 in a paired t test over replicates, after Holm's correction for all {count} comparisons of this page.
Rewards are times 100, on held-out prompts of the test split, which no training stream can contain.

How far to trust it: the arms of a section took the same number of optimiser steps, not the same compute: a round with evolved
prompts also samples and scores responses to these. Held-out questions are the same in all replicates, and two starts are too
few to speak of others: the differences of each start stand by themselves. Nothing here says anything about large models."""


def page(found: Sequence[Measured]) -> str:
    """All sections, corrected together."""
    effects = [effect for one in found for effect in one.effects()]
    adjusted = dict(zip(map(id, effects), holm([effect.p_value for effect in effects]), strict=True))
    parts = [HEAD.format(count=len(effects))]
    rest = iter(effects)
    for one in found:
        own = [next(rest) for _ in range(len(one.contrasts()) * len(METRICS))]
        parts += section(one, own, [adjusted[id(effect)] for effect in own])
    return "\n\n".join(parts) + "\n"


def section(found: Measured, effects: Sequence[Effect], adjusted: Sequence[float]) -> list[str]:
    """One sweep as Markdown: arms, differences, starts, every replicate."""
    starts = list(dict.fromkeys(start for start, _ in found.replicates))
    seeds = len(found.replicates) // len(starts)
    apart = "".join(f"; *{arm}* took fewer and is in no comparison" for arm in found.question.unmatched)
    shape = f"{len(found.replicates)} replicates of each arm: {len(starts)} starts x {seeds} seeds"
    return [
        f"## {found.question.title}",
        f"{shape}. {found.steps} optimiser steps{apart}.",
        markdown(
            ["arm", *METRICS.values()],
            [[arm, *(mean_and_margin(list(found.values[metric][arm].values())) for metric in METRICS)] for arm in found.arms],
        ),
        "Differences:",
        markdown(["", *METRICS.values()], list(differences(found, effects, adjusted))),
        "Differences in sampled reward over all questions, by start (mean over its seeds):",
        markdown(
            ["", *starts],
            [
                [f"{effect.arm} − {effect.against}", *(f"{of_start(effect, start):+.2f}" for start in starts)]
                for effect in effects
                if effect.metric == "reward"
            ],
        ),
        verdict(effects, adjusted),
        "Every replicate (start / seed), sampled reward over all questions:",
        every(found, "reward"),
        "and greedy:",
        every(found, "greedy"),
    ]


def differences(found: Measured, effects: Sequence[Effect], adjusted: Sequence[float]) -> Iterator[list[str]]:
    """A row for each contrast."""
    of = {(effect.arm, effect.against, effect.metric): (effect, p) for effect, p in zip(effects, adjusted, strict=True)}
    for arm, against in found.contrasts():
        cells = []
        for metric in METRICS:
            effect, p = of[arm, against, metric]
            cells.append(mean_and_margin(list(effect.differences.values()), "+") + ("*" if p < SIGNIFICANT else ""))
        yield [f"{arm} − {against}", *cells]


def verdict(effects: Sequence[Effect], adjusted: Sequence[float]) -> str:
    """What is beyond noise, in words, by rule."""
    if len(effects[0].differences) == 1:
        return "One replicate: nothing can be said."
    found = [
        f"{effect.arm} − {effect.against} in {METRICS[effect.metric]} {effect.mean:+.2f} (p {p:.2g})"
        for effect, p in zip(effects, adjusted, strict=True)
        if p < SIGNIFICANT
    ]
    return "Beyond noise: " + ("; ".join(found) if found else "nothing") + "."


def of_start(effect: Effect, start: str) -> float:
    """Mean difference of one start."""
    return statistics.fmean(value for (own, _), value in effect.differences.items() if own == start)


def every(found: Measured, metric: str) -> str:
    """All values of one metric."""
    headings = ["arm", *(f"{start} / {seed}" for start, seed in found.replicates)]
    values = found.values[metric]
    return markdown(headings, [[arm, *(f"{values[arm][one]:.1f}" for one in found.replicates)] for arm in found.arms])


def margin(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean (Student's t)."""
    n = len(values)
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * statistics.stdev(values) / n**0.5


def mean_and_margin(values: Sequence[float], sign: str = "") -> str:
    """A mean and its margin; the mean alone of a single value."""
    mean = f"{statistics.fmean(values):{sign}.2f}"
    return f"{mean} ± {margin(values):.2f}" if len(values) > 1 else mean


def markdown(headings: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A pipe table."""
    return str(tabulate(body, headings, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
