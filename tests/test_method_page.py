"""What docs/method.md shows of a recipe is a recipe, and it names every choice there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from eva_hpc.config.load import read_recipe
from eva_hpc.config.overrides import Setting, apply
from eva_hpc.config.recipe import Recipe
from eva_hpc.config.sweep import Sweep
from eva_hpc.config.validate import validated
from eva_hpc.config.yaml_file import Origin
from eva_hpc.method.evolving import FAMILIES
from eva_hpc.method.informativeness import METRICS
from eva_hpc.method.sampling import SAMPLERS
from eva_hpc.training.losses import LOSSES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
BLOCKS = [yaml.safe_load(body) for body in re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]
RECIPES = [block for block in BLOCKS if "axes" not in block]


@pytest.mark.parametrize("block", RECIPES, ids=lambda block: next(iter(block)))
def test_a_block_sets_keys_of_a_recipe(block: dict) -> None:
    recipe = read_recipe(ROOT / "sweeps" / "recipes" / "gemma-2-9b-it-dpo.yaml")
    keys = [Setting(tuple(key.split(".")), value, Origin("docs/method.md")) for key, value in block.items()]

    assert isinstance(validated(Recipe, apply(recipe, Recipe, keys)), Recipe)


def test_the_axes_shown_are_axes() -> None:
    (block,) = [block for block in BLOCKS if "axes" in block]
    sweep = Sweep.model_validate({"name": "shown", "recipe": "r.yaml", "seeds": [1], **block})

    assert sweep.values["training"] == ("DPO", "SimPO with beta 5")


@pytest.mark.parametrize("name", [*METRICS, *SAMPLERS, *LOSSES, *FAMILIES, *(one for of in FAMILIES.values() for one in of)])
def test_every_choice_is_named(name: str) -> None:
    assert re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", PAGE)


def test_every_sweep_file_is_listed() -> None:
    for file in (ROOT / "sweeps").glob("*.yaml"):
        assert f"`{file.name}`" in PAGE
