"""Everything put together: published numbers, coverage, repeats, and what is said about rows that are left out."""

from __future__ import annotations

import csv
import random

import orjson
import pytest

from eva_hpc.benchmarks.alpaca_eval.annotated import read_annotations
from eva_hpc.benchmarks.alpaca_eval.arms import LengthControl, length_controlled_arm
from eva_hpc.benchmarks.alpaca_eval.difficulty import read_difficulty
from eva_hpc.benchmarks.alpaca_eval.length_control import read_gamed
from eva_hpc.benchmarks.alpaca_eval.resampling import length_controlled_difference
from eva_hpc.benchmarks.alpaca_eval.score import NUMBERS, score
from eva_hpc.config.errors import ConfigError
from eva_hpc.store.seeds import content_id
from tests.benchmarks.alpaca_eval.made_up import annotations, difficulties, gamed, questions

pytestmark = pytest.mark.slow  # seconds of arithmetic on real data

MODELS = ["gpt4_1106_preview", "FuseChat-Llama-3.2-1B-Instruct", "claude-2.1", "gpt35_turbo_instruct", "alpaca-7b"]


def made_up_control(**settings):
    """What the fit of made-up rows needs."""
    return LengthControl(
        **{"difficulties": difficulties(), "gamed": gamed(), "questions": questions(), "resamples": 20, **settings}
    )


@pytest.mark.parametrize("model", MODELS)
def test_published_numbers(shared_data, model):
    folder = shared_data / "alpaca_eval"
    with (folder / "official_numbers.csv").open() as file:
        official = next(row for row in csv.DictReader(file) if row["model"] == model)
    control = LengthControl(
        read_difficulty(folder / "reference/instruction_difficulty_recovered.csv"),
        read_gamed(folder / "reference/df_gamed_reconstructed.csv"),
        difficulty_by="position",
        C=float(official["C_identified"] or "nan") if official["C_identified"] else None,
        resamples=0,
    )

    found = score(read_annotations(folder / "models" / model / "annotations.json.gz"), control)

    assert found.refusal is found.lc_refusal is None
    assert found.coverage.expected == 805
    assert found.coverage.judged == int(official["n_total"])
    assert found.numbers["win_rate"] == pytest.approx(float(official["official_win_rate"]), abs=1e-6)
    assert found.numbers["standard_error"] == pytest.approx(float(official["official_standard_error"]), abs=1e-6)
    assert found.numbers["discrete_win_rate"] == pytest.approx(float(official["official_discrete_win_rate"]), abs=1e-6)
    assert found.numbers["lc_win_rate"] == pytest.approx(float(official["official_lc"]), abs=0.0005)
    assert found.facts["n"] == int(official["n_total"])
    assert found.facts["avg_length"] == pytest.approx(int(official["avg_length"]), abs=1)
    assert found.model == model
    assert found.judge == "weighted_alpaca_eval_gpt4_turbo"


def test_by_position_says_how_many_rows_get_another_difficulty(shared_data):
    folder = shared_data / "alpaca_eval"
    rows = read_annotations(folder / "models/gpt35_turbo_instruct/annotations.json.gz")
    control = LengthControl(
        read_difficulty(folder / "reference/instruction_difficulty_recovered.csv"),
        read_gamed(folder / "reference/df_gamed_reconstructed.csv"),
        difficulty_by="position",
        C=2.78,
        resamples=0,
    )

    found = score(rows, control)

    assert any("395 of 804 rows get another instruction's difficulty" in warning for warning in found.warnings)
    assert found.coverage.failed == {"not judged": 1}


def test_the_interval_holds_the_number():
    found = score(annotations(), made_up_control(resamples=100)).numbers

    for low, value, high in (("ci_low", "win_rate", "ci_high"), ("lc_ci_low", "lc_win_rate", "lc_ci_high")):
        assert found[low] < found[value] < found[high]


