"""What sharing and nesting save in the two ablations: measured at lab scale, projected for gemma-2-9b on 8 H100.

python bench/sweep_cost.py                runs both ablations here, both ways, in small sizes with one seed; then projects
python bench/sweep_cost.py --full         the lab recipe in its own sizes: a few times as long
python bench/sweep_cost.py --projection   runs nothing

Shared: a stage that several runs need is done once. Nested: k responses are the first k of the most that any run needs, and a
ratio's evolved prompts are a prefix of the largest ratio's. "without" is ``--no-sharing``: every run does everything for
itself, and must end in the same numbers, which is checked. "with" is each sweep in a store of its own; "one store" is both in
the same, one after the other.

Measured is what the artifacts say: records, tokens of responses, and the seconds of a stage times its processes. Other load on
the machine is in the seconds, not in the counts. So are imports, and the training of the lab's start policy: of a large model
expect the ratios of responses and pairs. "derived" is what the planner makes of the runs with sharing when it prices the same
work without. Reference log-probs of the same pairs are cached both ways.

Projected is the work that the planner counts for the recipe of gemma-2-9b, with the three seeds of the sweeps and with rates
that are guesses: set yours. GPUs only wait where stages have no model, and judges are asked without any: both are left out, but
for what ``eva-hpc plan`` says with its own guesses.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from tabulate import tabulate

from eva_hpc.cluster.accounting import measured
from eva_hpc.config.model_size import Size, Sizes
from eva_hpc.config.site import Site
from eva_hpc.plan.cost import PEAK_FLOPS, START_UP_S, UTILISATION, Measured, estimate, hours
from eva_hpc.plan.jobs import engines_found_open, make_jobs, pending_tasks
from eva_hpc.plan.plan import Plan, Task, make_plan
from eva_hpc.plan.work import PROMPT_TOKENS, RESPONSE_SHARE, Operations, Workload, amount
from eva_hpc.report.collect import collect
from eva_hpc.request import Opened, Request, open_request
from eva_hpc.store.artifacts import Artifact
from eva_hpc.store.keys import Identity
from eva_hpc.store.records import read_jsonl

ROOT = Path(__file__).parents[1]
SWEEPS = ("responses_per_prompt", "evolved_ratio")
"""In this order the second finds its base responses among those of the first."""
GPUS = 8
ONE_NODE = tuple(f"site.stages.{stage}.nodes=1" for stage in ("generate", "evolve", "score", "train", "answer"))
"""The site's stages use two."""
PEAK = PEAK_FLOPS["h100"]
HBM_BYTES, HBM_BYTES_PER_S = 80e9, 3.35e12
"""Memory of an H100 SXM and its speed, by the maker's data sheet."""
UNITS = {"generate": "responses", "score": "texts", "train": "pairs x epochs", "answer": "answers", "evolve": "rewrites"}
"""What the planner takes a stage's time to grow with; that of others is records."""
COUNTED = ("generate", "train")
BUSY = 0.5
"""Processes at work that others have on this machine, from which on seconds are not to be trusted."""


@dataclass(frozen=True)
class Shape:
    """A decoder's sizes, as its published config.json has them; `vocabulary` is 0 where there is no head."""

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head: int
    inner: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        """Of its matrices: attention, gated feed-forward, and the head, which is the embedding as well."""
        attention = 2 * self.width * self.head * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.width * self.inner) + self.vocabulary * self.width

    @property
    def sum(self) -> str:
        """How that was added up."""
        attention = f"2 x {self.width} x {self.head} x ({self.heads} + {self.kv_heads})"
        head = f" + {self.vocabulary} x {self.width}" if self.vocabulary else ""
        total = f"{self.parameters / 1e9:.2f} B"
        return f"{self.layers} x ({attention} + 3 x {self.width} x {self.inner}){head} = {total}"


GEMMA = Shape("google/gemma-2-9b-it", 42, 3584, 16, 8, 256, 14336, 256000)
ARMORM = Shape("RLHFlow/ArmoRM-Llama3-8B-v0.1", 32, 4096, 32, 8, 128, 14336, 0)
"""Without its embedding, which multiplies nothing."""
SIZES = Sizes({shape.name: Size(shape.parameters, "its shapes") for shape in (GEMMA, ARMORM)})


