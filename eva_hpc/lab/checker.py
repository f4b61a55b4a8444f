"""The exact checker: the answer of a lab task, and the reward of a response to it. The prompt's text is all it needs."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from eva_hpc.config.reward import LabChecker
from eva_hpc.lab.tasks import parse, parse_follow_up
from eva_hpc.store.seeds import derive_seed

_CLOSENESS = 0.7
_STEEPNESS = 10.0


def answer(prompt: str) -> str:
    """The exact answer of a task.

    Raises:
        ValueError: the prompt is no lab task.
    """
    return parse(prompt).answer


def reward(prompt: str, response: str, finished: bool) -> float:
    """1 for the exact answer, else 0.7 × (1 - edit distance / length of the longer), in [0, 0.7]; half of it if not finished.

    Close answers earn more than distant ones, so that prompts the policy never gets right still have a reward gap.

    Raises:
        ValueError: the prompt is no lab task.
    """
    return _closeness(answer(prompt), response, finished)


def dialogue_answers(turns: Sequence[str]) -> list[str]:
    """The exact answers of a dialogue: each later turn is applied to the exact answer of the turn before.

    Raises:
        ValueError: a turn is no lab task.
    """
    answers = [answer(turns[0])]
    for turn in turns[1:]:
        answers.append(parse_follow_up(turn).solve(answers[-1]))
    return answers


def dialogue_rewards(turns: Sequence[str], answers: Sequence[str], finished: bool) -> list[float]:
    """The reward of each answer of a dialogue; one turn is the plain case.

    The second answer is compared with the exact chain, not with what follows from the policy's own first answer: else a
    trivial first answer would make the second turn trivial too.

    Args:
        turns: what the user says; the first is a task, the next ``Now … it``.
        answers: what the policy said, one for each turn.
        finished: whether the last answer was finished; those before count as finished.

    Raises:
        ValueError: a turn is no lab task, or turns and answers differ in number.
    """
    if len(turns) != len(answers) or not turns:
        raise ValueError(f"a dialogue needs an answer for each turn, got {len(turns)} turns and {len(answers)} answers")
    last = len(turns) - 1
    return [
        _closeness(exact, given, finished or index < last)
        for index, (exact, given) in enumerate(zip(dialogue_answers(turns), answers, strict=True))
    ]


def checker_reward(checker: LabChecker, turns: Sequence[str], answers: Sequence[str], finished: bool) -> float:
    """The reward of a dialogue's last answer by a checker that may be made worse on purpose; arguments as above.

    ``exact`` grading gives 1 for the exact answer and else 0, half of it if not finished. The error that `noise` adds is fixed
    by the texts: the same answer always gets the same reward.

    Raises:
        ValueError: as :func:`dialogue_rewards`.
    """
    value = dialogue_rewards(turns, answers, finished)[-1]
    if checker.grading == "exact" and answers[-1] != dialogue_answers(turns)[-1]:
        value = 0.0
    if checker.noise:
        value += random.Random(derive_seed("lab checker", *turns, *answers)).gauss(0.0, checker.noise)
    return value + checker.length_bonus * len(answers[-1])


def preference(reward: float, other: float) -> float:
    """The probability with which a pairwise checker prefers the first of two answers: sigmoid(10 × difference of rewards)."""
    return (1 + math.tanh(_STEEPNESS / 2 * (reward - other))) / 2


def edit_distance(left: str, right: str) -> int:
    """Levenshtein distance: insertions, deletions and substitutions of one character."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(right, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def _closeness(exact: str, response: str, finished: bool) -> float:
    distance = edit_distance(exact, response)
    value = _CLOSENESS * (1 - distance / max(len(exact), len(response))) if distance else 1.0
    return value if finished else value / 2
