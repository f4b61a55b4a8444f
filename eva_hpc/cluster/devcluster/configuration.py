"""The configuration files of the throwaway cluster, as text."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

REAL_MEMORY_MB = 16000  # per pretended node; config_overrides makes slurmd accept it whatever the machine has


@dataclass(frozen=True)
class Layout:
    """What a cluster is made of: everything its configuration is rendered from, kept in cluster.json.

    `loopback` says that only this machine can reach the daemons, `named` that node names resolve; `device` is the prefix of the
    character devices that stand in for GPUs ("" if there are none). Ports: slurmctld has `port`, node N has `port` + N.
    """

    directory: Path
    user: str
    nodes: int
    cpus_per_node: int
    gpus_per_node: int
    port: int
    loopback: bool
    named: bool
    device: str
    first_job_id: int

    @property
    def names(self) -> list[str]:
        """The nodes' names."""
        return [f"node{number}" for number in range(1, self.nodes + 1)]

    @property
    def slurm_conf(self) -> Path:
        """The value of SLURM_CONF for this cluster's clients."""
        return self.directory / "slurm.conf"

    def daemons(self) -> dict[str, Path]:
        """Each daemon's pid file, in the order in which they start."""
        run = self.directory / "run"
        nodes = {f"slurmd {name}": run / f"slurmd.{name}.pid" for name in self.names}
        return {"munged": run / "munged.pid", "slurmctld": run / "slurmctld.pid", **nodes}

    def to_json(self) -> str:
        """The text of cluster.json."""
        return json.dumps({**asdict(self), "directory": str(self.directory)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Layout:
        """Inverse of `to_json`; what another version of this program may have added is left out."""
        values = json.loads(text)
        known = {field.name: values[field.name] for field in fields(cls)}
        return cls(**{**known, "directory": Path(values["directory"])})


def slurm_conf(layout: Layout) -> str:
    """The private slurm.conf.

    munge has a key and a socket of its own: without authentication any user of the machine could run jobs as its owner.
    cred_expire=5 (the minimum) lets a requeued job start after 6 s instead of 2 min. GraceTime with preempt_send_user_signal is
    the only way of preemption that leaves a nested step time to save.
    """
    d, last = layout.directory, layout.nodes
    ports = f"[{layout.port + 1}-{layout.port + last}]"
    gpus = f" Gres=gpu:a100:{layout.gpus_per_node}" if layout.gpus_per_node else ""
    lines = [
        "ClusterName=devcluster",
        "SlurmctldHost=localhost",
        f"SlurmctldPort={layout.port}",
        f"SlurmUser={layout.user}",
        f"SlurmdUser={layout.user}",
        "AuthType=auth/munge",
        "CredType=cred/munge",
        f"AuthInfo=socket={d}/run/munge.sock,cred_expire=5",
        "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny" if layout.loopback else "",
        f"SlurmctldPidFile={d}/run/slurmctld.pid",
        f"SlurmdPidFile={d}/run/slurmd.%n.pid",
        f"StateSaveLocation={d}/state",
        f"SlurmdSpoolDir={d}/spool/%n",
        f"SlurmctldLogFile={d}/log/slurmctld.log",
        f"SlurmdLogFile={d}/log/slurmd.%n.log",
        "MpiDefault=none",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/linux",
        "AccountingStorageType=accounting_storage/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        "SchedulerParameters=sched_interval=2,sched_min_interval=0,batch_sched_delay=0,bf_interval=2",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "SlurmctldParameters=preempt_send_user_signal",
        "JobRequeue=1",
        f"FirstJobId={layout.first_job_id}",
        "MaxArraySize=1001",
        "MinJobAge=3600",
        "KillWait=5",
        "SlurmdTimeout=20",
        "ReturnToService=2",
        "SlurmdParameters=config_overrides",
        "GresTypes=gpu" if gpus else "",
        f"NodeName=node[1-{last}] NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports}"
        f" CPUs={layout.cpus_per_node} State=UNKNOWN RealMemory={REAL_MEMORY_MB}{gpus}",
        "PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 MaxTime=INFINITE State=UP",
        "PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def gres_conf(layout: Layout) -> str:
    """The gres.conf: Slurm sets CUDA_VISIBLE_DEVICES only for character devices, so GPUs are pretended with terminals."""
    if not layout.gpus_per_node:
        return ""
    device = f"File={layout.device}[0-{layout.gpus_per_node - 1}]" if layout.device else f"Count={layout.gpus_per_node}"
    return f"Name=gpu Type=a100 {device}\n"
