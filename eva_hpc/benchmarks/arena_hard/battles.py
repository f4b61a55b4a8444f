"""Battles: judged games as wins, losses and ties between two models, in the form of the official battle file::

    {"question_id": "08d2…", "model_a": "gpt-4-0314", "model_b": "gpt-3.5-turbo-0125", "winner": "model_a"}

In the file a strong verdict stands three times; here it stands once, with weight 3. `model_a` is the baseline where battles are
made from judgments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eva_hpc.benchmarks.arena_hard.judgments import Judgment
from eva_hpc.benchmarks.arena_hard.verdict import OUTCOMES, Version
from eva_hpc.benchmarks.files import Row, read_rows
from eva_hpc.config.errors import ConfigError

Winner = Literal["model_a", "model_b", "tie"]

_WINNERS: dict[str, Winner] = {"model_a": "model_a", "model_b": "model_b", "tie": "tie", "tie (bothbad)": "tie"}
_SHARE_OF_B: dict[Winner, float] = {"model_a": 0.0, "tie": 0.5, "model_b": 1.0}


@dataclass(frozen=True, slots=True)
class Battle:
    """One game between two models on one question, counted `weight` times."""

    question_id: str
    model_a: str
    model_b: str
    winner: Winner
    weight: int = 1

    @property
    def share_of_b(self) -> float:
        """1 if `model_b` won, 0.5 for a tie, 0 if it lost."""
        return _SHARE_OF_B[self.winner]


def battles_from(judgments: Iterable[Judgment], version: Version, baseline: str) -> list[Battle]:
    """Battles of judged models against the baseline, in the official order.

    v0.1: a game without a verdict gives no battle, the other game of its row stays. v2.0: the whole row is left out.
    """
    battles = []
    for judgment in judgments:
        if version == "v2.0" and not judgment.complete(version):
            continue
        for number, game in enumerate(judgment.games[:2]):
            outcome = OUTCOMES[version].get(game.label or "")
            if outcome is None:
                continue
            share, weight = outcome  # of answer A: the baseline's in the first game, the model's in the second
            share_of_model = share if number else 1 - share
            winner: Winner = "tie" if share_of_model == 0.5 else "model_b" if share_of_model else "model_a"
            battles.append(Battle(judgment.question_id, baseline, judgment.model, winner, weight))
    return battles


def read_battles(path: Path) -> list[Battle]:
    """An official battle file; each row has weight 1.

    Raises:
        ConfigError: the file cannot be read, a row has no known winner, or a model is up against itself.
    """
    battles = []
    for number, row in enumerate(read_rows(path, needs=("question_id", "model_a", "model_b", "winner")), start=1):
        winner = _WINNERS.get(str(row["winner"]))
        if winner is None:
            raise ConfigError(f"{path}: row {number}: winner: found {row['winner']}; must be one of {', '.join(_WINNERS)}")
        if row["model_a"] == row["model_b"]:
            raise ConfigError(f"{path}: row {number}: found {row['model_a']} against itself; must be two models")
        battles.append(Battle(str(row["question_id"]), str(row["model_a"]), str(row["model_b"]), winner))
    return battles


def battle_rows(battles: Iterable[Battle]) -> list[Row]:
    """Battles as rows of the official file: a strong verdict stands three times."""
    return [
        {"question_id": battle.question_id, "model_a": battle.model_a, "model_b": battle.model_b, "winner": battle.winner}
        for battle in battles
        for _ in range(battle.weight)
    ]


def games_in(rows_of_a_question: int) -> int | None:
    """How many of the two games a question's rows of a battle file come from; None where there were more than two games.

    One game gives one row or three, so the number of rows tells.
    """
    return {1: 1, 2: 2, 3: 1, 4: 2, 6: 2}.get(rows_of_a_question)


def find_baseline(battles: Sequence[Battle], wanted: str | None, default: str) -> str:
    """The model that the others are compared with: the one asked for, the one in every battle, or the version's default.

    Raises:
        ConfigError: the one asked for is in no battle, or none of these can be told.
    """
    models = sorted({name for battle in battles for name in (battle.model_a, battle.model_b)})
    if wanted is not None:
        if wanted in models:
            return wanted
        raise ConfigError(f"--baseline: found {wanted}, which is in no battle; must be one of {', '.join(models)}")
    if default in models:
        return default
    first = {battle.model_a for battle in battles}
    if len(first) == 1:
        return first.pop()
    raise ConfigError(f"the baseline cannot be told from the battles; give --baseline, one of {', '.join(models)}")
