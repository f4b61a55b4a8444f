"""What Slurm says about jobs: bounded calls of its clients, and parsers of their text.

Text formats, not JSON: the JSON schemas change with Slurm's releases. One call asks for all jobs, for the
controller's sake.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

SQUEUE_FORMAT = "%i|%T|%S|%j|%r"
SACCT_FIELDS = "JobID,State,ExitCode,DerivedExitCode,Reason,Start,End,ElapsedRaw,AllocTRES,NodeList,JobName"
ENDED_STATES = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
_SEVERAL_REASONS = re.compile(r"\|\w+(,\w+)+$", re.MULTILINE)
"""Tasks of an array that wait for different things: one line with "Dependency,DependencyNeverSatisfied" does not say which."""
AWAY = re.compile("Unable to contact slurm controller|Socket timed out|Connection refused|Zero Bytes|configuration source")
PERSONAL = re.compile("(SQUEUE|SACCT|SCANCEL|SCONTROL)_|SLURM_TIME_FORMAT$")


class QueueError(RuntimeError):
    """One of Slurm's clients refused; the message is the client's."""


class ControllerAway(QueueError):
    """Slurm does not answer now: its controller is down or overloaded, or Slurm is not installed here. Ask again later."""


@dataclass(frozen=True)
class QueueEntry:
    """A job in the queue.

    `state` is Slurm's long form (PENDING, RUNNING, …), `reason` why it waits or how it ended ("None" if there is nothing
    to say), `start` when it started or is expected to, in the controller's local time.
    """

    state: str
    reason: str
    start: datetime | None
    name: str = ""

    @property
    def active(self) -> bool:
        """Whether the job runs, or may still run without being submitted again; so does one in a state that is new to us."""
        return self.state not in ENDED_STATES


@dataclass(frozen=True)
class Attempt:
    """One attempt of a job in Slurm's accounting: a requeued job has several.

    Codes are (exit code, signal); `derived_exit` is the highest of the job's steps. `tres` are the amounts on all nodes.
    """

    state: str
    exit: tuple[int, int]
    derived_exit: tuple[int, int]
    reason: str
    start: datetime | None
    end: datetime | None
    elapsed_s: int
    tres: dict[str, str]
    nodes: str
    name: str = ""

    @property
    def gpus(self) -> int:
        """Allocated GPUs on all nodes."""
        return int(self.tres.get("gres/gpu", 0))

    @property
    def gpu_hours(self) -> float:
        """Allocated GPUs times elapsed time."""
        return self.gpus * self.elapsed_s / 3600


def installed() -> bool:
    """Whether Slurm's commands are on this machine."""
    return shutil.which("scontrol") is not None


def available(timeout_s: float = 5) -> bool:
    """Whether a Slurm controller answers."""
    try:
        return _run(["scontrol", "ping"], timeout_s).returncode == 0
    except ControllerAway:
        return False


def squeue(
    job_ids: Iterable[str], *, names: Collection[str] = (), ended: bool = False, timeout_s: float = 30
) -> dict[str, QueueEntry]:
    """The queue's entries of these jobs; ids are "12" or, for array tasks, "12_3". Jobs that Slurm does not know are left out.

    One call, whatever is asked for; a second one if tasks of one array wait for different things.

    Args:
        job_ids: jobs.
        names: also any job of this user with one of these names, whatever its id.
        ended: jobs that have ended are in it too, as long as the controller remembers them (MinJobAge, often 5 min).
        timeout_s: for the call.

    Raises:
        ControllerAway: no answer.
        QueueError: squeue refused.
    """
    wanted = set(job_ids)
    if not wanted and not names:
        return {}
    states = ["--states=all"] if ended else []
    which = [f"--user={os.getuid()}"] if names else ["-j", ",".join(_main_ids(wanted))]
    # Without -r, tasks of an array that wait are one line, which is much less work for the controller.
    text = _squeue_text([*states, *which], timeout_s)
    if _SEVERAL_REASONS.search(text):
        text = _squeue_text(["-r", *states, *which], timeout_s)
    return {job_id: entry for job_id, entry in parse_squeue(text).items() if job_id in wanted or entry.name in names}


