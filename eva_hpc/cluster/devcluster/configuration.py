"""The configuration files of the throwaway cluster, as text."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

CLUSTER = "devcluster"  # also the account in accounting
REAL_MEMORY_MB = 16000  # per pretended node; config_overrides makes slurmd accept it whatever the machine has


@dataclass(frozen=True)
class Layout:
    """What a cluster is made of: everything its configuration is rendered from, kept in cluster.json.

    `loopback` says that only this machine can reach the daemons, `named` that node names resolve; `device` is the prefix of the
    character devices that stand in for GPUs ("" if there are none). Ports: slurmctld has `port`, node N has `port` + N, and
    slurmdbd the one after the last node's. `options` are lines of slurm.conf that take the place of ours.
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
    accounting: bool = False
    enforce: bool = False
    options: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The nodes' names."""
        return [f"node{number}" for number in range(1, self.nodes + 1)]

    @property
    def slurm_conf(self) -> Path:
        """The value of SLURM_CONF for this cluster's clients."""
        return self.directory / "slurm.conf"

    @property
    def slurmdbd_port(self) -> int:
        """The last of its ports."""
        return self.port + self.nodes + 1

    def daemons(self) -> dict[str, Path]:
        """Each daemon's pid file, in the order in which they start."""
        run = self.directory / "run"
        first = ["munged", "mariadbd", "slurmdbd", "slurmctld"] if self.accounting else ["munged", "slurmctld"]
        nodes = {f"slurmd {name}": run / f"slurmd.{name}.pid" for name in self.names}
        return {name: run / f"{name}.pid" for name in first} | nodes

    def to_json(self) -> str:
        """The text of cluster.json."""
        return json.dumps({**asdict(self), "directory": str(self.directory)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Layout:
        """Inverse of `to_json`; what another version of this program may have added is left out."""
        values = json.loads(text)
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        return cls(**{**known, "directory": Path(values["directory"])})

    @classmethod
    def read(cls, directory: Path) -> Layout | None:
        """The layout of the cluster in the directory; None if there never was one."""
        try:
            return cls.from_json((directory / "cluster.json").read_text())
        except FileNotFoundError:
            return None


def slurm_conf(layout: Layout) -> str:
    """The private slurm.conf.

    munge has a key and a socket of its own: without authentication any user of the machine could run jobs as its owner.
    cred_expire=5 (the minimum) lets a requeued job start after 6 s instead of 2 min. GraceTime with preempt_send_user_signal is
    the only way of preemption that leaves a nested step time to save.
    """
    d, last = layout.directory, layout.nodes
    gpus = f" Gres=gpu:a100:{layout.gpus_per_node}" if layout.gpus_per_node else ""
    settings = {
        "ClusterName": CLUSTER,
        "SlurmctldHost": "localhost",
        "SlurmctldPort": str(layout.port),
        "SlurmUser": layout.user,
        "SlurmdUser": layout.user,
        "AuthType": "auth/munge",
        "CredType": "cred/munge",
        "AuthInfo": f"socket={d}/run/munge.sock,cred_expire=5",
        "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny" if layout.loopback else "",
        "SlurmctldPidFile": f"{d}/run/slurmctld.pid",
        "SlurmdPidFile": f"{d}/run/slurmd.%n.pid",
        "StateSaveLocation": f"{d}/state",
        "SlurmdSpoolDir": f"{d}/spool/%n",
        "SlurmctldLogFile": f"{d}/log/slurmctld.log",
        "SlurmdLogFile": f"{d}/log/slurmd.%n.log",
        "MpiDefault": "none",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/linux",
        "AccountingStorageType": "accounting_storage/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "SchedulerParameters": "sched_interval=2,sched_min_interval=0,batch_sched_delay=0,bf_interval=2",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "SlurmctldParameters": "preempt_send_user_signal",
        "JobRequeue": "1",
        "FirstJobId": str(layout.first_job_id),
        "MaxArraySize": "1001",
        "MinJobAge": "3600",
        "KillWait": "5",
        "SlurmdTimeout": "20",
        "ReturnToService": "2",
        "SlurmdParameters": "config_overrides",
        "GresTypes": "gpu" if gpus else "",
    }
    if layout.accounting:
        settings |= _accounting(layout)
    names = {name.lower(): name for name in settings}  # Slurm does not tell capitals either
    settings |= {names.get(name.lower(), name): value for name, value in layout.options.items()}
    lines = [f"{name}={value}" for name, value in settings.items() if value] + [
        f"NodeName=node[1-{last}] NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{layout.port + 1}-{layout.port + last}]"
        f" CPUs={layout.cpus_per_node} State=UNKNOWN RealMemory={REAL_MEMORY_MB}{gpus}",
        "PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 MaxTime=INFINITE State=UP",
        "PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP",
    ]
    return "\n".join(lines) + "\n"


def slurmdbd_conf(layout: Layout) -> str:
    """The private slurmdbd.conf; its database is on this machine and needs no password."""
    d = layout.directory
    settings = {
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={d}/run/munge.sock",
        "CommunicationParameters": "NoCtldInAddrAny" if layout.loopback else "",
        "DbdHost": "localhost",
        "DbdPort": str(layout.slurmdbd_port),
        "SlurmUser": layout.user,
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "localhost",
        "StorageUser": layout.user,
        "StorageLoc": "slurm_acct_db",
        "PidFile": f"{d}/run/slurmdbd.pid",
        "LogFile": f"{d}/log/slurmdbd.log",
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items() if value)


def _accounting(layout: Layout) -> dict[str, str]:
    """What slurm.conf says of accounting. Without the storage's "password", here munge's socket, clients use another munge."""
    return {
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": "localhost",
        "AccountingStoragePort": str(layout.slurmdbd_port),
        "AccountingStoragePass": f"{layout.directory}/run/munge.sock",
        "AccountingStorageTRES": "gres/gpu" if layout.gpus_per_node else "",
        "AccountingStorageEnforce": "limits,qos" if layout.enforce else "",
    }


def gres_conf(layout: Layout) -> str:
    """The gres.conf: Slurm sets CUDA_VISIBLE_DEVICES only for character devices, so GPUs are pretended with terminals."""
    if not layout.gpus_per_node:
        return ""
    device = f"File={layout.device}[0-{layout.gpus_per_node - 1}]" if layout.device else f"Count={layout.gpus_per_node}"
    return f"Name=gpu Type=a100 {device}\n"
