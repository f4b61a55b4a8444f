"""MT-Bench's questions, references and answers in FastChat's files."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eva_hpc.benchmarks.files import read_rows
from eva_hpc.benchmarks.mt_bench.questions import (
    NEED_REFERENCE,
    WRONG_REFERENCES,
    answer_rows,
    read_answers,
    read_questions,
    read_references,
    reference_warning,
)
from eva_hpc.config.benchmark import MT_BENCH_TEMPERATURES
from eva_hpc.config.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    """Writes JSON lines and gives their path."""

    def write(*rows, name="file.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def question(name, category="writing", turns=("one", "two"), **more):
    return {"question_id": name, "category": category, "turns": list(turns), **more}


def answer(name, *turns, model="m"):
    return {
        "question_id": name,
        "answer_id": "x",
        "model_id": model,
        "choices": [{"index": 0, "turns": list(turns)}],
        "tstamp": 1.0,
    }


def test_the_official_files_are_read(shared_data):
    references = read_references(shared_data / "mt_bench/reference_answer_gpt-4.jsonl")
    questions = read_questions(shared_data / "mt_bench/question.jsonl", references)
    assert [question["id"] for question in questions] == [str(number) for number in range(81, 161)]
    assert list(dict.fromkeys(question["category"] for question in questions)) == list(MT_BENCH_TEMPERATURES)
    assert {len(question["turns"]) for question in questions} == {2}
    shown = {question["id"] for question in questions if question["reference"]}
    assert shown == {question["id"] for question in questions if question["category"] in NEED_REFERENCE}
    assert shown == set(references.turns) == {str(number) for number in range(101, 131)}
    assert references.model == "gpt-4"
    assert references.sha256 == "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f"
    assert set(WRONG_REFERENCES) < shown


def test_official_answers_are_read_and_written_back(shared_data, write):
    path = shared_data / "mt_bench/reference_answer_gpt-4.jsonl"
    rows = answer_rows(read_answers(path))
    for ours, official in zip(rows, read_rows(path), strict=True):
        same = ("question_id", "model_id", "choices")
        assert [ours[key] for key in same] == [official[key] for key in same]
    assert read_answers(write(*rows)) == read_answers(path)


def test_a_reference_within_a_question_is_not_used(write):
    path = write(question(1, "math", reference=["4", "5"]), question("own-2", "haiku", ["one"]))
    math, haiku = read_questions(path)
    assert math["reference"] is None
    assert (haiku["id"], haiku["category"], haiku["turns"]) == ("own-2", "haiku", ["one"])


def test_a_missing_reference_answer_is_told(write):
    questions = write(question(1, "math"), question(2, "coding"), question(3, "math", ["one"]), question(4, "stem"), name="q")
    references = read_references(write(answer(1, "a", "b"), answer(2, "only the first"), name="r"))
    with pytest.raises(
        ConfigError, match="no reference answer for question 2, 3; must have one for each turn in the categories c"
    ):
        read_questions(questions, references)


def test_only_the_first_choice_is_an_answer_and_the_last_row_counts(write):
    first = answer(81, "old")
    second = {**answer(81, "new", None), "choices": [{"index": 0, "turns": ["new", None]}, {"index": 1, "turns": ["other"]}]}
    other = answer(81, "$ERROR$", "b", model="n")
    assert read_answers(write(first, second, other)) == [
        {"question_id": "81", "model": "m", "turns": ["new", None]},
        {"question_id": "81", "model": "n", "turns": [None, "b"]},
    ]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.one_of(st.integers(0, 200).map(str), st.sampled_from(["007", "a", "٣"])), st.lists(st.none() | st.text())
    )
)
def test_answers_written_are_read_back_and_the_same_answers_give_the_same_rows(write, turns):
    answers = [{"question_id": name, "model": "m", "turns": texts} for name, texts in turns.items()]
    rows = answer_rows(answers)
    assert rows == answer_rows(answers)
    assert len({row["answer_id"] for row in rows}) == len(rows)
    if rows:
        assert read_answers(write(*rows)) == [
            {**one, "turns": [None if text == "$ERROR$" else text for text in one["turns"]]} for one in answers
        ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([question(1), question(1)], "row 2: question_id 1 stands in row 1 too"),
        ([question(1), question("1")], "row 2: question_id 1 stands in row 1 too"),
        ([question(None)], "row 1: question_id: found None"),
        ([question(1, turns=[])], "row 1: turns: must be a list of one or two texts"),
        ([question(1, turns=["a", "b", "c"])], "row 1: turns"),
        ([question(1, turns=["a", ""])], "row 1: turns"),
        ([{**question(1), "turns": "text"}], "row 1: turns"),
        ([{"question_id": 1, "turns": ["a"]}], ":1: has no category"),
    ],
)
def test_a_malformed_question_is_told_with_its_row(write, rows, message):
    with pytest.raises(ConfigError, match=message):
        read_questions(write(*rows))


@pytest.mark.parametrize("choices", [None, [], ["a"], [{}], [{"turns": "a"}], [{"turns": [1]}], {"turns": ["a"]}], ids=str)
def test_a_malformed_answer_is_told_with_its_row(write, choices):
    with pytest.raises(ConfigError, match="row 2: choices: must be like"):
        read_answers(write(answer(1, "a"), {**answer(2, "a"), "choices": choices}))


def test_references_of_several_models_or_with_empty_turns_are_a_mistake(write):
    with pytest.raises(ConfigError, match="found answers of m, n; reference answers must be of one model"):
        read_references(write(answer(1, "a"), answer(2, "b", model="n")))
    with pytest.raises(ConfigError, match="the reference answer to question 1, 2 has an empty turn"):
        read_references(write(answer(1, None, "a"), answer(2, ""), answer(3, "b")))


def test_wrong_references_are_told_only_for_gpt4s_own():
    assert len(WRONG_REFERENCES) == 13
    assert "those to questions 104, 130 are known to be wrong" in reference_warning(["130", "131", "104"], "gpt-4")
    assert reference_warning(["103", "131"], "gpt-4") is None
    assert reference_warning(["104"], "gpt-4-turbo") is None
    assert reference_warning(["104"], None) is None