def _squeue_text(options: list[str], timeout_s: float) -> str:
    result = _run(["squeue", "-h", "-o", SQUEUE_FORMAT, *options], timeout_s)
    if result.returncode and "Invalid job id" not in result.stderr:  # said when every job asked for is gone
        raise QueueError(result.stderr.strip())
    return result.stdout


def sacct(job_ids: Iterable[str], timeout_s: float = 30) -> dict[str, list[Attempt]] | None:
    """All attempts of these jobs from accounting, oldest first; None if this cluster has no accounting.

    A job that is not in the answer may be unknown, or too new: accounting lags behind.

    Raises:
        ControllerAway: no answer.
        QueueError: sacct refused.
    """
    wanted = set(job_ids)
    if not wanted:
        return {}
    command = ["sacct", "-n", "-P", "-X", "-D", "-o", SACCT_FIELDS, "-j", ",".join(_main_ids(wanted))]
    result = _run(command, timeout_s)
    if "accounting storage is disabled" in result.stderr:
        return None
    if result.returncode:
        raise QueueError(result.stderr.strip())
    return {job_id: attempts for job_id, attempts in parse_sacct(result.stdout).items() if job_id in wanted}


def cancel(job_ids: Iterable[str], timeout_s: float = 60) -> None:
    """Cancel jobs; those that have ended or that Slurm does not know are passed over.

    Raises:
        ControllerAway: no answer; some jobs may not be cancelled.
        QueueError: scancel refused, e.g. because a job is another user's.
    """
    wanted = sorted(set(job_ids))
    if not wanted:
        return
    result = _run(["scancel", *wanted], timeout_s)
    ended = re.compile("Invalid job id|already completing|already completed")
    refusals = [line for line in result.stderr.splitlines() if not ended.search(line)]
    if result.returncode and refusals:
        raise QueueError("\n".join(refusals))


def requeue(job_id: str, timeout_s: float = 60) -> None:
    """Put a running job back into the queue; Slurm ends its processes.

    Raises:
        ControllerAway: no answer.
        QueueError: scontrol refused.
    """
    _output(["scontrol", "requeue", job_id], timeout_s)


def update(job_id: str, changes: Mapping[str, str], timeout_s: float = 30) -> None:
    """Change a waiting job, e.g. its ``ExcNodeList`` or ``MinMemoryNode``; a job just requeued is waiting.

    Raises:
        ControllerAway: no answer.
        QueueError: scontrol refused.
    """
    _output(["scontrol", "update", f"JobId={job_id}", *(f"{name}={value}" for name, value in changes.items())], timeout_s)


def show_job(job_id: str, timeout_s: float = 10) -> dict[str, str]:
    """What the controller knows of a job, e.g. its ExcNodeList and MinMemoryNode.

    Raises:
        ControllerAway: no answer.
        QueueError: there is no such job, or not any more.
    """
    return parse_fields(_output(["scontrol", "--oneliner", "show", "job", job_id], timeout_s))


def down_nodes(nodelist: str, timeout_s: float = 10) -> list[str]:
    """Those nodes of a list that do not answer or are out of service.

    Raises:
        ControllerAway: no answer.
        QueueError: sinfo refused.
    """
    states = _output(["sinfo", "-h", "-N", "-o", "%N %T", "-n", nodelist], timeout_s)
    found = {line.split()[0]: line.split()[1] for line in states.splitlines()}
    return sorted(node for node, state in found.items() if state.endswith("*") or state.startswith(("down", "drain", "fail")))


def max_array_size(timeout_s: float = 10) -> int:
    """The cluster's MaxArraySize: the largest index of an array is one less.

    Raises:
        ControllerAway: no answer.
        QueueError: scontrol refused.
    """
    return int(parse_config(_output(["scontrol", "show", "config"], timeout_s))["MaxArraySize"])


