"""Throwaway clusters for the tests. A test module talks to one of them: whichever of the fixtures it asks for."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eva_hpc.cluster import devcluster as throwaway
from eva_hpc.cluster.devcluster.processes import program

PREFIX = "testcluster-"


@pytest.fixture(scope="session")
def slurm_installed() -> None:
    _skip_without("slurmctld")


@pytest.fixture(scope="session")
def accounting_installed(slurm_installed: None) -> None:
    _skip_without("slurmdbd")


@pytest.fixture(scope="session")
def _plain(slurm_installed: None) -> Iterator[throwaway.Cluster]:
    with _running() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def _with_accounting(accounting_installed: None) -> Iterator[throwaway.Cluster]:
    with _running(accounting=True, enforce=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def devcluster(_plain: throwaway.Cluster) -> Iterator[throwaway.Cluster]:
    """A real Slurm of 4 nodes; Slurm's clients find it through the environment of this process until the module ends."""
    with _clients_use(_plain):
        yield _plain


@pytest.fixture(scope="module")
def accounting_cluster(_with_accounting: throwaway.Cluster) -> Iterator[throwaway.Cluster]:
    """Another one, with sacct and limits. Who sets a limit takes it back."""
    with _clients_use(_with_accounting):
        yield _with_accounting


@contextlib.contextmanager
def _running(**wanted: Any) -> Iterator[throwaway.Cluster]:
    # Not pytest's own temporary directory: its path can be too long for Slurm's sockets.
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
    try:
        yield throwaway.up(directory, **wanted)
    finally:
        throwaway.down(directory)
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _clients_use(cluster: throwaway.Cluster) -> Iterator[None]:
    before = dict(os.environ)
    assert PREFIX not in before.get("SLURM_CONF", ""), "a test module can talk to one cluster only"
    os.environ.update(cluster.environment())
    yield
    os.environ.clear()
    os.environ.update(before)


def _skip_without(name: str) -> None:
    try:
        program(name)
    except throwaway.DevclusterError as error:
        pytest.skip(f"no real Slurm: {error}")
