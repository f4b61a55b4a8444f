"""CPU seconds until ``--help`` answers: ours beside a bare interpreter and beside importing what the stages need.

python bench/startup.py
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

from tabulate import tabulate

REPEATS = 9
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "python -m eva_hpc.sweep --help": ["-m", "eva_hpc.sweep", "--help"],
    "eva-hpc --help": ["-m", "eva_hpc", "--help"],
    "… sweeps/responses_per_prompt.yaml --dry-run": [
        *("-m", "eva_hpc.sweep", "sweeps/responses_per_prompt.yaml", "--dry-run", "--site", "laptop"),
    ],
    "import torch, transformers": ["-c", "import torch, transformers"],
}
LIMIT_S = 0.5


def cpu_seconds(arguments: list[str]) -> float:
    """User and system time of one run of the interpreter with these arguments, its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    rows = []
    medians = {}
    for name, arguments in COMMANDS.items():
        cpu_seconds(arguments)
        times = sorted(cpu_seconds(arguments) for _ in range(REPEATS))
        medians[name] = statistics.median(times)
        rows.append([name, times[0], medians[name], times[-1]])
    bare = medians["python -c pass"]
    rows = [[*row, medians[row[0]] / bare] for row in rows]
    print(tabulate(rows, ["command", "min", "median", "max", "ratio to bare"], floatfmt=".3f"))
    ours = medians["python -m eva_hpc.sweep --help"]
    print(f"\n--help: {ours:.3f} s of CPU, limit {LIMIT_S} s: {'within' if ours < LIMIT_S else 'ABOVE'}")


if __name__ == "__main__":
    main()
