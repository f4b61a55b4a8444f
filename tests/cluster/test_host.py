"""The process that stays on a node and forks its ranks, as the driver talks to it; and what it looks at, in real cgroups."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from eva_hpc.cluster.causes import Cause, cause_of_log
from eva_hpc.cluster.cpus import cpus_of_rank
from eva_hpc.cluster.devcluster.processes import wait_until
from eva_hpc.cluster.execution import Attempt, logs_of
from eva_hpc.cluster.host import MARK
from eva_hpc.cluster.hosts import WarmStarts, uses_vllm
from eva_hpc.cluster.oom import oom_kills
from eva_hpc.config.site import Engine, Resources, Site, Slurm
from eva_hpc.plan.plan import Task
from eva_hpc.stages.contract import SAVED
from eva_hpc.store.keys import Identity
from tests.cluster.sweeps import CHECKOUT, FAULTS

CGROUP = Path("/sys/fs/cgroup/memory")


class Host:
    """A host on this machine. The test is its driver."""

    def __init__(self, folder: Path, before: Callable[[], None] | None = None) -> None:
        self.folder = folder
        self.runs = 0
        environment = os.environ | {
            "PYTHONPATH": f"{FAULTS}:{CHECKOUT}",
            "EVA_HPC_TEST_FAULT": orjson.dumps({"stage": "questions", "from": f"{folder}/fault"}).decode(),
            **{"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "4", "SLURMD_NODENAME": "node1", "SLURM_TMPDIR": str(folder)},
            **{"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1", "CUDA_VISIBLE_DEVICES": "4,5,6,7"},
        }
        self.words = (folder / "words").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "eva_hpc.cluster.host"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.words,
            bufsize=0,  # a line that is read early is not seen by select
            preexec_fn=before,
        )
        assert self.hear()["said"] == "ready"

    def hear(self, timeout_s: float = 60) -> dict[str, Any]:
        """The next that it says."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], timeout_s)
        assert readable, (self.folder / "words").read_text()
        line = self.process.stdout.readline()
        assert line.startswith(MARK), (self.folder / "words").read_text()
        message: dict[str, Any] = orjson.loads(line.removeprefix(MARK))
        return message

    def tell(self, **message: Any) -> None:
        """Say something to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(orjson.dumps(message) + b"\n")
        self.process.stdin.flush()

    def start(
        self,
        fault: dict[str, Any],
        parallel: str = "shards",
        failed: int = 0,
        engine: str | None = None,
        keep: bool = False,
        **need: int,
    ) -> Attempt:
        """Start the ranks of an attempt that meets a fault."""
        (self.folder / "fault").write_bytes(orjson.dumps({"rank": "all", "instead": False, **fault}))
        self.runs += 1
        benchmark = {"kind": "lab", "prompts": 2}
        attempt = Attempt(
            task=Task(
                identity=Identity("questions", "f"),
                spec={"benchmark": benchmark},
                part="",
                parallel=parallel,
                inputs={},
                runs=("run",),
            ),
            inputs={},
            folder=self.folder,
            store=self.folder,
            log=self.folder / "questions.log",
            resources=Resources(**need),
            engine=Engine(),
            environment={},
        )
        attempt.work.mkdir(exist_ok=True)
        order = {"attempt": attempt.model_dump(mode="json"), "master": ["127.0.0.1", 4711], "failed": failed}
        self.tell(do="run", run=self.runs, **order, engine=engine, keep=keep)
        return attempt

    def close(self) -> None:
        """Kill it and its ranks."""
        for pid in self.ranks():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.words):
            assert file is not None
            with contextlib.suppress(BrokenPipeError):
                file.close()

    def ranks(self) -> list[int]:
        """Pids of the ranks that run, by the name that they give themselves."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        children = [int(pid) for pid in path.read_text().split()] if path.exists() else []
        return [pid for pid in children if name(pid).startswith("questions:")]


def name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text()
    return ""


