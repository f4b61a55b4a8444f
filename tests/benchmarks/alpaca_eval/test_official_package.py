"""The official package's own functions on the same rows give the same numbers."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from eva_hpc.benchmarks.alpaca_eval.annotated import read_annotations
from eva_hpc.benchmarks.alpaca_eval.arms import LengthControl, joined
from eva_hpc.benchmarks.alpaca_eval.difficulty import read_difficulty
from eva_hpc.benchmarks.alpaca_eval.judging import AlpacaEvalJudging, read_template
from eva_hpc.benchmarks.alpaca_eval.length_control import CANDIDATES, choose_C, length_controlled, read_gamed
from eva_hpc.benchmarks.alpaca_eval.preference import is_switched, slot_preference, stored
from eva_hpc.benchmarks.alpaca_eval.score import score
from tests.benchmarks.alpaca_eval.made_up import annotations

pytestmark = pytest.mark.slow
MODELS = ["gpt4_1106_preview", "FuseChat-Llama-3.2-1B-Instruct", "claude-2.1", "gpt35_turbo_instruct", "alpaca-7b"]


@pytest.fixture(scope="module")
def official():
    """The package; it is of an older time, and warns accordingly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("alpaca_eval", reason="needs the package alpaca_eval, which is among the test packages")


@pytest.fixture
def official_fit(official, shared_data, monkeypatch):
    """Its length-controlled function, with the gamed rows from a file here instead of a hub."""
    import sklearn
    from alpaca_eval.metrics import glm_winrate

    file = shared_data / "alpaca_eval/reference/df_gamed_reconstructed.csv"
    monkeypatch.setattr(glm_winrate, "hf_hub_download", lambda **_: str(file))
    with sklearn.config_context():  # it switches metadata routing on for everyone
        yield glm_winrate


def folds_here(n):
    """The folds that scikit-learn deals on this machine."""
    from sklearn.model_selection import GroupKFold

    folds = np.empty(n, dtype=np.int64)
    for fold, (_, held_out) in enumerate(GroupKFold(5).split(np.zeros(n), groups=np.arange(n))):
        folds[held_out] = fold
    return folds


@pytest.mark.parametrize("failed", [0, 7])
@pytest.mark.parametrize("model", MODELS)
def test_all_numbers(shared_data, official_fit, model, failed):
    folder = shared_data / "alpaca_eval"
    rows = read_annotations(folder / "models" / model / "annotations.json.gz")
    for row in rows[100 : 100 + failed]:
        row["preference"] = None
    gamed = read_gamed(folder / "reference/df_gamed_reconstructed.csv")
    control = LengthControl(
        read_difficulty(folder / "reference/df_gamed_reconstructed.csv"), gamed, difficulty_by="position", resamples=0
    )
    known, _ = joined(rows, [stored(row["preference"]) for row in rows], control)
    C = choose_C(known.rows, gamed, folds_here(len(gamed.preferences) + known.judged))

    theirs = official_fit.get_length_controlled_winrate(rows, save_weights_dir=None)
    ours = score(rows, control)

    for name, their_name in {"n_losses": "n_wins_base"}.items() | {
        (name, name) for name in ("win_rate", "standard_error", "discrete_win_rate", "n_wins", "n_draws")
    }:
        assert ours.numbers[name] == pytest.approx(float(theirs[their_name]), abs=1e-9)
    assert ours.facts["n"] == theirs["n_total"]
    lc = 50.0 if model == "gpt4_1106_preview" else length_controlled(known.rows, gamed, C).win_rate
    assert lc == pytest.approx(theirs["length_controlled_winrate"], abs=1e-6)


def test_the_choice_of_C(shared_data, official_fit, monkeypatch):
    folder = shared_data / "alpaca_eval"
    rows = read_annotations(folder / "models/alpaca-7b/annotations.json.gz")
    gamed = read_gamed(folder / "reference/df_gamed_reconstructed.csv")
    chosen = []
    fit = official_fit.fit_LogisticRegressionCV
    monkeypatch.setattr(
        official_fit, "fit_LogisticRegressionCV", lambda *args, **kwargs: chosen.append(fit(*args, **kwargs)) or chosen[-1]
    )
    control = LengthControl(read_difficulty(folder / "reference/df_gamed_reconstructed.csv"), gamed, resamples=0)

    for place, drop in enumerate([set(), {1, 200}, set(range(300, 400))]):
        some = [row for number, row in enumerate(rows) if number not in drop]
        official_fit.get_length_controlled_winrate(some, save_weights_dir=None)
        by_position = LengthControl(control.difficulties, gamed, difficulty_by="position")
        known, _ = joined(some, [stored(row["preference"]) for row in some], by_position)
        C = choose_C(known.rows, gamed, folds_here(len(gamed.preferences) + len(some)))
        assert math.isclose(C, float(chosen[place].C_[0]))
        assert C in CANDIDATES


def test_prompts_and_preferences(official, shared_data):
    from alpaca_eval import processors, utils
    from alpaca_eval.completion_parsers import logprob_parser

    rows = [
        row
        for row in read_annotations(shared_data / "alpaca_eval/models/claude-2.1/annotations.json.gz")
        if row["raw_completion"]
    ]
    text = (shared_data / "alpaca_eval/judge/alpaca_eval_clf.txt").read_text()
    judging = AlpacaEvalJudging(read_template(shared_data / "alpaca_eval/judge/alpaca_eval_clf.txt"))
    switch = processors.RandomSwitchTwoColumnsProcessor(
        two_columns_to_switch=["output_1", "output_2"],
        random_seed_columns=("instruction",),
        _switch_column="is_switched_outputs",
        seed=0,
    )
    prepared = switch.preprocess(
        utils.convert_to_dataframe([{k: row[k] for k in ("instruction", "output_1", "output_2")} for row in rows])
    )
    prompts, _ = utils.make_prompts(prepared, text)

    for row, switched, prompt in zip(rows, prepared["is_switched_outputs"], prompts, strict=True):
        question = {
            "id": "",
            "category": "",
            "turns": [row["instruction"]],
            "baseline": [row["output_1"]],
            "baseline_model": "",
            "reference": None,
        }
        (ask,) = judging.asks(question, {"question_id": "", "model": "", "turns": [row["output_2"]]})
        assert list(ask.messages) == utils.prompt_to_chatml(prompt.strip())
        assert is_switched(row["instruction"]) == switched
        (theirs,) = logprob_parser(row["raw_completion"], "m", ["m", "M"], is_binarize=False)
        assert slot_preference(row["raw_completion"]) == pytest.approx(theirs, abs=1e-12)


def test_made_up_rows_with_ties_and_the_older_zero(official):
    from alpaca_eval.metrics import get_winrate

    rows = annotations()
    rows[0]["preference"], rows[1]["preference"], rows[2]["preference"] = 0, 1.5, None

    theirs, ours = get_winrate(rows), score(rows).numbers

    assert ours["win_rate"] == pytest.approx(theirs["win_rate"])
    assert ours["discrete_win_rate"] == pytest.approx(theirs["discrete_win_rate"])
    assert ours["n_draws"] == theirs["n_draws"] == 2
