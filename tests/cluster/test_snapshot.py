"""Jobs run the code that was there when they were submitted. Under test is a copy of the package, before the editable one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest

import eva_hpc
from eva_hpc.cluster.devcluster import Cluster
from eva_hpc.cluster.snapshot import commit_of_snapshot, setup_lines, take_snapshot
from tests.cluster.sweeps import CHECKOUT, explain, sweep
from tests.cluster.test_slurm_sweep import SMALL

LAUNCHER = """
import sys, orjson
from pathlib import Path
from eva_hpc.cluster.snapshot import setup_lines, take_snapshot
snapshot = take_snapshot(Path(sys.argv[1]))
known = {"folder": str(snapshot.folder), "digest": snapshot.digest, "git_commit": snapshot.git_commit, "dirty": snapshot.dirty}
print(orjson.dumps({**known, "setup": setup_lines(snapshot)}).decode())
"""
SUBMITTED = """
import os, sys, submitit
from eva_hpc.cluster.execution import versions
from pathlib import Path
Path(sys.argv[2]).write_text("an edit that would break every import")
os.environ["PYTHONPATH"] = sys.argv[1]
print(submitit.LocalExecutor(sys.argv[3]).submit(versions).result())
"""


def run(*command: str, cwd: Path, source: Path | str = "") -> str:
    """The output of a process that finds the package in `source` first."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env={**variables, "PYTHONPATH": str(source)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def git(checkout: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "commit.gpgsign=false")
    return run("git", *identity, *arguments, cwd=checkout).strip()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a copy of the package, as an installed wheel has it."""
    shutil.copytree(
        Path(eva_hpc.__file__).parent, tmp_path / "source" / "eva_hpc", ignore=shutil.ignore_patterns("__pycache__")
    )
    return tmp_path / "source"


@pytest.fixture
def checkout(source: Path) -> Path:
    """The same as a git checkout with one commit."""
    git(source, "init", "--quiet")
    git(source, "add", ".")
    git(source, "commit", "--quiet", "-m", "all")
    return source


def snapshot_of(source: Path, root: Path) -> dict:
    """What a launcher that runs from `source` takes and says of it."""
    return orjson.loads(run(sys.executable, "-c", LAUNCHER, str(root), cwd=root.parent, source=source))


def version_is(source: Path, version: str) -> None:
    (source / "eva_hpc" / "__init__.py").write_text(f'"""Edited."""\n\n__version__ = "{version}"\n')


VERSION = "import eva_hpc; print(eva_hpc.__version__)"


def test_a_job_imports_what_was_there_when_it_was_submitted(source: Path, tmp_path: Path) -> None:
    version_is(source, "1.submitted")
    taken = snapshot_of(source, tmp_path / "root")
    version_is(source, "2.edited")

    assert run(sys.executable, "-c", VERSION, cwd=tmp_path, source=source).strip() == "2.edited"
    path = f"{taken['folder']}:{source}"
    assert run(sys.executable, "-c", VERSION, cwd=tmp_path, source=path).strip() == "1.submitted"


def test_it_also_does_in_a_script_that_was_submitted_from_the_checkout(source: Path, tmp_path: Path) -> None:
    version_is(source, "1.submitted")
    taken = snapshot_of(source, tmp_path / "a root")
    version_is(source, "2.edited")
    (source / "eva_hpc" / "cluster" / "worker.py").write_text("raise SystemExit('the checkout ran')\n")

    script = "\n".join(
        [*taken["setup"], f"{sys.executable} -c '{VERSION}'", f"{sys.executable} -m eva_hpc.cluster.worker 2>&1"]
    )
    said = run("bash", "-c", f"{script}\ntrue", cwd=source, source=source)

    assert said.startswith("1.submitted\n")
    assert f"{taken['folder']}/eva_hpc/cluster/worker.py" in said, "it ends for want of an argument, in the snapshot's worker"
    assert "the checkout ran" not in said


@pytest.mark.slow
def test_what_submitit_unpickles_comes_from_the_snapshot_with_its_commit(checkout: Path, tmp_path: Path) -> None:
    taken = snapshot_of(checkout, tmp_path / "root")
    edited = checkout / "eva_hpc" / "cluster" / "execution.py"

    arguments = (taken["folder"], str(edited), str(tmp_path / "submitit"))
    said = run(sys.executable, "-c", SUBMITTED, *arguments, cwd=tmp_path, source=checkout)

    assert f"'git_commit': '{git(checkout, 'rev-parse', 'HEAD')}'" in said


@pytest.mark.slow
def test_a_sweep_on_slurm_goes_on_when_the_checkout_is_broken_after_it_was_submitted(
    devcluster: Cluster, source: Path, tmp_path: Path
) -> None:
    for folder in ("sbatch", "sweeps"):
        shutil.copytree(CHECKOUT / folder, source / folder)
    command = [*SMALL[:-1], "sweep.axes.evolved_ratio=[0.0]", "--set", f"site.root={tmp_path / 'root'}"]
    run(sys.executable, "-m", "eva_hpc.sweep", *command, "--no-wait", cwd=source)
    for path in (source / "eva_hpc").rglob("*.py"):
        path.write_text("raise SystemExit('the checkout ran')\n")

    watched = sweep(*command, timeout=400)

    assert watched.returncode == 0, explain(watched, tmp_path / "root")
    assert len(list((tmp_path / "root" / "store").glob("train/*/manifest.json"))) == 2


@pytest.mark.parametrize(("before", "after"), [("/a:/b", ":/a:/b"), ("", "")])
def test_the_existing_path_stays_behind_the_snapshot(tmp_path: Path, before: str, after: str) -> None:
    snapshot = take_snapshot(tmp_path)
    script = "\n".join([*setup_lines(snapshot), "echo $PYTHONPATH; pwd"])
    said = run("bash", "-c", script, cwd=tmp_path, source=before).split()
    assert said == [f"{snapshot.folder}{after}", str(snapshot.folder)]


def test_all_files_of_the_package_are_in_it_and_nothing_compiled(source: Path, tmp_path: Path) -> None:
    (source / "eva_hpc" / "report" / "template.tex").write_text("data")
    (source / "eva_hpc" / ".worker.py.swp").write_text("an editor's")
    run(sys.executable, "-m", "compileall", "-q", "eva_hpc/store", cwd=source)

    folder = Path(snapshot_of(source, tmp_path / "root")["folder"])

    names = {str(path.relative_to(folder / "eva_hpc")) for path in (folder / "eva_hpc").rglob("*") if path.is_file()}
    there = {str(path.relative_to(source / "eva_hpc")) for path in (source / "eva_hpc").rglob("*") if path.is_file()}
    assert names == {name for name in there if not name.endswith((".pyc", ".swp"))}
    assert "report/template.tex" in names


def test_the_same_code_is_the_same_snapshot_and_other_code_another(checkout: Path, tmp_path: Path) -> None:
    first = snapshot_of(checkout, tmp_path / "root")
    assert snapshot_of(checkout, tmp_path / "root") == first
    version_is(checkout, "2")
    second = snapshot_of(checkout, tmp_path / "root")
    assert second["digest"] != first["digest"]
    assert {path.name for path in (tmp_path / "root" / "code").iterdir()} == {first["digest"], second["digest"]}


def test_a_launcher_that_runs_from_a_snapshot_takes_the_same(checkout: Path, tmp_path: Path) -> None:
    version_is(checkout, "2")
    first = snapshot_of(checkout, tmp_path / "root")
    again = snapshot_of(Path(first["folder"]), tmp_path / "root")
    assert (again["folder"], again["git_commit"], again["dirty"]) == (first["folder"], first["git_commit"], True)


def test_many_launchers_at_once_are_harmless(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: take_snapshot(tmp_path), range(8)))
    assert len(set(taken)) == 1
    assert [path.name for path in (tmp_path / "code").iterdir()] == [taken[0].digest]


def test_files_that_a_clean_up_took_are_put_back(tmp_path: Path) -> None:
    snapshot = take_snapshot(tmp_path)
    before = {path: path.read_bytes() for path in snapshot.folder.rglob("*") if path.is_file()}
    (snapshot.folder / "eva_hpc" / "cluster" / "worker.py").unlink()
    (snapshot.folder / "snapshot.json").unlink()
    (snapshot.folder / "eva_hpc" / "cli.py").write_text("cut off")

    take_snapshot(tmp_path)
    after = {path: path.read_bytes() for path in snapshot.folder.rglob("*") if path.is_file()}
    record = snapshot.folder / "snapshot.json"
    assert after.pop(record)
    assert before.pop(record)
    assert after == before


# ---------------------------------------------------------------------------- where it came from


def test_a_clean_checkout_is_named_by_its_commit(checkout: Path, tmp_path: Path) -> None:
    taken = snapshot_of(checkout, tmp_path / "root")
    commit = git(checkout, "rev-parse", "HEAD")
    folder = Path(taken["folder"])

    assert (taken["git_commit"], taken["dirty"]) == (commit, False)
    assert not (folder / "diff.patch").exists()
    record = orjson.loads((folder / "snapshot.json").read_bytes())
    assert record.keys() == {"git_commit", "dirty", "eva_hpc", "time"}
    assert record["eva_hpc"] == eva_hpc.__version__
    assert commit_of_snapshot(folder) == commit


def test_the_patch_makes_the_snapshot_from_the_commit(checkout: Path, tmp_path: Path) -> None:
    version_is(checkout, "2")
    (checkout / "eva_hpc" / "cli.py").unlink()
    (checkout / "eva_hpc" / "stages" / "new_stage.py").write_text("A = 1\nB = 2")
    (checkout / "eva_hpc" / "stages" / "empty.py").write_text("")

    taken = snapshot_of(checkout, tmp_path / "root")
    folder = Path(taken["folder"])
    git(tmp_path, "clone", "--quiet", str(checkout), "clone")
    git(tmp_path / "clone", "apply", str(folder / "diff.patch"))

    assert taken["dirty"]
    assert commit_of_snapshot(folder) == git(checkout, "rev-parse", "HEAD") + "-dirty"
    code = [
        {path.relative_to(base): path.read_bytes() for path in (base / "eva_hpc").rglob("*.py")}
        for base in (folder, tmp_path / "clone")
    ]
    assert code[0] == code[1]


def test_outside_of_a_checkout_there_is_no_commit(source: Path, tmp_path: Path) -> None:
    taken = snapshot_of(source, tmp_path / "root")
    assert (taken["git_commit"], taken["dirty"]) == (None, False)
    assert commit_of_snapshot(Path(taken["folder"])) is None
    assert not (Path(taken["folder"]) / "diff.patch").exists()
