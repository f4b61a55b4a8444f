"""The software environment of a stage: what is started, and that shell lines really act on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from eva_hpc.cluster.software import command_in, srun_options
from eva_hpc.config.site import Container, Software

ROOT = Path("/shared/eva")


def test_without_a_word_it_is_the_launchers_python() -> None:
    assert command_in(Software(), ["-m", "x"]) == [sys.executable, "-u", "-m", "x"]


def test_an_interpreter_of_its_own() -> None:
    assert command_in(Software(python="/venvs/vllm/bin/python"), ["-m", "x"])[0] == "/venvs/vllm/bin/python"


def test_shell_lines_act_on_the_interpreter_and_arguments_survive_the_shell() -> None:
    software = Software(setup=("export WHERE='a  b'", "ulimit -c 0"))
    program = "import os, sys; print(os.environ['WHERE'], sys.argv[1])"
    result = subprocess.run(command_in(software, ["-c", program, "$HOME 'x'"]), capture_output=True, text=True, check=True)
    assert result.stdout == "a  b $HOME 'x'\n"


def test_a_shell_line_that_fails_stops_the_stage() -> None:
    result = subprocess.run(command_in(Software(setup=("false",)), ["-c", "print(1)"]), capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")


def test_the_shell_does_not_die_of_the_signal_that_tells_stages_to_save() -> None:
    software = Software(setup=("kill -USR2 $$",))
    result = subprocess.run(command_in(software, ["-c", "print('alive')"]), capture_output=True, text=True)
    assert result.stdout == "alive\n"


def test_apptainer_sees_the_root_under_its_own_path() -> None:
    software = Software(container=Container(runtime="apptainer", image="vllm.sif", options=("--cleanenv",)))
    command = command_in(software, ["-m", "x"], [ROOT])
    assert " ".join(command) == "apptainer exec --nv --bind /shared/eva --cleanenv vllm.sif python3 -u -m x"
    assert srun_options(software, [ROOT]) == []


def test_pyxis_is_asked_for_by_options_of_srun() -> None:
    software = Software(container=Container(runtime="pyxis", image="pytorch.sqsh"))
    assert command_in(software, ["-m", "x"], [ROOT]) == ["python3", "-u", "-m", "x"]
    assert srun_options(software, [ROOT]) == [
        "--container-image=pytorch.sqsh",
        "--container-env=PYTHONPATH",
        "--container-mounts=/shared/eva:/shared/eva",
    ]