def test_the_order_of_rows_does_not_matter():
    rows = annotations()
    shuffled = random.Random(1).sample(rows, len(rows))

    one, other = score(rows, made_up_control()).numbers, score(shuffled, made_up_control()).numbers

    assert one["lc_win_rate"] == other["lc_win_rate"]
    assert one["win_rate"] == pytest.approx(other["win_rate"])


def test_length_control_takes_away_what_length_gave():
    longer = [row for row in annotations(model=0.0, length=-3.0) if len(row["output_2"]) > len(row["output_1"])]

    found = score(longer, made_up_control(C=100.0)).numbers

    assert 50 < found["lc_win_rate"] + 5 < found["win_rate"]


def test_the_baseline_against_itself_is_even():
    rows = [row | {"generator_2": "baseline", "output_2": row["output_1"], "preference": 1.5} for row in annotations()]

    found = score(rows, made_up_control())

    assert found.numbers["win_rate"] == found.numbers["lc_win_rate"] == 50
    assert found.numbers["lc_standard_error"] == 0
    assert found.numbers["n_draws"] == 60


def test_another_model_of_the_baselines_name_is_not_the_baseline():
    named = [row | {"generator_2": "baseline"} for row in annotations()]

    assert score(named, made_up_control()).numbers == score(annotations(), made_up_control()).numbers


@pytest.mark.parametrize(
    ("judge", "told"), [("weighted_alpaca_eval_gpt4_turbo", 0), ("gpt-4-1106-preview", 0), ("another", 1), (None, 0)]
)
def test_the_official_judge_is_known_by_both_of_its_names(judge, told):
    found = score([row | {"annotator": judge} for row in annotations()], made_up_control())

    assert sum("gamed rows of the official judge, not of this one" in text for text in found.warnings) == told


def test_a_copy_of_the_baseline_under_another_name():
    rows = [row | {"output_2": row["output_1"], "preference": 1.5} for row in annotations()]

    assert score(rows, made_up_control()).numbers["lc_win_rate"] == pytest.approx(50, abs=3)


def test_too_few_judgments_give_no_number():
    rows = annotations()
    for row in rows[:5]:
        row["preference"] = None
    rows[5] |= {"preference": None, "status": "unparsed"}

    found = score(rows, made_up_control())

    assert set(found.numbers.values()) == {None}
    assert found.coverage.share == 0.9
    assert found.refusal == ("only 54 of 60 questions have a judgment: 90.0%, below 95% (5 no preference, 1 unparsed)")
    assert found.facts["n"] == 54


def test_forced_numbers_carry_the_reason():
    rows = annotations()
    for row in rows[:30]:
        row["preference"] = None

    found = score(rows, made_up_control(), force=True)

    assert found.refusal is None
    assert found.numbers["win_rate"] is not None
    assert found.numbers["lc_win_rate"] is not None
    assert any(warning.startswith("only 30 of 60") for warning in found.warnings)


def test_nothing_judged_is_refused_even_if_forced():
    found = score([row | {"preference": None} for row in annotations()], made_up_control(), force=True)

    assert found.refusal
    assert set(found.numbers.values()) == {None}


def test_no_rows_at_all():
    found = score([], made_up_control(), questions=questions())

    assert found.refusal.startswith("only 0 of 60")


def test_one_row():
    found = score(annotations(1), made_up_control())

    assert found.numbers["win_rate"] is not None
    assert found.numbers["standard_error"] is None
    assert found.numbers["lc_win_rate"] is None
    assert found.lc_refusal == "only 1 rows have a preference and both outputs; the length-controlled fit needs two"


def test_without_its_files_length_control_says_what_it_needs():
    found = score(annotations())

    assert found.numbers["lc_win_rate"] is None
    assert found.numbers["win_rate"] is not None
    assert "needs the difficulties and the gamed rows" in found.lc_refusal


