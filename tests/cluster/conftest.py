from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from eva_hpc.cluster import devcluster as throwaway
from eva_hpc.cluster.devcluster.processes import program


@pytest.fixture(scope="session")
def slurm_installed() -> None:
    try:
        program("slurmctld")
    except throwaway.DevclusterError as error:
        pytest.skip(f"no real Slurm: {error}")


@pytest.fixture(scope="session")
def devcluster(slurm_installed: None) -> Iterator[throwaway.Cluster]:
    """A real Slurm of 4 nodes for the whole session; its clients find it through the environment of this process."""
    # Not pytest's own temporary directory: its path can be too long for Slurm's sockets.
    directory = Path(tempfile.mkdtemp(prefix="devcluster-", dir="/tmp"))
    cluster = throwaway.up(directory)
    before = dict(os.environ)
    os.environ.update(cluster.environment())
    yield cluster
    throwaway.down(directory)
    os.environ.clear()
    os.environ.update(before)
    shutil.rmtree(directory, ignore_errors=True)
