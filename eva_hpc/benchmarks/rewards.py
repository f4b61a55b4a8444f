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

    Each is the mean over questions of :func:`by_question`.

    Raises:
        ValueError: no question has been judged for both policies.
    """
    metrics = by_question(questions, judgments, reference, scale)
    coverage = len(metrics["win_rate"]) / len(questions)
    return [
        Metric(metric=name, value=fmean(values.values()), n=len(values), coverage=coverage) for name, values in metrics.items()
    ]


def by_question(
    questions: Sequence[Question], judgments: Sequence[Judgments], reference: Sequence[Judgments], scale: float = 1.0
) -> dict[str, dict[str, float]]:
    """Each metric's value at each question, by the question's id.

    * ``win_rate``: percentage of (question, sample) in which the policy's reward is higher, equal ones counting half.
      The reward of a dialogue is the mean over its turns.
    * ``reward``, ``reward_CATEGORY``: mean over samples, times `scale`.
    * ``gain``: ``reward`` minus the reference's.
    * ``greedy``: the same as ``reward`` for greedy answers, if there are any.
    * ``turn_1``, ``turn_2``: mean reward of each turn in the questions of two turns, times `scale`.

    Raises:
        ValueError: no question has been judged for both policies.
    """
    ours, theirs = _of_question(judgments), _of_question(reference)
    judged = [question for question in questions if question["id"] in ours and question["id"] in theirs]
    if not judged:
        raise ValueError("no question has been judged for both policies")

    def mean(judgment: Judgments) -> float:
        return scale * fmean(fmean(sample) for sample in judgment["samples"])

    ids = [question["id"] for question in judged]
    rewards = {name: mean(ours[name]) for name in ids}
    metrics = {
        "win_rate": {name: 100 * _win_rate(ours[name], theirs[name]) for name in ids},
        "reward": rewards,
        "gain": {name: rewards[name] - mean(theirs[name]) for name in ids},
    }
    categories = list(dict.fromkeys(question["category"] for question in judged))
    for category in categories if len(categories) > 1 else ():
        own = [question["id"] for question in judged if question["category"] == category]
        metrics[f"reward_{category}"] = {name: rewards[name] for name in own}
    metrics["greedy"] = {name: scale * fmean(turns) for name in ids if (turns := ours[name]["greedy"])}
    for turn in range(2):
        metrics[f"turn_{turn + 1}"] = {
            question["id"]: scale * fmean(sample[turn] for sample in ours[question["id"]]["samples"])
            for question in judged
            if len(question["turns"]) == 2
        }
    return {name: values for name, values in metrics.items() if values}


def _of_question(judgments: Sequence[Judgments]) -> Mapping[str, Judgments]:
    return {judgment["question_id"]: judgment for judgment in judgments}


def _win_rate(ours: Judgments, theirs: Judgments) -> float:
    """Share of sample pairs (i of ours, i of theirs) won, ties half."""
    outcomes = []
    for mine, other in zip(ours["samples"], theirs["samples"], strict=True):
        difference = fmean(mine) - fmean(other)
        outcomes.append(0.5 if difference == 0 else float(difference > 0))
    return fmean(outcomes)
