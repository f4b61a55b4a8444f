"""From files to an experiment: recipe by scale, quick, paths, fingerprints; and finding sites."""

from __future__ import annotations

from pathlib import Path

import pytest

from eva_hpc.config.creator import LabRewriter
from eva_hpc.config.load import load_experiment, load_site
from eva_hpc.config.recipe import FilePrompts, LabChecker, LabPolicy, PretrainedPolicy, Recipe
from tests.config.conftest import RECIPE, SITE, STAGES, SWEEP, Files

FILE_RECIPE = """\
name: own
policy: org/model
prompts: {kind: file, path: prompts.jsonl}
reward: org/reward
creator: {evolver: policy}
benchmarks: {own: {kind: reward, path: prompts.jsonl}}
"""


def prompt_path(recipe: Recipe) -> Path:
    assert isinstance(recipe.prompts, FilePrompts)
    return Path(recipe.prompts.path)


def test_every_combination_of_the_axes_is_a_point(files: Files) -> None:
    files.write("sweep.yaml", SWEEP.replace("seeds", "  evolved_ratio: [0, 0.5]\nseeds"))

    points = files.load().points

    assert [(r.responses_per_prompt, r.evolved_ratio) for _, r in points] == [(2, 0.0), (2, 0.5), (4, 0.0), (4, 0.5)]
    assert points[1][0] == {"responses_per_prompt": 2, "evolved_ratio": 0.5}


def test_the_scale_of_the_site_chooses_the_recipe(files: Files) -> None:
    files.write("big.yaml", RECIPE.replace("name: lab", "name: big"))
    files.write("sweep.yaml", SWEEP.replace("recipe: recipe.yaml", "recipe: {lab: recipe.yaml, full: big.yaml}"))

    assert files.load().recipe.name == "lab"
    assert files.load("site.scale=full").recipe.name == "big"
    assert files.load(recipe="full").recipe.name == "big"
    assert files.load(recipe="big.yaml").recipe.name == "big"


def test_a_recipe_asked_for_that_does_not_exist_is_an_error(files: Files) -> None:
    assert files.mistakes(load=lambda: files.load(recipe="recipes.yaml")) == [
        "--recipe recipes.yaml: found 'recipes.yaml', which does not exist; looked in .; did you mean 'recipe.yaml'?"
    ]


def test_quick_applies_the_quick_keys_and_keeps_the_first_seeds(files: Files) -> None:
    full, quick = files.load(), files.load(quick=True)

    assert [full.recipe.prompts.count, quick.recipe.prompts.count] == [64, 8]  # type: ignore[union-attr]
    assert [full.sweep.seeds, quick.sweep.seeds] == [(1, 2, 3), (1,)]
    assert [full.name, quick.name] == ["k-lab", "k-lab-quick"]


def test_set_comes_after_quick(files: Files) -> None:
    assert files.load("recipe.prompts.count=16", quick=True).recipe.prompts.count == 16  # type: ignore[union-attr]


def test_short_forms_are_the_sections_they_stand_for(files: Files) -> None:
    recipe = files.load().recipe

    assert (recipe.policy, recipe.reward, recipe.creator.evolver) == (LabPolicy(), LabChecker(), LabRewriter())


def test_paths_are_found_beside_their_file_before_the_working_directory(files: Files) -> None:
    files.write("deep/recipe.yaml", FILE_RECIPE)
    files.write("sweep.yaml", SWEEP.replace("recipe.yaml", "deep/recipe.yaml"))
    here = files.write("prompts.jsonl", '{"prompt": "here"}\n')
    assert prompt_path(files.load().points[0][1]) == here.absolute()

    beside = files.write("deep/prompts.jsonl", '{"prompt": "beside"}\n')
    assert prompt_path(files.load().points[0][1]) == beside.absolute()
    assert prompt_path(files.load("recipe.prompts=prompts.jsonl").points[0][1]) == here.absolute()


def test_fingerprints_follow_the_content_not_the_path(files: Files) -> None:
    files.write("recipe.yaml", FILE_RECIPE)
    first = files.write("prompts.jsonl", '{"prompt": "a"}\n')
    copy = files.write("copy.jsonl", '{"prompt": "a"}\n')

    same = files.load("sweep.axes={prompts.path: [prompts.jsonl, copy.jsonl]}").fingerprints
    first.write_text('{"prompt": "b"}\n')
    other = files.load().fingerprints

    assert set(same) == {str(first.absolute()), str(copy.absolute()), "org/model", "org/reward"}
    assert same[str(first.absolute())] == same[str(copy.absolute())] != other[str(first.absolute())]
    assert same["org/model"] == "hub:org/model"


