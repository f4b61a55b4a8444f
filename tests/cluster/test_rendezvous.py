from __future__ import annotations

import pytest

from eva_hpc.cluster.rendezvous import Ranks, clean_environment, master_address, nested_step, rank_from_environment

TASK = {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURMD_NODENAME": "node2"}


def test_a_step_names_its_shape_and_then_the_command() -> None:
    step = nested_step(["python", "train.py"], nodes=2, ranks_per_node=4, gpus_per_node=4, cpus_per_rank=8, gpu_type="a100")
    shape = {"--nodes=2", "--ntasks=8", "--ntasks-per-node=4", "--cpus-per-task=8", "--gres=gpu:a100:4", "--overlap"}
    assert shape <= set(step)
    assert step[-3:] == ["--label", "python", "train.py"]


def test_a_step_without_gpus_asks_for_none_rather_than_nothing() -> None:
    step = nested_step(["true"], nodes=1, ranks_per_node=1, gpus_per_node=0, cpus_per_rank=1)
    assert "--gres=none" in step
    assert "--label" not in step


def test_the_driver_step_is_forgotten_and_the_job_and_all_else_is_kept() -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_CONF": "/c", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_ARRAY_TASK_ID": "0"}
    other = {"PATH": "/bin", "HF_HOME": "/hf", "SLURMFOO": "1", "CUDA_HOME": "/cuda"}
    step = {
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": "1",
        "SLURM_NPROCS": "1",
        "SLURM_CPU_BIND": "quiet",
        "SLURM_MEM_PER_NODE": "4",
    }
    options = {"SLURM_DISTRIBUTION": "cyclic", "SLURM_GPUS_PER_NODE": "8", "SRUN_CPUS_PER_TASK": "2", "PMI_RANK": "0"}
    assert clean_environment({**job, **other, **step, **options, **TASK}) == {**job, **other, "SLURMD_NODENAME": "node2"}


def test_gpus_of_the_driver_are_forgotten_only_if_slurm_chose_them() -> None:
    by_slurm = {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_JOB_GPUS": "0,1"}
    assert "CUDA_VISIBLE_DEVICES" not in clean_environment(by_slurm)
    assert clean_environment({"CUDA_VISIBLE_DEVICES": "1"}) == {"CUDA_VISIBLE_DEVICES": "1"}


def test_a_task_knows_who_it_is() -> None:
    assert rank_from_environment(TASK) == Ranks(rank=3, world_size=4, local_rank=1, node="node2")


def test_outside_a_step_or_a_job_the_missing_variable_is_named() -> None:
    with pytest.raises(RuntimeError, match="SLURM_PROCID"):
        rank_from_environment({})
    with pytest.raises(RuntimeError, match="SLURM_JOB_NODELIST"):
        master_address({})
