"""``eva-hpc gc``: shows first, removes when told to, and not when it cannot tell."""

from __future__ import annotations

import orjson
import pytest
import typer
from typer.testing import CliRunner

from eva_hpc.commands.gc import gc
from eva_hpc.store.artifacts import Store
from eva_hpc.store.keys import Identity


@pytest.fixture
def root(tmp_path):
    """A root with one sweep, an artifact it needs and one of 2000 bytes it does not need."""
    store = Store(tmp_path / "store")
    for family in ("needed", "old"):
        identity = Identity("pair", family)
        store.work(identity).mkdir(parents=True)
        (store.folder(identity) / "pairs.jsonl").write_bytes(bytes(2000))
        store.commit(identity, {"inputs": {}})
    plans = tmp_path / "sweep" / "plans"
    plans.mkdir(parents=True)
    plan = {"tasks": [{"identity": {"stage": "pair", "family": "needed", "nested": []}}]}
    (plans / "one.json").write_bytes(orjson.dumps(plan))
    return tmp_path


def run(*arguments):
    app = typer.Typer()
    app.command()(gc)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def names(root):
    return sorted(path.name for path in (root / "store" / "pair").iterdir())


def test_it_shows_sizes_and_removes_nothing_by_itself(root):
    result = run("--root", root)

    assert result.exit_code == 0
    assert f"2.3 kB  unreferenced  {root}/store/pair/old" in result.output
    assert "nothing was removed; --yes removes it" in result.output
    assert names(root) == ["needed", "old"]


def test_told_to_it_removes_what_no_sweep_needs(root):
    result = run("--root", root, "--yes")

    assert result.exit_code == 0
    assert "removed 1, 2.3 kB" in result.output
    assert names(root) == ["needed"]
    assert "nothing to remove" in run("--root", root).output


def test_a_plan_that_cannot_be_read_is_exit_code_1(root):
    (root / "sweep" / "plans" / "two.json").write_text("{")

    result = run("--root", root, "--yes")

    assert result.exit_code == 1
    assert "nothing was removed: " in result.output
    assert "two.json" in result.output
    assert names(root) == ["needed", "old"]


def test_a_site_names_its_root(root, tmp_path):
    site = tmp_path / "here.yaml"
    site.write_text(f"{{name: here, executor: local, scale: lab, root: {root}}}\n")

    assert "pair/old" in run("--site", site).output


@pytest.mark.parametrize(
    "arguments", [("--root", "/no/such/folder"), ("--site", "laptop", "--root", "/tmp"), ("--site", "nowhere")]
)
def test_mistakes_are_exit_code_2(arguments):
    assert run(*arguments).exit_code == 2