def test_a_local_model_is_found_beside_the_recipe(files: Files) -> None:
    files.write("recipe.yaml", RECIPE.replace("policy: lab", "policy: models/tiny"))
    files.write("models/tiny/config.json", "{}")
    files.write("models/tiny/model.safetensors", "x")

    experiment = files.load()

    policy = experiment.points[0][1].policy
    assert isinstance(policy, PretrainedPolicy)
    assert policy.path == str(Path("models/tiny").absolute())
    assert experiment.fingerprints[policy.path].startswith("sha256:")


def test_a_site_is_found_by_name_here_then_in_the_source_tree(files: Files) -> None:
    assert load_site("laptop", known_stages=STAGES).name == "laptop"

    files.write("sbatch/sites/laptop.yaml", SITE.replace("here", "mine"))

    assert load_site("laptop", known_stages=STAGES).name == "mine"


def test_an_unknown_site_lists_the_known_ones(files: Files) -> None:
    files.write("sbatch/sites/mine.yaml", SITE)

    [line] = files.mistakes(load=lambda: load_site("lapptop", known_stages=STAGES))

    assert line == (
        "site 'lapptop': no such site; available: a100, devcluster, h100, laptop, mine, or the path of a site file; "
        "did you mean 'laptop'?"
    )


def test_variables_and_home_are_expanded_in_the_root(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("HOME", "/home/me")

    assert files.site("site.root=$SCRATCH/eva").root == "/scratch/me/eva"
    assert files.site("site.root=~/eva").root == "/home/me/eva"


def test_an_experiment_survives_its_own_json(files: Files) -> None:
    experiment = files.load()

    assert type(experiment).model_validate_json(experiment.model_dump_json()) == experiment
    assert type(experiment).model_validate(experiment.model_dump()) == experiment


def test_a_missing_sweep_is_named(files: Files) -> None:
    lines = files.mistakes(load=lambda: load_experiment("swep.yaml", site=files.site()))

    assert lines == ["swep.yaml: no such file; did you mean 'sweep.yaml'?"]


# ---------------------------------------------------------------------------- named values of an axis


NAMED = """\
name: k
recipe: recipe.yaml
axes:
  training:
    base: {rounds: 0}
    + eva: {rounds: 2, evolved_ratio: 0.5}
  optimiser: {DPO: plain, SimPO: simpo}
seeds: [1]
"""
VARIANTS = """\
variants:
  plain: {optimiser.beta: 0.2}
  simpo: {optimiser: {loss: simpo, beta: 2.5}, optimiser.epochs: 3}
"""


def test_a_named_value_sets_several_keys_and_runs_are_named_by_it(files: Files) -> None:
    files.write("recipe.yaml", RECIPE + VARIANTS)
    files.write("sweep.yaml", NAMED)

    points = files.load().points

    assert [tuple(point.values()) for point, _ in points] == [
        ("base", "DPO"),
        ("base", "SimPO"),
        ("+ eva", "DPO"),
        ("+ eva", "SimPO"),
    ]
    assert [(r.rounds, r.evolved_ratio) for _, r in points] == [(0, 0.8), (0, 0.8), (2, 0.5), (2, 0.5)]
    assert [(r.optimiser.loss, r.optimiser.beta, r.optimiser.epochs) for _, r in points[:2]] == [  # type: ignore[union-attr]
        ("dpo", 0.2, 2),
        ("simpo", 2.5, 3),
    ]


def test_runs_of_named_values_can_be_told_apart(files: Files) -> None:
    from eva_hpc.plan.grid import runs

    files.write("recipe.yaml", RECIPE + VARIANTS)
    files.write("sweep.yaml", NAMED)

    assert [run.name for run in runs(files.load())] == [
        f"training={training},optimiser={optimiser},seed=1" for training in ("base", "+ eva") for optimiser in ("DPO", "SimPO")
    ]


def test_an_axis_of_two_names_may_mix_variants_and_keys(files: Files) -> None:
    files.write("recipe.yaml", RECIPE + VARIANTS)
    files.write("sweep.yaml", SWEEP.replace("responses_per_prompt: [2, 4]", "by: {A: simpo, B: {optimiser.beta: 0.3}}"))

    assert [r.optimiser.beta for _, r in files.load().points] == [2.5, 0.3]  # type: ignore[union-attr]


def test_set_reaches_what_the_named_values_do_not_set(files: Files) -> None:
    files.write("recipe.yaml", RECIPE + VARIANTS)
    files.write("sweep.yaml", NAMED)

    assert {recipe.optimiser.batch_size for _, recipe in files.load().points} == {64, 128}
    assert {recipe.prompts.count for _, recipe in files.load("recipe.prompts.count=16").points} == {16}  # type: ignore[union-attr]
    assert files.load("sweep.axes.optimiser={SimPO: simpo}").points[0][1].optimiser.loss == "simpo"


# ---------------------------------------------------------------------------- recipes that extend others


def test_a_recipe_that_extends_another_is_that_one_with_the_keys_set(files: Files) -> None:
    files.write("simpo.yaml", "extends: recipe.yaml\nname: simpo\noptimiser: {loss: simpo, beta: 2.5}\nprompts.count: 16\n")
    files.write("sweep.yaml", SWEEP.replace("recipe.yaml", "simpo.yaml"))

    recipe = files.load().recipe

    assert (recipe.name, recipe.optimiser.loss, recipe.prompts.count) == ("simpo", "simpo", 16)  # type: ignore[union-attr]
    assert recipe.quick == {"prompts.count": 8}


def test_extensions_go_on_over_several_files_and_folders(files: Files) -> None:
    files.write("deep/one.yaml", "extends: ../recipe.yaml\noptimiser.beta: 0.7\nprompts: own.jsonl\n")
    files.write("deep/own.jsonl", '{"prompt": "x"}\n')
    changes = "evolver: policy\nreward: org/reward\nbenchmarks: {own: {kind: reward, path: deep/own.jsonl}}\nquick: {}\n"
    files.write("two.yaml", "extends: deep/one.yaml\nrounds: 3\ncreator." + changes)
    files.write("sweep.yaml", SWEEP.replace("recipe.yaml", "two.yaml"))

    experiment = files.load()

    assert (experiment.recipe.rounds, experiment.recipe.optimiser.beta) == (3, 0.7)  # type: ignore[union-attr]
    assert prompt_path(experiment.points[0][1]) == Path("deep/own.jsonl").absolute(), "beside the file that names it"


def test_single_keys_of_the_quick_run_and_of_variants_can_be_set_too(files: Files) -> None:
    files.write("recipe.yaml", RECIPE + VARIANTS)
    files.write(
        "more.yaml",
        "extends: recipe.yaml\nquick.prompts.count: 12\nquick.rounds: 1\nvariants.simpo.optimiser.epochs: 5\n"
        "variants.new: {rounds: 4}\n",
    )
    files.write("sweep.yaml", NAMED.replace("recipe.yaml", "more.yaml"))

    recipe = files.load().recipe

    assert recipe.quick == {"prompts.count": 12, "rounds": 1}
    assert recipe.variants == {
        "plain": {"optimiser.beta": 0.2},
        "simpo": {"optimiser": {"loss": "simpo", "beta": 2.5}, "optimiser.epochs": 5},
        "new": {"rounds": 4},
    }
    assert files.load().points[1][1].optimiser.epochs == 5


def test_a_mistake_is_told_where_it_was_written_in_whichever_file(files: Files) -> None:
    files.write("more.yaml", "extends: recipe.yaml\noptimiser:\n  loss: simpo\n  beta: high\n")
    files.write("sweep.yaml", SWEEP.replace("recipe.yaml", "more.yaml"))
    assert files.mistakes() == ["more.yaml:4: optimiser.beta: found 'high'; must be a number, above 0"]

    files.write("recipe.yaml", RECIPE.replace("count: 64", "count: many"))
    files.write("more.yaml", "extends: recipe.yaml\noptimiser.beta: 0.5\n")
    assert files.mistakes() == ["recipe.yaml:3: prompts.count: found 'many'; must be an integer, at least 4"]


EXTENSIONS = {
    "a file that is not there": (
        "extends: recip.yaml\n",
        "more.yaml:1: extends: found 'recip.yaml', which does not exist; looked in .; did you mean 'recipe.yaml'?",
    ),
    "no file": ("extends: 3\n", "more.yaml:1: extends: must be a recipe file"),
    "itself": ("name: x\nextends: more.yaml\n", "more.yaml:2: extends: found 'more.yaml', which extends this file in turn"),
    "unknown key": (
        "extends: recipe.yaml\nprompts.cuont: 3\n",
        "more.yaml:2: prompts.cuont: unknown key; allowed: kind, count, levels, seed; did you mean 'count'?",
    ),
    "key below a value": (
        "extends: recipe.yaml\nname.x: 3\n",
        "more.yaml:2: name.x: found 'lab' at name, which must be a section; or set name as a whole",
    ),
}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_a_mistake_in_an_extension(name: str, files: Files) -> None:
    text, message = EXTENSIONS[name]
    files.write("more.yaml", text)
    files.write("sweep.yaml", SWEEP.replace("recipe.yaml", "more.yaml"))

    assert files.mistakes() == [message]


def test_two_files_that_extend_each_other_are_an_error(files: Files) -> None:
    files.write("a.yaml", "extends: b.yaml\n")
    files.write("b.yaml", "extends: a.yaml\n")
    files.write("sweep.yaml", SWEEP.replace("recipe.yaml", "a.yaml"))

    assert files.mistakes() == ["b.yaml:1: extends: found 'a.yaml', which extends this file in turn"]


# ---------------------------------------------------------------------------- what outlasts a section that an axis replaces


SECTION = "optimiser: {A: {optimiser: {loss: ipo, beta: 0.3}}, B: {optimiser: {loss: dpo, steps: 9}}}"


def test_single_keys_of_an_extending_file_outlast_a_section_of_an_axis_unless_it_sets_them(files: Files) -> None:
    files.write("base.yaml", RECIPE)
    files.write("recipe.yaml", "extends: base.yaml\nname: mine\noptimiser.steps: 5\noptimiser.batch_size: 4\n")
    files.write("sweep.yaml", SWEEP.replace("responses_per_prompt: [2, 4]", SECTION))

    points = [recipe.optimiser for _, recipe in files.load().points]

    assert [(one.loss, one.steps, one.batch_size) for one in points] == [("ipo", 5, 4), ("dpo", 9, 4)]


def test_quick_keys_outlast_it_too(files: Files) -> None:
    files.write("recipe.yaml", RECIPE.replace("quick:\n", "quick:\n  optimiser.batch_size: 3\n"))
    files.write("sweep.yaml", SWEEP.replace("responses_per_prompt: [2, 4]", SECTION))

    assert [recipe.optimiser.batch_size for _, recipe in files.load(quick=True).points] == [3, 3]
    assert [recipe.optimiser.batch_size for _, recipe in files.load().points] == [64, 64]


def test_a_named_value_may_be_a_variant_and_then_keys(files: Files) -> None:
    files.write("recipe.yaml", RECIPE + VARIANTS)
    files.write(
        "sweep.yaml", SWEEP.replace("responses_per_prompt: [2, 4]", "by: {A: simpo, B: [simpo, {optimiser.beta: 7.0}]}")
    )

    assert [recipe.optimiser.beta for _, recipe in files.load().points] == [2.5, 7.0]  # type: ignore[union-attr]


def test_variants_of_an_extending_file_come_beside_those_of_its_base(files: Files) -> None:
    files.write("base.yaml", RECIPE + VARIANTS)
    files.write("recipe.yaml", "extends: base.yaml\nname: mine\nvariants: {mine: {rounds: 3}, plain: {rounds: 2}}\n")

    recipe = files.load().recipe

    assert list(recipe.variants) == ["plain", "simpo", "mine"]
    assert recipe.variants["plain"] == {"rounds": 2}


def test_the_loss_alone_is_no_axis_because_the_keys_beside_it_are_another_losss(files: Files) -> None:
    files.write("sweep.yaml", SWEEP.replace("responses_per_prompt: [2, 4]", "optimiser.loss: [dpo, ipo]"))

    assert any("name whole sections: {DPO: dpo, SimPO: simpo}" in line for line in files.mistakes())
