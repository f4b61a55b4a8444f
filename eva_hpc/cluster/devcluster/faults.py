"""What goes wrong on real clusters, done to the throwaway one: nodes die, the controller goes away, processes are killed.

Tests call these. Each touches only processes that are surely the cluster's; `down` cleans up after all of them.
"""

from __future__ import annotations

from pathlib import Path

from eva_hpc.cluster.devcluster import daemons
from eva_hpc.cluster.devcluster.configuration import Layout
from eva_hpc.cluster.devcluster.processes import DevclusterError, kill, slurmstepds, stop, tail, tasks, wait_until

ALIVE = frozenset({"idle", "mixed", "allocated", "completing"})


def processes_of(directory: Path, node: str | None = None, job: str | None = None, text: str | None = None) -> list[int]:
    """Pids of the processes of jobs, oldest first as far as pids tell: of one node, one job ("12", or "12_3" for an array
    task; "12" is also all tasks of array 12), those with the text in their command line."""
    found = []
    for pid, environment in sorted(tasks(directory.resolve()).items()):
        array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
        jobs = {environment["SLURM_JOB_ID"], array, f"{array}_{task}"}
        here = node in (None, environment.get("SLURMD_NODENAME"))
        if here and (job is None or job in jobs) and (text is None or text in _command(pid)):
            found.append(pid)
    return found


def kill_node(directory: Path, node: str) -> None:
    """Let a node die: its slurmd, the watchers of its steps and all processes of jobs on it are gone at once.

    Slurm notices it later, and then its jobs end as NODE_FAIL or are requeued: seen after 25 s with SlurmdTimeout=8 and after
    9 s with SlurmdTimeout=6 and MessageTimeout=2, because the last attempts to reach the node last as long as a message may.
    """
    layout = _layout(directory, node)

    def gone() -> bool:
        slurmd = daemons.pid_of(layout, f"slurmd {node}")
        watchers = slurmstepds(layout.directory, node)
        return not kill([*([slurmd] if slurmd else []), *watchers, *processes_of(layout.directory, node=node)])

    if not wait_until(gone, timeout_s=10):
        raise DevclusterError(f"processes on {node} come back")


def start_node(directory: Path, node: str, timeout_s: float = 30) -> None:
    """Start a node's slurmd again and wait until Slurm gives it work."""
    layout = _layout(directory, node)
    if daemons.pid_of(layout, f"slurmd {node}") is None:
        daemons.start_slurmd(layout, node)
    if not wait_until(lambda: daemons.node_states(layout).get(node) in ALIVE, timeout_s, interval_s=0.1):
        log = layout.directory / "log" / f"slurmd.{node}.log"
        raise DevclusterError(f"{node} is {daemons.node_states(layout).get(node)}:\n{tail(log)}")


def stop_controller(directory: Path, *, crash: bool = False) -> None:
    """End slurmctld; jobs that run go on.

    With `crash` it cannot save first: a job submitted a moment before is forgotten, and its id is given to the next one.
    """
    layout = _layout(directory)
    pid = daemons.pid_of(layout, "slurmctld")
    if pid is not None and crash:
        kill([pid])
    elif pid is not None:
        stop([pid], grace_s=20)


def start_controller(directory: Path, timeout_s: float = 30) -> None:
    """Start slurmctld again with the state that was saved, and wait until it answers; nodes are "unknown" a little longer."""
    layout = _layout(directory)
    if daemons.pid_of(layout, "slurmctld") is None:
        daemons.start_controller(layout)
    if not wait_until(lambda: " is UP" in daemons.client(layout, "scontrol", "ping"), timeout_s):
        raise DevclusterError(f"slurmctld does not answer:\n{tail(layout.directory / 'log' / 'slurmctld.log')}")


def _layout(directory: Path, node: str | None = None) -> Layout:
    layout = Layout.read(directory.resolve())
    if layout is None:
        raise DevclusterError(f"there is no cluster in {directory}")
    if node is not None and node not in layout.names:
        raise DevclusterError(f"no node {node}; there are {', '.join(layout.names)}")
    return layout


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it ended meanwhile
        return ""
