"""The cluster to disturb, a sweep that nobody disturbed, and the report of all cases: `make chaos`."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from eva_hpc.cluster.devcluster import Cluster, faults, status
from eva_hpc.cluster.devcluster.processes import wait_until
from tests.cluster.chaos import report
from tests.cluster.chaos.disturb import Chaos
from tests.cluster.chaos.outcome import Story, Undisturbed
from tests.cluster.conftest import _clients_use, _running

QUICK_TO_NOTICE = {"SlurmdTimeout": "6", "MessageTimeout": "3"}
STORIES = pytest.StashKey[list[Story]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos", action="store_true", help="run every case of tests/cluster/chaos, not only the few")
    parser.addoption("--chaos-report", metavar="FILE", help="write what became of each case to a file")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--chaos", default=False):
        for item in items:
            if item.get_closest_marker("chaos"):
                item.add_marker(pytest.mark.skip(reason="one of the cases that only --chaos runs"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if path := session.config.getoption("--chaos-report", default=None):
        report.write(session.config.stash.get(STORIES, []), Path(path))


@pytest.fixture(scope="session")
def _fragile(accounting_installed: None) -> Iterator[Cluster]:
    with _running(accounting=True, options=QUICK_TO_NOTICE) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def undisturbed(_fragile: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The sweep of all cases, left alone."""
    chaos = Chaos(tmp_path_factory.mktemp("undisturbed"), _fragile.directory, None, Story("undisturbed"))
    with _clients_use(_fragile):
        chaos.start()
        chaos.finish()
    return Undisturbed.of(chaos.root)


@pytest.fixture
def cluster(_fragile: Cluster) -> Iterator[Cluster]:
    """The cluster, whole again after each case."""
    with _clients_use(_fragile):
        yield _fragile
        faults.start_controller(_fragile.directory)
        for node in _fragile.nodes:
            faults.start_node(_fragile.directory, node, timeout_s=60)
        subprocess.run(["scancel", "--full", f"--user={getpass.getuser()}"], check=False, capture_output=True)
        assert wait_until(lambda: set(status(_fragile.directory).nodes.values()) == {"idle"}, timeout_s=120, interval_s=0.2)


@pytest.fixture
def chaos(undisturbed: Undisturbed, cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Chaos]:
    """A sweep to disturb."""
    story = Story(request.node.name.removeprefix("test_").replace("[", ": ").removesuffix("]").replace("_", " "))
    one = Chaos(tmp_path, cluster.directory, undisturbed, story)
    yield one
    if one.process is not None and one.process.poll() is None:
        one.kill_launcher()
    one.tell()
    request.config.stash.setdefault(STORIES, []).append(story)
