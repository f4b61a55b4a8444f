"""Seconds from judgments to numbers: ours beside the official way, on the same rows, and how far the numbers are apart.

python bench/score.py FOLDER [--repeats 5]

FOLDER holds what of these there is; a benchmark whose files are missing is left out, and said so:

    alpaca_eval/models/*/annotations.json[.gz]      of models on the leaderboard
    alpaca_eval/**/df_gamed*.csv                    the gamed rows
    arena_hard/battles_*.jsonl                      the official battle file of v0.1
    mt_bench/judgments/*                            FastChat's judgment rows

AlpacaEval: the length-controlled function of the package alpaca_eval, which must be installed. The scripts of Arena-Hard and
MT-Bench are no packages: their rules are written out here, with scikit-learn and pandas as they do it. Reading files is not
timed, except the gamed rows, which the official function reads in every call; and so do we here. "same numbers" is what the
official way gives, "all" what ``eva-hpc score`` prints: intervals over questions, coverage, values by question as well.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tabulate import tabulate

from eva_hpc.benchmarks.alpaca_eval.annotated import is_baseline, read_annotations
from eva_hpc.benchmarks.alpaca_eval.arms import LengthControl, arm_of, joined
from eva_hpc.benchmarks.alpaca_eval.difficulty import read_difficulty
from eva_hpc.benchmarks.alpaca_eval.length_control import read_gamed
from eva_hpc.benchmarks.alpaca_eval.preference import stored
from eva_hpc.benchmarks.alpaca_eval.score import score as alpaca_eval_score
from eva_hpc.benchmarks.alpaca_eval.win_rate import win_rate
from eva_hpc.benchmarks.arena_hard.battles import Battle, battle_rows, read_battles
from eva_hpc.benchmarks.arena_hard.bradley_terry import Table, log_odds, official_interval_v01, win_rates
from eva_hpc.benchmarks.arena_hard.score import score_battles
from eva_hpc.benchmarks.files import Row, read_rows
from eva_hpc.benchmarks.mt_bench.score import score as mt_bench_score

ROUNDS, SEED = 100, 42
"""Of the official bootstrap of Arena-Hard v0.1."""
HEADINGS = ["seconds", "official", "ours, same numbers", "ratio", "ours, all", "largest difference"]
FORMATS = ("", ".4f", ".4f", "", ".4f")

Result = TypeVar("Result")


def timed(work: Callable[[], Result], repeats: int) -> tuple[float, Result]:
    """Median seconds of some runs after a first one, and what the last gave."""
    result = work()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds), result


def alpaca_eval(folder: Path, repeats: int) -> None:
    """The length-controlled win rate: also with the C that the official function chose, since that depends on the processor."""
    files = sorted(folder.glob("alpaca_eval/models/*/annotations.json*"))
    gamed_files = sorted(folder.glob("alpaca_eval/**/df_gamed*.csv"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import sklearn
            from alpaca_eval.metrics import glm_winrate
    except ImportError:
        print("AlpacaEval: left out, the package alpaca_eval is not installed (it is among the test packages)\n")
        return
    if not files or not gamed_files:
        print(f"AlpacaEval: left out, {folder} has no alpaca_eval/models/*/annotations.json or no df_gamed.csv\n")
        return
    gamed = gamed_files[0]
    glm_winrate.hf_hub_download = lambda **_: str(gamed)  # from the file here instead of a hub
    chosen: list[float] = []
    fit = glm_winrate.fit_LogisticRegressionCV

    def noted(*args: Any, **more: Any) -> Any:
        model = fit(*args, **more)
        chosen.append(float(model.C_[0]))
        return model

    glm_winrate.fit_LogisticRegressionCV = noted

    def official(rows: list[Row]) -> float:
        with warnings.catch_warnings(), sklearn.config_context():  # it switches metadata routing on for everyone
            warnings.simplefilter("ignore")
            found = glm_winrate.get_length_controlled_winrate(rows, save_weights_dir=None)
        return float(found["length_controlled_winrate"])

    table = []
    for file in files:
        rows = read_annotations(file)
        if is_baseline(rows):
            continue  # 50 by construction: nothing is fitted
        theirs_s, theirs = timed(partial(official, rows), repeats)
        ours_s, ours = timed(partial(_length_controlled, rows, gamed), repeats)
        all_s, _ = timed(partial(_alpaca_eval_score, rows, gamed), 1)
        same_C = _length_controlled(rows, gamed, chosen[-1])
        gaps = [f"{abs(value - theirs):.1e}" for value in (ours, same_C)]
        table.append([file.parent.name, theirs_s, ours_s, f"{ours_s / theirs_s:.2f}", all_s, *gaps])
    print(f"AlpacaEval 2.0: win rate and length-controlled win rate; gamed rows of {gamed.name}")
    print(tabulate(table, [*HEADINGS, "with its C"], floatfmt=FORMATS), end="\n\n")


def _control(gamed: Path, C: float | None = None) -> LengthControl:
    return LengthControl(read_difficulty(gamed), read_gamed(gamed), difficulty_by="position", C=C)


def _length_controlled(rows: list[Row], gamed: Path, C: float | None = None) -> float:
    control = _control(gamed, C)
    preferences = [stored(row["preference"]) for row in rows]
    win_rate(preferences)
    known, _ = joined(rows, preferences, control)
    return arm_of(known, control).win_rate(control.gamed)


def _alpaca_eval_score(rows: list[Row], gamed: Path) -> dict[str, Any]:
    return alpaca_eval_score(rows, _control(gamed)).to_json()


def arena_hard(folder: Path, repeats: int) -> None:
    """Bradley-Terry by logistic regression, and the bootstrap of 100 fits; ours has a closed form and the same draws."""
    import pandas as pd

    files = sorted(folder.glob("arena_hard/battles_*.jsonl*"))
    if not files:
        print(f"Arena-Hard: left out, {folder} has no arena_hard/battles_*.jsonl\n")
        return
    table = []
    for file in files:
        battles = read_battles(file)
        frame = pd.DataFrame(battle_rows(battles))
        theirs_s, theirs = timed(partial(_arena_hard_official, frame), repeats)
        ours_s, ours = timed(partial(_arena_hard_ours, battles), repeats)
        all_s, _ = timed(partial(score_battles, battles), repeats)
        gap = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
        table.append([file.name, theirs_s, ours_s, f"{ours_s / theirs_s:.2f}", all_s, f"{gap:.1e}"])
    print(f"Arena-Hard v0.1: win rate and its official interval, {ROUNDS} rounds")
    print(tabulate(table, HEADINGS, floatfmt=FORMATS), end="\n\n")


def _arena_hard_official(frame: Any) -> tuple[float, float, float]:
    random = np.random.RandomState(SEED)
    drawn = [_strength(frame.sample(frac=1.0, replace=True, random_state=random)) for _ in range(ROUNDS)]
    return tuple(  # type: ignore[return-value]
        100 / (1 + math.exp(-gap)) for gap in (_strength(frame), *np.percentile(drawn, [2.5, 97.5]))
    )


def _strength(frame: Any) -> float:
    """Log odds that the model beats the baseline: battles stand twice, a tie once as a win and once as a loss."""
    from sklearn.linear_model import LogisticRegression

    first, second = (frame["winner"].isin([name, "tie", "tie (bothbad)"]).to_numpy() for name in ("model_a", "model_b"))
    won = np.concatenate([first, ~second])
    signs = np.full((len(won), 1), math.log(10)) * [1, -1]  # the baseline is model_a
    fit = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(signs, won)
    return float((fit.coef_[0, 1] - fit.coef_[0, 0]) * math.log(10))


def _arena_hard_ours(battles: list[Battle]) -> tuple[float, ...]:
    table = Table.of(battles, battles[0].model_a)
    return (float(win_rates(log_odds(table.wins()))[1]), *official_interval_v01(table)[1].tolist())


def mt_bench(folder: Path, repeats: int) -> None:
    """Means by model and turn; ours are never without three intervals of 10,000 resamples for each model."""
    files = sorted(folder.glob("mt_bench/judgments/*"))
    if not files:
        print(f"MT-Bench: left out, {folder} has no mt_bench/judgments\n")
        return
    table = []
    for file in files:
        rows = read_rows(file)
        theirs_s, theirs = timed(partial(_mt_bench_official, rows), repeats)
        all_s, ours = timed(partial(mt_bench_score, rows, force=True), repeats)
        gap = max(abs((ours[model].numbers[name] or math.nan) - value) for (model, name), value in theirs.items())
        table.append([file.name, theirs_s, "", "", all_s, f"{gap:.1e}"])
    print("MT-Bench: turns and average")
    print(tabulate(table, HEADINGS, floatfmt=FORMATS))


def _mt_bench_official(rows: list[Row]) -> dict[tuple[str, str], float]:
    import pandas as pd

    frame = pd.DataFrame(rows)
    rated = frame[frame["score"] != -1]
    turns = rated.groupby(["model", "turn"])["score"].mean()
    averages = rated.groupby("model")["score"].mean()
    return {(model, f"turn_{turn}"): mean for (model, turn), mean in turns.items()} | {
        (model, "average"): mean for model, mean in averages.items()
    }


def main() -> None:
    arguments = argparse.ArgumentParser(
        description="Scoring: ours beside the official way.", epilog="The head of the file has more."
    )
    arguments.add_argument("folder", type=Path, help="real judgments, in the layout that the head of the file tells")
    arguments.add_argument("--repeats", type=int, default=5, help="runs of which the median is told")
    words = arguments.parse_args()
    for compare in (alpaca_eval, arena_hard, mt_bench):
        compare(words.folder, words.repeats)


if __name__ == "__main__":
    main()