def alive(pid: int) -> bool:
    """Whether there is such a process that has not ended; nobody may have waited for it."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host that does what one test after the other tells it."""
    host = Host(tmp_path_factory.mktemp("host"))
    yield host
    host.close()


@pytest.mark.slow
def test_ranks_of_run_after_run_are_forked_and_know_who_they_are(host: Host, tmp_path: Path) -> None:
    tells = {"kind": "tells", "instead": True, "folder": str(tmp_path)}
    attempt = host.start(tells, ranks_per_node=2, gpus_per_rank=1, threads=3)
    ended = [host.hear(), host.hear()]
    assert [(one["said"], one["run"], one["code"]) for one in ended] == [("ended", 1, 0)] * 2, attempt.log.read_text()
    assert {one["rank"] for one in ended} == {0, 1}
    host.start(tells, parallel="one", failed=1)
    assert host.hear()["code"] == 0

    told = [orjson.loads(path.read_bytes()) for path in sorted(tmp_path.glob("questions-*.json"), key=os.path.getmtime)]
    first, second, one = sorted(told[:2], key=lambda rank: str(rank["local_rank"])) + told[2:]
    assert {rank["parent"] for rank in told} == {host.process.pid}
    assert [(rank["local_rank"], rank["world_size"], rank["threads"]) for rank in (first, second, one)] == [
        (0, 2, 3), (1, 2, 3), (0, 1, 1),
    ]  # fmt: skip
    assert [rank["environment"]["CUDA_VISIBLE_DEVICES"] for rank in (first, second, one)] == ["4", "5", ""]
    assert first["environment"]["OMP_NUM_THREADS"] == "3"
    assert (first["environment"]["MASTER_ADDR"], first["environment"]["MASTER_PORT"]) == ("127.0.0.1", "4711")
    builds = [rank["environment"]["TORCH_EXTENSIONS_DIR"] for rank in (first, second, one)]
    assert builds[0] == builds[1] != builds[2], "after a failure, a build that was killed may have left a lock"
    assert {path.name for path in logs_of(attempt.log)} == {"questions.log", "questions.rank1.log"}


def pids(host: Host, folder: Path, **order: Any) -> set[int]:
    """Run two ranks that end well; returns their pids."""
    folder.mkdir()
    host.start({"kind": "tells", "instead": True, "folder": str(folder)}, ranks_per_node=2, **order)
    ended = [host.hear(), host.hear()]
    assert {(one["said"], one["run"], one["code"]) for one in ended} == {("ended", host.runs, 0)}
    assert {one["rank"] for one in ended} == {0, 1}
    told = [orjson.loads(path.read_bytes()) for path in folder.iterdir()]
    assert {rank["local_rank"] for rank in told} == {0, 1}
    assert {rank["environment"]["EVA_HPC_RUN"] for rank in told} == {str(host.runs)}
    assert len({rank["environment"]["SLURM_STEP_ID"] for rank in told}) == 1, "ranks share work by these names"
    return {rank["pid"] for rank in told}


@pytest.mark.slow
def test_ranks_that_are_kept_do_the_next_run_of_the_same_engine_and_leave_before_another(host: Host, tmp_path: Path) -> None:
    first = pids(host, tmp_path / "1", engine="a", keep=True)
    host.start({"kind": "tells", "folder": str(tmp_path)}, parallel="one")
    assert host.hear()["code"] == 0, "a single process beside them changes nothing"
    assert pids(host, tmp_path / "2", engine="a", keep=True) == first
    assert all(alive(pid) for pid in first)

    other = pids(host, tmp_path / "3", engine="b", keep=True)
    assert not other & first
    assert not any(alive(pid) for pid in first)
    assert pids(host, tmp_path / "4", engine="b") == other
    assert wait_until(lambda: not any(alive(pid) for pid in other), 10), "nobody asked to keep them"

    last = pids(host, tmp_path / "5", engine="b", keep=True)
    assert not last & other
    host.tell(do="release")
    assert host.hear()["said"] == "released"
    assert not any(alive(pid) for pid in last)


