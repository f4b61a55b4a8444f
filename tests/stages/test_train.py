"""The solver's step as a stage: pairs of several rounds, and a reference that is not the start of the training."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from eva_hpc.store.records import read_jsonl
from tests.stages import trainings
from tests.stages.conftest import Workbench

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_qwen2):
    """The artifacts by name."""
    folder = tmp_path_factory.mktemp("trainings")
    command = [sys.executable, "-W", "ignore", "-m", "tests.stages.trainings", str(folder), str(tiny_qwen2)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=280)
    assert done.returncode == 0
    store = Workbench(folder).store
    return {name: store.find(node.identity) for name, node in trainings.nodes(tiny_qwen2).items()}


def log(artifact):
    return read_jsonl(artifact.folder / "train_log.jsonl")


def weights(artifact):
    return (artifact.folder / "model" / "model.safetensors").read_bytes()


def test_pairs_of_several_rounds_are_trained_on_together(made):
    assert log(made["two files"]) == log(made["plain"])
    assert weights(made["two files"]) == weights(made["plain"])


def test_every_pair_is_trained_on_or_set_aside(made):
    for artifact in made.values():
        assert artifact.manifest["records"] == {"in": 9, "out": 8, "set_aside": {"prompt too long": 1}}


def test_a_fixed_reference_is_what_the_first_step_is_measured_against(made, tiny_qwen2):
    from eva_hpc.inference.engine import ModelSource
    from eva_hpc.stages.policy import read_policy
    from eva_hpc.training.packing import trees_of
    from eva_hpc.training.teacher_forcing import TeacherForcing

    first, fixed = log(made["plain"])[0], log(made["fixed reference"])[0]
    assert first["margin"] == pytest.approx(0, abs=1e-4)
    trees = [tree for pair in trainings.PAIRS for tree in trees_of(pair, True)]
    sources = (ModelSource(str(tiny_qwen2)), read_policy(made["plain"].folder))
    ours, theirs = (TeacherForcing(source, 1, 4096).log_probs(trees) for source in sources)
    ratios = [(a[0] - b[0]) - (a[1] - b[1]) for a, b in zip(ours, theirs, strict=True)]
    margin = sum(ratios) / len(ratios)
    assert margin < -0.1, "the reference has learned the pairs, the start has not"
    assert fixed["margin"] == pytest.approx(trainings.OPTIMISER.beta * margin, rel=1e-3)
    assert fixed["chosen_logps"] == pytest.approx(first["chosen_logps"], rel=1e-4), "both start from the same policy"
    assert weights(made["fixed reference"]) != weights(made["plain"])


def test_each_reference_has_log_probs_of_its_own(made):
    """Two trainings on the same pairs share a file only if they have the same reference."""
    cache = made["plain"].folder.parents[1] / "cache" / "reference"
    assert len(list(cache.glob("*.safetensors"))) == 3
