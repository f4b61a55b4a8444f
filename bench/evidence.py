"""What the lab shows, and what it does not: three sweeps with eight seeds and two start policies, every seed printed.

python bench/evidence.py                  runs (or goes on with) the sweeps of sweeps/evidence, then writes docs/evidence.md
python bench/evidence.py --quick          small sizes and one seed: whether it works, not what is true

A replicate is a start policy and a seed. An arm is compared with the reference arm of its sweep on the same replicates,
by a paired t test over them, with a 95 % interval. Holm's correction is over all comparisons of a sweep: arms times metrics.
The questions are those of the test split; what was tuned was tuned on another one.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats
from tabulate import tabulate

from eva_hpc.benchmarks.statistics.paired import holm
from eva_hpc.report.aggregate import MetricRow
from eva_hpc.report.collect import collect
from eva_hpc.request import Opened, Request, open_request

ROOT = Path(__file__).parents[1]
QUESTIONS: Mapping[str, tuple[str, str, str | None]] = {
    "round": ("Does a round of eva beat the same number of updates without a creator?", "arm", None),
    "evolved_ratio": ("How much of a round should be evolved prompts?", "evolved_ratio", "0.0"),
    "responses_per_prompt": ("How many responses per prompt?", "responses_per_prompt", "2"),
}
"""Question, axis, and the value that the others are compared with (None: the first)."""
METRICS = {
    "reward": "sampled, all",
    "reward_easy": "sampled, easy",
    "reward_medium": "sampled, medium",
    "reward_hard": "sampled, hard",
    "reward_dialogue": "sampled, two turns",
    "greedy": "greedy, all",
}
LEVEL = 0.95

Replicate = tuple[str, int]
Values = dict[str, dict[str, dict[Replicate, float]]]
"""By metric, arm and replicate."""


@dataclass(frozen=True)
class Effect:
    """An arm minus the reference arm, over replicates."""

    metric: str
    arm: str
    differences: dict[Replicate, float]

    @property
    def mean(self) -> float:
        """Mean difference."""
        return statistics.fmean(self.differences.values())

    @property
    def margin(self) -> float:
        """Half of the interval."""
        n = len(self.differences)
        error = statistics.stdev(self.differences.values()) / n**0.5
        return float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error

    @property
    def p_value(self) -> float:
        """Of the paired t test, two-sided."""
        values = list(self.differences.values())
        if len(set(values)) == 1:
            return 1.0 if values[0] == 0 else 0.0
        return float(stats.ttest_1samp(values, 0.0).pvalue)


def main() -> None:
    """Run the sweeps and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes and one seed")
    parser.add_argument("--site", default="laptop")
    parser.add_argument("--set", action="append", default=[], help="as of the sweep command")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "evidence.md")
    options = parser.parse_args()
    sections = []
    for name in QUESTIONS:
        file = ROOT / "sweeps" / "evidence" / f"{name}.yaml"
        words = ["--site", options.site, *(["--quick"] if options.quick else [])]
        words += [word for one in options.set for word in ("--set", one)]
        done = subprocess.run([sys.executable, "-m", "eva_hpc.sweep", str(file), *words], cwd=ROOT, check=False)
        if done.returncode:
            sys.exit(f"{file.name} ended with exit code {done.returncode}: the same command goes on from where it stopped")
        request = Request(file, options.site, settings=tuple(options.set), quick=options.quick)
        sections.append(section(name, open_request(request)))
    text = "\n\n".join([HEAD, *sections]) + "\n"
    print(text)
    if not options.quick:
        options.out.write_text(text, encoding="utf-8")


HEAD = """# What the lab shows

Written by `python bench/evidence.py`, which runs the sweeps of `sweeps/evidence` and prints all of their seeds. A replicate
is a start policy and a seed. ± is a 95 % interval over replicates (Student's t); a star marks p < 0.05 after Holm's correction
for all comparisons of the section. Rewards are times 100, on held-out prompts of the test split that no training stream can
contain.
Two start policies are too few to speak of others, and none of this says anything about large models."""


