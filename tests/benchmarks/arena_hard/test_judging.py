"""What the judge of Arena-Hard is asked, and the rows that its replies become."""

from __future__ import annotations

import os

import pytest

from eva_hpc.benchmarks.arena_hard.judge_prompts import read_v01, read_v2
from eva_hpc.benchmarks.arena_hard.judging import FOLLOW_UP, ArenaHard
from eva_hpc.benchmarks.arena_hard.judgments import judgments_from
from eva_hpc.benchmarks.arena_hard.score import score_judgments
from eva_hpc.benchmarks.judging.protocol import JudgedBenchmark, JudgedQuestion, ModelAnswer, Reply
from eva_hpc.config.errors import ConfigError
from tests.benchmarks.arena_hard.made_up import SYSTEM, V01_CONFIG, V2_CONFIG, V2_SETTINGS

ANSWER = ModelAnswer(question_id="q", model="m", turns=["mine {x}"])


def question(category="arena-hard-v0.1", baseline=("theirs",)):
    named = None if baseline is None else list(baseline)
    return JudgedQuestion(id="q", category=category, turns=["why?"], baseline=named, baseline_model="base", reference=None)


@pytest.fixture
def v01(tmp_path):
    """The judge's side of v0.1."""
    (tmp_path / "judge.yaml").write_text(V01_CONFIG)
    return ArenaHard(read_v01(tmp_path / "judge.yaml"))


@pytest.fixture
def v2(tmp_path):
    """The judge's side of v2.0."""
    (tmp_path / "v2.yaml").write_text(V2_CONFIG)
    (tmp_path / "judge_utils.py").write_text(V2_SETTINGS)
    return ArenaHard(read_v2(tmp_path / "v2.yaml", tmp_path / "judge_utils.py"))


def test_v01_plays_two_games_with_the_answers_swapped(v01):
    one, two = v01.asks(question(), ANSWER)
    assert [ask.name for ask in (one, two)] == ["game 1", "game 2"]
    assert one.messages[0] == {"role": "system", "content": SYSTEM}
    assert one.messages[1]["content"] == "Prompt: why?\nA: theirs\nB: mine {x}"
    assert two.messages[1]["content"] == "Prompt: why?\nA: mine {x}\nB: theirs"
    assert one.parameters == {"temperature": 0, "max_tokens": 4096}


def test_v2_has_instructions_by_category_and_runs_none_of_the_official_code(v2):
    assert v2.asks(question("hard_prompt"), ANSWER)[0].messages[0]["content"] == "Judge the answers."
    assert v2.asks(question("creative_writing"), ANSWER)[0].messages[0]["content"] == "Judge the writing."
    assert v2.prompts.baselines["creative_writing"] == "gemini-2.0-flash-001"
    assert v2.asks(question("hard_prompt"), ANSWER)[0].parameters == {"temperature": 0.0, "max_tokens": 16000}
    assert "NEVER_EXECUTED" not in os.environ
    with pytest.raises(ConfigError, match="no instructions for category maths; must be one of hard_prompt, creative_writing"):
        v2.asks(question("maths"), ANSWER)


def test_the_parameters_can_be_replaced(v2):
    judge = ArenaHard(v2.prompts, temperature=1.0, max_tokens=32000)
    assert judge.asks(question("hard_prompt"), ANSWER)[0].parameters == {"temperature": 1.0, "max_tokens": 32000}


def test_only_v01_asks_again_once_and_only_where_there_was_no_label(v01, v2):
    (ask, _) = v01.asks(question(), ANSWER)
    again = v01.again(ask, Reply(text="Hmm."))
    assert again.messages[2:] == ({"role": "assistant", "content": "Hmm."}, {"role": "user", "content": FOLLOW_UP})
    assert again.parameters == ask.parameters
    assert v01.again(again, Reply(text="Hmm.")) is None
    assert v01.again(ask, Reply(text="[[A>B]] or [[B>A]]")) is None
    assert v01.again(ask, Reply(failure="stalled")) is None
    assert v2.again(v2.asks(question("hard_prompt"), ANSWER)[0], Reply(text="Hmm.")) is None


@pytest.mark.parametrize("first", ["Hmm.", ""])
def test_a_game_that_was_asked_about_again_says_that_the_request_had_our_wording(v01, first):
    replies = [Reply(text="[[A=B]]", earlier=first), Reply(text="[[A>B]]")]
    (row,) = v01.rows(question(), ANSWER, replies, "j")
    assert [game.get("follow_up") for game in row["games"]] == ["own wording", None]
    assert row["games"][0]["judgment"] == ("\nHmm.\n[[A=B]]" if first else "\n[[A=B]]")
    assert score_judgments(judgments_from([row]))["m"].games == 2


