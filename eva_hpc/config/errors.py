"""The one error of this room: what a user wrote that cannot be right, one line for each mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(Exception):
    """Mistakes in what a user wrote. Each problem is one line::

        sweeps/k.yaml:7: responses_per_prompt: found 1; must be an integer, at least 2

    `problems` has them in order, without repetition; the text of the error is one problem per line.
    """

    def __init__(self, *problems: str) -> None:
        self.problems: tuple[str, ...] = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(self.problems))


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the allowed name nearest to `name`, or nothing if none is near."""
    names = {candidate.lower(): candidate for candidate in allowed}
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return f"; did you mean '{names[near[0]]}'?" if near else ""
