"""What a command sets aside before it counts what is done."""

from __future__ import annotations

import os

import orjson
import pytest

from eva_hpc.cluster.execution import survey
from eva_hpc.config.recipe import Recipe
from eva_hpc.config.sweep import Experiment, Sweep
from eva_hpc.plan.jobs import pending_tasks
from eva_hpc.plan.plan import make_plan
from eva_hpc.stages.policy import write_policy
from eva_hpc.store.artifacts import MANIFEST, Store
from eva_hpc.store.inventory import Inventory
from tests.recipes import LAB


@pytest.fixture(scope="module")
def plan():
    recipe = Recipe.model_validate(LAB)
    sweep = Sweep(name="k", recipe="lab.yaml", axes={"responses_per_prompt": (2,)}, seeds=(1,))
    return make_plan(Experiment(sweep=sweep, recipe=recipe, points=(({"responses_per_prompt": 2}, recipe),)))


@pytest.fixture
def store(plan, tmp_path):
    """A store with all of the plan."""
    made = Store(tmp_path / "store")
    for task in plan.tasks:
        make(made, task)
    return made


def make(store, task, content=b"0123"):
    """Commit a task with this content, made from what the store has of its inputs."""
    store.folder(task.identity).mkdir(parents=True, exist_ok=True)
    (store.folder(task.identity) / "data").write_bytes(content)
    if task.stage == "start_policy":
        fields = {"revision": None, "dtype": "float32", "attention": "sdpa", "trust_remote_code": False}
        write_policy(store.folder(task.identity), str(store.root / "model"), **fields)
        (store.root / "model").mkdir(exist_ok=True)
    inputs = {
        role: {"artifact": f"{source.stage}/{source.name}", "content": store.find(source).content}
        for role, source in task.inputs.items()
    }
    return store.commit(task.identity, {"inputs": inputs})


def the(plan, stage, part):
    return next(task for task in plan.tasks if (task.stage, task.part) == (stage, part))


def left(plan, store):
    """The stages still to be done."""
    return [task.stage for task in pending_tasks(plan, Inventory(store).holds)]


def lose(store, task):
    """Take an artifact away."""
    (store.folder(task.identity) / MANIFEST).unlink()


def test_a_finished_sweep_is_left_alone(plan, store):
    assert survey(plan, store) == []
    assert left(plan, store) == []


def test_a_result_with_a_flipped_byte_is_set_aside_whatever_its_time_says(plan, store):
    ends = the(plan, "evaluate", "evaluation")
    data = store.folder(ends.identity) / "data"
    before = data.stat()
    data.write_bytes(b"0x23")
    os.utime(data, ns=(before.st_atime_ns, before.st_mtime_ns))

    (line,) = survey(plan, store)

    assert line.startswith(ends.id)
    assert "is not the file that was committed; moved to corrupt-1-" in line
    assert left(plan, store) == ["evaluate"]


def test_an_input_of_pending_work_that_was_written_to_is_set_aside(plan, store):
    lose(store, the(plan, "evaluate", "evaluation"))
    (store.folder(the(plan, "questions", "evaluation").identity) / "data").write_bytes(b"0x23")

    (line,) = survey(plan, store)

    assert line.startswith("questions/")
    assert left(plan, store) == ["questions", "evaluate"]


def test_contents_of_inputs_are_not_read_unless_they_were_written_to(plan, store, monkeypatch):
    """They may be large, and the task verifies all that it reads anyway."""
    lose(store, the(plan, "evaluate", "evaluation"))
    monkeypatch.setattr("eva_hpc.store.artifacts._sha256", lambda path: pytest.fail(f"{path} was read"))
    assert survey(plan, store) == []


def test_a_result_made_from_another_version_of_its_input_is_set_aside(plan, store):
    judged = the(plan, "questions", "evaluation")
    store.set_aside(store.find(judged.identity))
    make(store, judged, b"other")

    lines = survey(plan, store)

    assert any(line.startswith("evaluate/") and "its input questions has changed since" in line for line in lines)
    assert set(left(plan, store)) >= {"evaluate", "judge", "answer"}


def test_what_no_pending_task_reads_and_no_table_shows_is_not_looked_at(plan, store):
    pairs = store.folder(the(plan, "pair", "round 1").identity)
    (pairs / "data").write_bytes(b"0x23")
    assert survey(plan, store) == []


def test_a_start_policy_whose_model_is_gone_is_set_aside_if_something_has_to_be_trained(plan, store):
    (store.root / "model").rmdir()
    assert survey(plan, store) == []
    for stage in ("evaluate", "judge", "answer", "train"):
        for task in plan.tasks:
            if task.stage == stage:
                lose(store, task)

    (line,) = survey(plan, store)

    assert line.startswith("start_policy/")
    assert line.split(";")[0].endswith("is gone")


def test_of_a_finished_sweep_only_the_results_and_what_they_were_made_from_are_looked_at(plan, store):
    """Whoever gives the command again does not wait until all that every run ever made has been read."""
    looks: list[str] = []

    class Watched(Store):
        def at(self, folder):
            looks.append(str(folder.relative_to(self.root)).split("/")[0])
            return super().at(folder)

    survey(plan, Watched(store.root))

    manifest = orjson.loads((store.folder(the(plan, "evaluate", "evaluation").identity) / MANIFEST).read_bytes())
    assert set(looks) == {"evaluate", *(made_from["artifact"].split("/")[0] for made_from in manifest["inputs"].values())}
