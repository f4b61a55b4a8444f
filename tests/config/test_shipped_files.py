"""The sweeps, recipes and sites that come with the project are right as they are, and loading them is light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eva_hpc.config.load import load_experiment, load_site
from eva_hpc.config.recipe import SequenceClassification
from tests.config.conftest import STAGES

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
SITES = sorted((ROOT / "sbatch" / "sites").glob("*.yaml"))


@pytest.mark.parametrize("site", SITES, ids=lambda file: file.stem)
@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda file: file.stem)
@pytest.mark.parametrize("quick", [False, True])
def test_every_sweep_loads_at_every_site(
    sweep: Path, site: Path, quick: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    experiment = load_experiment(sweep, site=load_site(str(site), known_stages=STAGES), quick=quick)

    assert experiment.name.startswith(sweep.stem)
    assert len(experiment.points) >= 2


@pytest.mark.parametrize("site", SITES, ids=lambda file: file.stem)
def test_a_site_is_named_like_its_file(site: Path) -> None:
    assert load_site(str(site), known_stages=STAGES).name == site.stem


def test_the_two_scales_of_a_sweep_are_the_lab_and_gemma() -> None:
    sweep = ROOT / "sweeps" / "responses_per_prompt.yaml"

    lab, full = (load_experiment(sweep, site=load_site(site, known_stages=STAGES)) for site in ("laptop", "h100"))

    assert [lab.recipe.name, full.recipe.name] == ["lab", "gemma-2-9b-it-dpo"]
    assert isinstance(full.recipe.reward, SequenceClassification)
    assert full.fingerprints["google/gemma-2-9b-it"] == "hub:google/gemma-2-9b-it"


def test_loading_a_sweep_imports_nothing_heavy() -> None:
    code = (
        "import sys; from eva_hpc.config.load import load_experiment, load_site\n"
        f"load_experiment({str(SWEEPS[0])!r}, site=load_site('laptop', known_stages={STAGES!r}))\n"
        "heavy = {'torch', 'numpy', 'transformers', 'datasets', 'pyarrow', 'vllm', 'deepspeed', 'submitit', 'httpx', 'rich'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )

    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert result.returncode == 0, result.stderr
