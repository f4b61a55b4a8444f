"""A working directory of its own for each test, with a valid recipe, sweep and site to start from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eva_hpc.config.errors import ConfigError
from eva_hpc.config.load import load_experiment, load_site
from eva_hpc.config.site import Site
from eva_hpc.config.sweep import Experiment

STAGES = {
    "prompts", "start_policy", "generate", "score", "select", "evolve", "mix", "pair", "train", "questions", "answer", "judge",
    "evaluate", "rewrite", "response_logps",
}  # fmt: skip

RECIPE = """\
name: lab
policy: lab
prompts: {kind: lab, count: 64}
responses_per_prompt: 4
reward: lab
creator: {evolver: lab}
optimiser:
  beta: 0.1
benchmarks: {lab: lab}
quick:
  prompts.count: 8
"""

SWEEP = """\
name: k
recipe: recipe.yaml
axes:
  responses_per_prompt: [2, 4]
seeds: [1, 2, 3]
"""

SITE = """\
name: here
executor: local
scale: lab
"""


class Files:
    """The files of one test, changed by `write`, read by `load` and `site`; `mistakes` are the lines of the error."""

    def __init__(self) -> None:
        for name, text in {"recipe.yaml": RECIPE, "sweep.yaml": SWEEP, "site.yaml": SITE}.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def site(self, *overrides: str) -> Site:
        return load_site("site.yaml", overrides, known_stages=STAGES)

    def load(self, *overrides: str, quick: bool = False, recipe: str | None = None) -> Experiment:
        return load_experiment("sweep.yaml", site=self.site(*overrides), overrides=overrides, quick=quick, recipe=recipe)

    def mistakes(self, *overrides: str, load: Callable[..., object] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            (load or self.load)(*overrides)
        return str(caught.value).splitlines()

    def recipe_mistakes(self, text: str) -> list[str]:
        self.write("recipe.yaml", text)
        return self.mistakes()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.chdir(tmp_path)
    return Files()