@dataclass(frozen=True)
class Rates:
    """How fast one GPU is. Shares are of the peak, in operations of the model: what is recomputed does not count."""

    tokens_per_s: float
    scoring: float
    training: float
    start_up_s: float

    def gpu_seconds(self, work: Operations) -> float:
        """Of a task, but for the start of its engine."""
        if work.activity.startswith("generation"):
            return work.tokens / self.tokens_per_s
        if work.flops is None:
            sys.exit(f"the size of {work.model} is not known")
        return work.flops / (PEAK * (self.training if work.activity == "training" else self.scoring))


@dataclass(frozen=True)
class Work:
    """Of some tasks of a stage: `amount` in its unit, `time` in process seconds if measured, in GPU hours if projected."""

    executions: int = 0
    amount: float = 0.0
    tokens: float = 0.0
    time: float = 0.0

    def __add__(self, other: Work) -> Work:
        mine, more = vars(self).values(), vars(other).values()
        return Work(*(one + another for one, another in zip(mine, more, strict=True)))


ByStage = dict[str, Work]
Numbers = dict[tuple[str, str, str], float | None]
"""Results by run, benchmark and metric."""


def total(work: ByStage) -> Work:
    """Of all stages; its amount adds different things and means nothing."""
    return sum(work.values(), Work())


# ---------------------------------------------------------------------------- measured


@dataclass(frozen=True)
class Ran:
    """A sweep that has run, with its store, and how long its command took."""

    sweep: Opened
    wall_s: float

    def artifacts(self) -> dict[Path, Artifact]:
        """All that its runs need, by folder."""
        found = [self.sweep.store.find(task.identity) for task in self.sweep.plan.tasks]
        return {artifact.folder: artifact for artifact in found if artifact is not None}

    def numbers(self) -> Numbers:
        """Its results."""
        rows = collect(self.sweep.plan, self.sweep.store)
        return {(row["run"], row["benchmark"], row["metric"]): row["value"] for row in rows}

    def derived(self) -> dict[str, float]:
        """Process seconds by stage if every run did all for itself, as the planner derives them from this store."""
        plan, store = self.sweep.plan, self.sweep.store
        price = estimate(plan, [], self.sweep.site, SIZES, measured(store, plan))
        return {stage.stage: 3600 * (stage.naive or 0.0) for stage in price.stages}


def run(name: str, root: Path, words: argparse.Namespace, sharing: bool = True) -> Ran:
    """Run a sweep here through its command, in the store of a root."""
    file = ROOT / "sweeps" / f"{name}.yaml"
    settings = (f"site.root={root}", f"sweep.seeds={list(range(1, words.seeds + 1))}")
    command = [sys.executable, "-m", "eva_hpc.sweep", str(file), "--site", "laptop"]
    command += [word for one in settings for word in ("--set", one)]
    command += [*([] if words.full else ["--quick"]), *([] if sharing else ["--no-sharing"])]
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seconds = time.perf_counter() - begun
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stdout[-3000:]}")
    print(f"  {name} {'with' if sharing else 'without'} sharing, store {root.name}: {seconds:.0f} s", flush=True)
    return Ran(open_request(Request(file, "laptop", None, settings, not words.full, sharing)), seconds)


def found_work(artifacts: Iterable[Artifact]) -> ByStage:
    """What it took to make artifacts, by their manifests; tokens of responses are counted in their files."""
    work: ByStage = {}
    for artifact in artifacts:
        manifest = artifact.manifest
        stage, records = manifest["stage"], manifest["records"]
        done = Work(
            executions=1,
            amount=amount(stage, manifest["spec"], records["in"], records["out"]),
            tokens=_sampled_tokens(artifact) if stage == "generate" else 0,
            time=manifest["seconds"] * manifest["processes"],
        )
        work[stage] = work.get(stage, Work()) + done
    return work


def _sampled_tokens(artifact: Artifact) -> int:
    rows = read_jsonl(artifact.folder / "responses.jsonl")
    return sum(len(response["tokens"]) for row in rows for response in row["responses"])


def difference(first: Numbers, second: Numbers) -> float:
    """The largest one between results; infinite where one has what the other has not."""
    largest = 0.0
    for name in first.keys() | second.keys():
        a, b = first.get(name), second.get(name)
        if a != b:
            largest = max(largest, math.inf if a is None or b is None else abs(a - b))
    return largest


