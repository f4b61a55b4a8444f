"""From a judge's log-probabilities to a preference between the baseline's output (1) and the model's (2).

The judge sees the two outputs as "m" and "M" and answers with one token. The preference is 2 minus the probability of "m" among
the two, so 1.03 says that the first output is almost surely better:

    {"logprobs": {"content": [{"token": "m", "top_logprobs": [{"token": "m", "logprob": -0.03}, {"token": "M", …}, …]}]}}

Which output stands first is drawn from the instruction, the same for every model and every tool.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eva_hpc.benchmarks.files import Row

FIRST, SECOND = "m", "M"
"""What the prompt calls the first and the second output."""
TIE = 1.5
FAILED = math.nan
SAME = 1e-6
"""Files round preferences to ten digits; a larger difference is a disagreement."""


def is_switched(instruction: str) -> bool:
    """Whether the model's output stands first in the prompt (official draw, seed 0)."""
    return random.Random(f"is_switched_outputs{instruction}0").choices([False, True], k=1)[0]


def switch(preference: float) -> float:
    """The preference with the two outputs traded: 1 and 2 change places."""
    return 3 - preference


def first_tokens(completion: Any) -> dict[str, float]:
    """Log-probabilities of the likeliest first tokens of a chat completion's choice; empty where there are none."""
    if isinstance(completion, str):
        try:
            completion = json.loads(completion)
        except ValueError:
            return {}
    if isinstance(completion, Sequence) and not isinstance(completion, str) and len(completion) == 1:
        completion = completion[0]
    try:
        candidates = completion["logprobs"]["content"][0]["top_logprobs"]
        return {
            one["token"]: float(one["logprob"])
            for one in candidates
            if isinstance(one["token"], str) and not math.isnan(float(one["logprob"]))
        }
    except (KeyError, IndexError, TypeError, ValueError):
        return {}


def slot_preference(completion: Any) -> float:
    """Preference between the first (1) and the second slot (2) of the prompt; NaN if neither label is among the first tokens.

    A label that is not among the likeliest tokens has probability 0, as officially.
    """
    tokens = first_tokens(completion)
    first, second = tokens.get(FIRST, -math.inf), tokens.get(SECOND, -math.inf)
    if first == second:
        return FAILED if first == -math.inf else TIE
    difference = second - first
    odds = math.exp(-abs(difference))  # never overflows
    return 1 + (1 if difference > 0 else odds) / (1 + odds)


def label_preference(text: Any) -> float:
    """1 or 2 by the label that the judge wrote; NaN if it wrote another word."""
    return {FIRST: 1.0, SECOND: 2.0}.get(text.strip(), FAILED) if isinstance(text, str) else FAILED


def of_orders(slots: Sequence[float], instruction: str) -> list[float]:
    """Preferences between baseline and model from those between slots, of the official order and, if there, the other one."""
    switched = is_switched(instruction)
    return [switch(value) if switched != other else value for value, other in zip(slots, (False, True), strict=False)]


def preference(completion: Any, instruction: str) -> float:
    """Preference between the baseline's output (1) and the model's (2) from a raw completion; NaN if it says nothing."""
    return of_orders([slot_preference(completion)], instruction)[0]


def stored(value: Any) -> float:
    """The preference of an official row: in [1, 2]; the older 0 is a tie; null and everything else is NaN, failed."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return FAILED
    if value == 0:
        return TIE
    return float(value) if 1 <= value <= 2 else FAILED


def raw_completion(row: Mapping[str, Any]) -> Any:
    """What the judge's server sent, under either of the official names; None if the row does not have it."""
    return row.get("raw_completion") or row.get("preference_raw_completion")


def recomputed(row: Row) -> float | None:
    """A row's preference from its raw completions; None if it has none. Equal outputs are a tie whatever a judge said."""
    completion = raw_completion(row)
    if not completion:
        return None
    if row.get("output_1") is not None and row.get("output_1") == row.get("output_2"):
        return TIE
    replies = [completion, *([row["raw_completion_other_order"]] if row.get("raw_completion_other_order") else [])]
    if row.get("labels") == "text":
        slots = [label_preference(reply.get("text") if isinstance(reply, Mapping) else reply) for reply in replies]
    else:
        slots = [slot_preference(reply) for reply in replies]
    values = of_orders(slots, row["instruction"])
    return sum(values) / len(values)


@dataclass(frozen=True)
class Recomputation:
    """Preferences from raw completions beside those stored: `differ` lists row numbers, from 1; `largest` is the widest gap."""

    values: tuple[float, ...]
    checked: int
    differ: tuple[int, ...]
    largest: float


def recompute(rows: Sequence[Row]) -> Recomputation:
    """Every row's preference, from its raw completion where it has one and as stored where it has none."""
    values, checked, differ, largest = [], 0, [], 0.0
    for number, row in enumerate(rows, start=1):
        before, after = stored(row.get("preference")), recomputed(row)
        values.append(before if after is None else after)
        if after is None:
            continue
        checked += 1
        gap = 0.0 if math.isnan(before) and math.isnan(after) else abs(before - after)
        if not gap <= SAME:  # NaN on one side is a difference too
            differ.append(number)
        largest = max(largest, 0.0 if math.isnan(gap) else gap)
    return Recomputation(tuple(values), checked, tuple(differ), largest)
