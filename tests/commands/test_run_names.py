from __future__ import annotations

import pytest

from eva_hpc.commands.run_names import matching, one_run
from eva_hpc.config.errors import ConfigError
from eva_hpc.plan.index import IndexedRun


def _runs(*points: dict[str, object]) -> list[IndexedRun]:
    return [
        IndexedRun(",".join(f"{axis}={value}" for axis, value in {**point, "seed": seed}.items()), point, seed, [], [])
        for point in points
        for seed in (1, 2, 10)
    ]


RUNS = _runs(*({"responses_per_prompt": k} for k in (2, 6, 10)))
TWO_AXES = _runs(*({"optimiser.learning_rate": rate, "evolved_ratio": ratio} for rate in (1e-6, 3e-7) for ratio in (0.0, 0.8)))


@pytest.mark.parametrize(
    "words",
    [
        "responses_per_prompt=6,seed=1",
        "6,1",
        "6 1",
        "k=6 seed 1",
        "k=6, seed=1",
        "responses=6,seed=1",
        "seed=1 k=6",
        "prompt = 6, 1",
    ],
)
def test_enough_of_a_name_finds_the_run(words: str) -> None:
    assert one_run(words, RUNS).name == "responses_per_prompt=6,seed=1"


@pytest.mark.parametrize("words", ["learning_rate=3e-07,ratio=0.8,seed=2", "3e-7 0.8 2", "rate=3e-7 evolved_ratio=.8 seed=2"])
def test_values_are_compared_as_numbers_and_axes_by_a_part_of_their_names(words: str) -> None:
    assert one_run(words, TWO_AXES).name == "optimiser.learning_rate=3e-07,evolved_ratio=0.8,seed=2"


def test_several_that_fit_are_listed() -> None:
    with pytest.raises(ConfigError, match="3 runs fit: responses_per_prompt=2,seed=1; responses_per_prompt=6,seed=1"):
        one_run("seed=1", RUNS)
    assert [run.seed for run in matching("k=6", RUNS)] == [1, 2, 10]


def test_a_letter_stands_for_an_axis_but_not_for_the_seed() -> None:
    assert [run.name for run in matching("k=1", RUNS)] == []


@pytest.mark.parametrize("words", ["7,1", "k=6,seed=3", "sede=1", "1,6"])
def test_what_fits_no_run_is_a_mistake_that_lists_them(words: str) -> None:
    with pytest.raises(ConfigError, match=r"no such run.*the runs are: responses_per_prompt=2,seed=1"):
        one_run(words, RUNS)
