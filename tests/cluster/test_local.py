"""The local pool, by running the real command: stopping and going on, failures, corrupt artifacts, reuse."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from eva_hpc.cluster.ledger import Ledger
from eva_hpc.store.artifacts import Store
from eva_hpc.store.keys import Identity
from eva_hpc.store.records import read_jsonl

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[2]
SMALL = [
    *("--quick", "--site", "laptop"),
    *("--set", "recipe.policy.steps=30", "--set", "recipe.prompts.count=16", "--set", "recipe.benchmarks.lab.prompts=4"),
    *("--set", "sweep.axes.responses_per_prompt=[2,4]"),
]


def command(root: Path, *more: str) -> list[str]:
    sweep = [sys.executable, "-m", "eva_hpc.sweep", "sweeps/responses_per_prompt.yaml"]
    return [*sweep, *SMALL, "--set", f"site.root={root}", *more]


def run(root: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(root, *more), cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False)


def results(root: Path, values: tuple[int, ...] = (2, 4)) -> Path | None:
    """The folder of the sweep over these values, once it is there."""
    for path in root.glob("*/experiment.json"):
        if orjson.loads(path.read_bytes())["sweep"]["axes"]["responses_per_prompt"] == list(values):
            return path.parent
    return None


def ledger(root: Path, values: tuple[int, ...] = (2, 4)) -> list[dict]:
    folder = results(root, values)
    return Ledger(folder).events() if folder else []


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a sweep that ran to its end without interruption."""
    root = tmp_path_factory.mktemp("finished")
    result = run(root)
    assert result.returncode == 0, result.stdout + result.stderr
    return root


def test_the_command_writes_the_table_and_the_metrics_and_names_them(finished: Path) -> None:
    folder = results(finished)
    assert folder is not None
    rows = read_jsonl(folder / "metrics.jsonl")

    assert {row["run"] for row in rows} == {"responses_per_prompt=2,seed=1", "responses_per_prompt=4,seed=1"}
    assert all(row["key"] and row["judge"] == "lab checker" and row["packages"]["torch"] for row in rows)
    assert r"\toprule" in (folder / "table.tex").read_text()
    assert len((folder / "table.md").read_text().splitlines()) > 3
    assert (folder / "table.csv").read_text().count("win_rate") == 2


def test_the_same_command_again_does_nothing_and_says_what_it_reused(finished: Path) -> None:
    before = ledger(finished)

    result = run(finished)

    assert result.returncode == 0
    assert ", 0 to do" in " ".join(result.stdout.split())
    assert ledger(finished) == before


def test_a_larger_sweep_reuses_the_runs_of_a_smaller_one(finished: Path) -> None:
    result = run(finished, "--set", "sweep.axes.responses_per_prompt=[2,3,4]")

    assert result.returncode == 0, result.stdout + result.stderr
    done = [event["task"].split("/")[0] for event in ledger(finished, (2, 3, 4)) if event["event"] == "done"]
    stages = ["select", "evolve", "admit", "generate", "score", "pair", "train", "answer", "judge", "evaluate"]
    assert sorted(done) == sorted(stages), (
        "only what the new value of k needs is done, and its base responses are those there are"
    )


def test_an_interrupted_sweep_leaves_no_process_and_goes_on_to_the_same_numbers(finished: Path, tmp_path: Path) -> None:
    mark = f"EVA_TEST_MARK={tmp_path}"
    process = subprocess.Popen(
        command(tmp_path),
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "EVA_TEST_MARK": str(tmp_path)},
    )
    _until(lambda: any(e["event"] == "started" and e["task"].startswith("train/") for e in ledger(tmp_path)), process)

    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=90)

    assert process.returncode == 130, output
    assert "goes on from here" in output
    assert _processes_with(mark) == []
    half = {event["task"] for event in ledger(tmp_path) if event["event"] == "done"}
    assert half

    result = run(tmp_path)

    assert result.returncode == 0, result.stdout + result.stderr
    done = [event["task"] for event in ledger(tmp_path) if event["event"] == "done"]
    assert len(done) == len(set(done)), "nothing that was done is done again"
    assert _values(tmp_path) == _values(finished)


