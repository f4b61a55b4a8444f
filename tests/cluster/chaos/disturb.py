"""One sweep on the throwaway cluster that is disturbed, and what must be true of it afterwards.

chaos.start()                                     # types the command
chaos.until(lambda: chaos.made("generate") >= 3)  # reads files until it is so far
faults.kill_node(…)                               # the disturbance
chaos.finish()                                    # waits for the command's end; it must be well
chaos.verify()                                    # same tables and artifacts as undisturbed; nothing missing, doubled, redone
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from eva_hpc.cluster import queue
from eva_hpc.cluster.devcluster import faults
from eva_hpc.store.artifacts import WORK
from tests.cluster.chaos.outcome import TABLES, Story, Undisturbed, artifacts, steps_repeated, steps_within, verify_records
from tests.cluster.sweeps import CHECKOUT, explain, ledger, results_of, site_file

SLOW = Path(__file__).parent / "slow"
CHUNK, CHECKPOINT_S = 4, 3.0
SETTINGS = {
    "recipe.policy.steps": 10,
    "recipe.prompts.count": 64,
    "recipe.warmup": "null",
    "recipe.optimiser.epochs": 8,
    "recipe.benchmarks.lab.prompts": 4,
    "sweep.axes.evolved_ratio": "[0.0]",
}
WORDS = ["sweeps/evolved_ratio.yaml", "--quick", *(part for key in SETTINGS for part in ("--set", f"{key}={SETTINGS[key]}"))]
TWO_RANKS = {stage: {"nodes": 1, "ranks_per_node": 2, "threads": 1} for stage in ("generate", "train")}
TWO_NODES = {stage: {"nodes": 2, "ranks_per_node": 1, "threads": 1} for stage in ("generate", "train")}
PATIENCE_S = 600.0
ALL_STEPS = 56
"""Optimiser steps of the sweep's one training."""