@pytest.mark.slow
def test_a_kept_rank_that_is_gone_or_fails_is_one_rank_less(host: Host, tmp_path: Path) -> None:
    first = pids(host, tmp_path / "1", engine="a", keep=True)
    gone = min(first)
    os.kill(gone, signal.SIGKILL)
    assert wait_until(lambda: not Path(f"/proc/{gone}").exists(), 10), "the host has noticed"
    second = pids(host, tmp_path / "2", engine="a", keep=True, failed=1)
    assert second & first == first - {gone}

    host.start({"kind": "mistake"}, ranks_per_node=2, engine="a", keep=True)
    assert [host.hear()["code"], host.hear()["code"]] == [1, 1]
    assert wait_until(lambda: not any(alive(pid) for pid in second), 10)
    third = pids(host, tmp_path / "3", engine="a", keep=True)
    assert not third & second

    host.start({"kind": "stuck"}, ranks_per_node=2, engine="a", keep=True)
    host.tell(do="stop", run=host.runs)
    codes = [host.hear()["code"], host.hear()["code"]]
    assert codes == [SAVED, SAVED]
    assert not host.ranks()


@pytest.mark.slow
def test_told_to_kill_a_run_it_kills_its_ranks_and_has_opened_no_socket(host: Host) -> None:
    host.start({"kind": "hung"}, ranks_per_node=2)
    assert wait_until(lambda: len(host.ranks()) == 2, 10)
    for pid in (host.process.pid, *host.ranks()):
        files = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [file for file in files if file.startswith("socket:")]
    host.tell(do="kill", run=host.runs)
    assert [host.hear()["code"], host.hear()["code"]] == [-signal.SIGKILL] * 2


@pytest.mark.slow
def test_signals_reach_the_ranks_and_the_host_stays(host: Host) -> None:
    host.start({"kind": "stuck"})
    assert wait_until(lambda: bool(host.ranks()), 10)
    host.process.send_signal(signal.SIGUSR2)
    assert host.hear()["code"] == SAVED
    host.start({"kind": "stuck"})
    host.tell(do="stop", run=host.runs)
    assert host.hear()["code"] == SAVED, "also when it comes before the rank has set up anything"


@pytest.mark.slow
def test_what_a_stage_leaves_behind_ends_with_it(host: Host) -> None:
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        pytest.skip("this kernel does not list children")
    host.start({"kind": "left_behind", "seconds": "341"})
    assert host.hear()["code"] == 0
    assert wait_until(lambda: not sleepers("341"), 5)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["the driver leaves", "the host is killed"])
def test_ranks_end_with_their_driver_and_with_their_host(tmp_path: Path, how: str) -> None:
    host = Host(tmp_path)
    host.start({"kind": "hung"}, ranks_per_node=2)
    assert wait_until(lambda: len(host.ranks()) == 2, 10)
    ranks = host.ranks()
    assert host.process.stdin is not None
    if how == "the driver leaves":
        host.process.stdin.close()
    else:
        host.process.kill()
    host.process.wait(10)
    assert wait_until(lambda: not any(alive(pid) for pid in ranks), 10)
    host.close()


