"""Judgment rows to battles, by the rules of both versions; battle files in and out."""

from __future__ import annotations

import json

import pytest

from eva_hpc.benchmarks.arena_hard.battles import Battle, battle_rows, battles_from, find_baseline, games_in, read_battles
from eva_hpc.benchmarks.arena_hard.judgments import judgments_from, version_of
from eva_hpc.config.errors import ConfigError
from tests.benchmarks.arena_hard.made_up import v01_row, v2_row, write


def winners(rows, version):
    return [(battle.winner, battle.weight) for battle in battles_from(judgments_from(rows), version, "base")]


def test_the_baseline_is_a_in_the_first_game_and_b_in_the_second():
    assert winners([v01_row("q", ["A>>B", "A>B"])], "v0.1") == [("model_a", 3), ("model_b", 1)]
    assert winners([v2_row("q", ["B<<A", "B=A"])], "v2.0") == [("model_a", 3), ("tie", 1)]


def test_v01_keeps_the_other_game_of_a_row_and_v2_leaves_the_row_out():
    rows = [["A>B", None], [None, None], ["A>B", "B>A"]]
    assert winners([v01_row("q", scores) for scores in rows], "v0.1") == [("model_a", 1)] * 3
    assert winners([v2_row("q", scores) for scores in rows], "v2.0") == [("model_a", 1)] * 2
    assert winners([v2_row("q", ["A>B", "lost"])], "v2.0") == []


def test_labels_that_only_v2_knows_count_nothing_in_v01():
    assert winners([v01_row("q", ["A<B", "A>B"])], "v0.1") == [("model_b", 1)]
    assert judgments_from([v01_row("q", ["A<B", "A>B"])])[0].problems("v0.1") == ["unknown label", None]


@pytest.mark.parametrize(
    ("game", "problem"),
    [
        ({"judgment": "\n[[A>B]] [[B>A]]", "score": None}, "several verdicts"),
        ({"judgment": "\nwell", "score": None}, "no verdict"),
        ({"judgment": "\n$ERROR$\n$ERROR$", "score": None}, "judge failed"),
        (None, "judge failed"),
        ({"judgment": "", "score": None, "status": "failed"}, "judge failed"),
        ({"judgment": "", "score": None, "status": "no_answer"}, "no answer"),
    ],
)
def test_why_a_game_counts_nothing_is_told(game, problem):
    row = {"question_id": "q", "model": "m", "games": [game, {"judgment": "[[A=B]]", "score": "A=B"}]}
    assert judgments_from([row])[0].problems("v0.1") == [problem, None]
    assert judgments_from([{**row, "games": [game]}])[0].problems("v0.1") == [problem, "no game"]


def test_the_version_is_told_from_layout_and_category():
    assert version_of(judgments_from([v01_row("q", ["A=B", "A=B"])])) == "v0.1"
    assert version_of(judgments_from([v2_row("q", ["A=B", "A=B"])])) == "v2.0"
    assert version_of(judgments_from([v2_row("q", ["A=B", "A=B"], category="arena-hard-v0.1")])) == "v0.1"
    with pytest.raises(ConfigError, match="mixed"):
        version_of(judgments_from([v01_row("q", ["A=B", "A=B"]), v2_row("q", ["A=B", "A=B"])]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question_id": "q"}, "f.jsonl: row 2: has no model, games"),
        ({"question_id": "q", "model": "m", "games": {}}, "games: found dict; must be a list of the two games"),
        ({"question_id": "q", "model": "m", "games": [{}, {}, {}]}, "games: found 3 games"),
        ({"question_id": "q", "model": "m", "games": ["A>B"]}, "game 1: must be null or an object with score"),
        ({"question_id": "q", "model": "m", "games": [{"score": 5}]}, "score: found 5; must be a label such as A>B"),
        ({"question_id": "q", "model": "m", "games": [{"score": "A>B", "judgment": 1}]}, "judgment: found int"),
        ({"question_id": "q", "model": "m", "games": [], "repeat": "x"}, "repeat: found x"),
    ],
)
def test_a_malformed_row_is_one_line_with_file_and_row(row, message):
    with pytest.raises(ConfigError) as caught:
        judgments_from([v01_row("p", ["A>B", "A>B"]), row], "f.jsonl")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_battle_rows_are_those_of_the_official_file_and_are_read_back(tmp_path):
    battles = battles_from(judgments_from([v01_row("q", ["A>>B", "A=B"])]), "v0.1", "base")
    rows = battle_rows(battles)

    assert rows == [{"question_id": "q", "model_a": "base", "model_b": "m", "winner": "model_a"}] * 3 + [
        {"question_id": "q", "model_a": "base", "model_b": "m", "winner": "tie"}
    ]
    assert battle_rows(read_battles(write(tmp_path / "b.jsonl", rows))) == rows


def test_an_unknown_winner_is_refused(tmp_path):
    file = write(tmp_path / "b.jsonl", [{"question_id": 1, "model_a": "x", "model_b": "y", "winner": "model_c"}])
    with pytest.raises(ConfigError, match="row 1: winner: found model_c; must be one of model_a, model_b, tie"):
        read_battles(file)


def test_the_baseline_is_told_where_it_can_be():
    pairs = [Battle("q", "x", "y", "tie"), Battle("q", "x", "z", "tie")]
    assert find_baseline(pairs, None, "gpt-4-0314") == "x"
    assert find_baseline(pairs, "y", "gpt-4-0314") == "y"
    assert find_baseline([*pairs, Battle("q", "y", "gpt-4-0314", "tie")], None, "gpt-4-0314") == "gpt-4-0314"
    with pytest.raises(ConfigError, match="give --baseline, one of x, y, z"):
        find_baseline([*pairs, Battle("q", "y", "z", "tie")], None, "gpt-4-0314")
    with pytest.raises(ConfigError, match="--baseline: found w, which is in no battle; must be one of x, y, z"):
        find_baseline(pairs, "w", "gpt-4-0314")


def test_the_number_of_rows_tells_the_games_that_they_come_from(shared_data):
    assert [games_in(rows) for rows in (1, 2, 3, 4, 5, 6, 7)] == [1, 2, 1, 2, None, 2, None]
    lines = (shared_data / "arena_hard" / "battles_gpt-3.5-turbo-0125.jsonl").read_text().splitlines()
    rows = {}
    for line in lines:
        question = json.loads(line)["question_id"]
        rows[question] = rows.get(question, 0) + 1
    assert {games_in(count) for count in rows.values()} == {2}


def test_a_model_against_itself_is_refused(tmp_path):
    rows = [{"question_id": "q", "model_a": "m", "model_b": "m", "winner": "tie"}]
    with pytest.raises(ConfigError, match="row 1: found m against itself"):
        read_battles(write(tmp_path / "b.jsonl", rows))