def test_a_corrupt_artifact_is_moved_away_and_made_again(finished: Path) -> None:
    store = finished / "store"
    (pairs,) = [
        path
        for path in store.glob("pair/*/pairs.jsonl")
        if orjson.loads((path.parent / "manifest.json").read_bytes())["spec"]["round"] == 0
    ]
    original = pairs.read_bytes()
    pairs.write_bytes(original.replace(b"a", b"b", 1))
    for stage in ("train", "answer", "judge", "evaluate"):
        _forget(store, stage)

    result = run(finished)

    assert result.returncode == 0, result.stdout + result.stderr
    said = " ".join(result.stdout.split())
    assert "is not the file that was committed" in said
    assert "corrupt-1-" in said
    assert list(store.glob("pair/corrupt-1-*")), "the corrupt artifact is kept"


def test_when_the_command_is_killed_its_workers_end_at_once_and_it_goes_on(finished: Path, tmp_path: Path) -> None:
    mark = f"EVA_TEST_MARK={tmp_path}"
    environment = {**os.environ, "EVA_TEST_MARK": str(tmp_path)}
    process = subprocess.Popen(command(tmp_path), cwd=CHECKOUT, env=environment, stdout=subprocess.DEVNULL)
    _until(lambda: any(e["event"] == "started" and e["task"].startswith("train/") for e in ledger(tmp_path)), process)

    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while left := _processes_with(mark):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    result = run(tmp_path)

    assert result.returncode == 0, result.stdout + result.stderr
    for log in (tmp_path / "store").glob("train/*/train_log.jsonl"):
        steps = [row["step"] for row in read_jsonl(log)]
        assert steps == list(range(1, len(steps) + 1))
    assert _values(tmp_path) == _values(finished)


def test_a_stage_that_fails_blocks_its_runs_only_and_the_reason_is_shown(tmp_path: Path) -> None:
    result = run(tmp_path, "--set", "recipe.optimiser.max_length=9", "--set", "recipe.optimiser.max_prompt_length=8")

    assert result.returncode == 1
    said = " ".join(result.stdout.split())
    assert "failed: train (warm-up) of 2 runs" in said
    assert "Missing runs, 2 of 2" in said
    failures = [event for event in ledger(tmp_path) if event["event"] == "failed"]
    assert len(failures) == 1
    assert list(tmp_path.glob("*/table.tex"))


def _values(root: Path) -> dict[tuple[str, str], float]:
    return {(row["run"], row["metric"]): row["value"] for row in read_jsonl(results(root) / "metrics.jsonl")}


def _forget(store: Path, stage: str) -> None:
    for manifest in store.glob(f"{stage}/*/manifest.json"):
        manifest.unlink()


def _until(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "it did not get that far in time"
        time.sleep(0.05)


def _processes_with(mark: str) -> list[str]:
    """Command lines of the processes that have this variable in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append((path.parent / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


def test_what_was_made_from_another_version_of_an_input_is_made_again(finished: Path) -> None:
    """Keys name recipes; where an artifact was made anew with other content, what was made from the old one is stale."""
    store = finished / "store"
    (manifest,) = store.glob("questions/*/manifest.json")
    content = orjson.loads(manifest.read_bytes())
    questions = manifest.parent / "questions.jsonl"
    lines = questions.read_bytes().splitlines(keepends=True)
    questions.write_bytes(b"".join(reversed(lines)))
    manifest.unlink()
    identity = Identity.from_json(content["identity"])
    Store(store).commit(identity, {key: value for key, value in content.items() if key not in ("files", "key", "identity")})

    result = run(finished)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "its input questions has changed since" in " ".join(result.stdout.split())
    assert len(_values(finished)) > 10
