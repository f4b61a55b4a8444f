"""The sweep files that come with the project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))


def only(sweep: Path, number: int) -> list[str]:
    """Words of the command line that leave one value of each axis: its first, or with -1 its last."""
    axes: dict[str, Any] = yaml.safe_load(sweep.read_text())["axes"]
    kept = {
        axis: dict([list(values.items())[number]]) if isinstance(values, dict) else [values[number]]
        for axis, values in axes.items()
    }
    return [word for axis, value in kept.items() for word in ("--set", f"sweep.axes.{axis}={json.dumps(value)}")]
