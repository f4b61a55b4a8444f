"""Which GPUs a rank of a sharded stage sees."""

from __future__ import annotations

import os

import pytest

from eva_hpc.cluster.execution import Attempt
from eva_hpc.cluster.worker import apply_environment
from eva_hpc.config.site import Engine, Resources
from eva_hpc.plan.plan import Task
from eva_hpc.store.keys import Identity


@pytest.fixture
def gpus_of(tmp_path, monkeypatch):
    """What a rank sees, given what its node or scheduler shows it."""

    def seen(visible, local_rank, width=1, parallel="shards"):
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        task = Task(identity=Identity("generate", "f"), spec={}, part="", parallel=parallel, inputs={}, runs=("run",))
        attempt = Attempt(
            task=task, inputs={}, folder=tmp_path, store=tmp_path, log=tmp_path / "log", engine=Engine(), environment={},
            resources=Resources(ranks_per_node=4, gpus_per_rank=width),
        )  # fmt: skip
        apply_environment(attempt, local_rank)
        return os.environ["CUDA_VISIBLE_DEVICES"]

    return seen


def test_ranks_of_a_node_share_its_gpus_without_overlap(gpus_of):
    assert [gpus_of("0,1,2,3", rank) for rank in range(4)] == ["0", "1", "2", "3"]
    assert [gpus_of("4,5,6,7", rank, width=2) for rank in range(2)] == ["4,5", "6,7"]
    assert [gpus_of("", rank, width=2) for rank in range(2)] == ["0,1", "2,3"]


def test_a_rank_that_was_given_its_own_gpus_keeps_them(gpus_of):
    assert gpus_of("GPU-5f0c", 3) == "GPU-5f0c"
    assert gpus_of("2,3", 1, width=2) == "2,3"


def test_too_few_gpus_are_an_error_and_not_a_slow_run_on_the_cpu(gpus_of):
    with pytest.raises(RuntimeError, match="rank 2 of its node needs 1 GPUs, but only 0,1 are visible"):
        gpus_of("0,1", 2)


def test_ranks_that_train_together_see_all(gpus_of):
    assert gpus_of("0,1,2,3", 2, parallel="ranks") == "0,1,2,3"
