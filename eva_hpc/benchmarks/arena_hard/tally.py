"""What became of a model's games: how many count, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from eva_hpc.benchmarks.arena_hard.battles import games_in
from eva_hpc.benchmarks.arena_hard.judgments import Judgment
from eva_hpc.benchmarks.arena_hard.verdict import Version
from eva_hpc.benchmarks.coverage import Coverage

NO_JUDGE = "unknown"
"""A battle file does not name its judge."""


class Tally:
    """Counts of one model's games in one category.

    `games` count, `left_out` would but stand in a v2.0 row whose other game does not, `failed` counts the others by reason.
    """

    def __init__(self) -> None:
        self.games = 0
        self.left_out = 0
        self.failed: Counter[str] = Counter()
        self.judged: set[str] = set()
        self.judge = NO_JUDGE
        self._unjudged: dict[str, str] = {}
        self._seen: Counter[tuple[str, int]] = Counter()

    @classmethod
    def of_judgments(cls, judgments: Iterable[Judgment], version: Version) -> Tally:
        """From a model's rows of judgments, all by one judge."""
        tally = cls()
        for judgment in judgments:
            problems = judgment.problems(version)
            tally.failed.update(problems)
            tally.judge = judgment.judge
            tally._seen[judgment.question_id, judgment.repeat] += 1
            if len(problems) == 2 or (problems and version == "v2.0"):
                tally._unjudged.setdefault(judgment.question_id, problems[0])
                tally.left_out += 2 - len(problems)
            else:
                tally.judged.add(judgment.question_id)
                tally.games += 2 - len(problems)
        return tally

    @classmethod
    def of_battle_rows(cls, rows: Mapping[str, int]) -> Tally:
        """From the number of rows that each question has in a battle file, which does not say how many games there were.

        Where there are more rows than two games can give, both games are taken to be there.
        """
        tally = cls()
        tally.judged = set(rows)
        for count in rows.values():
            games = games_in(count)
            tally.games += 2 if games is None else games
            tally.failed["not in the battle file"] += games == 1
        return tally

    def coverage(self, expected: set[str]) -> Coverage:
        """Of the questions that were expected, those with a game that counts."""
        reasons = Counter(reason for question, reason in self._unjudged.items() if question not in self.judged)
        reasons["no judgment row"] = len(expected - self.judged - set(self._unjudged))
        return Coverage(len(expected), len(self.judged & expected), {reason: n for reason, n in reasons.items() if n})

    def warnings(self) -> list[str]:
        """What a reader should know of these games."""
        found = []
        if failed := sum(self.failed.values()):
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.failed.items() if count)
            found.append(f"{failed} of {self.games + self.left_out + failed} games do not count: {reasons}")
        if self.left_out:
            found.append(f"{self.left_out} games are left out because the other game of their row does not count")
        if again := sum(count - 1 for count in self._seen.values()):
            found.append(f"{again} rows judge a question again without another repeat number: all are counted")
        return found
