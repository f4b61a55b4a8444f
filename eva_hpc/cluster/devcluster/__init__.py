"""A throwaway Slurm on this machine: real daemons, pretended nodes and GPUs.

The CLI and tests/cluster call `up`, `status` and `down`, tests also what is in `faults`; clients reach the cluster through
`Cluster.environment()`.
May import nothing of ours and nothing heavy.
"""

from eva_hpc.cluster.devcluster.lifecycle import Cluster, Status, default_directory, down, status, up
from eva_hpc.cluster.devcluster.processes import DevclusterError, leftovers

__all__ = ["Cluster", "DevclusterError", "Status", "default_directory", "down", "leftovers", "status", "up"]
