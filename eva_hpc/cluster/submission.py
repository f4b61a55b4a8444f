"""Handing an array to Slurm through submitit: what is asked for, the script, the errors of sbatch, and answers that got lost.

    RESULTS/slurm/TOKEN/        one folder for each submission
        submission.json         what its drivers read
        123_0_submitted.pkl     submitit's: a driver to run
        123_0_0_log.out, .err   submitit's: the log of a driver

TOKEN is in the name of the Slurm job too. It is in the ledger before sbatch is called: if the answer is lost, the name tells
whether Slurm has taken the array.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import signal
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eva_hpc.cluster.driver import Driver, Submission
from eva_hpc.cluster.ledger import Ledger
from eva_hpc.config.errors import ConfigError
from eva_hpc.config.site import Site
from eva_hpc.plan.jobs import Array
from eva_hpc.plan.plan import Plan
from eva_hpc.store.artifacts import write_atomically

_LOST = re.compile("Unable to contact|timed out|Communication connection failure|Zero Bytes|Transport endpoint|Connection re")
_LIMIT = re.compile(
    r"Submit\w*Limit|job submit limit|MaxJobs|Slurm temporarily unable to accept job|Resource temporarily unavailable|"
    r"maximum number of jobs|too many jobs",
    re.IGNORECASE,
)


class LimitReached(Exception):
    """Slurm takes no more jobs of this user for now."""


class AnswerLost(Exception):
    """Whether Slurm took the array is not known."""


@dataclass(frozen=True)
class Surroundings:
    """What all submissions of a sweep have in common; `setup` are shell lines with which jobs find the code as it is now."""

    plan: Plan
    site: Site
    store: Path
    results: Path
    setup: Sequence[str]


def submit(
    array: Array, around: Surroundings, ledger: Ledger, waits_for: Sequence[str], canary: str | None, exclude: Collection[str]
) -> str:
    """Submit an array; returns its token. The ledger has all else.

    Args:
        array: the jobs.
        around: the sweep.
        ledger: gets `submitting`, then `submitted` or `refused`.
        waits_for: values for ``--dependency``.
        canary: token of the submission whose failure holds this one.
        exclude: nodes to avoid, besides the site's.

    Raises:
        ConfigError: sbatch refused what the site file asks for.
        LimitReached: there are too many jobs in the queue already.
        AnswerLost: sbatch was not answered; ask for the token later.
    """
    import submitit

    token = secrets.token_hex(4)
    folder = around.results.absolute() / "slurm" / token
    folder.mkdir(parents=True)
    submission = Submission(
        site=around.site,
        store=around.store.absolute(),
        results=around.results.absolute(),
        token=token,
        time_minutes=array.shape.time_minutes,
    )
    path = folder / "submission.json"
    write_atomically(path, submission.model_dump_json().encode())
    tasks = around.plan.by_id
    drivers = [
        Driver(path, job.name, tuple(tasks[name].model_dump_json().encode() for name in job.tasks)) for job in array.jobs
    ]
    name = job_name(around.plan.name, array.name, token)
    ledger.record(
        "submitting",
        token=token,
        array=array.name,
        job_name=name,
        jobs=[{"name": job.name, "tasks": list(job.tasks)} for job in array.jobs],
        shape={key: value for key, value in asdict(array.shape).items() if key != "placement"},
        after=list(waits_for),
        canary=canary,
    )
    executor = make_executor(array, around.site, folder, name, waits_for, exclude, around.setup)
    try:
        with _undisturbed(), executor.batch():
            jobs = [executor.submit(driver) for driver in drivers]
    except (submitit.core.utils.FailedSubmissionError, OSError) as error:
        raise AnswerLost(" ".join(str(error).split())) from None
    except submitit.core.utils.FailedJobError as error:
        said = " ".join(str(error).split())
        if _LOST.search(said):
            raise AnswerLost(said) from None
        ledger.record("refused", token=token, reason=said)
        shutil.rmtree(folder, ignore_errors=True)
        if _LIMIT.search(said):
            raise LimitReached(said) from None
        raise ConfigError(f"site {around.site.name}: sbatch refused array {array.name}: {said}") from None
    ledger.record("submitted", token=token, job=jobs[0].job_id.partition("_")[0], count=len(jobs))
    return token


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold Ctrl-C and the like back: between sbatch and the files that its jobs read there is no good place to stop."""
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def adopt(results: Path, ledger: Ledger, asked: Mapping[str, Any], job: str) -> None:
    """Take over an array that Slurm has, although its answer was lost: what submitit does after sbatch was not done.

    Args:
        results: of the sweep.
        ledger: gets `submitted`.
        asked: the event `submitting`.
        job: id of the array.
    """
    from submitit.core.utils import DelayedSubmission

    folder = results.absolute() / "slurm" / asked["token"]
    places = {one["name"]: index for index, one in enumerate(asked["jobs"])}
    for path in folder.glob("*.pkl"):
        if path.name.endswith("_submitted.pkl"):
            continue
        driver: Driver = DelayedSubmission.load(path).function
        suffix = f"_{places[driver.name]}" if len(places) > 1 else ""
        path.rename(folder / f"{job}{suffix}_submitted.pkl")
    ledger.record("submitted", token=asked["token"], job=job, count=len(places))


