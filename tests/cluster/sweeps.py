"""Running the real command on the throwaway cluster, for the end-to-end tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from eva_hpc.cluster.ledger import Ledger

CHECKOUT = Path(__file__).parents[2]


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