def section(name: str, sweep: Opened) -> str:
    """One sweep as Markdown: arms, differences, every replicate."""
    question, axis, reference = QUESTIONS[name]
    rows = collect(sweep.plan, sweep.store)
    values = by_arm(rows, axis)
    arms = list(values["reward"])
    against = reference if reference in arms else arms[0]
    effects = [
        Effect(metric, arm, {one: values[metric][arm][one] - values[metric][against][one] for one in values[metric][arm]})
        for metric in METRICS
        for arm in arms
        if arm != against
    ]
    several = len(effects[0].differences) > 1
    adjusted = holm([effect.p_value for effect in effects]) if several else [1.0] * len(effects)
    replicates = list(values["reward"][arms[0]])
    seeds = len({seed for _, seed in replicates})
    parts = [
        f"## {question}",
        f"{len(arms)} arms, {len(replicates)} replicates: {len(replicates) // seeds} start policies x {seeds} seeds. "
        f"Optimiser steps of a run: {steps_in_words(sweep)}.",
        table(arms, values, replicates),
        f"Difference to *{against}*, {len(effects)} comparisons:",
        differences(effects, adjusted, arms, against, several),
        verdict(effects, adjusted, against, several),
        "Every replicate (start policy / seed), sampled reward over all questions:",
        every(arms, values["reward"], replicates),
        "and greedy:",
        every(arms, values["greedy"], replicates),
    ]
    return "\n\n".join(parts)


def by_arm(rows: Sequence[MetricRow], axis: str) -> Values:
    """The values of the lab benchmark."""
    values: Values = {metric: {} for metric in METRICS}
    for row in rows:
        if row["metric"] in METRICS and row["value"] is not None:
            replicate = (str(row["point"]["policy.seed"]), row["seed"])
            values[row["metric"]].setdefault(str(row["point"][axis]), {})[replicate] = row["value"]
    for metric, arms in values.items():
        if len({frozenset(found) for found in arms.values()}) != 1:
            sys.exit(f"{metric}: the arms do not have the same replicates; some runs are missing")
    return values


def steps_in_words(sweep: Opened) -> str:
    """How many optimiser steps the runs took, which must be the same for all arms to be compared."""
    taken = set()
    for run in sweep.plan.runs:
        logs = [sweep.store.find(task.identity) for task in sweep.plan.tasks_of(run.name) if task.stage == "train"]
        taken.add(sum(len((log.folder / "train_log.jsonl").read_bytes().splitlines()) for log in logs if log is not None))
    return f"{min(taken)} in every arm" if len(taken) == 1 else f"{min(taken)} to {max(taken)}: NOT matched"


def table(arms: Sequence[str], values: Values, replicates: Sequence[Replicate]) -> str:
    """Mean and interval of every arm and metric."""
    body = []
    for arm in arms:
        cells = [Effect(metric, arm, values[metric][arm]) for metric in METRICS]
        body.append([arm, *(interval(cell, len(replicates) > 1) for cell in cells)])
    return str(tabulate(body, ["arm", *METRICS.values()], tablefmt="pipe", disable_numparse=True))


def differences(effects: Sequence[Effect], adjusted: Sequence[float], arms: Sequence[str], against: str, several: bool) -> str:
    """Mean difference, interval and corrected p-value."""
    of = {(effect.arm, effect.metric): (effect, p) for effect, p in zip(effects, adjusted, strict=True)}
    body = []
    for arm in arms:
        if arm != against:
            cells = [of[arm, metric] for metric in METRICS]
            body.append(
                [arm, *(f"{interval(effect, several, '+')}{'*' if several and p < 0.05 else ''}" for effect, p in cells)]
            )
    return str(tabulate(body, ["arm", *METRICS.values()], tablefmt="pipe", disable_numparse=True))


def interval(effect: Effect, several: bool, sign: str = "") -> str:
    """A mean and its margin."""
    return f"{effect.mean:{sign}.2f}" + (f" ± {effect.margin:.2f}" if several else "")


def verdict(effects: Sequence[Effect], adjusted: Sequence[float], against: str, several: bool) -> str:
    """What is beyond noise, in words, by rule."""
    if not several:
        return "One replicate: nothing can be said."
    found = [
        f"{effect.arm}: {METRICS[effect.metric]} {effect.mean:+.2f} (corrected p {p:.2g})"
        for effect, p in zip(effects, adjusted, strict=True)
        if p < 0.05
    ]
    return f"Beyond noise against *{against}*: " + ("; ".join(found) if found else "nothing") + "."


def every(arms: Sequence[str], values: Mapping[str, Mapping[Replicate, float]], replicates: Sequence[Replicate]) -> str:
    """All values of one metric."""
    body = [[arm, *(f"{values[arm][one]:.1f}" for one in replicates)] for arm in arms]
    headings = ["arm", *(f"{policy} / {seed}" for policy, seed in replicates)]
    return str(tabulate(body, headings, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
