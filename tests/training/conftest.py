from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def engine_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the scenarios of the engine left what they wrote."""
    path = tmp_path_factory.mktemp("engine")
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.engine_scenarios", str(path)]
    # So that what is freed goes back to the system at once, and memory that is measured is memory that is used.
    exact = {"MALLOC_MMAP_THRESHOLD_": "200000", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], env=os.environ | {"OMP_NUM_THREADS": "1"} | exact, timeout=280
    )
    assert done.returncode == 0
    return path
