from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.resume_scenarios import CHANGES, KINDS, STEPS, STOP

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SMALL_DISK = "2m"
"""A checkpoint of the tiny model has 1.3 MB."""


def scenarios(*arguments: str, prefix: tuple[str, ...] = ()) -> None:
    command = [*prefix, sys.executable, "-W", "ignore", "-m", "tests.training.resume_scenarios", *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=560)
    assert done.returncode == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the scenarios left what they wrote."""
    path = tmp_path_factory.mktemp("resumed")
    scenarios(str(path))
    return path


@functools.cache
def result(path: Path) -> dict[str, Any]:
    import torch

    content: dict[str, Any] = torch.load(path, weights_only=False)
    return content


def difference(state: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest, over all weights and optimiser states."""
    assert state.keys() == other.keys()
    assert state["steps"] == other["steps"]
    largest = 0.0
    for name in state.keys() - {"steps"}:
        assert state[name].keys() == other[name].keys()
        for key, value in state[name].items():
            largest = max(largest, (value - other[name][key]).abs().max().item())
    return largest


def outcome(folder: Path, name: str) -> dict[str, Any]:
    return result(folder / name / "result.pt")


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_weights_and_optimiser_states_are_to_the_last_bit_those_saved_whoever_loads_them(
    folder: Path, kind: str, before: int, after: int
) -> None:
    saved, resumed = outcome(folder, f"{kind}_{before}"), outcome(folder, f"{kind}_{before}_to_{after}")

    assert resumed["start"] == STOP
    states = {"adamw": {"weights", "exp_avg", "exp_avg_sq"}, "rmsprop": {"weights", "square_avg"}}[kind.split("_")[0]]
    assert all(found.keys() == states for name, found in saved["saved"].items() if name != "steps")
    assert saved["saved"]["steps"] == {"optimiser": {STOP}, "engine": STOP}
    assert difference(resumed["restored"], saved["saved"]) == 0


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS if kind.precision == "fp32"])
@pytest.mark.parametrize("path", ["1_to_2", "2_to_1", "4_to_2", "2_to_4_to_2"])
def test_gone_on_from_by_another_number_of_ranks_it_is_the_training_that_was_never_stopped(
    folder: Path, kind: str, path: str
) -> None:
    whole, resumed = outcome(folder, f"{kind}_2"), outcome(folder, f"{kind}_{path}")

    assert resumed["losses"] == pytest.approx({step: whole["losses"][step] for step in resumed["losses"]}, abs=1e-5)
    assert max(resumed["losses"]) == STEPS - 1
    # The last steps move weights by some 1e-3.
    assert difference(resumed["state"], whole["state"]) < 2e-6


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS if kind.precision == "bf16"])
@pytest.mark.parametrize("path", ["1_to_2", "2_to_1", "4_to_2", "2_to_4_to_2"])
def test_with_16_bits_it_is_so_but_for_their_rounding(folder: Path, kind: str, path: str) -> None:
    whole, resumed = outcome(folder, f"{kind}_2"), outcome(folder, f"{kind}_{path}")

    assert resumed["losses"] == pytest.approx({step: whole["losses"][step] for step in resumed["losses"]}, abs=0.05)


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_gone_on_from_by_as_many_ranks_it_is_so_to_the_last_bit(folder: Path, kind: str) -> None:
    whole, resumed = outcome(folder, f"{kind}_2"), outcome(folder, f"{kind}_2_to_2")

    assert resumed["losses"] == {step: whole["losses"][step] for step in range(STOP, STEPS)}
    assert difference(resumed["state"], whole["state"]) == 0


