"""Numbers from rewards, checked by hand."""

from __future__ import annotations

import pytest

from eva_hpc.benchmarks.rewards import summarise


def question(name, category="easy", turns=1):
    return {"id": name, "category": category, "turns": ["?"] * turns}


def judged(name, *samples, greedy=None, category="easy"):
    """Judgments of a question: one list of turns per sample; a plain number is a sample of one turn."""
    turns = [list(sample) if isinstance(sample, tuple) else [sample] for sample in samples]
    return {"question_id": name, "category": category, "greedy": None if greedy is None else [greedy], "samples": turns}


def values(*arguments):
    return {metric["metric"]: metric["value"] for metric in summarise(*arguments)}


def test_win_rate_counts_samples_and_ties_count_half():
    ours = [judged("a", 0.9, 0.1), judged("b", 0.5, 0.5)]
    theirs = [judged("a", 0.2, 0.3), judged("b", 0.5, 0.4)]
    assert values([question("a"), question("b")], ours, theirs)["win_rate"] == 100 * ((1 + 0) / 2 + (0.5 + 1) / 2) / 2


def test_a_policy_against_itself_wins_half_and_gains_nothing():
    ours = [judged("a", 0.9, 0.1), judged("b", 0.5, 0.7)]
    found = values([question("a"), question("b")], ours, ours)
    assert (found["win_rate"], found["gain"]) == (50, 0)


def test_reward_is_the_mean_over_questions_of_the_mean_over_samples():
    ours = [judged("a", 1.0, 0.0), judged("b", 0.25, 0.25)]
    theirs = [judged("a", 0.5, 0.5), judged("b", 0.0, 0.0)]
    found = values([question("a"), question("b")], ours, theirs, 100.0)
    assert found["reward"] == pytest.approx(37.5)
    assert found["gain"] == pytest.approx(12.5)


def test_the_reward_of_a_dialogue_is_the_mean_over_its_turns():
    ours = [judged("a", (1.0, 0.0), (1.0, 0.5))]
    theirs = [judged("a", (0.5, 0.5), (0.0, 1.0))]
    found = values([question("a", turns=2)], ours, theirs)
    assert found["win_rate"] == 75
    assert found["reward"] == pytest.approx(0.625)
    assert (found["turn_1"], found["turn_2"]) == (1.0, 0.25)


def test_turns_are_those_of_dialogues_only():
    metrics = summarise(
        [question("a"), question("b", "dialogue", 2)],
        [judged("a", 0.2), judged("b", (0.8, 0.4))],
        [judged("a", 0.2), judged("b", (0.8, 0.4))],
        100.0,
    )
    found = {metric["metric"]: (metric["value"], metric["n"]) for metric in metrics}
    assert found["turn_1"] == (pytest.approx(80), 1)
    assert found["turn_2"] == (pytest.approx(40), 1)
    assert "turn_1" not in values([question("a")], [judged("a", 0.2)], [judged("a", 0.2)])


def test_categories_are_those_of_the_questions_and_one_alone_is_no_category():
    asked = [question("a", "easy"), question("b", "hard"), question("c", "hard")]
    ours = [judged("a", 1.0), judged("b", 0.4), judged("c", 0.2)]
    found = values(asked, ours, ours)
    assert (found["reward_easy"], found["reward_hard"]) == (1.0, pytest.approx(0.3))
    assert not [name for name in values(asked[1:], ours, ours) if name.startswith("reward_")]


def test_greedy_answers_have_a_number_of_their_own():
    asked = [question("a"), question("b")]
    ours = [judged("a", 0.0, greedy=0.4), judged("b", 0.0, greedy=0.8)]
    assert values(asked, ours, ours, 100.0)["greedy"] == pytest.approx(60)
    assert "greedy" not in values(asked, [judged("a", 0.0), judged("b", 0.0)], ours)


def test_coverage_is_the_share_of_questions_judged_for_both():
    asked = [question(name) for name in "abcd"]
    ours = [judged(name, 1.0) for name in "abc"]
    theirs = [judged(name, 0.0) for name in "bcd"]
    for metric in summarise(asked, ours, theirs):
        assert (metric["coverage"], metric["n"]) == (0.5, 2)


def test_judgments_in_another_order_give_the_same_numbers():
    asked = [question("a"), question("b", "hard")]
    ours, theirs = [judged("a", 1.0), judged("b", 0.0)], [judged("b", 0.5), judged("a", 0.5)]
    assert values(asked, ours, theirs) == values(asked, ours[::-1], theirs[::-1])


def test_nothing_judged_is_an_error():
    with pytest.raises(ValueError, match="no question has been judged for both"):
        summarise([question("a")], [judged("a", 1.0)], [])


def test_unequal_numbers_of_samples_are_an_error():
    with pytest.raises(ValueError, match="zip"):
        summarise([question("a")], [judged("a", 1.0, 0.5)], [judged("a", 1.0)])
