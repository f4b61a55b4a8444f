from __future__ import annotations

import math

import pytest

from eva_hpc.training.schedule import learning_rate


def rates(schedule: str, total: int = 10, warmup_ratio: float = 0.2) -> list[float]:
    return [
        learning_rate(step, total, peak=1.0, warmup_ratio=warmup_ratio, schedule=schedule)  # type: ignore[arg-type]
        for step in range(total)
    ]


def test_the_warm_up_rises_evenly_to_the_peak() -> None:
    for schedule in ("cosine", "linear", "constant"):
        assert rates(schedule, warmup_ratio=0.35)[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_after_the_warm_up_each_schedule_has_its_shape() -> None:
    assert rates("constant")[2:] == [1.0] * 8
    assert rates("linear")[2:] == pytest.approx([1 - i / 8 for i in range(8)])
    assert rates("cosine")[2:] == pytest.approx([math.cos(math.pi * i / 16) ** 2 for i in range(8)])


def test_no_step_has_a_rate_of_zero_and_without_warm_up_the_first_has_the_peak() -> None:
    for schedule in ("cosine", "linear", "constant"):
        for total in (1, 2, 7):
            assert min(rates(schedule, total, 0.5)) > 0
            assert rates(schedule, total, 0.0)[0] == 1.0


def test_a_step_outside_the_training_or_an_unknown_schedule_is_an_error() -> None:
    with pytest.raises(ValueError, match="step 10 is not one of the 10 steps"):
        learning_rate(10, 10, peak=1.0, warmup_ratio=0.1, schedule="cosine")
    with pytest.raises(ValueError, match="choose cosine, linear or constant"):
        rates("polynomial")
