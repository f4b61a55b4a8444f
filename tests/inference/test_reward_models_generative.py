"""Generative scorers: the request shows the whole conversation, and only a rating from 1 to 10 between tags counts."""

from __future__ import annotations

import pytest

from eva_hpc.inference.reward_models.generative import mean_rating, rating, request


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Clear and right. <rating>8</rating>", 8.0),
        ("<Rating> 7.5 / 10 </Rating>", 7.5),
        ("At first <rating>3</rating>, but then <rating>9</rating>.", 9.0),
        ("<rating>1</rating>", 1.0),
        ("<rating>10</rating>", 10.0),
        ("<rating>0</rating>", None),
        ("<rating>11</rating>", None),
        ("<rating>-3</rating>", None),
        ("<rating>eight</rating>", None),
        ("8/10", None),
        ("", None),
    ],
)
def test_a_rating_is_read_from_the_last_tags(text: str, value: float | None) -> None:
    assert rating(text) == value


def test_the_mean_is_over_the_answers_that_have_a_rating() -> None:
    assert mean_rating(["<rating>4</rating>", "no idea", "<rating>7</rating>"]) == 5.5
    assert mean_rating(["no idea"]) is None
    assert mean_rating([]) is None


def test_the_request_holds_every_turn_in_order_whatever_is_in_them() -> None:
    turns = [("user", "Sum {a} and b"), ("assistant", "{conversation}"), ("user", "Again"), ("assistant", "Fine.")]

    (message,) = request([{"role": role, "content": text} for role, text in turns])

    assert message["role"] == "user"
    places = [message["content"].index(f"<{role}>\n{text}\n</{role}>") for role, text in turns]
    assert places == sorted(places)
    assert rating(message["content"]) is None