def measure(words: argparse.Namespace, root: Path) -> list[str]:
    """Run everything and print its tables; returns the lines that sum it up."""
    sizes, load = "" if words.full else ", small sizes", os.getloadavg()[0]
    print(f"Measured at lab scale{sizes}; seeds: {words.seeds}", flush=True)
    together: dict[Path, Artifact] = {}
    ways: dict[str, tuple[ByStage, ByStage]] = {}
    lines = []
    for place, name in enumerate(SWEEPS):
        joined = run(name, root / "one", words)
        shared = run(name, root / name, words) if place else joined
        alone = run(name, root / f"{name}-alone", words, sharing=False)
        for other in (shared, joined):
            if (gap := difference(alone.numbers(), other.numbers())) > 0:
                sys.exit(f"{name}: with and without sharing the numbers differ by up to {gap:g}")
        together |= joined.artifacts()
        without, own = ways[name] = found_work(alone.artifacts().values()), found_work(shared.artifacts().values())
        derived = shared.derived()
        print(f"\n{name}: {len(shared.sweep.plan.runs)} runs\n{stage_table(without, own, 'process s', derived)}\n", flush=True)
        off = sum(derived.values()) / total(without).time - 1
        lines += [
            f"{name}: {alone.wall_s:.0f} s on the clock without, {shared.wall_s:.0f} s with; the same numbers; "
            f"process seconds without, derived from those with, are {off:+.0%} off"
        ]
    every_run = added(without for without, _ in ways.values())
    ways["both, own stores"] = every_run, added(own for _, own in ways.values())
    ways["both, one store"] = every_run, found_work(together.values())
    rows = [[name, *(cell for stage in (*COUNTED, "all") for cell in compared(stage, *pair))] for name, pair in ways.items()]
    columns = [*(UNITS[stage] for stage in COUNTED), "process s"]
    headings = ["", *(f"{column} {word}" for column in columns for word in ("without", "with", "ratio"))]
    align = ["left", *["right"] * (len(headings) - 1)]
    print(tabulate(rows, headings, disable_numparse=True, colalign=align, maxheadercolwidths=9))
    ratios = ", ".join(f"{compared(stage, *ways['both, one store'])[-1]} times the {UNITS[stage]}" for stage in COUNTED)
    seconds = compared("all", *ways["both, one store"])[-1]
    lines += [f"this machine was busy before (load {load:.1f}): trust the counts, not the seconds"] if load > BUSY else []
    return [*lines, f"lab, both in one store, measured: without are {ratios}, {seconds} times the process seconds of with"]


def added(ways: Iterable[ByStage]) -> ByStage:
    """Work of several sweeps together."""
    work: ByStage = {}
    for way in ways:
        work |= {stage: work.get(stage, Work()) + more for stage, more in way.items()}
    return work


def compared(stage: str, *ways: ByStage) -> list[str]:
    """Amounts of a stage both ways and their ratio; of all stages, time."""
    first, second = (total(way).time if stage == "all" else way[stage].amount for way in ways)
    return [f"{first:,.0f}", f"{second:,.0f}", f"{first / second:.2f}"]


def stage_table(without: ByStage, own: ByStage, time_of: str, derived: Mapping[str, float] | None = None) -> str:
    """Work by stage, both ways; the ratio is that of the time, a column named `time_of`."""
    rows = []
    for stage in [*own, "all"]:
        ways = [total(way) if stage == "all" else way[stage] for way in (without, own)]
        row = [stage, "" if stage == "all" else UNITS.get(stage, "records"), *(f"{way.executions}" for way in ways)]
        row += ["" if stage == "all" else f"{way.amount:,.0f}" for way in ways]
        row += [
            (f"{way.tokens / 1e6:,.0f} M" if way.tokens > 1e7 else f"{way.tokens:,.0f}") if way.tokens else "" for way in ways
        ]
        row += [*(f"{way.time:,.1f}" for way in ways), f"{ways[0].time / ways[1].time:.2f}"]
        row += [] if derived is None else [f"{sum(derived.values()) if stage == 'all' else derived[stage]:,.1f}"]
        rows.append(row)
    pairs = [f"{what} {way}" for what in ("times", "amount", "tokens", time_of) for way in ("without", "with")]
    headings = ["stage", "unit", *pairs, "ratio", *(["derived without"] if derived is not None else [])]
    align = ["left", "left", *["right"] * (len(headings) - 2)]
    return str(tabulate(rows, headings, disable_numparse=True, colalign=align, maxheadercolwidths=9))


# ---------------------------------------------------------------------------- projected


def planned() -> list[tuple[Opened, Plan, list[Task]]]:
    """Each sweep on a node of 8 H100, its plan without sharing, and what is left of it where those before it are done."""
    sweeps: list[tuple[Opened, Plan, list[Task]]] = []
    there: list[Identity] = []
    for name in SWEEPS:
        sweep = open_request(Request(ROOT / "sweeps" / f"{name}.yaml", "h100", "full", ONE_NODE))
        without = make_plan(sweep.experiment.model_copy(update={"sharing": False}))
        sweeps.append((sweep, without, pending_tasks(sweep.plan, partial(held, tuple(there)))))
        there += [task.identity for task in sweep.plan.tasks]
    return sweeps


