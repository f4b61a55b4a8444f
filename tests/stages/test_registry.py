"""Every stage keeps the contract: a frozen spec and a function `run`, under a name of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

import eva_hpc.stages
from eva_hpc.stages.contract import StageSpec
from eva_hpc.stages.mix import Spec as Mix
from eva_hpc.stages.registry import STAGES

HEAVY = ("torch", "transformers", "vllm", "deepspeed", "datasets", "httpx", "submitit")


def test_every_stage_has_a_spec_and_a_run_under_its_own_name():
    assert len({module.Spec.stage for module in STAGES.values()}) == len(STAGES)
    for name, module in STAGES.items():
        assert issubclass(module.Spec, StageSpec)
        assert module.Spec.stage == name == module.__name__.rsplit(".", 1)[1]
        assert callable(module.run)


def test_the_stages_of_the_graph_are_all_registered(tmp_path):
    from pathlib import Path

    files = Path(eva_hpc.stages.__file__).parent.glob("*.py")
    with_spec = {file.stem for file in files if "(StageSpec)" in file.read_text()} - {"contract"}
    assert with_spec == set(STAGES)


@pytest.mark.parametrize("module", STAGES.values(), ids=list(STAGES))
def test_nested_parameters_are_fields_and_nothing_unknown_is_accepted(module):
    assert set(module.Spec.nested) <= set(module.Spec.model_fields)
    assert module.Spec.model_config["extra"] == "forbid"
    assert module.Spec.model_config["frozen"] is True


def test_a_spec_cannot_be_changed_or_extended():
    spec = Mix(ratio=0.5, seed=1, round=1)
    with pytest.raises(ValidationError, match="frozen"):
        spec.ratio = 0.8
    with pytest.raises(ValidationError, match="extra"):
        Mix(ratio=0.5, seed=1, round=1, rato=0.5)


def test_planning_imports_nothing_heavy():
    code = f"import sys, eva_hpc.plan.plan, eva_hpc.stages.registry; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
