"""``eva-hpc plan`` of one sweep whose named values are all options of a recipe: loaded from files, planned, priced, told."""

from __future__ import annotations

import json

import typer
from typer.testing import CliRunner

from eva_hpc.commands.plan import plan
from tests.plan.conftest import FULL
from tests.plan.options import OFFICIAL, OPTIONS

SITE = """\
name: cluster-a100
executor: slurm
scale: full
root: ROOT
default: {ranks_per_node: 8, gpus_per_rank: 1}
"""


def test_a_sweep_over_all_options_is_planned_and_told(tmp_path):
    def written(name, content):
        text = json.dumps(content).replace("/models/policy", "org/policy-7b").replace("/models/reward", "org/reward-7b")
        (tmp_path / name).write_text(text.replace("/data/", f"{tmp_path}/").replace(json.dumps(OFFICIAL), '"mt_bench"'))

    for name in ("prompts", "heldout"):
        (tmp_path / f"{name}.jsonl").write_text('{"prompt": "How many?"}\n' * 200)
    values = {name: {key.replace("__", "."): value for key, value in changes.items()} for name, changes in OPTIONS.items()}
    values["as it is"] = {"rounds": 2}
    written("recipe.yaml", {**FULL, "rounds": 2, "responses_per_prompt": 4})
    written("sweep.yaml", {"name": "options", "recipe": "recipe.yaml", "axes": {"option": values}, "seeds": [1]})
    (tmp_path / "site.yaml").write_text(SITE.replace("ROOT", str(tmp_path / "out")))
    app = typer.Typer()
    app.command()(plan)

    result = CliRunner().invoke(app, [str(tmp_path / "sweep.yaml"), "--site", str(tmp_path / "site.yaml")])

    assert result.exit_code == 0, result.output
    assert f"{len(OPTIONS)} runs" in result.output
    for text in ("recheck", "rewrite", "adopt", "response_logps", "admit", "GPU hours: ", "disk: "):
        assert text in result.output
