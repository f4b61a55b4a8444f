"""Questions and answers in both official layouts."""

from __future__ import annotations

import pytest

from eva_hpc.benchmarks.arena_hard.questions import answer_rows, read_answers, read_questions
from eva_hpc.benchmarks.judging.protocol import ModelAnswer
from eva_hpc.config.errors import ConfigError
from tests.benchmarks.arena_hard.made_up import write

V01 = {"question_id": "1", "category": "arena-hard-v0.1", "cluster": "c", "turns": [{"content": "Why?"}]}
V2 = {"uid": "2", "category": "creative_writing", "prompt": "Write."}


def answered(question, model, text):
    said = [{"role": "user", "content": "…"}, {"role": "assistant", "content": {"answer": text}}]
    return {"uid": question, "model": model, "messages": said}


def test_both_layouts_of_questions_are_read(tmp_path):
    one, two = read_questions(write(tmp_path / "q.jsonl", [V01, V2]))
    assert (one["id"], one["category"], one["turns"]) == ("1", "arena-hard-v0.1", ["Why?"])
    assert (two["id"], two["category"], two["turns"]) == ("2", "creative_writing", ["Write."])
    assert one["baseline"] is None


def test_each_category_has_its_official_baseline(tmp_path):
    questions = write(tmp_path / "q.jsonl", [V01, V2])
    old = {"question_id": "1", "model_id": "gpt-4-0314", "choices": [{"turns": [{"content": "So."}]}]}
    new = answered("2", "gemini-2.0-flash-001", "Rose.")
    one, two = read_questions(questions, [write(tmp_path / "a.jsonl", [old]), write(tmp_path / "b.jsonl", [new])])
    assert (one["baseline_model"], one["baseline"]) == ("gpt-4-0314", ["So."])
    assert (two["baseline_model"], two["baseline"]) == ("gemini-2.0-flash-001", ["Rose."])
    with pytest.raises(ConfigError, match=r"no answer file has answers of gemini-2.0-flash-001; found gpt-4-0314"):
        read_questions(questions, [tmp_path / "a.jsonl"])


def test_another_baseline_is_taken_where_it_is_the_only_one_or_asked_for(tmp_path):
    questions = write(tmp_path / "q.jsonl", [V01])
    own, other = (write(tmp_path / f"{name}.jsonl", [answered("1", name, name)]) for name in ("own", "other"))
    assert read_questions(questions, [own])[0]["baseline_model"] == "own"
    assert read_questions(questions, [own, other], "other")[0]["baseline"] == ["other"]
    with pytest.raises(ConfigError, match="answers of gpt-4-0314; found own, other"):
        read_questions(questions, [own, other])
    with pytest.raises(ConfigError, match="the baseline own has no answer to question 1"):
        read_questions(questions, [write(tmp_path / "x.jsonl", [answered("9", "own", "")])])


def test_the_official_files_are_read(shared_data):
    folder = shared_data / "arena_hard"
    questions = read_questions(folder / "question_v0.1.jsonl.gz", [folder / "answers" / "gpt-4-0314.jsonl.gz"])
    assert len(questions) == 500
    assert {question["baseline_model"] for question in questions} == {"gpt-4-0314"}
    newer = read_questions(folder / "question_v2.0.jsonl.gz")
    assert [sum(q["category"] == name for q in newer) for name in ("hard_prompt", "creative_writing")] == [500, 250]


def test_answers_are_written_as_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    questions = read_questions(write(tmp_path / "q.jsonl", [V01, V2]))
    answers = [ModelAnswer(question_id="1", model="m", turns=["So."]), ModelAnswer(question_id="2", model="m", turns=[None])]
    found = answer_rows(answers, questions)

    assert [sorted(row) for row in found] == [["ans_id", "messages", "model", "uid"]]
    assert found[0]["messages"][0] == {"role": "user", "content": "Why?"}
    assert read_answers(write(tmp_path / "a.jsonl", found)) == answers[:1]


def test_answers_have_their_style_where_tokens_can_be_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("eva_hpc.benchmarks.arena_hard.questions.has_encoding", lambda version: True)
    monkeypatch.setattr("eva_hpc.benchmarks.arena_hard.questions.token_count", lambda text, version: len(text.split()))
    questions = read_questions(write(tmp_path / "q.jsonl", [V2]))
    (row,) = answer_rows([ModelAnswer(question_id="2", model="m", turns=["**Red** rose"])], questions)
    assert row["metadata"]["token_len"] == 2
    assert row["metadata"]["bold_count"] == {"**": 1, "__": 0}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"uid": "1"}, "row 1: must have uid and prompt, or question_id and turns"),
        ({"question_id": "1", "turns": []}, "row 1: turns: must be one text"),
        ({"question_id": "1", "turns": [{"content": "a"}, {"content": "b"}]}, "row 1: turns: must be one text"),
    ],
)
def test_malformed_questions_are_one_line(tmp_path, row, message):
    with pytest.raises(ConfigError, match=message):
        read_questions(write(tmp_path / "q.jsonl", [row]))
    with pytest.raises(ConfigError, match="question 2 stands twice"):
        read_questions(write(tmp_path / "q.jsonl", [V2, V2]))


@pytest.mark.parametrize(
    "row",
    [
        {"uid": "1", "model": "m"},
        {"uid": "1", "model": "m", "messages": []},
        {"uid": "1", "model": "m", "messages": [{"role": "assistant", "content": 5}]},
        {"question_id": "1", "model_id": "m", "choices": []},
        {"question_id": "1", "model_id": "m", "choices": 5},
    ],
)
def test_malformed_answers_are_one_line(tmp_path, row):
    with pytest.raises(ConfigError, match="row 1: ") as caught:
        read_answers(write(tmp_path / "a.jsonl", [row]))
    assert "\n" not in str(caught.value)
