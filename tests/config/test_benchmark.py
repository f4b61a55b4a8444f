"""Judged benchmarks in a recipe: judge, files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eva_hpc.config.benchmark import AlpacaEval, ArenaHard, Judge, MtBench, judge_in_words, official_roles, official_set
from eva_hpc.config.load import load_experiment
from tests.config.conftest import Files

JUDGED = """\
name: judged
policy: {kind: pretrained, path: org/policy}
prompts: {kind: hub, name: org/prompts}
reward: org/reward
creator: {evolver: policy}
judge: {model: judge-1}
benchmarks:
  arena_hard: arena_hard
  mt_bench: mt_bench
  alpaca_eval: {kind: alpaca_eval, limit: 8}
"""


@pytest.mark.parametrize(
    ("benchmark", "roles"),
    [
        (AlpacaEval(), {"questions", "prompt", "difficulty", "gamed"}),
        (AlpacaEval(files={"questions": "own.json"}), {"prompt"}),
        (AlpacaEval(files={"baseline": "own.json"}), {"questions", "prompt"}),
        (ArenaHard(), {"questions", "baseline", "prompt"}),
        (ArenaHard(version="v2.0"), {"questions", "baseline", "creative_baseline", "prompt", "config"}),
        (ArenaHard(files={"questions": "own.jsonl", "baseline": "b.jsonl"}), {"prompt"}),
        (MtBench(), {"questions", "prompt", "reference"}),
        (MtBench(files={"prompt": "own.jsonl"}), {"questions", "reference"}),
    ],
)
def test_what_is_not_named_is_official_where_that_fits(benchmark, roles) -> None:
    assert set(official_roles(benchmark)) == roles


def test_official_files_are_put_in_their_places_and_fingerprinted(files: Files) -> None:
    files.write("recipe.yaml", JUDGED)
    places = {}

    def official(set_: str, role: str) -> tuple[str, str]:
        places[set_, role] = f"/data/{set_}/{role}"
        return places[set_, role], f"sha256:{set_}-{role}"

    experiment = load_experiment("sweep.yaml", site=files.site(), official=official)

    assert {set_ for set_, _ in places} == {"alpaca_eval", "arena_hard", "mt_bench"}
    for _, recipe in experiment.points:
        arena = recipe.benchmarks["arena_hard"]
        assert arena.files.baseline == "/data/arena_hard/baseline"
        assert arena.files.config is None
        assert recipe.judge == Judge(model="judge-1")
    assert experiment.fingerprints["/data/mt_bench/reference"] == "sha256:mt_bench-reference"


def test_own_files_are_found_beside_the_recipe(files: Files) -> None:
    files.write(
        "own/recipe.yaml", JUDGED.replace("mt_bench: mt_bench", "mt_bench: {kind: mt_bench, files: {questions: q.jsonl}}")
    )
    files.write("own/q.jsonl", json.dumps({"question_id": 1}))
    files.write("sweep.yaml", Path("sweep.yaml").read_text().replace("recipe.yaml", "own/recipe.yaml"))

    recipe = files.load().points[0][1]

    assert recipe.benchmarks["mt_bench"].files.questions == str(Path("own/q.jsonl").absolute())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("judge: {model: judge-1}\n", "", "benchmarks.arena_hard: found arena_hard without a judge"),
        ("limit: 8", "files: {questions: nowhere.json}", "benchmarks.alpaca_eval.files.questions: found 'nowhere.json', which"),
        (
            "limit: 8",
            "files: {question: x}",
            "benchmarks.alpaca_eval.files.question: unknown key; allowed: questions, baseline",
        ),
        ("{model: judge-1}", "{model: j, api_key_env: sk-secret}", "judge.api_key_env: found 'sk-secret'; must be text"),
        ("{model: judge-1}", "{model: j, base_url: 'http://me:secret@host/v1'}", "judge.base_url: must not hold a user"),
        (
            "{model: judge-1}",
            "{model: j, base_url: localhost:8000/v1}",
            "judge.base_url: must be an address such as http://host",
        ),
        ("{model: judge-1}", "{model: j, parameters: {stop: [a]}}", "judge.parameters.stop: "),
        ("arena_hard: arena_hard", "arena_hard: arena", "did you mean 'arena_hard'?"),
        (
            "{kind: pretrained, path: org/policy}",
            "lab",
            "benchmarks.arena_hard: found arena_hard, whose questions the lab policy",
        ),
    ],
)
def test_a_mistake_is_one_line(files: Files, old: str, new: str, message: str) -> None:
    lines = files.recipe_mistakes(JUDGED.replace(old, new))
    assert any(message in line for line in lines), lines


def test_own_arena_questions_need_a_baseline(files: Files) -> None:
    files.write("q.jsonl", "{}\n")
    lines = files.recipe_mistakes(
        JUDGED.replace("arena_hard: arena_hard", "a: {kind: arena_hard, files: {questions: q.jsonl}}")
    )
    assert lines == [
        "recipe.yaml:8: benchmarks.a.files.baseline: missing; own questions need the answers of the model to compare with"
    ]


def test_an_engine_must_have_room_for_question_and_answer(files: Files) -> None:
    files.write("recipe.yaml", JUDGED)
    files.write("site.yaml", Path("site.yaml").read_text() + "engine: {max_model_len: 4096}\n")
    (line,) = files.mistakes()
    assert "engine.max_model_len: found 4096; must be at least 7168" in line
    assert "benchmarks.arena_hard" in line


def test_a_table_says_in_whose_place_a_judge_is() -> None:
    assert judge_in_words(ArenaHard(), Judge(model="gpt-4-1106-preview")) == "gpt-4-1106-preview"
    assert judge_in_words(MtBench(), Judge(model="gpt-4.1")) == "gpt-4.1 in place of gpt-4"
    assert official_set(ArenaHard(version="v2.0")) == "arena_hard_v2"
