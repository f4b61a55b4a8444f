"""How often the kernel has killed a process for want of memory in the cgroup of this one.

Slurm says so itself, but not before the step has ended, and a step of hosts ends with its job.
"""

from __future__ import annotations

from pathlib import Path

_COUNTERS = {
    "memory": "memory/{path}/memory.oom_control",  # cgroup v1
    "": "{path}/memory.events",  # v2
}


def oom_kills(cgroup: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> int:
    """The count of OOM kills so far; 0 where the kernel does not tell."""
    try:
        lines = cgroup.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        _, controllers, path = line.split(":", 2)
        place = _COUNTERS.get(controllers)
        if place is None:
            continue
        try:
            counters = (mounted / place.format(path=path.strip("/"))).read_text()
        except OSError:
            continue
        return sum(int(count) for name, count in (counter.split() for counter in counters.splitlines()) if name == "oom_kill")
    return 0
