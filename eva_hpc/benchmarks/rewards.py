"""Numbers from rewards of answers: mean rewards, gains over a reference policy and the win rate against it.

Used where a judge gives each answer a number of its own: the lab's checker, a reward model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from eva_hpc.benchmarks.records import Judgments, Metric, Question


def summarise(
    questions: Sequence[Question], judgments: Sequence[Judgments], reference: Sequence[Judgments], scale: float = 1.0
) -> list[Metric]:
    """The metrics of a policy's judgments against those of the reference policy on the same questions.

    * ``win_rate``: percentage of (question, sample) in which the policy's reward is higher, equal ones counting half.
      The reward of a dialogue is the mean over its turns.
    * ``reward``, ``reward_CATEGORY``: mean over questions of the mean over samples, times `scale`.
    * ``gain``: ``reward`` minus the reference's, on the same questions.
    * ``greedy``: the same as ``reward`` for greedy answers, if there are any.
    * ``turn_1``, ``turn_2``: mean reward of each turn over the questions of two turns, times `scale`.

    Raises:
        ValueError: no question has been judged for both policies.
    """
    ours, theirs = _by_question(judgments), _by_question(reference)
    judged = [question for question in questions if question["id"] in ours and question["id"] in theirs]
    if not judged:
        raise ValueError("no question has been judged for both policies")
    coverage = len(judged) / len(questions)

    def metric(name: str, values: Sequence[float], factor: float = scale) -> Metric:
        return Metric(metric=name, value=factor * fmean(values), n=len(values), coverage=coverage)

    def mean(judgment: Judgments) -> float:
        return fmean(fmean(sample) for sample in judgment["samples"])

    wins = [_win_rate(ours[question["id"]], theirs[question["id"]]) for question in judged]
    rewards = {question["id"]: mean(ours[question["id"]]) for question in judged}
    metrics = [
        metric("win_rate", wins, 100.0),
        metric("reward", list(rewards.values())),
        metric("gain", [value - mean(theirs[name]) for name, value in rewards.items()]),
    ]
    categories = list(dict.fromkeys(question["category"] for question in judged))
    if len(categories) > 1:
        metrics += [
            metric(f"reward_{category}", [rewards[question["id"]] for question in judged if question["category"] == category])
            for category in categories
        ]
    greedy = [fmean(turns) for question in judged if (turns := ours[question["id"]]["greedy"])]
    if greedy:
        metrics.append(metric("greedy", greedy))
    for turn in range(2):
        values = [
            fmean(sample[turn] for sample in ours[question["id"]]["samples"])
            for question in judged
            if len(question["turns"]) == 2
        ]
        if values:
            metrics.append(metric(f"turn_{turn + 1}", values))
    return metrics


def _by_question(judgments: Sequence[Judgments]) -> Mapping[str, Judgments]:
    return {judgment["question_id"]: judgment for judgment in judgments}


def _win_rate(ours: Judgments, theirs: Judgments) -> float:
    """Share of sample pairs (i of ours, i of theirs) won, ties half."""
    outcomes = []
    for mine, other in zip(ours["samples"], theirs["samples"], strict=True):
        difference = fmean(mine) - fmean(other)
        outcomes.append(0.5 if difference == 0 else float(difference > 0))
    return fmean(outcomes)
