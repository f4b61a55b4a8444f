"""How large things are that a recipe names: parameters of models, prompts in files. For estimates; weights are never read.

A model's parameters are counted in the headers of its safetensors files; where only its configuration is here, they follow
from that; where nothing is here, the name may say it ("google/gemma-2-9b-it"). `Size.basis` says which.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from eva_hpc.config.paths import references, section_of
from eva_hpc.config.recipe import Recipe

_IN_A_NAME = re.compile(r"(?<![A-Za-z0-9.])(\d+(?:\.\d+)?)([bm])(?![A-Za-z0-9])", re.IGNORECASE)
_KNOWN = {"llm-blender/PairRM-hf": 0.44e9}
"""Models whose names do not tell."""
_LARGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class Size:
    """A number of parameters or prompts, and where it comes from."""

    count: float
    basis: str


@dataclass(frozen=True)
class Sizes:
    """Parameters of models and numbers of prompts, by the text that names them in a recipe; what is not known is not in it."""

    models: Mapping[str, Size] = field(default_factory=dict)
    prompts: Mapping[str, Size] = field(default_factory=dict)


def sizes_of(recipes: Iterable[Recipe]) -> Sizes:
    """The sizes of all models and prompt files that the recipes name."""
    models: dict[str, Size | None] = {}
    prompts: dict[str, Size | None] = {}
    for recipe in recipes:
        for reference in references(recipe):
            if reference.kind == "model" and reference.text not in models:
                models[reference.text] = model_size(reference.text, section_of(recipe, reference).revision)
            elif reference.kind == "prompts" and reference.text not in prompts:
                prompts[reference.text] = prompt_count(Path(reference.text))
    return Sizes(
        {text: size for text, size in models.items() if size is not None},
        {text: size for text, size in prompts.items() if size is not None},
    )


def model_size(path: str, revision: str | None = None) -> Size | None:
    """The number of parameters of a local model folder or of a model of the hub; None if nothing tells.

    Args:
        path: a folder or a hub name; of the latter, what the local cache has is looked at.
        revision: the commit or branch of a hub name.
    """
    folder = Path(path) if Path(path).is_dir() else _cached(path, revision)
    if folder is not None:
        if count := _counted(folder):
            return Size(count, "safetensors headers")
        if count := _from_config(folder / "config.json"):
            return Size(count, "config.json")
    if path in _KNOWN:
        return Size(_KNOWN[path], "its model card")
    found = _IN_A_NAME.findall(Path(path).name)
    if not found:
        return None
    number, unit = found[-1]
    return Size(float(number) * (1e9 if unit.lower() == "b" else 1e6), "its name")


def prompt_count(path: Path) -> Size | None:
    """The number of rows of a .jsonl or .parquet file; None if it cannot be read."""
    try:
        if path.suffix == ".parquet":
            from pyarrow.parquet import read_metadata

            return Size(read_metadata(path).num_rows, "rows of the file")
        with path.open("rb") as file:
            return Size(sum(1 for line in file if line.strip()), "lines of the file")
    except (OSError, ValueError):  # pyarrow's errors are ValueErrors
        return None


def _cached(name: str, revision: str | None) -> Path | None:
    """The snapshot of a hub model in the local cache, if its configuration at least is there."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _counted(folder: Path) -> float | None:
    """The parameters in all safetensors files of a model; None if a file is missing or is no safetensors file."""
    names = {path.name for path in folder.glob("*.safetensors")}
    try:
        if (index := folder / "model.safetensors.index.json").is_file():
            names = set(orjson.loads(index.read_bytes())["weight_map"].values())
        return sum(_in_header(folder / name) for name in names) or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _in_header(path: Path) -> int:
    """The parameters in a safetensors file: eight bytes with the length of its header, then the header, JSON with shapes."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(_LARGEST_HEADER, os.stat(path).st_size):
            raise ValueError(f"{path} is no safetensors file")
        header = orjson.loads(file.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _from_config(path: Path) -> float | None:
    """The parameters of a decoder with gated feed-forward layers (Llama, Qwen, Gemma, Mistral), norms and biases left out."""
    try:
        fields: dict[str, Any] = orjson.loads(path.read_bytes())
        fields = fields.get("text_config") or fields
        width, layers, heads = fields["hidden_size"], fields["num_hidden_layers"], fields["num_attention_heads"]
        head = fields.get("head_dim") or width // heads
        attention = 2 * width * head * (heads + (fields.get("num_key_value_heads") or heads))
        experts = fields.get("num_local_experts") or fields.get("num_experts") or 1
        feed_forward = 3 * width * fields["intermediate_size"] * experts
        embeddings = fields["vocab_size"] * width * (1 if fields.get("tie_word_embeddings", True) else 2)
        return float(layers * (attention + feed_forward) + embeddings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        return None
