"""What a plan says in words beyond its counts: what arrays ask for, and what the cost leaves out."""

from __future__ import annotations

import pytest

from eva_hpc.config.site import Site
from eva_hpc.plan.cost import CORE_HOURS, GPU_HOURS, Estimate, StageCost
from eva_hpc.plan.describe import describe


@pytest.fixture(scope="module")
def plan(plan_of):
    return plan_of({"responses_per_prompt": [2, 6]}, seeds=(1, 2))


def test_an_array_is_one_row_with_what_its_jobs_ask_of_slurm(plan):
    slurm = {"partition": "gpu", "account": "eva", "mem_gb": 64, "time_minutes": 90}
    stages = {"train": {"nodes": 2, "ranks_per_node": 4, "gpus_per_rank": 1, "threads": 2}}
    site = Site.model_validate({"name": "there", "executor": "slurm", "scale": "lab", "slurm": slurm, "stages": stages})

    rows = [line.split() for line in describe(plan, plan.tasks, site).splitlines() if line.startswith(("shared-", "runs-"))]

    runs = next(row for row in rows if row[0].startswith("runs-"))
    assert runs[1] == "4"
    assert runs[3:6] == ["2", "8", "4"], "nodes, CPUs and GPUs of the widest stage"
    assert "64 GB 90 min gpu, account eva shared-" in " ".join(runs)
    assert len(rows) < len(plan.tasks)


def test_with_nothing_to_do_there_are_no_arrays(plan, slurm_site):
    assert "waits for" not in describe(plan, [], slurm_site)


def test_a_cost_that_is_known_in_part_says_what_it_leaves_out(plan, slurm_site):
    stages = (
        StageCost("train", 4, 2, 2, 20.0, 0.0, 10.0, "measured (3 in the store)"),
        StageCost("score", 4, 2, 2, None, 0.0, None, "not known: the size of a model is not"),
    )
    text = describe(plan, plan.tasks, slurm_site, cost=Estimate(GPU_HOURS, stages, ("assumed: much",)), lines=["disk: little"])

    assert "GPU hours: 10.0 planned for what is to do; 20.0 naive" in text
    assert "all without score\nassumed: much\n\ndisk: little" in text
    assert "measured (3 in the store)" in text


def test_a_cost_of_which_nothing_is_known_is_one_line(plan, slurm_site):
    stages = (StageCost("train", 4, 2, 2, None, 0.0, None, "not known"),)
    text = describe(plan, plan.tasks, slurm_site, cost=Estimate(CORE_HOURS, stages, ()))

    assert text.endswith("CPU core hours: not known, because no such stage has run here before")
