"""The policy a sweep starts from: trained here, or a pointer to one that exists."""

from __future__ import annotations

import pytest

from eva_hpc.config.recipe import LabPolicy, PretrainedPolicy
from eva_hpc.plan.graph import Node
from eva_hpc.stages import start_policy
from eva_hpc.stages.contract import Interrupted
from eva_hpc.stages.policy import read_policy


def pointer(path, **settings):
    return Node(start_policy.Spec(policy=PretrainedPolicy(path=str(path), **settings), fingerprint="x"), "start")


def test_a_local_model_is_pointed_to_with_how_to_load_it(bench, tmp_path):
    (tmp_path / "model").mkdir()
    artifact = bench.make(pointer(tmp_path / "model", dtype="float16", attention="eager"))
    source = read_policy(artifact.folder)
    assert (source.path, source.dtype, source.attention) == (str(tmp_path / "model"), "float16", "eager")
    assert set(artifact.manifest["files"]) == {"policy.json", "location.json"}


def test_a_name_on_the_hub_stays_a_name(bench):
    source = read_policy(bench.make(pointer("org/name", revision="abc", trust_remote_code=True)).folder)
    assert (source.path, source.revision, source.trust_remote_code) == ("org/name", "abc", True)


def lab(steps):
    return Node(start_policy.Spec(policy=LabPolicy(steps=steps)), "start")


@pytest.mark.slow
def test_a_trained_policy_is_part_of_its_artifact_and_moves_with_it(bench, tmp_path):
    from transformers import AutoModelForCausalLM

    artifact = bench.make(lab(2))
    assert "model/model.safetensors" in artifact.manifest["files"]
    bench.store.root.rename(tmp_path / "moved")
    folder = tmp_path / "moved" / artifact.folder.relative_to(bench.store.root)
    assert AutoModelForCausalLM.from_pretrained(read_policy(folder).path).num_parameters() > 300_000


@pytest.mark.slow
def test_told_to_stop_it_is_not_done_whichever_rank_was_told(bench):
    """Ranks agree by a message: on this one `stop` is true once, as it would be on another rank, and false afterwards."""
    told = iter([False, True])
    attempt = bench.prepare(lab(50))
    with pytest.raises(Interrupted):
        bench.run(attempt, stop=lambda: next(told, False))
    assert not (attempt.folder / "policy.json").exists()
    assert bench.store.find(lab(50).identity) is None
