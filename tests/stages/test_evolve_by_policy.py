"""Evolving with an engine of our own: prompts that do not fit with the instruction are set aside, each with the reason."""

from __future__ import annotations

import json

import pytest

from eva_hpc.config.creator import PolicyEvolver
from eva_hpc.config.recipe import FilePrompts
from eva_hpc.plan.graph import Node
from eva_hpc.stages import evolve, prompts
from eva_hpc.stages.contract import StageFailed
from eva_hpc.store.records import read_jsonl

pytestmark = pytest.mark.slow


def test_prompts_too_long_for_the_evolver_are_set_aside_with_the_reason(bench, policy_of, tiny_qwen2, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": f"Tell me {i} things about {'very ' * 60}long rivers."}) + "\n" for i in range(3))
    )
    start = policy_of(tiny_qwen2)
    base = Node(prompts.Spec(source=FilePrompts(path=str(path)), fingerprint="d"), "start", {"policy": start})
    spec = evolve.Spec(evolver=PolicyEvolver(max_new_tokens=8), evolutions=1, seed=1, round=1)
    node = Node(spec, "round 1", {"selected": base, "policy": start})

    with pytest.raises(StageFailed, match="none of the 3 rewrites can be used: 3 rewrite failed: too long for the writer"):
        bench.make(node)

    assert len(read_jsonl(bench.store.folder(node.identity) / "set_aside.jsonl")) == 3
