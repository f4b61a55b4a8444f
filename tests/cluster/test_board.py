"""The board and what the display makes of it."""

from __future__ import annotations

import io
from pathlib import Path

import orjson
import pytest
from rich.console import Console

from eva_hpc.cluster.board import Board, State
from eva_hpc.cluster.ledger import Ledger
from eva_hpc.cluster.live import LiveDisplay, clock, parts, shown
from eva_hpc.config.recipe import Recipe
from eva_hpc.config.sweep import Experiment, Sweep
from eva_hpc.plan.plan import Plan, make_plan
from tests.recipes import LAB


def plan_of(values: tuple[int, ...] = (2, 4), seeds: tuple[int, ...] = (1,)) -> Plan:
    recipe = Recipe.model_validate(LAB)
    points = tuple(({"responses_per_prompt": k}, recipe.model_copy(update={"responses_per_prompt": k})) for k in values)
    sweep = Sweep(name="k", recipe="lab.yaml", axes={"responses_per_prompt": values}, seeds=seeds)
    return make_plan(Experiment(sweep=sweep, recipe=recipe, points=points))


def one(board: Board, stage: str, run: str | None = None):
    return next(task for task in board.plan.tasks if task.stage == stage and (run is None or task.runs == (run,)))


def text_of(display: LiveDisplay) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(display)
    return console.file.getvalue()


def test_a_failed_task_blocks_all_that_needs_it_and_nothing_else() -> None:
    board = Board(plan_of())

    board.failed(one(board, "select", "responses_per_prompt=2,seed=1"), "why")

    blocked = board.in_state(State.BLOCKED)
    assert {task.runs for task in blocked} == {("responses_per_prompt=2,seed=1",)}
    assert {"evolve", "pair", "train", "answer", "judge", "evaluate"} <= {task.stage for task in blocked}
    assert board.count(State.PENDING) == len(board.plan.tasks) - 1 - len(blocked)


def test_the_time_left_is_not_known_before_anything_was_measured() -> None:
    assert Board(plan_of()).seconds_left(2, lambda task: 1) is None


def test_the_time_left_is_the_work_left_over_the_slots() -> None:
    board = Board(plan_of())
    board.expected = {task.stage: 10.0 for task in board.plan.tasks}
    every = 10.0 * len(board.plan.tasks)

    assert board.seconds_left(2, lambda task: 1) == pytest.approx(every / 2)
    assert board.seconds_left(2, lambda task: 2) == pytest.approx(every)

    board.finished(one(board, "start_policy"), 30.0)
    assert board.seconds_left(1, lambda task: 1) == pytest.approx(every - 10.0)


def test_a_running_task_counts_for_what_its_ranks_have_not_done(tmp_path: Path) -> None:
    board = Board(plan_of())
    task = one(board, "start_policy")
    board.expected = {other.stage: 0.0 for other in board.plan.tasks} | {"start_policy": 100.0}
    board.started(task, tmp_path / "log", tmp_path)
    for rank, done in enumerate((10, 20)):
        (tmp_path / f"progress-{rank}.json").write_bytes(orjson.dumps([done, 40]))

    assert board.entries[task.id].progress() == pytest.approx(0.375)
    assert board.seconds_left(1, lambda other: 1) == pytest.approx(62.5)


def test_the_display_shows_runs_by_parts_what_runs_and_the_summary(tmp_path: Path) -> None:
    board = Board(plan_of())
    board.finished(one(board, "questions"), 1.0)
    board.started(one(board, "start_policy"), tmp_path / "log", tmp_path)

    text = text_of(LiveDisplay(board, Console(), 2, lambda task: 1))

    assert parts(board.plan) == ["start", "warm-up", "round 1", "evaluation"]
    assert "responses_per_prompt=2, seed=1" in text
    assert "start_policy" in text
    assert "shared by 2 runs" in text
    assert f"1 of {len(board.plan.tasks)} stages done, 1 running" in text


def test_finished_runs_make_room_for_others_when_there_are_many() -> None:
    board = Board(plan_of(seeds=tuple(range(20))))
    for task in board.plan.tasks_of("responses_per_prompt=2,seed=0"):
        board.set(task, State.DONE)

    text = text_of(LiveDisplay(board, Console(), 2, lambda task: 1))

    assert "responses_per_prompt=2, seed=0 " not in text
    assert "responses_per_prompt=4, seed=0 " in text
    assert "10 further runs are not shown" in text


def test_without_a_terminal_nothing_is_redrawn() -> None:
    console = Console(file=io.StringIO(), width=160)

    with shown(LiveDisplay(Board(plan_of()), console, 2, lambda task: 1)):
        pass

    assert console.file.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_seconds_read_as_people_say_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_ledger_merges_its_writers_and_leaves_out_a_line_that_was_cut(tmp_path: Path) -> None:
    launcher, job = Ledger(tmp_path), Ledger(tmp_path, "job-1_0")
    launcher.record("submitted", job="1_0")
    job.record("started", task="a")
    with (tmp_path / "ledger" / "job-1_0.jsonl").open("ab") as file:
        file.write(b'{"time": "2')

    assert [event["event"] for event in launcher.events()] == ["submitted", "started"]
