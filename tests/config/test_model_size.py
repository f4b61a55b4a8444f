"""How large models and prompt files are, without reading weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eva_hpc.config.model_size import Size, model_size, prompt_count, sizes_of
from eva_hpc.config.recipe import Recipe


def safetensors(path, **shapes):
    """A safetensors file of zeros in bf16."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        end = offset + 2 * shape[0] * shape[1]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(offset))


def test_parameters_are_counted_in_the_headers_of_all_files_of_the_index(tmp_path):
    safetensors(tmp_path / "a.safetensors", x=[10, 3], y=[2, 5])
    safetensors(tmp_path / "b.safetensors", z=[4, 4])
    safetensors(tmp_path / "not-in-the-index.safetensors", z=[100, 100])
    index = {"weight_map": {"x": "a.safetensors", "y": "a.safetensors", "z": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))

    assert model_size(str(tmp_path)) == Size(56, "safetensors headers")


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\x05\0\0\0\0\0\0\0[1,2]"])
def test_a_file_that_is_no_safetensors_file_leaves_it_to_the_configuration(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    assert model_size(str(tmp_path)) is None

    fields = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 100}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert model_size(str(tmp_path)) == Size(2 * (4 * 8 * 8 + 3 * 8 * 16) + 100 * 8, "config.json")


def test_the_configurations_of_known_models_give_their_published_sizes(tmp_path):
    gemma = {
        "hidden_size": 3584,
        "num_hidden_layers": 42,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "intermediate_size": 14336,
        "vocab_size": 256000,
    }
    (tmp_path / "config.json").write_text(json.dumps(gemma))
    assert model_size(str(tmp_path)).count == pytest.approx(9.24e9, rel=0.01)


def test_the_headers_of_a_real_folder_agree_with_its_configuration(tiny_qwen2):
    counted = model_size(str(tiny_qwen2))
    assert counted.basis == "safetensors headers"
    (only_config := tiny_qwen2.parent / "only-config").mkdir(exist_ok=True)
    (only_config / "config.json").write_bytes((tiny_qwen2 / "config.json").read_bytes())
    assert model_size(str(only_config)).count == pytest.approx(counted.count, rel=0.1)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("google/gemma-2-9b-it", 9e9),
        ("Qwen/Qwen2-0.5B-Instruct", 0.5e9),
        ("Skywork/Skywork-Reward-V2-Qwen3-0.6B", 0.6e9),
        ("org/smol-135M", 135e6),
    ],
)
def test_the_name_of_a_model_that_is_not_here_may_say_it(name, count):
    assert model_size(name) == Size(count, "its name")


@pytest.mark.parametrize("name", ["org/model", "gpt2", "org/v2b3", "/no/such/folder", "", "a b/c"])
def test_or_may_not(name):
    assert model_size(name) is None


def test_prompts_are_rows(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a"}\n\n{"prompt": "b"}')
    assert prompt_count(file).count == 2
    assert prompt_count(tmp_path / "none.jsonl") is None
    (tmp_path / "bad.parquet").write_text("no")
    assert prompt_count(tmp_path / "bad.parquet") is None

    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["a", "b", "c"]}), tmp_path / "good.parquet")
    assert prompt_count(tmp_path / "good.parquet").count == 3


def test_the_sizes_of_a_recipe_are_those_it_names(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a"}\n')
    recipe = Recipe.model_validate(
        {
            "name": "small",
            "policy": {"kind": "pretrained", "path": "org/policy-7b"},
            "prompts": {"kind": "file", "path": str(file)},
            "reward": {"kind": "sequence_classification", "path": "org/reward"},
            "creator": {"evolver": {"kind": "policy"}},
            "benchmarks": {"heldout": {"kind": "reward", "path": str(file)}},
        }
    )

    sizes = sizes_of([recipe, recipe])

    assert sizes.models == {"org/policy-7b": Size(7e9, "its name")}
    assert {Path(text).name: size.count for text, size in sizes.prompts.items()} == {"prompts.jsonl": 1}
