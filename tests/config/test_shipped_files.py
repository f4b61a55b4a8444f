"""The sweeps, recipes and sites that come with the project are right as they are, and loading them is light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from eva_hpc.config.load import load_experiment, load_site, read_recipe
from eva_hpc.config.optimiser import Optimiser
from eva_hpc.config.recipe import Recipe
from eva_hpc.config.reward import ArmoRM
from eva_hpc.config.validate import validated
from tests.config.conftest import STAGES

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
RECIPES = ROOT / "sweeps" / "recipes"
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
    assert isinstance(full.recipe.reward, ArmoRM)
    assert full.fingerprints["google/gemma-2-9b-it"] == "hub:google/gemma-2-9b-it"


def test_the_recipes_of_both_scales_have_variants_of_the_same_names() -> None:
    lab, full = (validated(Recipe, read_recipe(RECIPES / f"{name}.yaml")) for name in ("lab", "gemma-2-9b-it-dpo"))

    assert list(lab.variants) == list(full.variants)


# beta (of ORPO: lambda), learning rate, rule, schedule, epochs, pairs per step: the table of the authors' scripts
@pytest.mark.parametrize(
    ("loss", "numbers"),
    [
        ("dpo", (0.05, 5e-7, "adamw", "cosine", 2, 64)),
        ("sppo", (0.001, 5e-7, "rmsprop", "linear", 2, 64)),
        ("ipo", (0.6, 5e-7, "adamw", "cosine", 2, 64)),
        ("rpo", (0.1, 5e-7, "adamw", "cosine", 1, 64)),
        ("simpo", (10.0, 8e-7, "adamw", "cosine", 1, 128)),
        ("orpo", (0.5, 5e-7, "adamw", "cosine", 1, 64)),
    ],
)
def test_an_optimisers_recipe_spells_out_the_papers_numbers(loss: str, numbers: tuple[object, ...]) -> None:
    name = f"gemma-2-9b-it-{loss}"
    document = read_recipe(RECIPES / f"{name}.yaml")
    recipe = validated(Recipe, document)

    assert recipe.name == name
    assert recipe.optimiser == TypeAdapter(Optimiser).validate_python(loss), "what is spelt out is the default"
    written = document.data["optimiser"]
    strength = written["weight" if loss == "orpo" else "beta"]
    rest = ("learning_rate", "rule", "schedule", "epochs", "batch_size")
    assert (strength, *(written.get(key, "adamw") for key in rest)) == numbers
    common = {"warmup_ratio": 0.1, "max_length": 2048, "max_prompt_length": 1024, "precision": "bf16"}
    assert written.items() >= common.items()
    base = validated(Recipe, read_recipe(RECIPES / "gemma-2-9b-it-dpo.yaml"))
    assert recipe.model_copy(update={"name": base.name, "optimiser": base.optimiser}) == base, "all else is the same"


def test_loading_a_sweep_imports_nothing_heavy() -> None:
    code = (
        "import sys; from eva_hpc.config.load import load_experiment, load_site, read_recipe\n"
        f"load_experiment({str(SWEEPS[0])!r}, site=load_site('laptop', known_stages={STAGES!r}))\n"
        "heavy = {'torch', 'numpy', 'transformers', 'datasets', 'pyarrow', 'vllm', 'deepspeed', 'submitit', 'httpx', 'rich'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )

    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert result.returncode == 0, result.stderr