def held(there: Sequence[Identity], asked: Identity) -> bool:
    """Whether one of these artifacts is, or contains, what is asked for."""
    return any(one.contains(asked) for one in there)


def planned_work(plan: Plan, tasks: Sequence[Task], site: Site, rates: Rates) -> ByStage:
    """The work of those tasks of a plan that have a model, in GPU hours; each holds all GPUs while an engine starts for it."""
    load, work, found = Workload(plan, SIZES, {}), dict[str, Work](), set[str]()
    for job in make_jobs(plan, tasks, site):
        found |= engines_found_open((plan.by_id[name] for name in job.tasks), site)
    for task in tasks:
        operations = load.operations(task)
        if operations is not None:
            start = 0.0 if task.id in found else rates.start_up_s * GPUS
            spent = (rates.gpu_seconds(operations) + start) / 3600
            work[task.stage] = work.get(task.stage, Work()) + Work(1, load.amount(task), operations.tokens, spent)
    return work


def terms(plan: Plan, stage: Literal["generate", "train"]) -> str:
    """The amounts of a stage's tasks as a sum of products: tasks x records x responses or epochs."""
    load, counts = Workload(plan, SIZES, {}), Counter[tuple[float, int]]()
    for task in (task for task in plan.tasks if task.stage == stage):
        factor = int(task.spec["responses"] if stage == "generate" else task.spec["optimiser"]["epochs"])
        counts[load.amount(task) / factor, factor] += 1
    products = [f"{count} x {records:,.0f} x {factor}" for (records, factor), count in sorted(counts.items(), reverse=True)]
    return " + ".join(products) + f" = {sum(count * records * factor for (records, factor), count in counts.items()):,.0f}"


def arithmetic(plan: Plan, rates: Rates) -> str:
    """What one token, response and pair costs, line by line."""
    first = {task.stage: task for task in reversed(plan.tasks)}
    sampled, trained = first["generate"].spec, first["train"].spec
    training = Workload(plan, SIZES, {}).operations(first["train"])
    assert training is not None
    limit, k, epochs = sampled["generation"]["max_new_tokens"], sampled["responses"], trained["optimiser"]["epochs"]
    response, N, M = RESPONSE_SHARE * limit, GEMMA.parameters, ARMORM.parameters
    length, middle, extra = PROMPT_TOKENS + response, PROMPT_TOKENS + response / 2, training.per_parameter_and_token - 6
    heads = GEMMA.heads * GEMMA.head
    kv = 2 * 2 * GEMMA.layers * GEMMA.kv_heads * GEMMA.head
    read = 0.9 * HBM_BYTES
    sequences, step_s = (read - 2 * N) / kv / middle, read / HBM_BYTES_PER_S
    text, pair = 2 * M * length, (6 + extra) * N * 2 * length

    def on_a_gpu(flops: float, share: float) -> str:
        return f"{flops / 1e12:.1f} TFLOP / ({share:.0%} of {PEAK / 1e12:g} TFLOP/s) = {flops / PEAK / share:.3f} GPU s"

    lines = [
        f"parameters  gemma-2-9b  {GEMMA.sum}",
        f"            ArmoRM      {ARMORM.sum}, without its embedding",
        f"lengths     {PROMPT_TOKENS} tokens a prompt, {RESPONSE_SHARE:g} x {limit} = {response:.0f} a response: guessed",
        f"forward     2 x {N / 1e9:.2f} B = {2 * N / 1e9:.1f} GFLOP a token",
        f"            left out: attention, 4 x {GEMMA.layers} x {heads} x {length:.0f} / 2 = "
        f"{4 * GEMMA.layers * heads * length / 2 / 1e9:.2f} GFLOP a token",
        f"generate    a response, of {k}: {response:.0f} + {PROMPT_TOKENS} / {k} tokens / {rates.tokens_per_s:,.0f} tokens/s = "
        f"{(response + PROMPT_TOKENS / k) / rates.tokens_per_s:.3f} GPU s",
        f"            bound: {read / 1e9:.0f} GB - {2 * N / 1e9:.1f} GB of weights hold {sequences:.0f} sequences of "
        f"{middle:.0f} tokens with {kv / 1e3:.0f} kB each;",
        f"            all is read in {read / 1e9:.0f} GB / {HBM_BYTES_PER_S / 1e12:g} TB/s = {1e3 * step_s:.1f} ms: "
        f"at most {sequences / step_s:,.0f} tokens/s",
        f"score       a text: 2 x {M / 1e9:.2f} B x {length:.0f} = {on_a_gpu(text, rates.scoring)}",
        f"train       a pair, an epoch: (6 + {extra:g}) x {N / 1e9:.2f} B x 2 x {length:.0f} = "
        + on_a_gpu(pair, rates.training),
        f"            {extra:g}: the reference, 2 operations once for {epochs} epochs",
        f"start       {rates.start_up_s:g} s x {GPUS} GPUs per start of an engine; stages of a job may share one",
    ]
    return "\n".join(f"  {line}" for line in lines)