def job_name(sweep: str, array: str, token: str) -> str:
    """The name of a Slurm job: readable, and found again whatever becomes of the launcher."""
    return f"{sweep}:{array}:{token}"


def dependencies(array: Array, ids: Mapping[str, Iterable[str]]) -> list[str]:
    """The values of ``--dependency`` for an array, given job ids by array name; what is not among them is not waited for.

    Jobs wait for others to end in whatever way: a driver checks for itself whether what it reads is there, so that one failed
    shared stage does not hold the runs that do not need it.
    """
    # A canary must end well: what waits for one that failed stays in the queue, and is dealt with by the next launcher.
    values = [f"{'afterok' if name == array.canary else 'afterany'}:{job}" for name in array.after for job in ids.get(name, ())]
    # aftercorr would wait for ever if its one job failed; what reads from it cannot run then, and the launcher clears it away.
    return values + [f"aftercorr:{job}" for job in ids.get(array.along or "", ())]


def make_executor(
    array: Array,
    site: Site,
    folder: Path,
    name: str,
    waits_for: Sequence[str] = (),
    exclude: Collection[str] = (),
    setup: Sequence[str] = (),
) -> Any:
    """The submitit executor for an array."""
    import submitit

    executor = submitit.SlurmExecutor(folder=folder, python=sys.executable)
    executor.update_parameters(**parameters(array, site, name, waits_for, exclude, setup))
    return executor


def parameters(
    array: Array,
    site: Site,
    name: str,
    waits_for: Sequence[str] = (),
    exclude: Collection[str] = (),
    setup: Sequence[str] = (),
) -> dict[str, Any]:
    """What submitit is asked for: one driver step per job, resources for the widest stage."""
    slurm, shape, place = site.slurm, array.shape, array.shape.placement
    additional: dict[str, Any] = {"requeue": True, **dict(place.additional)}
    if place.reservation:
        additional["reservation"] = place.reservation
    if shape.gpus_per_node:
        kind = f"{place.gpu_type}:" if place.gpu_type else ""
        additional["gres"] = f"gpu:{kind}{shape.gpus_per_node}"
    if waits_for:
        additional["dependency"] = ",".join(waits_for)
    exports = [f"export {key}={shlex.quote(value)}" for key, value in site.environment.items()]
    options: dict[str, Any] = {
        "job_name": name,
        "partition": place.partition,
        "account": place.account,
        "qos": place.qos,
        "constraint": place.constraint,
        "exclude": ",".join([*([place.exclude] if place.exclude else []), *exclude]) or None,
        "time": shape.time_minutes,
        "nodes": shape.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": shape.cpus_per_node,
        "mem": f"{round(shape.mem_gb * 1024)}M" if shape.mem_gb else None,
        "signal_delay_s": slurm.signal_delay_s,
        "array_parallelism": slurm.max_parallel,
        "setup": [*slurm.setup, *exports, *setup] or None,
        "srun_args": ["--overlap", "--nodes=1", "--ntasks=1"],
        "additional_parameters": additional,
    }
    # submitit's own wckey is refused by some clusters: None leaves it out, unless the site sets one.
    return {key: value for key, value in options.items() if value is not None} | {"wckey": None}


def submission_text(array: Array, site: Site, results: Path, name: str) -> str:
    """The sbatch script of an array as submitit will submit it; in place of what is not known before stand names in <>."""
    waits_for = dependencies(array, {one: [f"<{one}>"] for one in [*array.after, *([array.along] if array.along else [])]})
    folder = results / "slurm" / "<token>"
    executor = make_executor(array, site, folder, job_name(name, array.name, "<token>"), waits_for)
    if len(array.jobs) > 1:
        executor.parameters["map_count"] = len(array.jobs)
    text = str(executor._make_submission_file_text(executor._submitit_command_str, "dry-run"))
    shutil.rmtree(folder, ignore_errors=True)  # submitit makes it, and a dry run is to leave nothing
    return text


def without_others_words(site: Site) -> None:
    """Forget what the environment says to sbatch: it wins over a script. The site's words count.

    That is the user's SBATCH_JOB_NAME and the like, but for an account or a partition where the site names none, and all of the
    job that this process itself may run in.
    """
    own = {"SBATCH_ACCOUNT"} if site.slurm.account is None else set()
    own |= {"SBATCH_PARTITION"} if site.slurm.partition is None else set()
    prefixes = ("SLURM_", "SBATCH_", "SRUN_") if "SLURM_JOB_ID" in os.environ else ("SBATCH_",)
    for variable in [key for key in os.environ if key.startswith(prefixes) and key not in {"SLURM_CONF", *own}]:
        del os.environ[variable]
