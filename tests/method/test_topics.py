from __future__ import annotations

import random

import pytest

from eva_hpc.method.topics import topics_of

CODE = [
    "Sort a list in Python",
    "Write a Python function that sorts a list",
    "Reverse a Python list",
    "Python list of functions",
]
RAIN = [
    "A poem on rain and clouds",
    "Why does rain fall from clouds?",
    "Clouds before rain: a poem",
    "A song on rain and clouds",
]
PROMPTS = {f"p{i}": text for i, text in enumerate(CODE + RAIN)}


def test_prompts_with_the_same_words_share_a_topic():
    topics = topics_of(PROMPTS, 2, seed=1)

    assert [topics[f"p{i}"] for i in range(8)] in ([0] * 4 + [1] * 4, [1] * 4 + [0] * 4)


@pytest.mark.parametrize("seed", [0, 1])
def test_topics_depend_on_the_seed_and_not_on_the_order_of_prompts(seed):
    names = list(PROMPTS)
    random.Random(seed).shuffle(names)

    topics = topics_of(PROMPTS, 3, seed)

    assert topics_of({name: PROMPTS[name] for name in names}, 3, seed) == topics
    assert list(topics) == list(PROMPTS)


def test_ids_and_repetitions_of_a_text_change_no_topic():
    topics = topics_of(PROMPTS, 2, seed=1)

    more = topics_of({**PROMPTS, "q": CODE[0], "r": CODE[0].upper() + "!"}, 2, seed=1)

    assert more == {**topics, "q": topics["p0"], "r": topics["p0"]}


def test_fewer_texts_than_topics_have_a_topic_each():
    topics = topics_of({"a": "rain", "b": "snow", "c": "rain"}, 5, seed=0)

    assert topics["a"] == topics["c"] != topics["b"]
    assert set(topics.values()) == {0, 1}


def test_one_topic_holds_all():
    assert topics_of(PROMPTS, 1, seed=0) == dict.fromkeys(PROMPTS, 0)


@pytest.mark.parametrize("texts", [["", "?!", " \n"], ["the", "Who are you?", ""]])
def test_texts_without_words_of_their_own_share_a_topic(texts):
    prompts = dict(zip("abc", texts, strict=True))

    assert topics_of(prompts, 2, seed=0) == dict.fromkeys(prompts, 0)
    mixed = topics_of({**PROMPTS, **prompts}, 3, seed=0)
    assert len({mixed[name] for name in prompts}) == 1


def test_no_prompts_have_no_topics():
    assert topics_of({}, 3, seed=0) == {}


def test_topics_in_another_script_are_told_apart():
    topics = topics_of({"a": "дождь и облака", "b": "облака и дождь", "c": "сортировка списка"}, 2, seed=0)

    assert topics["a"] == topics["b"] != topics["c"]


def test_there_is_at_least_one_topic():
    with pytest.raises(ValueError, match="number of topics is 0"):
        topics_of(PROMPTS, 0, seed=0)