class Chaos:
    """A sweep in a folder of its own. `where` is the cluster's directory, `root` what the site file calls so."""

    def __init__(self, folder: Path, where: Path, undisturbed: Undisturbed | None, story: Story) -> None:
        self.folder = folder
        self.where = where
        self.undisturbed = undisturbed
        self.story = story
        self.root = folder / "root"
        self.diary = folder / "diary"
        self.diary.mkdir()
        self.process: subprocess.Popen[str] | None = None

    # ------------------------------------------------------------------------ the command

    def start(
        self,
        *,
        slow: Mapping[str, float] = {},
        slurm: Mapping[str, Any] = {},
        stages: Mapping[str, Any] = TWO_RANKS,
        environment: Mapping[str, str] = {},
    ) -> None:
        """Type the command, with `slow` seconds after each chunk or step of a stage."""
        self.write_site(slow, slurm, stages)
        self.again(environment)

    def write_site(
        self, slow: Mapping[str, float] = {}, slurm: Mapping[str, Any] = {}, stages: Mapping[str, Any] = TWO_RANKS
    ) -> None:
        """Write the site file of the command."""
        variables = {
            "PYTHONPATH": str(SLOW),
            "EVA_HPC_TEST_SLOW": orjson.dumps({"seconds": slow, "diary": str(self.diary)}).decode(),
        }
        site_file(
            self.root,
            slurm=slurm,
            engine={"chunk_prompts": CHUNK, "checkpoint_minutes": CHECKPOINT_S / 60},
            stages=stages,
            environment=variables,
        )

    def start_from_finished(self) -> None:
        """Begin with a copy of the undisturbed sweep, all done; nothing is typed yet."""
        assert self.undisturbed is not None
        shutil.copytree(self.undisturbed.root, self.root)
        self.write_site()

    def again(self, environment: Mapping[str, str] = {}) -> subprocess.Popen[str]:
        """Type the same command again."""
        self.story.typed += 1
        log = (self.folder / f"command-{self.story.typed}.txt").open("w")
        command = [sys.executable, "-m", "eva_hpc.sweep", *WORDS, "--site", str(self.root / "site.yaml")]
        self.process = subprocess.Popen(
            command, cwd=CHECKOUT, stdout=log, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
        )
        return self.process

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, while the command runs."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self.process is None or self.process.poll() is None, self.told()
            assert time.monotonic() < deadline, f"it did not get that far in time\n{self.told()}"
            time.sleep(0.05)

    def finish(self, code: int = 0) -> str:
        """Wait for the end of the command; returns what it said."""
        assert self.process is not None
        try:
            self.process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the command does not end\n{self.told()}") from None
        assert self.process.returncode == code, self.told()
        return self.said()

    def said(self, time: int | None = None) -> str:
        """The output of the command as typed last, or for the n-th time."""
        return (self.folder / f"command-{time or self.story.typed}.txt").read_text()

    def told(self) -> str:
        """What a failed test should show."""
        said = "\n".join(path.read_text()[-6000:] for path in sorted(self.folder.glob("command-*.txt")))
        events = [orjson.dumps(event).decode()[:400] for event in self.events()]
        return "\n".join([explain(subprocess.CompletedProcess([], 1, said, ""), self.root), "== ledger", *events])

    # ------------------------------------------------------------------------ how far it is

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """The events of the ledger, of these kinds if any are given."""
        if not list(self.root.glob("*/experiment.json")):
            return []
        return [event for event in ledger(results_of(self.root)) if not kinds or event["event"] in kinds]

    def notes(self, stage: str) -> list[dict[str, Any]]:
        """What the processes of a stage noted, in the order of time, with the process that did."""
        notes = [
            {**orjson.loads(line), "process": path.stem}
            for path in self.diary.glob("*.jsonl")
            for line in path.read_bytes().splitlines(keepends=True)
            if line.endswith(b"\n")
        ]
        return sorted((note for note in notes if note["stage"] == stage), key=lambda note: note["time"])

    def chunks(self, stage: str) -> list[str]:
        """The chunks of a stage that were written, one entry for each time."""
        return [note["what"] for note in self.notes(stage) if note["what"] != "step"]

    def steps(self) -> int:
        """The step that training is at."""
        values = [note["value"] for note in self.notes("train") if note["rank"] == 0]
        return values[-1] if values else 0

    def checkpoint(self) -> int:
        """The step of the last complete checkpoint of training, 0 if there is none."""
        steps = [
            orjson.loads(path.read_bytes())["step"] for path in self.root.glob(f"store/train/*/{WORK}/checkpoints/*/COMPLETE")
        ]
        return max(steps, default=0)

    def is_done(self, stage: str) -> bool:
        """Whether a stage is committed."""
        return any(event["task"].startswith(f"{stage}/") for event in self.events("done"))

    def log(self, stage: str) -> str:
        """The log of a stage."""
        return "\n".join(path.read_text(errors="replace") for path in self.root.glob(f"*/logs/*/{stage}-*.log"))

    def jobs(self) -> list[str]:
        """Ids of the jobs submitted so far."""
        return [event["job"] for event in self.events("submitted")]

    # ------------------------------------------------------------------------ processes

    def ranks(self, stage: str) -> list[int]:
        """Pids of the ranks of the stage that runs now, in their order, by the names that they give themselves."""
        pids = [pid for job in self.jobs() for pid in faults.processes_of(self.where, job=job)]
        names = {pid: _name(pid).strip().split(":") for pid in pids}
        return sorted((pid for pid in pids if names[pid][0] == stage), key=lambda pid: int(names[pid][1]))

    def driver(self) -> int:
        """Pid of the driver."""
        (pid,) = self._pythons("submitit.core._submit")
        return pid

    def _pythons(self, text: str) -> list[int]:
        pids = [pid for job in self.jobs() for pid in faults.processes_of(self.where, job=job, text=text)]
        return [pid for pid in pids if _name(pid).startswith("python")]

    def kill_launcher(self) -> None:
        """kill -9, as when the login node goes down."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end_jobs(self) -> None:
        """kill -9 of all that the jobs run, and wait until Slurm knows that they have ended."""
        jobs = self.jobs()
        while queue.squeue(jobs):
            for job in jobs:
                kill(*faults.processes_of(self.where, job=job))
            time.sleep(0.2)

    # ------------------------------------------------------------------------ what must be true at the end

    def verify(self, *, chunks_again: int = 0, steps_again: int | None = None, made_again: Collection[str] = ()) -> None:
        """Tables and artifacts are those of an undisturbed sweep, every record is there once, and little was done twice.

        Args:
            chunks_again: chunks that may have been written a second time; none as a rule, because chunks that exist are kept.
            steps_again: training steps that may have been repeated; as a rule those of one checkpoint interval.
            made_again: stages whose artifact was damaged, and so had to be made a second time.
        """
        assert self.undisturbed is not None
        results = results_of(self.root)
        for name in TABLES:
            assert (results / name).read_bytes() == self.undisturbed.tables[name], f"{name} differs\n{self.told()}"
        assert artifacts(self.root) == self.undisturbed.artifacts
        self.story.identical = True
        verify_records(self.root, int(SETTINGS["recipe.prompts.count"]), ALL_STEPS)
        done = Counter(event["task"] for event in self.events("done"))
        assert {task.partition("/")[0] for task, times in done.items() if times > 1} == set(made_again), done
        assert queue.squeue(self.jobs()) == {}
        assert not list(self.root.glob("store/*/*/work"))
        again = {stage: len(made) - len(set(made)) for stage in ("generate", "answer") if (made := self.chunks(stage))}
        assert sum(again.values()) <= chunks_again, again
        training = [note for note in self.notes("train") if note["rank"] == 0]
        repeated, seconds = steps_repeated(training)
        self.story.repeated = f"{sum(again.values())} chunks, {repeated} steps"
        self.story.seconds = seconds
        if steps_again is None:
            # One interval for each time that training was started again.
            restarts = max(0, len({note["process"] for note in training}) - 1)
            steps_again = restarts * steps_within(CHECKPOINT_S, training)
        assert repeated <= steps_again, f"{repeated} steps were repeated\n{self.told()}"

    def tell(self) -> None:
        """Fill in the story from the ledger, as long as it is there."""
        if events := self.events():
            self.story.attempts = len(self.events("begun"))
            self.story.words = [
                f"{event['cause']}: {event.get('decision', event['event'])}"
                for event in events
                if event["event"] in ("retried", "requeued", "restarted", "failed", "decision")
            ]


def kill(*pids: int) -> None:
    """kill -9."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""
