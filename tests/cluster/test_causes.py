"""Causes from exceptions, from what srun says, from Slurm's states. The texts are those of real failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from eva_hpc.cluster.causes import Cause, cause_of_exception, cause_of_log, cause_of_state
from eva_hpc.cluster.failure import first_failure, forget_failures, record_failure
from eva_hpc.cluster.queue import Attempt
from eva_hpc.stages.contract import StageFailed, StageUnavailable


@pytest.mark.parametrize(
    ("kind", "text", "cause"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB.", Cause.CUDA_OOM),
        ("RuntimeError", "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes", Cause.HOST_OOM),
        ("OSError", "[Errno 28] No space left on device", Cause.DISK_FULL),
        ("OSError", "[Errno 122] Disk quota exceeded", Cause.DISK_FULL),
        ("RuntimeError", "[../gloo/transport/tcp/pair.cc:598] Connection closed by peer [127.0.1.1]:4711", Cause.PEER_LOST),
        ("DistBackendError", "NCCL error in: ProcessGroupNCCL.cpp, remote process exited", Cause.PEER_LOST),
        ("StageFailed", "the server says: Connection refused", Cause.CODE_OR_DATA),
        ("StageFailed", "the judge refuses: HTTP 400: CUDA out of memory", Cause.CODE_OR_DATA),
        ("StageFailed", "the judge refuses: HTTP 507: No space left on device", Cause.CODE_OR_DATA),
        ("StageUnavailable", "the judge is gone: HTTP 500: CUDA out of memory", Cause.UNAVAILABLE),
        ("StageUnavailable", "the judge is gone: connection: Connection refused", Cause.UNAVAILABLE),
        ("KeyError", "'no such column'", Cause.CODE_OR_DATA),
        ("MissingInput", "train needs pair/5f0c, which is not there", Cause.MISSING_INPUT),
    ],
)
def test_an_exception_tells_its_cause(kind: str, text: str, cause: Cause) -> None:
    assert cause_of_exception(kind, text) is cause


@pytest.mark.parametrize(
    ("code", "said", "cause"),
    [
        (143, "srun: error: node2: task 1: Killed", Cause.KILLED),
        (143, "srun: error: node2: task 1: Segmentation fault", Cause.KILLED),
        (1, "srun: error: node1: task 0: Out Of Memory\nslurmstepd: error: Detected 1 oom-kill event(s)", Cause.HOST_OOM),
        (
            137,
            "slurmstepd-node1: error: StepId=1.0 exceeded memory limit (718819328 > 419430400), being killed\n"
            "srun: error: node1: task 0: Killed",
            Cause.HOST_OOM,
        ),
        (143, "srun: error: Node failure on node4", Cause.NODE_FAILURE),
        (
            1,
            "srun: error: Unable to confirm allocation for job 36: Unable to contact slurm controller (connect failure)",
            Cause.LAUNCH_FAILURE,
        ),
        (-9, "", Cause.KILLED),
        (137, "", Cause.KILLED),
        (1, "ModuleNotFoundError: No module named 'vllm'", Cause.CODE_OR_DATA),
        (2, "slurmstepd: error: execve(): /nonexistent: No such file or directory", Cause.CODE_OR_DATA),
    ],
)
def test_without_an_exception_the_log_and_the_code_tell(code: int, said: str, cause: Cause) -> None:
    assert cause_of_log(code, said)[0] is cause


def test_the_line_that_tells_the_cause_is_kept_whoever_was_named_before() -> None:
    said = "srun: error: node1: task 0: Exited with exit code 75\nsrun: error: node2: task 1: Killed\n"
    assert cause_of_log(143, said) == (Cause.KILLED, "srun: error: node2: task 1: Killed")


@pytest.mark.parametrize(
    ("state", "reason", "derived", "cause"),
    [
        ("TIMEOUT", "None", (0, 0), Cause.TIMEOUT),
        ("PREEMPTED", "None", (0, 0), Cause.PREEMPTED),
        ("NODE_FAIL", "None", (0, 0), Cause.NODE_FAILURE),
        ("OUT_OF_MEMORY", "OutOfMemory", (0, 0), Cause.HOST_OOM),
        ("CANCELLED", "None", (0, 0), Cause.CANCELLED),
        ("CANCELLED", "Dependency", (0, 0), Cause.HELD),
        ("FAILED", "None", (0, 125), Cause.HOST_OOM),
        ("FAILED", "NonZeroExitCode", (0, 15), Cause.KILLED),
        ("COMPLETED", "None", (0, 0), Cause.LAUNCH_FAILURE),
    ],
)
def test_where_the_driver_left_no_word_slurms_state_tells(
    state: str, reason: str, derived: tuple[int, int], cause: Cause
) -> None:
    assert cause_of_state(Attempt(state, (1, 0), derived, reason, None, None, 0, {}, "node1")) is cause


@pytest.mark.parametrize("cause", Cause)
def test_only_a_task_s_own_failure_spares_the_others_of_its_job(cause: Cause) -> None:
    own = (Cause.CODE_OR_DATA, Cause.CUDA_OOM, Cause.MISSING_INPUT, Cause.UNAVAILABLE)
    assert cause.is_of_the_task is (cause in own)


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_a_lost_partner_never_hides_the_failure_that_explains_it(tmp_path: Path) -> None:
    record_failure(tmp_path, 0, raised(RuntimeError("Connection closed by peer")))
    record_failure(tmp_path, 1, raised(ValueError("no pair to train on")))
    failure = first_failure(tmp_path)
    assert failure is not None
    assert failure.reason.startswith("ValueError: no pair to train on")
    forget_failures(tmp_path)
    assert first_failure(tmp_path) is None


@pytest.mark.parametrize("error", [StageFailed("no pair"), StageUnavailable("the judge is gone")])
def test_what_a_stage_says_of_itself_needs_no_type_and_no_line(tmp_path: Path, error: Exception) -> None:
    record_failure(tmp_path, 0, raised(error))
    failure = first_failure(tmp_path)
    assert failure is not None
    assert failure.reason == str(error)


def test_a_failure_names_the_line_of_ours_that_it_came_through(tmp_path: Path) -> None:
    from eva_hpc.plan.jobs import make_jobs

    try:
        make_jobs(None, [None], None)  # type: ignore[arg-type, list-item]
    except AttributeError as error:
        record_failure(tmp_path, 0, error)
    failure = first_failure(tmp_path)
    assert failure is not None
    assert failure.where.startswith("plan/jobs.py:")