def hostnames(nodelist: str, timeout_s: float = 10) -> list[str]:
    """The nodes of a list such as "gpu[01-03,07]".

    Raises:
        ControllerAway: Slurm is not installed here, or has no configuration.
        QueueError: this is no list of nodes.
    """
    return _output(["scontrol", "show", "hostnames", nodelist], timeout_s).split()


def show_node(name: str, timeout_s: float = 10) -> dict[str, str]:
    """What the controller knows of a node, e.g. its NodeAddr and State.

    Raises:
        ControllerAway: no answer.
        QueueError: there is no such node.
    """
    return parse_fields(_output(["scontrol", "--oneliner", "show", "node", name], timeout_s))


def version(timeout_s: float = 10) -> str:
    """The version of Slurm's commands here, e.g. "22.05.8".

    Raises:
        ControllerAway: Slurm is not installed here.
        QueueError: scontrol refused.
    """
    return _output(["scontrol", "--version"], timeout_s).split()[-1]


def show_config(timeout_s: float = 10) -> dict[str, str]:
    """The cluster's configuration, e.g. its MaxArraySize and KillWait ("30 sec").

    Raises:
        ControllerAway: no answer.
        QueueError: scontrol refused.
    """
    return parse_config(_output(["scontrol", "show", "config"], timeout_s))


def show_all(what: Literal["partition", "node", "reservation"], timeout_s: float = 30) -> dict[str, dict[str, str]]:
    """What the controller knows of all partitions, nodes or reservations, by name.

    Raises:
        ControllerAway: no answer.
        QueueError: scontrol refused.
    """
    return parse_named(_output(["scontrol", "--all", "--oneliner", "show", what], timeout_s))


def account_manager(what: str, fields: Sequence[str], *where: str, timeout_s: float = 15) -> list[dict[str, str]] | None:
    """Rows of ``sacctmgr show WHAT``, e.g. of "qos"; None if this cluster has no accounting or it does not answer."""
    command = ["sacctmgr", "-n", "-P", "show", what, *where, f"format={','.join(fields)}"]
    try:
        return parse_rows(_output(command, timeout_s), fields)
    except QueueError:
        return None


def would_start(script: Path, timeout_s: float = 30) -> str:
    """When and where Slurm would start a batch script, in its words; nothing is submitted.

    Raises:
        ControllerAway: no answer.
        QueueError: sbatch would refuse it.
    """
    result = _run(["sbatch", "--test-only", str(script)], timeout_s)
    said = " ".join(result.stderr.split())
    if result.returncode:
        raise QueueError(said)
    return said


def sbatch(script: Path, timeout_s: float = 60) -> str:
    """Submit a batch script; returns the job's id.

    Raises:
        ControllerAway: no answer; whether Slurm took the job is not known.
        QueueError: sbatch refused.
    """
    return _output(["sbatch", "--parsable", str(script)], timeout_s).strip().partition(";")[0]


def parse_squeue(text: str) -> dict[str, QueueEntry]:
    """Entries by job id from the text of ``squeue -h -o <SQUEUE_FORMAT>``, e.g. "12_[3-5%2]|PENDING|N/A|name|Priority"."""
    entries = {}
    for line in text.splitlines():
        job_ids, state, start, rest = line.split("|", 3)
        name, _, reason = rest.rpartition("|")
        entry = QueueEntry(state, reason, _time(start), name)
        entries |= dict.fromkeys(expand_array(job_ids), entry)
    return entries