def test_questions_without_a_row_count_as_not_judged():
    found = score(annotations(58), questions=questions())

    assert found.coverage.expected == 60
    assert found.coverage.failed == {"not judged": 2}
    assert found.facts["n"] == 58


def test_outputs_without_a_row_count_as_not_judged():
    rows = annotations()[:58]
    outputs = {row["instruction"]: row["output_2"] for row in annotations()}
    outputs["question 0"] = "another text"

    found = score(rows, outputs=outputs)

    assert found.coverage.expected == 60
    assert any("1 rows judge another text" in warning for warning in found.warnings)


def test_rows_about_other_questions_are_set_aside_and_counted():
    found = score(annotations(60), questions=questions(50))

    assert found.facts["n"] == 50
    assert any("10 rows are not about any of the questions" in warning for warning in found.warnings)


def test_unknown_instructions_leave_the_fit_and_are_counted():
    rows = annotations(60)
    rows[0]["instruction"] = "something else"

    found = score(rows, made_up_control())

    assert found.facts["lc_n"] == 59
    assert found.facts["n"] == 60
    assert any("1 of 60 rows have no difficulty" in warning for warning in found.warnings)


def test_many_unknown_instructions_are_refused():
    rows = [row | {"instruction": f"other {number}"} if number < 10 else row for number, row in enumerate(annotations())]

    found = score(rows, made_up_control())

    assert found.lc_refusal == "only 50 of 60 rows have a difficulty: 83.3%, below 95%"
    assert found.numbers["win_rate"] is not None


def test_own_questions_without_their_file_are_refused():
    found = score(annotations(), made_up_control(questions=None))

    assert found.lc_refusal.startswith("no row has a difficulty")


def test_repeats_of_a_judge_are_averaged_question_by_question():
    once = annotations()
    repeats = [row | {"repeat": number} for row in once for number in range(3)]

    one, three = score(once), score(repeats)

    assert three.numbers["win_rate"] == pytest.approx(one.numbers["win_rate"])
    assert three.numbers["ci_low"] == pytest.approx(one.numbers["ci_low"])
    assert three.per_question["win_rate"] == pytest.approx(one.per_question["win_rate"])
    assert three.numbers == pytest.approx(one.numbers)
    assert (three.facts["n"], three.coverage.judged, three.coverage.unit) == (60, 180, "judgments")
    assert not three.warnings


@pytest.mark.parametrize("join", ["instruction", "position"])
def test_repeats_that_differ_are_one_row_of_their_mean(join):
    once = annotations()
    repeats = [
        row | {"repeat": number, "preference": row["preference"] + shift * min(row["preference"] - 1, 2 - row["preference"])}
        for number, shift in enumerate((-0.5, 0.5))
        for row in once
    ]

    one, two = (score(rows, made_up_control(difficulty_by=join)) for rows in (once, repeats))

    assert two.numbers == pytest.approx(one.numbers)
    assert two.facts["lc_n"] == 60
    assert two.facts["lc_weights"] == pytest.approx(one.facts["lc_weights"])
    arm = length_controlled_arm(repeats, made_up_control(C=one.facts["C"], difficulty_by=join))
    assert arm.fit(made_up_control().gamed).win_rate == pytest.approx(one.numbers["lc_win_rate"])


def test_a_question_counts_with_the_repeats_that_have_a_value():
    rows = [row | {"repeat": number} for number in (0, 1) for row in annotations()]
    rows[0]["preference"] = None
    rows[1] |= {"preference": None, "status": "failed"}
    rows[61] |= {"preference": None, "status": "failed"}
    del rows[119]

    found = score(rows)

    assert (found.facts["n"], found.coverage.expected, found.coverage.judged) == (59, 120, 116)
    assert found.coverage.failed == {"no preference": 1, "failed": 2, "not judged": 1}
    assert found.per_question["win_rate"][content_id("question 0")] == pytest.approx(rows[60]["preference"] - 1)
    assert content_id("question 1") not in found.per_question["win_rate"]


