"""The learning rate as a pure function of the step: resuming needs no scheduler state."""

from __future__ import annotations

import math
from typing import Literal


def learning_rate(
    step: int, total: int, *, peak: float, warmup_ratio: float, schedule: Literal["cosine", "linear", "constant"]
) -> float:
    """The learning rate of optimiser step `step` (from 0) of `total`.

    The warm-up takes the first ceil(warmup_ratio x total) steps and reaches `peak` at its last one, so that no step is wasted
    on a rate of 0. Cosine and linear then start from `peak` and would reach 0 at step `total`.

    Raises:
        ValueError: unknown schedule, or a step outside 0 … total - 1.
    """
    if not 0 <= step < total:
        raise ValueError(f"step {step} is not one of the {total} steps")
    warmup = math.ceil(warmup_ratio * total)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / (total - warmup)
    if schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * progress))
    if schedule == "linear":
        return peak * (1 - progress)
    if schedule == "constant":
        return peak
    raise ValueError(f"unknown schedule {schedule!r}; choose cosine, linear or constant")
