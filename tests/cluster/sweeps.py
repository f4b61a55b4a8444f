"""Running the real command on the throwaway cluster, for the end-to-end tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml

from eva_hpc.cluster.ledger import Ledger

CHECKOUT = Path(__file__).parents[2]
FAULTS = Path(__file__).parent / "faults"


def site_file(
    folder: Path,
    *,
    slurm: Mapping[str, Any] = {},
    engine: Mapping[str, Any] = {},
    fault: Mapping[str, Any] = {},
    **changes: Any,
) -> str:
    """A site like devcluster, with some of its values changed, whose results are in `folder`; `fault` as in faults/."""
    site = yaml.safe_load((CHECKOUT / "sbatch" / "sites" / "devcluster.yaml").read_text())
    site["slurm"] |= slurm
    site["engine"] |= engine
    if fault:
        site["environment"] = {"PYTHONPATH": str(FAULTS), "EVA_HPC_TEST_FAULT": orjson.dumps(fault).decode()}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(site | changes | {"root": str(folder)}, sort_keys=False))
    return str(path)


def sweep(*arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    """Run ``python -m eva_hpc.sweep`` in the checkout."""
    command = [sys.executable, "-m", "eva_hpc.sweep", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=timeout, check=False)


def explain(result: subprocess.CompletedProcess[str], results: Path) -> str:
    """What a failed test should show: the output and the ends of all logs."""
    logs = [f"== {path}\n{path.read_text(errors='replace')[-3000:]}" for path in sorted(results.rglob("*.log"))]
    return "\n".join([result.stdout, result.stderr, *logs])


def results_of(root: Path) -> Path:
    """The one folder of results below a root; settings of the command line are part of its name."""
    (experiment,) = root.glob("*/experiment.json")
    return experiment.parent


def ledger(results: Path) -> list[dict]:
    """The events of a sweep."""
    return Ledger(results).events()
