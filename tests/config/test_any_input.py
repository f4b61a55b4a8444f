"""Whatever a user writes, the answer is a model or a ConfigError that says where: never another exception."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eva_hpc.config.errors import ConfigError
from eva_hpc.config.load import load_experiment, load_site
from eva_hpc.config.overrides import MODELS
from eva_hpc.config.schema import dotted_keys
from tests.config.conftest import RECIPE, SITE, STAGES, SWEEP

KEYS = st.sampled_from([f"{target}.{key}" for target, model in MODELS.items() for key in dotted_keys(model)])
KEYS |= st.builds("{}.{}".format, KEYS, st.sampled_from(["x", "kind", "path", "0"]))
PLAIN = st.none() | st.booleans() | st.integers(-3, 30) | st.floats()
PLAIN |= st.sampled_from(["lab", "file", "policy", "reward", "org/name", "x.jsonl", "./x", "", "~", "2024-01-01", "$X"])
NAMES = st.sampled_from(["kind", "path", "lab", "x", "count", "[key]", "a.b", ""])
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=5
)
QUIET = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)


def load(folder: Path, *overrides: str) -> list[str]:
    """The problems, none if all is well."""
    try:
        site = load_site(str(folder / "site.yaml"), overrides, known_stages=STAGES)
        load_experiment(folder / "sweep.yaml", site=site, overrides=overrides)
    except ConfigError as error:
        return list(error.problems)
    return []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in {"recipe.yaml": RECIPE, "sweep.yaml": SWEEP, "site.yaml": SITE}.items():
        Path(name).write_text(text)
    return tmp_path


@QUIET
@given(st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=3))
def test_any_key_can_be_set_to_anything(folder: Path, chosen: list[tuple[str, object]]) -> None:
    for problem in load(folder, *(f"{key}={json.dumps(value)}" for key, value in chosen)):
        assert re.match(r"(--set (recipe|sweep|site)\.|(recipe|sweep|site)\.yaml:\d+: |recipe lab: .*vllm)", problem)


@QUIET
@given(st.sampled_from(["recipe.yaml", "sweep.yaml", "site.yaml"]), st.dictionaries(NAMES, VALUES, min_size=1, max_size=4))
def test_a_file_may_hold_anything(folder: Path, name: str, content: dict[str, object]) -> None:
    before = (folder / name).read_text()
    (folder / name).write_text(json.dumps(content))

    problems = load(folder)

    (folder / name).write_text(before)
    assert problems
    assert all(problem.startswith(f"{name}:1: ") for problem in problems)
