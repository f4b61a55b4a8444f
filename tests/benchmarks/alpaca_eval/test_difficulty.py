"""Which difficulty belongs to which row."""

from __future__ import annotations

import numpy as np
import pytest

from eva_hpc.benchmarks.alpaca_eval.difficulty import official_order, positions, read_difficulty
from eva_hpc.benchmarks.alpaca_eval.questions import read_outputs
from eva_hpc.config.errors import ConfigError


def test_the_official_order_is_that_of_the_evaluation_set(shared_data):
    questions = list(read_outputs(shared_data / "alpaca_eval/models/gpt4_1106_preview/model_outputs.json.gz"))

    assert len(official_order()) == 805
    assert positions(questions, 805, "instruction") == list(range(805))
    assert positions(questions[::-1], 805, "instruction") == list(range(805))[::-1]


def test_both_official_files_give_the_same_difficulties(shared_data):
    folder = shared_data / "alpaca_eval/reference"

    own, repeated = (
        read_difficulty(folder / name) for name in ("instruction_difficulty_recovered.csv", "df_gamed_reconstructed.csv")
    )

    assert own == pytest.approx(repeated, abs=1e-9)


def test_own_questions_are_known_by_their_file():
    assert positions(["b", "x", "a"], 2, "instruction", ["a", "b"]) == [1, None, 0]
    assert positions(["b"], 2, "instruction") == [None]
    assert positions(["b"], 3, "instruction", ["a", "b"]) == [None]  # which of the three it is cannot be known


def test_by_position_rows_are_numbered():
    assert positions(["x", "y"], 3, "position") == [0, 1]
    with pytest.raises(ConfigError, match="3 rows, but 2 difficulties"):
        positions(["x", "y", "z"], 2, "position")


def read(tmp_path, text):
    """Difficulties of a file with this text."""
    file = tmp_path / "difficulty.csv"
    file.write_text(text)
    return read_difficulty(file)


@pytest.mark.parametrize("heading", ["index", ""])
def test_order_is_that_of_the_index(tmp_path, heading):
    assert np.array_equal(read(tmp_path, f"{heading},instruction_difficulty\n1,0.5\n0,-2\n"), [-2, 0.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,difficulty\n0,1\n", "1: has no column instruction_difficulty"),
        ("index,instruction_difficulty\n0,1\n2,1\n", "no difficulty for position 1; must have all from 0 to 2"),
        ("index,instruction_difficulty\n0,1\n0,2\n", "3: position 0 has two difficulties: 1.0 and 2.0"),
        ("index,instruction_difficulty\n0,hard\n", "2: found '0' and 'hard'"),
        ("index,instruction_difficulty\n0,nan\n", "2: found nan"),
        ("index,instruction_difficulty\nx,1\n", "2: found 'x' and '1'"),
    ],
)
def test_mistakes(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)