def test_duplicates_count_as_officially_and_are_reported():
    rows = annotations()

    found = score([*rows, *rows[:2]])

    assert found.facts["n"] == 62
    assert any(warning.startswith("2 rows are about a question that an earlier row is about") for warning in found.warnings)


def test_per_question_values_are_by_the_hash_of_the_instruction():
    rows = annotations()

    values = score(rows).per_question["win_rate"]

    assert values[content_id("question 7")] == pytest.approx(rows[7]["preference"] - 1)
    assert len(values) == 60


def test_a_recomputed_preference_replaces_the_stored_one():
    rows = annotations()
    raw = {"logprobs": {"content": [{"top_logprobs": [{"token": "m", "logprob": -0.7}, {"token": "M", "logprob": -0.7}]}]}}
    rows[0] |= {"preference": 2.0, "raw_completion": raw}

    found = score(rows, recompute_preferences=True)

    assert found.per_question["win_rate"][content_id("question 0")] == 0.5
    assert found.facts["recomputed"]["differ"] == [1]
    assert any("1 of 1 preferences differ" in warning for warning in found.warnings)


def test_an_implausible_correction_is_reported():
    rows = [
        row | {"output_2": "p" * 4000 * (number % 2), "preference": 1 + 0.96 * (number % 2)}
        for number, row in enumerate(annotations())
    ]

    assert any("the fit may have failed" in warning for warning in score(rows, made_up_control(C=1000.0)).warnings)


def test_json_is_one_flat_object():
    found = score(annotations(), made_up_control()).to_json()

    assert set(NUMBERS) <= found.keys()
    assert {
        "n",
        "coverage",
        "avg_length",
        "C",
        "C_chosen_by",
        "difficulty_by",
        "reason",
        "lc_reason",
        "warnings",
    } <= found.keys()
    assert orjson.loads(orjson.dumps(found)) == found


@pytest.mark.parametrize("C", [0.0, -1.0, float("nan"), float("inf")])
def test_C_must_be_positive(C):
    with pytest.raises(ConfigError, match="C is"):
        made_up_control(C=C)


def test_the_difference_of_two_arms():
    control = made_up_control()
    weak, strong = (length_controlled_arm(annotations(model=model, seed=3), control) for model in (-1.5, 0.5))

    found = length_controlled_difference(strong, weak, control.gamed, resamples=60)
    same = length_controlled_difference(weak, weak, control.gamed, resamples=20)

    assert 0 < found.low < found.difference < found.high
    assert found.p < 0.05
    assert same == (0, 0, 0, 1)


def test_the_difference_to_the_baseline_itself():
    control = made_up_control()
    baseline = [row | {"generator_2": "baseline", "output_2": row["output_1"], "preference": 1.5} for row in annotations()]

    found = length_controlled_difference(
        length_controlled_arm(annotations(), control), length_controlled_arm(baseline, control), control.gamed, resamples=20
    )

    assert found.difference == pytest.approx(score(annotations(), control).numbers["lc_win_rate"] - 50)


def test_an_arm_without_usable_rows():
    with pytest.raises(ConfigError, match="no row has a difficulty"):
        length_controlled_arm(annotations(), made_up_control(questions=None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction": 3}, "row 2: instruction is 3; must be text"),
        ({"output_2": ["a"]}, r"row 2: output_2 is \['a'\]; must be text or null"),
        ({"repeat": "1"}, "row 2: repeat is '1'; must be a number"),
        ({"generator_2": "another"}, "generator_2: found 2 models: policy, another; must be one per file"),
    ],
)
def test_mistakes_in_annotations(tmp_path, change, message):
    file = tmp_path / "annotations.json"
    rows = annotations(3)
    rows[1] |= change
    file.write_bytes(orjson.dumps(rows))

    with pytest.raises(ConfigError, match=message):
        read_annotations(file)
