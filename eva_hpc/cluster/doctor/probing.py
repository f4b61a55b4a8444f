"""Probe jobs: small real jobs, one for each place that jobs of a site are sent to, and what came back from them.

They are submitted like the jobs of a sweep, through the same code, and run `eva_hpc.cluster.probe` on a compute node. Their
files lie in ROOT/.doctor/ID, which goes when all is done. Whatever happens, no probe job stays in the queue.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eva_hpc.cluster import queue
from eva_hpc.cluster.doctor.kinds import Kind
from eva_hpc.cluster.probe import write
from eva_hpc.cluster.reasons import explain_reason
from eva_hpc.cluster.rendezvous import nested_step
from eva_hpc.cluster.snapshot import setup_lines, take_snapshot
from eva_hpc.cluster.software import command_in, srun_options
from eva_hpc.config.site import Site, Software
from eva_hpc.plan.jobs import Placement

START_S = 120.0
"""How long a probe job may wait in the queue."""

_RUN_S = 420.0
_MINUTES = 10
_MEM_GB = 8.0
_LOOK_S = 0.1
_ASK_SLURM_S = 2.0
_LAST_FILES_S = 5.0
JOB_NAME = "eva-hpc:doctor"
HUB = "https://huggingface.co"


@dataclass
class Probe:
    """A probe job and what is known of it.

    `software` are the environments it looks into, by name. Times are this machine's: `seen` when its first file was seen here,
    `echoed` when doctor answered, `ponged` when that was answered. `failure` says why there is no answer.
    """

    kind: Kind
    folder: Path
    software: dict[str, Software]
    nodes: int
    gpus: int
    job: str = ""
    seen: float | None = None
    echoed: float = 0.0
    ponged: float | None = None
    there: float = 0.0
    answer: dict[str, Any] | None = None
    failure: str = ""
    advice: str = ""
    gone: float | None = field(default=None, repr=False)

    @property
    def waits(self) -> bool:
        """Whether it may still answer."""
        return self.answer is None and not self.failure


def run_probes(
    site: Site, kinds: Iterable[Kind], needed: Callable[[Software], list[str]], note: Callable[[str], None]
) -> list[Probe]:
    """Submit a probe job for each place of these kinds, wait for all, and clean up.

    Args:
        site: where.
        kinds: of jobs.
        needed: the packages that an environment must have.
        note: told what is waited for.

    Raises:
        ControllerAway: Slurm does not answer.
        OSError: the site's root cannot be written.
    """
    token = secrets.token_hex(4)
    folder, name = Path(site.root).absolute() / ".doctor" / token, f"{JOB_NAME}:{token}"
    folder.mkdir(parents=True)
    probes = _probes(site, kinds, folder)
    with _cleared(probes, folder, name):
        for probe in probes:
            _submit(probe, site, needed, name)
        _wait(probes, note)
    return probes


@contextlib.contextmanager
def _cleared(probes: list[Probe], folder: Path, name: str) -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(queue.QueueError):
            queue.cancel(probe.job for probe in probes if probe.job and probe.answer is None)
            if any(not probe.job for probe in probes):  # sbatch may have been interrupted after Slurm took the job
                queue.cancel(queue.squeue([], names=[name]))
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another doctor may be at work beside this one
            folder.parent.rmdir()


def _probes(site: Site, kinds: Iterable[Kind], folder: Path) -> list[Probe]:
    """One for each place, with or without GPUs; it looks into the environments of all stages that go there."""
    found: dict[tuple[Placement, bool], Probe] = {}
    for kind in sorted(kinds, key=lambda kind: -kind.shape.nodes):  # the widest tells most
        shape = kind.shape
        key = (shape.placement, shape.gpus_per_node > 0)
        if key not in found:
            small = replace(
                shape,
                nodes=min(2, shape.nodes),
                cpus_per_node=min(2, shape.cpus_per_node),
                gpus_per_node=min(1, shape.gpus_per_node),
                mem_gb=min(_MEM_GB, shape.mem_gb) if shape.mem_gb else None,
                time_minutes=min(_MINUTES, shape.time_minutes),
            )
            array = kind.array.model_copy(
                update={"shape": small, "jobs": kind.array.jobs[:1], "after": (), "along": None, "canary": None}
            )
            place = folder / str(len(found))
            found[key] = Probe(replace(kind, array=array), place, {}, small.nodes, small.gpus_per_node)
        for stage in kind.stages:
            software = site.software_of(stage)
            found[key].software.setdefault(name_of(software), software)
    return list(found.values())


def name_of(software: Software) -> str:
    """An environment in a few words."""
    if software.container:
        return f"{software.container.runtime} {software.container.image}"
    parts = [software.python or f"the launcher's Python ({sys.executable})", *software.setup[:1]]
    return " after ".join(parts)


def _submit(probe: Probe, site: Site, needed: Callable[[Software], list[str]], name: str) -> None:
    from eva_hpc.cluster.submission import make_executor

    (probe.folder / "log").mkdir(parents=True)  # Slurm does not make it: without it the job fails before it starts
    nonce = secrets.token_hex(8)
    (probe.folder / "nonce").write_text(nonce)
    root = Path(site.root).absolute()
    request = {
        "nodes": probe.nodes,
        "gpus": probe.gpus,
        "gpu_type": probe.kind.shape.placement.gpu_type,
        "hub": site.environment.get("HF_ENDPOINT", os.environ.get("HF_ENDPOINT", HUB)),
        "software": {one: _command(software, needed(software), probe, root) for one, software in probe.software.items()},
    }
    write(probe.folder / "request.json", request)
    executor = make_executor(probe.kind.array, site, probe.folder / "log", name, setup=setup_lines(take_snapshot(root)))
    command = shlex.join([sys.executable, "-u", "-m", "eva_hpc.cluster.probe", "node", str(probe.folder), nonce])
    script = probe.folder / "probe.sh"
    script.write_text(executor._make_submission_file_text(command, "doctor"))
    try:
        probe.job = queue.sbatch(script)
    except queue.ControllerAway:
        raise
    except queue.QueueError as error:
        probe.failure = f"sbatch refused it: {' '.join(str(error).split())}"


def _command(software: Software, names: list[str], probe: Probe, root: Path) -> list[str]:
    command = command_in(software, ["-m", "eva_hpc.cluster.probe", "packages", *names], [root])
    options = srun_options(software, [root])
    if not options:
        return command
    kind = probe.kind.shape.placement.gpu_type
    return nested_step(
        command, nodes=1, ranks_per_node=1, gpus_per_node=probe.gpus, cpus_per_rank=1, gpu_type=kind, options=options
    )


def _wait(probes: list[Probe], note: Callable[[str], None]) -> None:
    began = time.monotonic()
    asked = -_ASK_SLURM_S
    entries: dict[str, queue.QueueEntry] = {}
    while waiting := [probe for probe in probes if probe.waits]:
        for probe in waiting:
            _look(probe)
        if time.monotonic() - asked > _ASK_SLURM_S:
            asked = time.monotonic()
            with contextlib.suppress(queue.QueueError):  # asked again soon
                entries = queue.squeue([probe.job for probe in waiting], ended=True)
                note("; ".join(_told(probe, entries.get(probe.job)) for probe in waiting))
        for probe in waiting:
            if probe.waits:
                _judge(probe, entries.get(probe.job), time.monotonic() - began)
        time.sleep(_LOOK_S)


def _look(probe: Probe) -> None:
    """See which of its files are there."""
    folder = probe.folder
    if probe.seen is None and (folder / "hello.json").exists():
        probe.seen = time.monotonic()
        probe.echoed = time.time()
        (folder / "echo").touch()
    if probe.seen is not None and probe.ponged is None and (folder / "pong.json").exists():
        probe.ponged = time.time()
        probe.there = json.loads((folder / "pong.json").read_text())["time"]
    if (folder / "answer.json").exists():
        probe.answer = json.loads((folder / "answer.json").read_text())


def _told(probe: Probe, entry: queue.QueueEntry | None) -> str:
    if entry is None or entry.state != "PENDING":
        return f"probe job {probe.job}: {entry.state.lower() if entry else 'submitted'}"
    return f"probe job {probe.job} waits: {explain_reason(entry.reason).meaning}"


def _judge(probe: Probe, entry: queue.QueueEntry | None, waited_s: float) -> None:
    """Give up on a probe that has ended without an answer, or that takes too long."""
    pending = entry is None or entry.state in ("PENDING", "CONFIGURING")
    if entry is not None and pending:
        reason = explain_reason(entry.reason)
        if waited_s > START_S or (reason.is_stuck and waited_s > 2 * _ASK_SLURM_S):
            probe.failure = f"it did not start within {waited_s:.0f} s: {reason.meaning} ({reason.code})"
            probe.advice = reason.advice or "try again when the cluster is less busy"
        return
    if entry is not None and entry.active:
        if waited_s > START_S + _RUN_S:
            probe.failure, probe.advice = f"it ran for too long{_last_words(probe)}", "look at the node's load and file system"
        return
    if entry is None and waited_s < START_S:  # too new for squeue
        return
    # Its last files may be slower than the news that it has ended.
    probe.gone = probe.gone or time.monotonic()
    if time.monotonic() - probe.gone > _LAST_FILES_S:
        probe.failure, probe.advice = _why_no_answer(probe, entry)


def _why_no_answer(probe: Probe, entry: queue.QueueEntry | None) -> tuple[str, str]:
    state = entry.state if entry else "unknown to Slurm"
    try:
        job = queue.show_job(probe.job)
    except queue.QueueError:
        job = {}
    code, node = job.get("ExitCode", ""), job.get("BatchHost", "the node")
    words = _last_words(probe)
    if not words and probe.seen is None:
        found = (
            f"it ended on {node} ({state}, code {code}), and nothing that it wrote below {probe.folder.parents[1]} is seen here"
        )
        return found, "set root to a folder that compute nodes and this machine share"
    return f"it ended on {node} ({state}, code {code}) without an answer{words}", "see what it said; try slurm.setup by hand"


def _last_words(probe: Probe) -> str:
    lines: list[str] = []
    for log in sorted((probe.folder / "log").glob("*_log.*"), key=lambda path: path.suffix):
        lines += [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1].strip()}" if lines else ""
