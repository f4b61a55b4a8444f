"""How two judges agree question by question on the same answers: equal means may hide that they differ everywhere.

AlpacaEval compares preferences, 0 (the baseline's output) to 1 (the model's); Arena-Hard verdicts of single games, from -2 (the
model lost by far) to 2; MT-Bench ratings of single turns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from eva_hpc.benchmarks.calibration.numbers import Source, judge_of
from eva_hpc.benchmarks.files import Row
from eva_hpc.benchmarks.statistics.intervals import interval
from eva_hpc.config.errors import ConfigError

_Thing = tuple[str, str, str]
"""What was judged: model, question, and game or turn."""


class _Opinion(NamedTuple):
    """A value on something that was judged. `text` tells whether the answers are the same, where rows have them."""

    thing: _Thing
    value: float
    text: str | None


def question_agreement(benchmark: str, ours: Sequence[Source], official: Sequence[Source]) -> dict[str, Any]:
    """Agreement of two judges, over all models that both judged and by model.

    Repeats of a judge are averaged first, except verdicts of Arena-Hard, where the first counts. AlpacaEval's judgments of
    different outputs are set aside and counted.

    Raises:
        ConfigError: rows are malformed, or the judges judged nothing in common.
    """
    one, other = (_opinions(benchmark, sources) for sources in (ours, official))
    common = [thing for thing in one if thing in other]
    both = [thing for thing in common if _of_one_answer(one[thing], other[thing])]
    elsewhere = len(common) - len(both)
    if not both:
        raise ConfigError(
            f"the official judgments have nothing in common with the others: they are about {_models(other)}, these about "
            f"{_models(one)}" + (f"; {elsewhere} are of other outputs" if elsewhere else "")
        )
    summary = _SUMMARIES[benchmark]
    by_model: dict[str, list[tuple[str, float, float]]] = {}
    for thing in both:
        by_model.setdefault(thing[0], []).append((thing[1], one[thing].value, other[thing].value))
    return {
        "judge": _judge(benchmark, ours),
        "official_judge": _judge(benchmark, official),
        "unit": {"alpaca_eval": "preferences", "arena_hard": "games", "mt_bench": "ratings"}[benchmark],
        "only_here": len(one) - len(common),
        "only_official": len(other) - len(common),
        "other_answers": elsewhere,
        "all": summary([pair for pairs in by_model.values() for pair in pairs]),
        "models": {model: summary(pairs) for model, pairs in by_model.items()},
    }


def _judge(benchmark: str, sources: Sequence[Source]) -> str:
    return ", ".join(dict.fromkeys(judge_of(benchmark, row) for _, rows in sources for row in rows))


def _of_one_answer(one: _Opinion, other: _Opinion) -> bool:
    return one.text is None or other.text is None or one.text == other.text


def _models(opinions: Mapping[_Thing, _Opinion]) -> str:
    return ", ".join(dict.fromkeys(model for model, _, _ in opinions)) or "nothing that has a verdict"


def _opinions(benchmark: str, sources: Sequence[Source]) -> dict[_Thing, _Opinion]:
    found: dict[_Thing, list[_Opinion]] = {}
    for source, rows in sources:
        for opinion in _READERS[benchmark](source, rows):
            found.setdefault(opinion.thing, []).append(opinion)
    if benchmark == "arena_hard":
        return {thing: opinions[0] for thing, opinions in found.items()}
    return {thing: several[0]._replace(value=fmean(one.value for one in several)) for thing, several in found.items()}


def _preferences(source: str, rows: Sequence[Row]) -> list[_Opinion]:
    from eva_hpc.benchmarks.alpaca_eval.preference import stored

    found = [(row, stored(row["preference"])) for row in rows]
    return [
        _Opinion((str(row.get("generator_2") or "model"), row["instruction"], ""), value - 1, row.get("output_2"))
        for row, value in found
        if not math.isnan(value)
    ]


def _verdicts(source: str, rows: Sequence[Row]) -> list[_Opinion]:
    from eva_hpc.benchmarks.arena_hard.judgments import judgments_from
    from eva_hpc.benchmarks.arena_hard.verdict import OUTCOMES

    opinions = []
    for judgment in judgments_from(rows, source):
        for number, game in enumerate(judgment.games[:2], start=1):
            outcome = OUTCOMES[judgment.version].get(game.label or "")
            if outcome is not None:
                share, weight = outcome  # of answer A: the model's in the second game
                strength = (share - 0.5) * 2 * (2 if weight > 1 else 1)
                value = strength if number == 2 else -strength
                opinions.append(_Opinion((judgment.model, judgment.question_id, f"game {number}"), value, None))
    return opinions


def _ratings(source: str, rows: Sequence[Row]) -> list[_Opinion]:
    from eva_hpc.benchmarks.mt_bench.judgments import read_judgments

    judgments, _ = read_judgments(rows, source=source)
    return [
        _Opinion((judgment.model, judgment.question, f"turn {judgment.turn}"), judgment.score, None)
        for judgment in judgments
        if judgment.score is not None
    ]


_READERS: Mapping[str, Callable[[str, Sequence[Row]], list[_Opinion]]] = {
    "alpaca_eval": _preferences,
    "arena_hard": _verdicts,
    "mt_bench": _ratings,
}

_Pair = tuple[str, float, float]
"""Question, our value, the official judge's."""