def test_rows_are_in_the_official_layout_of_the_version(v01, v2):
    replies = [Reply(text="[[A>B]]", model="j-1", prompt_tokens=5), Reply(text="[[B>>A]]")]
    (row,) = v01.rows(question(), ANSWER, replies, "j")
    assert {key: row[key] for key in ("question_id", "model", "judge", "baseline", "status", "detail", "repeat")} == {
        "question_id": "q", "model": "m", "judge": "j", "baseline": "base", "status": "judged", "detail": None, "repeat": 0,
    }  # fmt: skip
    assert [game["score"] for game in row["games"]] == ["A>B", "B>>A"]
    assert row["games"][1]["user_prompt"] == "Prompt: why?\nA: mine {x}\nB: theirs"
    assert row["games"][0]["judgment"] == "\n[[A>B]]"
    assert row["replies"][0]["prompt_tokens"] == 5

    (row,) = v2.rows(question("hard_prompt"), ANSWER, replies, "j")
    assert (row["uid"], row["category"], row["games"][0]["judgment"]) == ("q", "hard_prompt", {"answer": "[[A>B]]"})
    assert [message["role"] for message in row["games"][0]["prompt"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("replies", "status", "detail", "problems"),
    [
        ([Reply(text="[[A>B]]"), Reply(failure="HTTP 500")], "failed", "game 2: HTTP 500", [None, "judge failed"]),
        ([Reply(text="?"), Reply(failure="HTTP 500")], "failed", "game 2: HTTP 500", ["no verdict", "judge failed"]),
        ([Reply(text=""), Reply(text="[[A=B]]")], "unparsed", "game 1: the text is empty", ["no verdict", None]),
    ],
)
def test_a_game_without_a_verdict_has_no_score_but_a_status(v01, replies, status, detail, problems):
    (row,) = v01.rows(question(), ANSWER, replies, "j")
    assert (row["status"], row["detail"]) == (status, detail)
    assert judgments_from([row])[0].problems("v0.1") == problems


def test_without_an_answer_nothing_is_asked_and_the_row_says_so(v01, v2):
    for judge, category in ((v01, "arena-hard-v0.1"), (v2, "hard_prompt")):
        silent = ModelAnswer(question_id="q", model="m", turns=[None])
        assert judge.asks(question(category), silent) == []
        (row,) = judge.rows(question(category), silent, [], "j")
        assert (row["status"], [game["score"] for game in row["games"]]) == ("no_answer", [None, None])
        assert score_judgments(judgments_from([row]))["m"].coverage.failed == {"no answer": 2}


def test_a_question_without_a_baseline_cannot_be_judged(v01):
    with pytest.raises(ConfigError, match="question q: has no answer of the baseline"):
        v01.asks(question(baseline=None), ANSWER)


@pytest.mark.parametrize(
    ("reply", "v01_says", "v2_says"),
    [
        (Reply(text="so [[A>B]]"), None, None),
        (Reply(text="[[A>B]] no [[B>A]]"), "several labels: A>B, B>A; ends with …'[[A>B]] no [[B>A]]'", None),
        (Reply(text="[[AB]]"), "unknown label AB; ends with …'[[AB]]'", "unknown label AB; ends with …'[[AB]]'"),
        (Reply(text=" "), "the text is empty", "the text is empty"),
        (Reply(failure="HTTP 401"), "HTTP 401", "HTTP 401"),
        (
            Reply(text="and then", choice={"finish_reason": "length"}),
            "no label such as [[A>B]]; cut off at max_tokens=4096; ends with …'and then'",
            "no label such as [[A>B]]; cut off at max_tokens=16000; ends with …'and then'",
        ),
    ],
)
def test_problems_are_told_in_words(v01, v2, reply, v01_says, v2_says):
    assert v01.problem(reply) == v01_says
    assert v2.problem(reply) == v2_says


def test_it_is_a_judged_benchmark(v01):
    benchmark: JudgedBenchmark = v01
    assert benchmark.problem(Reply(text="[[A=B]]")) is None


def test_the_official_judge_file_is_read(shared_data):
    prompts = read_v01(shared_data / "arena_hard" / "judge" / "judge_config_v0.1.yaml")
    assert (prompts.attempts, prompts.max_tokens, prompts.temperature) == (2, 4096, 0)
    assert prompts.baselines == {"arena-hard-v0.1": "gpt-4-0314"}
    assert all(label in prompts.system_prompt("any") for label in ("[[A>>B]]", "[[A=B]]", "[[B>>A]]"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "is not YAML"),
        ("[1]", "must be the official judge configuration"),
        ("{prompt_template: x}", "prompt_template: found str; must be a list of texts"),
        ("{prompt_template: ['{question_1}'], system_prompt: s}", "must have question_1, answer_1, answer_2"),
        ("{prompt_template: ['{'], system_prompt: s}", "prompt_template: "),
        ("{prompt_template: ['{question_1}{answer_1}{answer_2}']}", "system_prompt: found NoneType; must be a text"),
    ],
)
def test_another_file_than_the_judges_is_one_clear_line(tmp_path, config, message):
    (tmp_path / "judge.yaml").write_text(config)
    with pytest.raises(ConfigError, match=r"judge\.yaml: ") as caught:
        read_v01(tmp_path / "judge.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("x = (", "judge_utils.py:1: is not Python"),
        ("x = 1", "has no constant JUDGE_SETTINGS"),
        ("JUDGE_SETTINGS = make()", "has no constant JUDGE_SETTINGS"),
        ("JUDGE_SETTINGS = {'hard_prompt': {}}", "hard_prompt: must have system_prompt and baseline"),
    ],
)
def test_other_settings_than_the_official_ones_are_one_clear_line(tmp_path, settings, message):
    (tmp_path / "v2.yaml").write_text(V2_CONFIG)
    (tmp_path / "judge_utils.py").write_text(settings)
    with pytest.raises(ConfigError, match=message):
        read_v2(tmp_path / "v2.yaml", tmp_path / "judge_utils.py")
