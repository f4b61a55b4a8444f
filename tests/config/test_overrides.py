"""``--set``: what it reaches, and how its mistakes read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.config.errors import ConfigError
from eva_hpc.config.overrides import settings
from eva_hpc.config.recipe import FilePrompts, LabPolicy, LabPrompts, PretrainedPolicy
from tests.config.conftest import RECIPE, Files
from tests.config.test_mistakes import RECIPE_KEYS

WORDS = st.text("abcdefgh_", min_size=1, max_size=8)
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES |= st.text(st.characters(min_codepoint=32, max_codepoint=126))


@given(
    st.sampled_from(["recipe", "sweep", "site"]), st.lists(WORDS, min_size=1, max_size=4), st.lists(VALUES, max_size=3) | VALUES
)
def test_key_and_value_of_an_argument_come_back(target: str, parts: list[str], value: object) -> None:
    if (target, parts[0]) in (("recipe", "quick"), ("sweep", "axes")):
        return

    [setting] = settings([f"{target}.{'.'.join(parts)}={json.dumps(value)}"], target)  # type: ignore[arg-type]

    assert setting.path == tuple(parts)
    assert setting.value == value


@given(st.text(max_size=20))
def test_any_argument_is_read_or_refused_by_its_name(argument: str) -> None:
    problems: tuple[str, ...] = ()
    try:
        settings([argument], "recipe")
    except ConfigError as error:
        problems = error.problems

    assert all(problem.startswith(f"--set {argument}:") for problem in problems)


def test_a_key_of_each_target_is_set(files: Files) -> None:
    arguments = ("recipe.optimiser.beta=0.3", "sweep.seeds=[7, 8]", "site.engine.micro_batch_tokens=4096")

    experiment = files.load(*arguments)

    assert {recipe.optimiser.beta for _, recipe in experiment.points} == {0.3}
    assert experiment.sweep.seeds == (7, 8)
    assert files.site(*arguments).engine.micro_batch_tokens == 4096


def test_an_axis_whose_name_has_dots_is_one_key(files: Files) -> None:
    experiment = files.load("sweep.axes.optimiser.beta=[0.1, 0.2]")

    assert [point for point, _ in experiment.points] == [
        {"responses_per_prompt": k, "optimiser.beta": beta} for k in (2, 4) for beta in (0.1, 0.2)
    ]
    assert [recipe.optimiser.beta for _, recipe in experiment.points] == [0.1, 0.2, 0.1, 0.2]


def test_the_last_one_of_a_key_wins(files: Files) -> None:
    assert files.load("recipe.rounds=2", "recipe.rounds=3").recipe.rounds == 3


def test_a_section_that_the_file_leaves_out_is_made(files: Files) -> None:
    assert files.load("recipe.generation.temperature=0.5").recipe.generation.temperature == 0.5


def test_a_short_form_replaces_a_section_and_a_field_changes_it(files: Files) -> None:
    files.write("p.jsonl", '{"prompt": "x"}\n')
    both = ("recipe.prompts=p.jsonl", "recipe.prompts.limit=64", "recipe.reward=org/reward", "recipe.creator.evolver=policy")

    recipe = files.load(*both, "recipe.benchmarks={own: {kind: reward, path: p.jsonl}}").recipe

    assert recipe.prompts == FilePrompts(path="p.jsonl", limit=64)


def test_a_field_of_a_section_in_short_form_can_be_set(files: Files) -> None:
    assert files.load("recipe.policy.steps=5").recipe.policy == LabPolicy(steps=5)


def test_the_other_fields_of_a_section_stay(files: Files) -> None:
    assert files.load("recipe.prompts.seed=5").recipe.prompts == LabPrompts(count=64, seed=5)


def test_a_hub_name_is_a_short_form(files: Files) -> None:
    assert files.load("recipe.policy=org/model").recipe.policy == PretrainedPolicy(path="org/model")


MISTAKES = {
    "no equals sign": ("recipe.rounds", "found no '='; write KEY=VALUE, e.g. recipe.responses_per_prompt=4"),
    "no target": (
        "beta=0.1",
        "found the key 'beta'; must start with recipe., sweep. or site.; did you mean 'recipe.optimiser.beta'?",
    ),
    "misspelt target": (
        "recpe.rounds=1",
        "found the key 'recpe.rounds'; must start with recipe., sweep. or site.; did you mean 'recipe.rounds'?",
    ),
    "empty part": (
        "recipe..rounds=1",
        "found the key 'recipe..rounds'; must start with recipe., sweep. or site.; did you mean 'recipe.rounds'?",
    ),
    "no value": ("recipe.rounds=", "there is no value after the '='; write null to mean none"),
    "bad value": ("recipe.rounds=[1", "not valid YAML: expected ',' or ']', but got '<stream end>'"),
    "wrong type": ("recipe.rounds=two", "rounds: found 'two'; must be an integer, at least 0"),
    "misspelt section": (
        "recipe.optimizer.beta=1",
        f"optimizer: unknown key; allowed: {RECIPE_KEYS}; did you mean 'optimiser'?",
    ),
    "misspelt key": (
        "recipe.prompts.cuont=1",
        "prompts.cuont: unknown key; allowed: kind, count, levels, seed; did you mean 'count'?",
    ),
    "misspelt site key": (
        "site.slot=1",
        "slot: unknown key; allowed: name, executor, scale, root, slots, slurm, engine, default, stages, environment, "
        "software, offline; "
        "did you mean 'slots'?",
    ),
    "key below a value": (
        "recipe.rounds.x=1",
        "rounds.x: found 1 at rounds, which must be a section; or set rounds as a whole",
    ),
    "what an axis sets": (
        "recipe.responses_per_prompt=3",
        "responses_per_prompt: the sweep's axis responses_per_prompt sets it; "
        "use sweep.axes.responses_per_prompt=[...] instead",
    ),
    "quick keys": ("recipe.quick.rounds=3", "found recipe.quick; set the key itself, --set comes after the quick keys"),
    "variants": (
        "recipe.variants.simpo.optimiser.beta=3",
        "found recipe.variants; set the keys themselves, or name them in an axis of the sweep",
    ),
    "a file that does not exist": (
        "recipe.policy=./nope",
        "policy: found './nope', which does not exist; looked in .",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_names_the_argument(name: str, files: Files) -> None:
    files.write("recipe.yaml", RECIPE + "rounds: 1\n")
    argument, message = MISTAKES[name]

    assert [line.replace("policy.path", "policy") for line in files.mistakes(argument)] == [f"--set {argument}: {message}"]


def test_all_wrong_arguments_are_named(files: Files) -> None:
    lines = files.mistakes("a", "recipe.b", "sweep.seeds=[1]")

    assert [line.split(":")[0] for line in lines] == ["--set a", "--set recipe.b"]
