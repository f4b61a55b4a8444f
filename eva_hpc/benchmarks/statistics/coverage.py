"""How much of what a number should rest on was judged, and when that is too little to print one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LEAST_COVERAGE = 0.95
"""Below this share of judged questions there is no number, unless it is forced."""


@dataclass(frozen=True)
class Coverage:
    """`judged` of `expected` judgments gave a value; `failed` counts the others by reason, e.g. {"no verdict": 3}."""

    expected: int
    judged: int
    failed: Mapping[str, int] = field(default_factory=dict)
    unit: str = "questions"

    @property
    def share(self) -> float:
        """In [0, 1]; 0 where nothing was expected."""
        return self.judged / self.expected if self.expected else 0.0

    @property
    def percent(self) -> str:
        """The share for people, rounded down: 94.96% must not read "95.0%, below 95%"."""
        return f"{(self.judged * 1000 // self.expected if self.expected else 0) / 10:.1f}%"

    def refusal(self, least: float = LEAST_COVERAGE) -> str | None:
        """Why there is no number; None if there is one."""
        if self.judged and self.share >= least:
            return None
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.failed.items() if count)
        found = f"only {self.judged} of {self.expected} {self.unit} have a judgment"
        if self.judged:
            found += f": {self.percent}, below {100 * least:.10g}%"
        return f"{found} ({reasons})" if reasons else found