def sleepers(seconds: str) -> list[Path]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found += [path] if path.read_bytes() == f"sleep\0{seconds}\0".encode() else []
    return found


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A cgroup of this machine with room for a host and little more."""
    own = next((line for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line), "")
    folder = CGROUP / own.rpartition(":")[2].strip("/") / f"eva-hpc-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    (folder / "memory.limit_in_bytes").write_text(str(1200 * 2**20))
    yield folder
    deadline = time.monotonic() + 10
    while folder.exists() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            folder.rmdir()
        time.sleep(0.1)


@pytest.mark.slow
def test_a_rank_that_the_kernel_killed_for_want_of_memory_is_told_as_such(small_cgroup: Path, tmp_path: Path) -> None:
    host = Host(tmp_path, lambda: move_into(small_cgroup))
    for _ in range(2):
        host.start({"kind": "hungry", "mb": 1500})
        ended = host.hear()
        assert (ended["code"], ended["oom_kills"]) == (-signal.SIGKILL, 1), "only those of its own time count"
    host.close()


def move_into(cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))


def test_oom_kills_are_counted_in_both_versions_of_cgroups(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("4:memory:/slurm/job_7/step_2\n0::/\n")
    (tmp_path / "memory/slurm/job_7/step_2").mkdir(parents=True)
    (tmp_path / "memory/slurm/job_7/step_2/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert oom_kills(tmp_path / "cgroup", tmp_path) == 3
    (tmp_path / "cgroup").write_text("0::/slurm/job_7\n")
    (tmp_path / "slurm/job_7").mkdir(parents=True)
    (tmp_path / "slurm/job_7/memory.events").write_text("low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\n")
    assert oom_kills(tmp_path / "cgroup", tmp_path) == 2
    (tmp_path / "cgroup").write_text("0::/elsewhere\n")
    assert oom_kills(tmp_path / "cgroup", tmp_path) == 0


def test_ranks_get_cpus_of_their_own_and_both_threads_of_a_core(tmp_path: Path) -> None:
    for cpu in range(8):
        (tmp_path / f"cpu{cpu}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}/topology/core_id").write_text(f"{cpu % 4}\n")
        (tmp_path / f"cpu{cpu}/topology/physical_package_id").write_text("0\n")
    assert [cpus_of_rank(range(8), rank, 2, 3, tmp_path) for rank in range(2)] == [{0, 4, 1, 5}, {2, 6, 3, 7}]
    assert cpus_of_rank(range(8), 0, 3, 3, tmp_path) == set()
    assert cpus_of_rank({9, 11}, 1, 2, 1, tmp_path) == {11}


def task(stage: str, parallel: str, **spec: Any) -> Task:
    return Task(identity=Identity(stage, "f"), spec=spec, part="", parallel=parallel, inputs={}, runs=("run",))


def test_stages_for_which_nothing_heavy_is_imported_or_that_differ_in_their_accelerator_do_without_hosts() -> None:
    stages = {"generate": Resources(gpus_per_rank=2), "train": Resources()}
    tasks = [task("generate", "shards"), task("train", "ranks"), task("score", "shards"), task("pair", "one")]

    def wanted(site: Site) -> list[bool]:
        warm = WarmStarts(site, tasks, print)
        return [warm.wants_hosts(one) for one in tasks]

    site = Site(name="x", executor="slurm", scale="full", stages=stages)
    assert wanted(site) == [True, False, True, False]
    assert wanted(site.model_copy(update={"stages": {}})) == [True, True, True, False]
    assert wanted(site.model_copy(update={"slurm": Slurm(warm_start=False)})) == [False] * 4


def test_vllm_is_found_wherever_a_spec_names_it() -> None:
    assert uses_vllm({"responses": 6, "generation": {"engine": "vllm"}})
    assert uses_vllm({"reward": {"members": [{"kind": "fixed"}, {"kind": "sequence_classification", "engine": "vllm"}]}})
    assert not uses_vllm({"generation": {"engine": "transformers"}, "name": "vllm"})


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("host: error: node2: task 1: Killed", Cause.KILLED),
        ("host: error: node2: task 1: Killed, and its node counts 1 oom_kill", Cause.HOST_OOM),
        ("host: error: node2: task 1: Segmentation fault", Cause.KILLED),
        ("host: error: node2: rank 1 cannot be started: [Errno 12] Cannot allocate memory", Cause.HOST_OOM),
        ("host: error: node2: task 1: Exited with exit code 1", Cause.CODE_OR_DATA),
    ],
)
def test_the_causes_behind_what_hosts_say(line: str, cause: Cause) -> None:
    assert cause_of_log(1, f"loading\n{line}\n")[0] is cause
