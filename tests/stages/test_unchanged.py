"""A file or model that changed between the plan and the job fails the stage: its key would name another content."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eva_hpc.config.benchmark import RewardBenchmark
from eva_hpc.config.fingerprint import fingerprint
from eva_hpc.config.recipe import FilePrompts, PretrainedPolicy
from eva_hpc.plan.graph import Node
from eva_hpc.stages import prompts, questions, start_policy
from eva_hpc.stages.contract import StageFailed
from eva_hpc.stages.prompts import read_column
from eva_hpc.stages.unchanged import check_unchanged


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "Sort these words."}\n')
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that looks like a model from outside."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def of_prompts(file: Path, start: Node) -> Node:
    return Node(
        prompts.Spec(source=FilePrompts(path=str(file)), fingerprint=fingerprint(str(file))), "start", {"policy": start}
    )


def of_questions(file: Path, start: Node) -> Node:
    benchmark = RewardBenchmark(path=str(file))
    return Node(questions.Spec(benchmark=benchmark, fingerprint=fingerprint(str(file))), "evaluation", {"policy": start})


@pytest.mark.parametrize("node_of", [of_prompts, of_questions])
def test_a_prompt_file_that_changed_since_the_plan_is_not_read(bench, placeholder, file, node_of):
    node = node_of(file, placeholder)
    file.write_text('{"prompt": "Sort those words."}\n')

    with pytest.raises(StageFailed, match=f"{file} has changed since the sweep was planned: give the same command again"):
        bench.make(node)
    assert bench.store.find(node.identity) is None


@pytest.mark.parametrize("node_of", [of_prompts, of_questions])
def test_a_prompt_file_that_is_gone_is_named(bench, placeholder, file, node_of):
    node = node_of(file, placeholder)
    file.unlink()
    with pytest.raises(StageFailed, match=f"{file} is not there, or not on this node.*put it back"):
        bench.make(node)


def test_a_prompt_file_that_changes_while_it_is_read_is_found(file, tmp_path, monkeypatch):
    import datasets

    read = datasets.load_dataset

    def read_then_edited(*arguments, **options):
        table = read(*arguments, **options)
        file.write_text(json.dumps({"prompt": "Other."}))
        return table

    planned = fingerprint(str(file))
    monkeypatch.setattr(datasets, "load_dataset", read_then_edited)
    with pytest.raises(StageFailed, match="has changed"):
        read_column(FilePrompts(path=str(file)), planned, tmp_path)


def test_a_prompt_file_as_planned_is_read(file, tmp_path):
    assert read_column(FilePrompts(path=str(file)), fingerprint(str(file)), tmp_path / "cache") == ["Sort these words."]


def test_a_model_that_changed_since_the_plan_is_not_pointed_to(bench, model):
    spec = start_policy.Spec(policy=PretrainedPolicy(path=str(model)), fingerprint=fingerprint(str(model)))
    (model / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(StageFailed, match=f"{model} has changed"):
        bench.make(Node(spec, "start"))
    (model / "model.safetensors").write_bytes(b"weights")
    bench.make(Node(spec, "start"))


def test_names_on_the_hub_have_no_content_to_compare():
    check_unchanged("org/name", "hub:org/name")
