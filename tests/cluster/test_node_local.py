"""Caches and ports of a job on its node."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from eva_hpc.cluster import node_local
from eva_hpc.cluster.node_local import free_port, node_local_environment, port_range, remove_caches, rendezvous_port

CACHES = {"VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUDA_CACHE_PATH", "TORCH_EXTENSIONS_DIR"}


@pytest.fixture
def node(tmp_path: Path) -> dict[str, str]:
    """The environment of a process on a node whose temporary folder is this test's."""
    return {"TMPDIR": str(tmp_path), "SLURMD_NODENAME": "node1", "SLURM_STEP_ID": "3"}


def base(node: dict[str, str]) -> Path:
    return Path(node["TMPDIR"]) / f"eva-hpc-{os.getuid()}"


def test_caches_are_on_the_node_by_job_and_for_this_user_alone(node):
    variables = node_local_environment("17", 0, node)

    assert variables.keys() == CACHES | {"VLLM_PORT"}
    folder = base(node) / "17" / "node1"
    assert {Path(variables[name]).parent for name in CACHES} == {folder}
    assert stat.S_IMODE(base(node).stat().st_mode) == 0o700
    assert folder.is_dir()


def test_what_slurm_makes_for_the_job_is_preferred(node, tmp_path):
    (tmp_path / "job").mkdir()
    variables = node_local_environment("17", 0, {**node, "SLURM_TMPDIR": str(tmp_path / "job")})
    assert Path(variables["TRITON_CACHE_DIR"]).is_relative_to(tmp_path / "job")


def test_ranks_of_a_node_share_kernels_but_not_what_vllm_writes_nor_its_ports(node):
    first, second = node_local_environment("17", 0, node), node_local_environment("17", 1, node)
    differ = {name for name in first if first[name] != second[name]}
    assert differ == {"VLLM_CACHE_ROOT", "VLLM_PORT"}


def test_nodes_that_share_a_temporary_folder_do_not_share_caches(node):
    here, there = (node_local_environment("17", 0, {**node, "SLURMD_NODENAME": name}) for name in ("node1", "node2"))
    assert all(here[name] != there[name] for name in CACHES)


def test_a_step_does_not_wait_for_the_lock_that_a_killed_one_left(node):
    later = node_local_environment("17", 0, {**node, "SLURM_STEP_ID": "4"})
    assert later["TORCH_EXTENSIONS_DIR"] != node_local_environment("17", 0, node)["TORCH_EXTENSIONS_DIR"]


def test_what_the_user_has_set_stays(node):
    own = {"VLLM_CACHE_ROOT": "/scratch/vllm", "VLLM_PORT": "5000"}
    assert not node_local_environment("17", 0, {**node, **own}).keys() & own.keys()


def test_the_cache_of_downloaded_models_stays_where_it_is(node):
    assert not {"XDG_CACHE_HOME", "HF_HOME", "HOME"} & node_local_environment("17", 0, node).keys()


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
def test_a_folder_that_somebody_else_could_write_to_is_not_used(node, tmp_path, capsys, kind):
    if kind == "open to others":
        base(node).mkdir()
        base(node).chmod(0o777)
    elif kind == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        base(node).symlink_to(tmp_path / "elsewhere")
    else:
        base(node).write_text("")

    assert node_local_environment("17", 0, node).keys() == {"VLLM_PORT"}
    assert str(base(node)) in capsys.readouterr().out


def test_the_end_of_a_job_removes_its_caches_on_that_node_only(node):
    for job, name in (("17", "node1"), ("17", "node2"), ("18", "node1")):
        node_local_environment(job, 0, {**node, "SLURMD_NODENAME": name})

    remove_caches("17", node)
    assert {str(path.relative_to(base(node))) for path in base(node).glob("*/*")} == {"17/node2", "18/node1"}
    remove_caches("17", {**node, "SLURMD_NODENAME": "node2"})
    assert {path.name for path in base(node).iterdir()} == {"18"}
    remove_caches("17", node)


def test_what_killed_jobs_left_goes_when_a_job_starts_a_week_later(node):
    node_local_environment("17", 0, node)
    node_local_environment("18", 0, node)
    os.utime(base(node) / "17", (0, 0))

    node_local_environment("19", 0, node)
    assert {path.name for path in base(node).iterdir()} == {"18", "19"}


# ---------------------------------------------------------------------------- ports


@pytest.fixture
def kernel(monkeypatch):
    """Pretends which ports the kernel hands out."""

    def hands_out(first: int, last: int) -> None:
        monkeypatch.setattr(node_local, "_handed_out_by_the_kernel", lambda: (first, last))

    return hands_out


@pytest.mark.parametrize(("first", "last"), [(32_768, 60_999), (10_064, 65_535), (9_000, 60_999), (1_024, 65_000)])
def test_ports_are_not_among_those_the_kernel_hands_out(kernel, first, last):
    kernel(first, last)
    for job in ("1", "4711", "99999999", "not a number"):
        ports = port_range(job)
        assert len(ports) == 64
        assert ports.start >= 1024
        assert ports.stop <= 65_536
        assert not set(ports) & set(range(first, last + 1))


def test_without_room_beside_the_kernels_there_still_are_ports(kernel):
    kernel(1_024, 65_535)
    assert len(port_range("17")) == 64


def test_the_real_range_of_this_kernel_is_read():
    first, last = node_local._handed_out_by_the_kernel()
    assert 0 < first < last < 65_536


def test_jobs_of_near_numbers_share_no_port(kernel):
    kernel(32_768, 60_999)
    ports = [port for job in range(1000, 1300) for port in port_range(str(job))]
    assert len(ports) == len(set(ports))
    assert port_range("1000") == port_range("1000"), "a requeued job finds its own again"


def test_local_ranks_and_the_rendezvous_have_ports_of_their_own(node):
    ports = port_range("17")
    of_ranks = [int(node_local_environment("17", rank, node)["VLLM_PORT"]) for rank in range(8)]
    assert len(set(of_ranks)) == 8
    assert set(of_ranks) <= set(ports)
    assert rendezvous_port("17") not in of_ranks


def test_a_taken_port_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        chosen = free_port(range(port, port + 1))
    assert chosen not in (0, port)