def project(rates: Rates) -> list[str]:
    """Print the projection; returns the lines that sum it up."""
    sweeps = planned()
    print(f"\nProjected for gemma-2-9b on {GPUS} H100; nothing of it was run\n{arithmetic(sweeps[0][0].plan, rates)}")
    rows, sums, one_store = [], [0.0, 0.0], 0.0
    for (sweep, without, left), name in zip(sweeps, SWEEPS, strict=True):
        plan = sweep.plan
        print(f"\n{name}: {len(plan.runs)} runs")
        for word, way in (("without", without), ("with", plan)):
            responses, pairs = terms(way, "generate"), terms(way, "train")
            for line in (f"tasks x prompts x responses {word}: {responses}", f"tasks x pairs x epochs {word}: {pairs}"):
                print(textwrap.fill(line, 120, initial_indent="  ", subsequent_indent="      "))
        ways = [planned_work(way, way.tasks, sweep.site, rates) for way in (without, plan)]
        print(stage_table(ways[0], ways[1], "GPU hours"))
        price = estimate(plan, plan.tasks, sweep.site, SIZES, Measured())
        print(f"  eva-hpc plan, with its own guesses and all stages: {hours(price.naive)} without, {hours(price.planned)} with")
        pair = [total(way).time for way in ways]
        sums = [a + b for a, b in zip(sums, pair, strict=True)]
        one_store += total(planned_work(plan, left, sweep.site, rates)).time
        rows.append([name, *map(hours, pair), f"{pair[0] / pair[1]:.2f}", hours(pair[1] / GPUS)])
    rows.append(["both, own stores", *map(hours, sums), f"{sums[0] / sums[1]:.2f}", hours(sums[1] / GPUS)])
    ratio = sums[0] / one_store
    rows.append(["both, one store", hours(sums[0]), hours(one_store), f"{ratio:.2f}", hours(one_store / GPUS)])
    print("\nGPU hours")
    headings = ["", "without", "with", "ratio", f"hours on {GPUS} GPUs with"]
    print(tabulate(rows, headings, disable_numparse=True, colalign=["left", *["right"] * 4]))
    return [
        f"gemma-2-9b, both in one store: {hours(sums[0])} GPU hours without sharing and nesting, {hours(one_store)} with, "
        f"{ratio:.2f} times, projected"
    ]


def main() -> None:
    """Measure, project, and sum up."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, choices=range(1, 9), help="of what is measured (1)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--full", action="store_true", help="the lab recipe in its own sizes")
    what.add_argument("--projection", action="store_true", help="measure nothing")
    scoring, training = UTILISATION["scoring"], UTILISATION["training"]
    parser.add_argument("--generation-tokens-per-s", type=float, default=6000.0, help="of a GPU, prompts included (6000)")
    parser.add_argument("--scoring-mfu", type=float, default=scoring, help=f"share of the peak ({scoring:g})")
    parser.add_argument("--training-mfu", type=float, default=training, help=f"share of the peak ({training:g})")
    parser.add_argument("--start-up-s", type=float, default=START_UP_S, help=f"of an engine ({START_UP_S:g})")
    words = parser.parse_args()
    for name, most in (("generation_tokens_per_s", 1e6), ("scoring_mfu", 1.0), ("training_mfu", 1.0), ("start_up_s", 1e6)):
        if not 0 < (found := getattr(words, name)) <= most:
            parser.error(f"--{name.replace('_', '-')}: found {found:g}; must be above 0, at most {most:g}")
    rates = Rates(words.generation_tokens_per_s, words.scoring_mfu, words.training_mfu, words.start_up_s)
    lines: list[str] = []
    if not words.projection:
        with tempfile.TemporaryDirectory(prefix="sweep_cost.") as folder:
            lines += measure(words, Path(folder))
    lines += project(rates)
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