def test_the_next_checkpoint_is_the_new_ranks_own_and_the_old_one_is_gone(folder: Path) -> None:
    (checkpoint,) = (folder / "adamw_fp32_2_to_4" / "checkpoints").glob("step-*")

    marker = json.loads((checkpoint / "COMPLETE").read_text())
    assert (marker["step"], marker["world_size"]) == (STOP + 1, 4)
    assert marker["files"].keys() == {
        f"zero_pp_rank_{rank}_mp_rank_00_{kind}_states.pt" for rank in range(4) for kind in ("model", "optim")
    }
    resumed = outcome(folder, "adamw_fp32_2_to_4_to_2")
    assert resumed["start"] == STOP + 1
    assert difference(resumed["restored"], outcome(folder, "adamw_fp32_2_to_4")["saved"]) == 0


def test_the_log_says_that_other_ranks_go_on(folder: Path) -> None:
    log = (folder / "adamw_fp32_2_to_4" / "log-0.txt").read_text()

    assert log == f"the checkpoint of step {STOP} was written by 2 ranks: 4 go on\n"
    assert (folder / "adamw_fp32_2_to_2" / "log-0.txt").read_text() == ""


def test_it_can_be_gone_on_from_with_weights_and_states_in_other_memory(folder: Path) -> None:
    saved = outcome(folder, "adamw_bf16_2")["saved"]

    assert difference(outcome(folder, "offloaded")["restored"], saved) == 0
    assert difference(outcome(folder, "second_copy")["restored"], saved) == 0
    assert outcome(folder, "no_longer_offloaded")["start"] == STOP + 1
    assert difference(outcome(folder, "no_longer_offloaded")["restored"], outcome(folder, "offloaded")["saved"]) == 0
    for name in ("second_copy", "no_longer_offloaded"):
        losses = outcome(folder, name)["losses"]
        whole = outcome(folder, "adamw_bf16_2")["losses"]
        assert losses == pytest.approx({step: whole[step] for step in losses}, abs=0.05)


def test_weights_that_are_not_trained_are_not_in_the_checkpoint(folder: Path) -> None:
    def size(name: str) -> int:
        return sum(path.stat().st_size for path in (folder / name / "checkpoints").glob("*/*.pt"))

    assert size("adamw_fp32_most_frozen_2") < size("adamw_fp32_2") / 5


def test_a_checkpoint_with_a_changed_bit_is_not_used_and_training_starts_again_at_once(folder: Path) -> None:
    damaged = outcome(folder, "damaged")

    assert (damaged["start"], damaged["raised"]) == (0, None)
    assert damaged["losses"][0] == pytest.approx(outcome(folder, "adamw_fp32_2")["losses"][0], abs=1e-5)
    assert (folder / "damaged" / "log-0.txt").read_text() == "training starts again from the start policy\n"
    assert (
        (folder / "damaged" / "log-1.txt").read_text().startswith(f"the checkpoint of step {STOP} is damaged: zero_pp_rank_3")
    )


def test_a_checkpoint_of_other_parameters_is_refused_and_no_longer_complete(folder: Path) -> None:
    refused = outcome(folder, "other_parameters")["raised"]

    assert refused.endswith(
        f"cannot be loaded (step-{STOP:08d} is of other parameters than those that are trained):"
        " the same command goes on without it"
    )
    assert not list((folder / "other_parameters" / "checkpoints").glob("*/COMPLETE"))


def test_on_a_full_disk_the_message_says_so_and_the_checkpoint_before_stays(folder: Path, tmp_path: Path) -> None:
    disk = tmp_path / "checkpoints"
    disk.mkdir()
    mounted = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size={SMALL_DISK} tmpfs {disk} && exec "$@"', "sh")
    if not shutil.which("unshare") or subprocess.run([*mounted, "true"], capture_output=True, timeout=20).returncode:
        pytest.skip("this user may not mount")

    scenarios("small-disk", str(tmp_path), str(folder / "model"), prefix=mounted)

    assert result(tmp_path / "full.pt")["raised"] == "[Errno 28] No space left on device"
    assert result(tmp_path / "result.pt")["start"] == 1
    assert difference(result(tmp_path / "result.pt")["restored"], result(tmp_path / "full.pt")["saved"]) == 0
