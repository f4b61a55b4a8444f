"""Rows of judgments in both official layouts, read into one form.

v0.1: ``{"question_id", "model", "judge", "games": [{"user_prompt", "judgment": "…[[A>B]]", "score": "A>B"}, …]}``;
v2.0: ``{"uid", "category", "model", "judge", "baseline", "games": [{"score", "judgment": {"answer": "…"}, "prompt"}, null]}``.
In the first game answer A is the baseline's, in the second the model's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eva_hpc.benchmarks.arena_hard.verdict import OUTCOMES, Version, labels, parse
from eva_hpc.benchmarks.files import Row, read_rows
from eva_hpc.config.errors import ConfigError

V01_CATEGORY = "arena-hard-v0.1"
BASELINES = {
    V01_CATEGORY: "gpt-4-0314",
    "hard_prompt": "o3-mini-2025-01-31",
    "coding": "o3-mini-2025-01-31",
    "math": "o3-mini-2025-01-31",
    "creative_writing": "gemini-2.0-flash-001",
}
"""Category -> the model that answers are compared with, where the row does not name it."""

_API_ERROR = "$ERROR$"
_STATUS = {"failed": "judge failed", "no_answer": "no answer", "unparsed": "no verdict"}


@dataclass(frozen=True)
class Game:
    """One game: the label that was stored, None if there is none; the judge's text, None if it gave none."""

    label: str | None
    text: str | None
    status: str | None = None

    def problem(self, version: Version) -> str | None:
        """Why this game counts nothing; None if it counts."""
        if self.label in OUTCOMES[version]:
            return None
        if self.label is not None:
            return "unknown label"
        if self.status in ("failed", "no_answer"):
            return _STATUS[self.status]
        if self.text is None or _API_ERROR in self.text:
            return "judge failed"
        return "several verdicts" if version == "v0.1" and len(set(labels(self.text))) > 1 else "no verdict"


@dataclass(frozen=True)
class Judgment:
    """The two games of one model on one question, by one judge. `version` is told from the row's layout and category."""

    question_id: str
    model: str
    judge: str
    category: str
    baseline: str | None
    repeat: int
    games: tuple[Game, ...]
    version: Version

    def complete(self, version: Version) -> bool:
        """Both games count."""
        return not any(self.problems(version))

    def problems(self, version: Version) -> list[str | None]:
        """Why each of the two games does not count, None for one that does; a game that is not there does not."""
        reasons = [game.problem(version) for game in self.games[:2]]
        return reasons + ["no game"] * (2 - len(reasons))


def read_judgments(paths: Iterable[Path]) -> list[Judgment]:
    """The rows of files in either layout, in order.

    Raises:
        ConfigError: a file cannot be read or a row is in neither layout; names the file and the row.
    """
    return [judgment for path in paths for judgment in judgments_from(read_rows(path), path)]


def judgments_from(rows: Iterable[Row], source: Path | str = "judgments") -> list[Judgment]:
    """Rows in either layout; `source` names them in errors.

    Raises:
        ConfigError: a row is in neither layout.
    """
    return [_judgment(row, f"{source}: row {number}") for number, row in enumerate(rows, start=1)]


def version_of(judgments: Sequence[Judgment]) -> Version:
    """The version whose rules apply: v2.0 for rows of its layout, unless their category is that of v0.1.

    Raises:
        ConfigError: rows of both versions are mixed.
    """
    versions = {judgment.version for judgment in judgments}
    if len(versions) > 1:
        raise ConfigError("judgments of Arena-Hard v0.1 and v2.0 are mixed; give --version, or one version's files")
    return versions.pop()


def reparse(judgments: Iterable[Judgment], version: Version) -> tuple[list[Judgment], int]:
    """Labels read anew from the judge's texts, and how many games had another label before.

    Raises:
        ConfigError: a game has a label, but no text to read it from.
    """
    changed = 0
    fresh = []
    for judgment in judgments:
        games = []
        for number, game in enumerate(judgment.games, start=1):
            if game.text is None and game.label is not None:
                raise ConfigError(
                    f"question {judgment.question_id}, {judgment.model}, game {number}: has no judgment text to read again"
                )
            label = parse(game.text, version) if game.text is not None else None
            changed += label != game.label
            games.append(replace(game, label=label))
        fresh.append(replace(judgment, games=tuple(games)))
    return fresh, changed


def _judgment(row: Row, place: str) -> Judgment:
    layout = "uid" if "uid" in row else "question_id"
    needs = (layout, "model", "games")
    lacking = [key for key in needs if key not in row]
    if lacking:
        raise ConfigError(f"{place}: has no {', '.join(lacking)}; must have question_id or uid, model, games")
    games = row["games"]
    if not isinstance(games, list) or len(games) > 2:
        found = f"{len(games)} games" if isinstance(games, list) else type(games).__name__
        raise ConfigError(f"{place}: games: found {found}; must be a list of the two games")
    category = row.get("category") or (V01_CATEGORY if layout == "question_id" else "hard_prompt")
    version: Version = "v0.1" if layout == "question_id" or category == V01_CATEGORY else "v2.0"
    return Judgment(
        question_id=str(row[layout]),
        model=str(row["model"]),
        judge=str(row.get("judge") or "unknown"),
        category=str(category),
        baseline=str(row["baseline"]) if row.get("baseline") else None,
        repeat=_repeat(row.get("repeat"), place),
        games=tuple(_game(game, row.get("status"), f"{place}: game {number}") for number, game in enumerate(games, start=1)),
        version=version,
    )


def _repeat(repeat: Any, place: str) -> int:
    if repeat is None:
        return 0
    if not isinstance(repeat, int):
        raise ConfigError(f"{place}: repeat: found {repeat}; must be a number: 0, 1, …")
    return repeat


def _game(game: Any, row_status: Any, place: str) -> Game:
    if game is None:
        return Game(None, None)
    if not isinstance(game, Mapping) or "score" not in game:
        raise ConfigError(f"{place}: must be null or an object with score and judgment")
    label = game["score"]
    if label is not None and not isinstance(label, str):
        raise ConfigError(f"{place}: score: found {label}; must be a label such as A>B, or null")
    said = game.get("judgment")
    text = said.get("answer") if isinstance(said, Mapping) else said
    if text is not None and not isinstance(text, str):
        raise ConfigError(f"{place}: judgment: found {type(text).__name__}; must be a text, or an object with it as answer")
    return Game(label, text, game.get("status") or (row_status if label is None else None))