def _common(pairs: Sequence[_Pair]) -> dict[str, Any]:
    """What holds for any scale. The interval of the mean difference, ours minus official, is over questions."""
    ours, official = np.array([pair[1] for pair in pairs]), np.array([pair[2] for pair in pairs])
    differences: dict[str, list[float]] = {}
    for question, one, other in pairs:
        differences.setdefault(question, []).append(one - other)
    values = list(differences.values())
    varies = len(pairs) > 1 and ours.std() > 0 and official.std() > 0
    return {
        "n": len(pairs),
        "correlation": float(np.corrcoef(ours, official)[0, 1]) if varies else None,
        "mean_difference": float((ours - official).mean()),
        "mean_difference_ci": interval([math.fsum(one) for one in values], [len(one) for one in values]),
    }


def _same_sign(pairs: Sequence[_Pair], middle: float) -> float:
    return fmean(np.sign(one - middle) == np.sign(other - middle) for _, one, other in pairs)


def _of_preferences(pairs: Sequence[_Pair]) -> dict[str, Any]:
    return {**_common(pairs), "same_winner": _same_sign(pairs, 0.5)}


def _of_verdicts(pairs: Sequence[_Pair]) -> dict[str, Any]:
    """Weighted kappa is agreement beyond chance, with quadratic weights: far off counts more. None where all are alike."""
    from sklearn.metrics import cohen_kappa_score

    ours, official = [round(pair[1]) for pair in pairs], [round(pair[2]) for pair in pairs]
    alike = len({*ours, *official}) == 1
    kappa = math.nan if alike else float(cohen_kappa_score(ours, official, labels=[-2, -1, 0, 1, 2], weights="quadratic"))
    labels = Counter(zip(ours, official, strict=True))
    return {
        **_common(pairs),
        "same_winner": _same_sign(pairs, 0.0),
        "same_label": fmean(one == other for one, other in zip(ours, official, strict=True)),
        "weighted_kappa": None if math.isnan(kappa) else kappa,
        "labels": {f"{one:+d} for {other:+d}": count for (one, other), count in sorted(labels.items())},
    }


def _of_ratings(pairs: Sequence[_Pair]) -> dict[str, Any]:
    return {
        **_common(pairs),
        "same_rating": fmean(one == other for _, one, other in pairs),
        "within_1": fmean(abs(one - other) <= 1 for _, one, other in pairs),
    }


_SUMMARIES = {"alpaca_eval": _of_preferences, "arena_hard": _of_verdicts, "mt_bench": _of_ratings}
