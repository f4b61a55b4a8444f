"""What became of a model's games: how many count, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set

from eva_hpc.benchmarks.arena_hard.battles import games_in
from eva_hpc.benchmarks.arena_hard.judgments import Judgment
from eva_hpc.benchmarks.arena_hard.verdict import Version
from eva_hpc.benchmarks.statistics.coverage import Coverage

NO_JUDGE = "unknown"
"""A battle file does not name its judge."""

_Slot = tuple[str, int, int]
"""Question, repeat, and which of the two games."""


class Tally:
    """Counts of one model's games in one category.

    `games` count, `left_out` would but stand in a v2.0 row whose other game does not, `failed` counts the others by reason.
    """

    def __init__(self, absent: str) -> None:
        self.games = 0
        self.left_out = 0
        self.failed: Counter[str] = Counter()
        self.judge = NO_JUDGE
        self._absent = absent
        self._judged: set[_Slot] = set()
        self._unjudged: dict[_Slot, str] = {}
        self._repeats = {0}
        self._rows: Counter[tuple[str, int]] = Counter()

    @classmethod
    def of_judgments(cls, judgments: Iterable[Judgment], version: Version) -> Tally:
        """From a model's rows of judgments, all by one judge."""
        tally = cls("no judgment row")
        for judgment in judgments:
            name, repeat = judgment.question_id, judgment.repeat
            problems = judgment.problems(version)
            whole = version == "v0.1" or not any(problems)
            tally.judge = judgment.judge
            tally._rows[name, repeat] += 1
            for number, problem in enumerate(problems, start=1):
                if problem is not None:
                    tally.failed[problem] += 1
                elif whole:
                    tally.games += 1
                    tally._judged.add((name, repeat, number))
                    continue
                else:
                    tally.left_out += 1
                tally._unjudged.setdefault((name, repeat, number), problem or "left out with the other game of the row")
        tally._repeats = {repeat for _, repeat in tally._rows} or {0}
        return tally

    @classmethod
    def of_battle_rows(cls, rows: Mapping[str, int]) -> Tally:
        """From the number of rows that each question has in a battle file, which does not say how many games there were.

        Where there are more rows than two games can give, both games are taken to be there.
        """
        tally = cls("not in the battle file")
        for name, count in rows.items():
            games = games_in(count) or 2
            tally.games += games
            tally.failed["not in the battle file"] += 2 - games
            tally._judged |= {(name, 0, number) for number in range(1, games + 1)}
        return tally

    def questions(self, expected: Set[str]) -> int:
        """How many of these have a game that counts."""
        return len({name for name, _, _ in self._judged} & expected)

    def coverage(self, expected: Set[str]) -> Coverage:
        """Of the two games of each question that was expected, in each repeat of the judge, those that count."""
        slots = {(name, repeat, number) for name in expected for repeat in self._repeats for number in (1, 2)}
        missing = slots - self._judged
        reasons = Counter(self._unjudged.get(slot, self._absent) for slot in sorted(missing))
        return Coverage(len(slots), len(slots) - len(missing), reasons, unit="games")

    def warnings(self) -> list[str]:
        """What a reader should know of these games."""
        found = []
        if failed := sum(self.failed.values()):
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.failed.items() if count)
            found.append(f"{failed} of {self.games + self.left_out + failed} games do not count: {reasons}")
        if self.left_out:
            found.append(f"{self.left_out} games are left out because the other game of their row does not count")
        if again := sum(count - 1 for count in self._rows.values()):
            found.append(f"{again} rows judge a question again without another repeat number: all are counted")
        return found
