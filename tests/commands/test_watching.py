"""status, logs, cancel and explain as they are typed, on results written by hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from eva_hpc.cluster import queue
from eva_hpc.cluster.execution import log_path
from eva_hpc.cluster.ledger import Ledger
from eva_hpc.commands.cancel import cancel
from eva_hpc.commands.explain import explain
from eva_hpc.commands.logs import StageLog, Tail, logs
from eva_hpc.commands.status import status
from eva_hpc.plan.plan import Plan
from eva_hpc.request import Request, open_request
from tests.commands.hand_made import RUNS, HandMade
from tests.recipes import LAB

app = typer.Typer(rich_markup_mode=None)
for command in (status, logs, cancel, explain):
    app.command()(command)


class Here:
    """A sweep file and its results at a site with Slurm or without."""

    def __init__(self, folder: Path, site: str) -> None:
        self.folder = folder
        self.site = site
        self.write()
        self.sweep = HandMade(folder / "out", self.plan())

    def write(self, **recipe: object) -> None:
        text = {"name": "test", "recipe": "recipe.yaml", "axes": {"responses_per_prompt": [2, 6]}, "seeds": [1, 2]}
        (self.folder / "sweep.yaml").write_text(yaml.safe_dump(text))
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump({**LAB, **recipe}))

    def words(self) -> list[str]:
        return [str(self.folder / "sweep.yaml"), "--site", self.site, "--set", f"site.root={self.folder / 'out'}"]

    def plan(self) -> Plan:
        return open_request(Request(self.folder / "sweep.yaml", self.site, settings=(self.words()[-1],))).plan

    def type(self, command: str, *more: str, keys: str = "") -> Result:
        file, *options = self.words()
        return CliRunner().invoke(app, [command, file, *more, *options], input=keys)


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Here]:
    def make(site: str) -> Here:
        here = Here(tmp_path, site)
        here.sweep.answer(monkeypatch)
        return here

    return make


def all_queued(here: Here) -> dict[str, str]:
    """Shared work done, all four runs waiting for a free place but the first, which runs."""
    jobs = here.sweep.submit_all()
    for task in here.sweep.shared():
        here.sweep.do(task, jobs["shared"])
    here.sweep.in_queue(jobs[RUNS[0]], "RUNNING")
    for run in RUNS[1:]:
        here.sweep.in_queue(jobs[run], "PENDING", "Priority")
    return jobs


# ---------------------------------------------------------------------------- status


def test_status_before_the_first_launch_says_so_and_leaves_nothing_behind(at: Callable[[str], Here]) -> None:
    here = at("laptop")
    os.rename(here.sweep.results, here.folder / "elsewhere")

    result = here.type("status")

    assert result.exit_code == 0
    assert "not started yet" in result.output
    assert "4 runs" in result.output
    assert not here.sweep.results.exists()


def test_status_shows_runs_waiting_reasons_and_totals(at: Callable[[str], Here]) -> None:
    here = at("devcluster")
    all_queued(here)

    result = here.type("status")

    assert result.exit_code == 0, result.output
    assert "4 runs: 3 waiting, 1 running" in result.output
    assert "3 jobs: other jobs come first (Priority)" in result.output
    assert "responses_per_prompt=2, seed=1" in result.output


def test_status_shows_a_failure_with_evidence_log_and_next_step_and_exits_with_1(at: Callable[[str], Here]) -> None:
    here = at("devcluster")
    jobs = all_queued(here)
    task = here.sweep.own(RUNS[1])[0]
    del here.sweep.slurm[jobs[RUNS[1]]]
    here.sweep.event("failed", task=task.id, job=jobs[RUNS[1]], cause="code_or_data", reason="ValueError: no such column")
    log = log_path(here.sweep.results, task)
    log.parent.mkdir(parents=True)
    log.write_text("Traceback\n")

    result = here.type("status")

    assert result.exit_code == 1
    text = " ".join(result.output.split())
    assert f"of {RUNS[1]}: code_or_data ValueError: no such column" in text
    assert log.name in text
    assert "run the same command again" in text


def test_status_as_json_has_every_run(at: Callable[[str], Here]) -> None:
    here = at("devcluster")
    all_queued(here)

    found = orjson.loads(here.type("status", "--json").stdout)

    assert [run["name"] for run in found["runs"]] == RUNS
    assert found["runs"][0]["state"] == "running"
    assert found["waits"][0]["reason"]["code"] == "Priority"


def test_status_of_many_runs_counts_them_by_grid_value(at: Callable[[str], Here], monkeypatch: pytest.MonkeyPatch) -> None:
    here = at("devcluster")
    all_queued(here)
    monkeypatch.setattr("eva_hpc.commands.status_screen.MOST_RUNS", 3)

    lines = [" ".join(line.split()) for line in here.type("status").output.splitlines()]

    assert "runs with waiting running" in lines
    assert "responses_per_prompt=2 1 1" in lines
    assert "responses_per_prompt=6 2" in lines


# ---------------------------------------------------------------------------- logs


def written(here: Here, run: str) -> list[Path]:
    """Logs of all stages of a run, each newer than the one before."""
    paths = []
    for number, task in enumerate(here.sweep.plan.tasks_of(run)):
        path = log_path(here.sweep.results, task)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"0: {task.stage} begins\n1: the other rank\n")
        os.utime(path, (number, number))
        paths.append(path)
    return paths


def test_logs_shows_the_newest_of_a_run(at: Callable[[str], Here]) -> None:
    here = at("laptop")
    newest = written(here, RUNS[2])[-1]

    result = here.type("logs", "k=6 seed 1")

    assert result.exit_code == 0
    assert newest.name in result.output
    assert result.output.count("==") == 1


def test_logs_of_a_stage_are_those_of_all_rounds(at: Callable[[str], Here]) -> None:
    here = at("laptop")
    count = sum(path.name.startswith("train-") for path in written(here, RUNS[2]))

    result = here.type("logs", "6,1", "train")

    assert result.output.count("== train") == count > 1


def test_logs_of_one_rank(at: Callable[[str], Here]) -> None:
    here = at("laptop")
    written(here, RUNS[2])

    assert "begins" not in here.type("logs", "6,1", "train", "--rank", "1").output
    assert "other rank" in here.type("logs", "6,1", "train", "--rank", "1").output


def test_logs_says_why_there_is_none(at: Callable[[str], Here]) -> None:
    here = at("devcluster")
    all_queued(here)

    result = here.type("logs", "6,1")

    assert result.exit_code == 1
    assert "no log yet: waiting: other jobs come first (Priority)" in result.output


@pytest.mark.parametrize(
    ("words", "said"), [(["seed=1"], "2 runs fit"), (["9,1"], "no such run"), (["6,1", "trian"], "'train'")]
)
def test_logs_of_what_is_not_there_is_a_mistake(at: Callable[[str], Here], words: list[str], said: str) -> None:
    result = at("laptop").type("logs", *words)

    assert result.exit_code == 2
    assert said in result.output


def test_logs_of_jobs(at: Callable[[str], Here]) -> None:
    here = at("devcluster")
    jobs = all_queued(here)
    folder = here.sweep.results / "slurm" / "20"
    folder.mkdir(parents=True)
    (folder / f"{jobs[RUNS[0]]}_0_log.err").write_text("srun: hello\n")

    assert "srun: hello" in here.type("logs", "2,1", "--job").output
    assert "srun: hello" not in here.type("logs", "shared", "--job").output


def test_following_ends_when_the_run_is_done(at: Callable[[str], Here]) -> None:
    here = at("laptop")
    for task in here.sweep.plan.tasks:
        here.sweep.do(task)
    written(here, RUNS[2])

    result = here.type("logs", "6,1", "-f")

    assert result.exit_code == 0
    assert "begins" in result.output
    assert "done" in result.output


def test_a_tail_goes_on_from_log_to_log_with_headings_and_whole_lines(tmp_path: Path) -> None:
    first, second = StageLog(tmp_path / "a.log", "first"), StageLog(tmp_path / "b.log", "second")
    first.path.write_text("".join(f"line {number}\n" for number in range(30)))
    tail = Tail([first, second])

    began = list(tail.read())
    assert "first" in began[0]
    assert began[1:] == [f"line {number}" for number in range(10, 30)]
    second.path.write_text("whole\ncut o")
    assert [line for line in tail.read() if not line.startswith("==")] == ["whole"]
    with second.path.open("a") as file:
        file.write("ff\n")
    assert list(tail.read()) == ["cut off"]


# ---------------------------------------------------------------------------- cancel


@pytest.fixture
def cancelled(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    calls: list[list[str]] = []
    monkeypatch.setattr(queue, "cancel", lambda jobs: calls.append(list(jobs)))
    return calls


def test_cancel_shows_asks_records_and_calls_scancel_once(at: Callable[[str], Here], cancelled: list[list[str]]) -> None:
    here = at("devcluster")
    jobs = all_queued(here)

    result = here.type("cancel", keys="y\n")

    assert result.exit_code == 0, result.output
    assert "4 of 4 active jobs" in result.output
    assert cancelled == [["20"]], "the array, not each of its jobs"
    (event,) = [event for event in Ledger(here.sweep.results).events() if event["event"] == "cancelled"]
    assert sorted(event["jobs"]) == sorted(jobs[run] for run in RUNS)


def test_cancel_that_is_not_confirmed_does_nothing(at: Callable[[str], Here], cancelled: list[list[str]]) -> None:
    here = at("devcluster")
    all_queued(here)

    assert here.type("cancel", keys="n\n").exit_code == 1
    assert cancelled == []
    assert not any(event["event"] == "cancelled" for event in Ledger(here.sweep.results).events())


def test_cancel_of_runs_leaves_what_others_need(at: Callable[[str], Here], cancelled: list[list[str]]) -> None:
    here = at("devcluster")
    jobs = here.sweep.submit_all()
    here.sweep.in_queue(jobs["shared"], "RUNNING")
    for run in RUNS:
        here.sweep.in_queue(jobs[run], "PENDING", "Dependency")

    assert here.type("cancel", "k=6", "--yes").exit_code == 0
    assert cancelled == [[jobs[RUNS[2]], jobs[RUNS[3]]]]
    for run in RUNS[2:]:
        del here.sweep.slurm[jobs[run]]
    assert here.type("cancel", "k=2", "--yes").exit_code == 0
    assert cancelled[1] == ["10", "20"], "nobody else needs the shared work now"


def test_cancel_with_nothing_active(at: Callable[[str], Here], cancelled: list[list[str]]) -> None:
    here = at("devcluster")
    here.sweep.submit_all()

    result = here.type("cancel")

    assert result.exit_code == 0
    assert "nothing to cancel" in result.output
    assert cancelled == []


def test_cancel_on_this_machine_says_how(at: Callable[[str], Here]) -> None:
    from eva_hpc.cluster.owners import this_process

    here = at("laptop")
    task = here.sweep.shared()[0]
    here.sweep.event("started", task=task.id, runs=4)
    here.sweep.store.claim(task.identity, this_process())

    result = here.type("cancel")

    assert result.exit_code == 1
    assert "Ctrl-C" in result.output


def test_when_slurm_is_away_nothing_is_cancelled(at: Callable[[str], Here], cancelled: list[list[str]]) -> None:
    here = at("devcluster")
    all_queued(here)
    here.sweep.away = True

    result = here.type("cancel", "--yes")

    assert result.exit_code == 1
    assert "Slurm does not answer" in result.output
    assert cancelled == []


# ---------------------------------------------------------------------------- explain


def explained(here: Here, run: str = "6,1") -> dict[str, dict[str, object]]:
    result = here.type("explain", run, "--json")
    assert result.exit_code == 0, result.output
    return {stage["task"]: stage for stage in orjson.loads(result.stdout)["stages"]}


def launched(here: Here) -> None:
    """Keep the plan as a launch does, and do all of it."""
    (here.sweep.results / "plans").mkdir()
    (here.sweep.results / "plans" / "first.json").write_text(here.sweep.plan.model_dump_json())
    for task in here.sweep.plan.tasks:
        here.sweep.do(task)


def test_explain_of_a_finished_run_says_when_and_where(at: Callable[[str], Here]) -> None:
    here = at("laptop")
    launched(here)

    found = explained(here)

    assert {stage["state"] for stage in found.values()} == {"done"}
    assert all("on this machine" in str(stage["why"]) for stage in found.values())


def test_explain_names_the_setting_that_changed_once_and_what_follows_from_it(at: Callable[[str], Here]) -> None:
    here = at("laptop")
    launched(here)
    here.write(optimiser={"beta": 0.3})

    found = explained(here)

    changed = [stage for stage in found.values() if "optimiser.beta was 0.05, now 0.3" in str(stage["why"])]
    (root,) = changed
    left = [stage for stage in found.values() if stage["state"] == "to do"]
    assert len(left) > 1
    assert {stage["because"] for stage in left if stage is not root} == {root["task"]}
    text = " ".join(here.type("explain", "6,1").output.split())
    assert "first of what is left: train (warm-up): optimiser.beta was 0.05, now 0.3" in text


def test_explain_compares_with_the_same_sweep_under_other_settings(at: Callable[[str], Here]) -> None:
    here = at("laptop")
    launched(here)

    result = here.type("explain", "6,1", "--set", "recipe.optimiser.beta=0.3")

    assert f"now 0.3 (against {here.sweep.results.name})" in " ".join(result.output.split())
    assert f"reused from {here.sweep.results.name}" in " ".join(result.output.split())


def test_explain_of_a_removed_and_of_a_corrupt_artifact(at: Callable[[str], Here]) -> None:
    here = at("laptop")
    launched(here)
    final, other = (next(task for task in here.sweep.own(run) if task.stage == "evaluate") for run in (RUNS[2], RUNS[3]))
    (here.sweep.store.folder(final.identity) / "manifest.json").unlink()
    here.sweep.store.folder(final.identity).rmdir()
    folder = here.sweep.store.folder(other.identity)
    folder.rename(folder.with_name(f"corrupt-1-{folder.name}"))

    assert "has been removed" in str(explained(here, "6,1")[final.id]["why"])
    assert f"kept as corrupt-1-{folder.name}" in str(explained(here, "6,2")[other.id]["why"])


def test_explain_of_a_failure_gives_its_cause_and_of_the_rest_what_it_waits_for(at: Callable[[str], Here]) -> None:
    here = at("laptop")
    for task in here.sweep.shared():
        here.sweep.do(task)
    own = here.sweep.own(RUNS[2])
    here.sweep.event("started", task=own[0].id, runs=1)
    here.sweep.event("failed", task=own[0].id, reason="ValueError: no")

    found = explained(here)

    assert found[own[0].id]["state"] == "failed"
    assert "ValueError: no" in str(found[own[0].id]["why"])
    assert found[own[-1].id]["because"] == own[0].id


def test_explain_before_the_first_launch(at: Callable[[str], Here]) -> None:
    here = at("laptop")
    os.rename(here.sweep.results, here.folder / "elsewhere")

    found = explained(here)

    assert any("never ran (not submitted yet)" in str(stage["why"]) for stage in found.values())
    assert not here.sweep.results.exists()
