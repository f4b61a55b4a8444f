"""The rating in a judge's text, e.g. 7 in "… lacks detail. Rating: [[7]]", by FastChat's rule (llm_judge/common.py)."""

from __future__ import annotations

import ast
import math
import re

FAILED = -1
"""The score that FastChat writes where there is no rating."""

API_ERROR = "$ERROR$"
"""The text that FastChat writes where the judge's server did not answer."""

LOWEST, HIGHEST = 1, 10
"""The scale that the judge is asked for. The official script does not enforce it."""

_DOUBLE = re.compile(r"\[\[(\d+\.?\d*)\]\]")
_SINGLE = re.compile(r"\[(\d+\.?\d*)\]")


def rating(judgment: str) -> int | float | None:
    """The first number in double brackets, else the first in single ones; None if there is none.

    Official also is that the range is not checked. Where FastChat's evaluation of the number crashes ("[[08]]", digits of other
    scripts), or the number is infinite, there is no rating.
    """
    match = _DOUBLE.search(judgment) or _SINGLE.search(judgment)
    if match is None:
        return None
    try:
        value: int | float = ast.literal_eval(match.group(1))
        return value if math.isfinite(value) else None
    except (SyntaxError, ValueError, OverflowError):
        return None


def why_none(judgment: str) -> str:
    """What to call a judgment without a rating."""
    return "API failure" if judgment == API_ERROR else "no rating"