def parse_sacct(text: str) -> dict[str, list[Attempt]]:
    """Attempts by job id from the text of ``sacct -n -P -X -D -o <SACCT_FIELDS>``.

    Array tasks that never started share one line, "12_[4-7,9%2]": each gets it.
    """
    attempts: dict[str, list[Attempt]] = {}
    for line in text.splitlines():
        job_ids, state, exit_code, derived, reason, start, end, elapsed, tres, nodes, name = line.split("|", 10)
        attempt = Attempt(
            state=state.split()[0],  # "CANCELLED by 1000"
            exit=_code(exit_code),
            derived_exit=_code(derived),
            reason=reason,
            start=_time(start),
            end=_time(end),
            elapsed_s=int(elapsed or 0),
            tres=dict(amount.split("=", 1) for amount in tres.split(",") if amount),
            nodes=nodes,
            name=name,
        )
        for job_id in expand_array(job_ids):
            attempts.setdefault(job_id, []).append(attempt)
    return attempts


def parse_config(text: str) -> dict[str, str]:
    """Names and values from the text of ``scontrol show config``."""
    return {name.strip(): value.strip() for name, sign, value in (line.partition("=") for line in text.splitlines()) if sign}


def parse_fields(text: str) -> dict[str, str]:
    """Fields from the text of ``scontrol --oneliner show node`` or ``job``; values with spaces keep their first word."""
    return {name: value for name, sign, value in (field.partition("=") for field in text.split()) if sign}


def parse_named(text: str) -> dict[str, dict[str, str]]:
    """Fields by name from the text of ``scontrol --oneliner show``: a line for each thing, its first field is its name."""
    lines = [parse_fields(line) for line in text.splitlines() if "=" in line.partition(" ")[0]]
    return {next(iter(fields.values())): fields for fields in lines}


def parse_rows(text: str, fields: Sequence[str]) -> list[dict[str, str]]:
    """Rows from the text of ``sacctmgr -n -P``, e.g. "normal|00:00:00|cluster"."""
    return [dict(zip(fields, line.split("|"), strict=False)) for line in text.splitlines() if line.strip()]


def expand_array(job_id: str) -> list[str]:
    """The array tasks that Slurm means by an id such as "12_[0-2,5%4]"; any other id is itself.

    Indices may have a step: "12_[0-8:4]" is 0, 4, 8.
    """
    match = re.fullmatch(r"(\d+)_\[([\d,:-]+)(?:%\d+)?\]", job_id)
    if not match:
        return [job_id]
    tasks = []
    for part in match[2].split(","):
        numbers = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if numbers:
            first, last, step = int(numbers[1]), int(numbers[2] or numbers[1]), int(numbers[3] or 1)
            tasks += [f"{match[1]}_{index}" for index in range(first, last + 1, step)]
    return tasks


def _main_ids(job_ids: set[str]) -> list[str]:
    """Array tasks are asked for by their array: thousands of ids would not fit on a command line."""
    return sorted({job_id.partition("_")[0] for job_id in job_ids}, key=int)


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # "N/A", "Unknown", "None"
        return None


def _code(text: str) -> tuple[int, int]:
    code, _, number = text.partition(":")
    return int(code or 0), int(number or 0)


def _output(command: list[str], timeout_s: float) -> str:
    result = _run(command, timeout_s)
    if result.returncode:
        raise QueueError((result.stderr + result.stdout).strip() or f"{' '.join(command)} ended with code {result.returncode}")
    return result.stdout


def _run(command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    # Users set SQUEUE_STATES, SACCT_FORMAT, SLURM_TIME_FORMAT and the like for their own eyes: they would change what we parse.
    environment = {name: value for name, value in os.environ.items() if not PERSONAL.match(name)}
    environment |= {"LC_ALL": "C", "SLURM_BITSTR_LEN": "0"}  # the latter: lists of array tasks are not cut short
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environment)
    except FileNotFoundError:
        raise ControllerAway(f"{command[0]} is not installed here") from None
    except subprocess.TimeoutExpired:
        raise ControllerAway(f"{command[0]} did not answer within {timeout_s:g} s") from None
    if result.returncode and AWAY.search(result.stderr):
        raise ControllerAway(result.stderr.strip())
    return result
