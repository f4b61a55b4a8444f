from __future__ import annotations

import math

import pytest

from eva_hpc.method.recheck import still_informative

BASE = {"x": 0.0, "y": 0.2, "z": 0.6}


@pytest.mark.parametrize(
    ("quantile", "kept"),
    [(0.0, ["d", "a", "b"]), (0.25, ["d", "a", "b"]), (0.5, ["d", "a"]), (0.75, ["d"]), (1.0, [])],
)
def test_a_child_is_kept_if_it_reaches_the_quantile_of_the_base_prompts(quantile, kept):
    children = {"d": 0.4, "a": 0.2, "b": 0.1, "c": -0.1}  # thresholds 0, 0.1, 0.2, 0.4, 0.6

    assert still_informative(children, BASE, quantile) == (kept, [name for name in children if name not in kept])


def test_children_as_informative_as_equally_informative_base_prompts_are_kept():
    base = {f"p{i}": 0.1 for i in range(7)}

    assert still_informative({"a": 0.1, "b": 0.09}, base, 0.37) == (["a"], ["b"])


def test_no_children_are_kept_and_none_dropped():
    assert still_informative({}, BASE, 0.5) == ([], [])


@pytest.mark.parametrize(
    ("children", "base", "quantile", "message"),
    [
        ({}, {}, 0.5, "no base prompts"),
        ({}, BASE, 1.5, "the quantile is 1.5"),
        ({}, BASE, math.nan, "the quantile is nan"),
        ({"a": math.nan}, BASE, 0.5, "prompt a: its informativeness is nan"),
        ({"a": 1.0}, {"x": math.inf}, 0.5, "prompt x: its informativeness is inf"),
    ],
)
def test_impossible_input_is_refused(children, base, quantile, message):
    with pytest.raises(ValueError, match=message):
        still_informative(children, base, quantile)
