"""The official files of questions and outputs."""

from __future__ import annotations

import gzip

import orjson
import pytest

from eva_hpc.benchmarks.alpaca_eval.questions import answer_rows, read_answers, read_outputs, read_questions
from eva_hpc.config.errors import ConfigError
from eva_hpc.store.seeds import content_id

ROWS = [
    {"dataset": "made up", "instruction": "Name a tree.", "output": "An oak.", "generator": "baseline"},
    {"dataset": "made up", "instruction": "Name a fish. 🐟", "output": "", "generator": "baseline"},
]


def write(path, rows):
    path.write_bytes(orjson.dumps(rows))
    return path


def test_questions_carry_the_baselines_answers(tmp_path):
    found = read_questions(write(tmp_path / "set.json", ROWS))

    assert found[0] == {
        "id": content_id("Name a tree."),
        "category": "made up",
        "turns": ["Name a tree."],
        "baseline": ["An oak."],
        "baseline_model": "baseline",
        "reference": None,
    }
    assert found[1]["baseline"] == [""]


def test_answers_written_are_read_back(tmp_path):
    questions = read_questions(write(tmp_path / "set.json", ROWS))
    answers = [
        {"question_id": questions[1]["id"], "model": "policy", "turns": ["Ein Hecht – ja."]},
        {"question_id": questions[0]["id"], "model": "policy", "turns": [""]},
    ]

    rows = answer_rows(answers, questions)

    assert [row["instruction"] for row in rows] == ["Name a tree.", "Name a fish. 🐟"]
    assert set(rows[0]) == {"dataset", "instruction", "output", "generator"}
    assert read_answers(write(tmp_path / "outputs.json", rows)) == answers[::-1]


def test_an_answer_not_given_has_no_row(tmp_path):
    questions = read_questions(write(tmp_path / "set.json", ROWS))

    assert answer_rows([{"question_id": questions[0]["id"], "model": "policy", "turns": [None]}], questions) == []


def test_a_null_output_is_read_as_no_answer(tmp_path):
    file = write(tmp_path / "outputs.json", [ROWS[0] | {"output": None}])

    assert read_answers(file)[0]["turns"] == [None]
    assert read_outputs(file) == {"Name a tree.": None}


def test_an_answer_to_another_question_is_a_mistake(tmp_path):
    with pytest.raises(ConfigError, match="not among the 2 questions"):
        answer_rows(
            [{"question_id": "0" * 16, "model": "policy", "turns": ["x"]}], read_questions(write(tmp_path / "set.json", ROWS))
        )


def test_gzip_and_lines(tmp_path):
    file = tmp_path / "set.jsonl.gz"
    file.write_bytes(gzip.compress(b"\n".join(orjson.dumps(row) for row in ROWS)))

    assert len(read_questions(file)) == 2


def test_all_official_files_can_be_read(shared_data):
    folder = shared_data / "alpaca_eval/models"

    questions = read_questions(folder / "gpt4_1106_preview/model_outputs.json.gz")
    rows = answer_rows(read_answers(folder / "alpaca-7b/model_outputs.json.gz"), questions)

    assert len(questions) == len(rows) == 805
    assert {question["baseline_model"] for question in questions} == {"gpt4_1106_preview"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROWS[0], ROWS[0]], "row 2: the instruction of row 1 again"),
        ([ROWS[0] | {"instruction": None}], "row 1: instruction must be text"),
        ([{"instruction": "x"}], "has no output"),
        ([ROWS[0] | {"output": None}], "row 1: the baseline's output is null"),
    ],
)
def test_mistakes(tmp_path, rows, message):
    with pytest.raises(ConfigError, match=message):
        read_questions(write(tmp_path / "set.json", rows))
