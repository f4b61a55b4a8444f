"""One test for each kind of mistake in a recipe, sweep or site file: the exact message, with file and line."""

from __future__ import annotations

import pytest

from tests.config.conftest import RECIPE, SITE, STAGES, SWEEP, Files

RECIPE_KEYS = (
    "name, policy, prompts, responses_per_prompt, evolved_ratio, rounds, rounds_on, incremental, reference, warmup, "
    "generation, reward, creator, pairing, rewriter, optimiser, judge, benchmarks, decontaminate, variants, quick"
)


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


# what is replaced in RECIPE, by what, and the message
RECIPE_MISTAKES = {
    "misspelt key": (
        "responses_per_prompt: 4",
        "responses_per_promt: 4",
        f"recipe.yaml:4: responses_per_promt: unknown key; allowed: {RECIPE_KEYS}; did you mean 'responses_per_prompt'?",
    ),
    "misspelt key in a section that has a kind": (
        "{kind: lab, count: 64}",
        "{kind: lab, cuont: 64}",
        "recipe.yaml:3: prompts.cuont: unknown key; allowed: kind, count, levels, seed; did you mean 'count'?",
    ),
    "key of another section": (
        "responses_per_prompt: 4",
        "beta: 0.1",
        f"recipe.yaml:4: beta: unknown key; allowed: {RECIPE_KEYS}; did you mean 'optimiser.beta'?",
    ),
    "text for a number": (
        "responses_per_prompt: 4",
        "responses_per_prompt: four",
        "recipe.yaml:4: responses_per_prompt: found 'four'; must be an integer, at least 2",
    ),
    "quoted number": (
        "responses_per_prompt: 4",
        'responses_per_prompt: "4"',
        "recipe.yaml:4: responses_per_prompt: found '4' (text, because of its quotes); must be an integer, at least 2",
    ),
    "boolean for an integer": (
        "responses_per_prompt: 4",
        "responses_per_prompt: true",
        "recipe.yaml:4: responses_per_prompt: found true; must be an integer, at least 2",
    ),
    "float for an integer": (
        "responses_per_prompt: 4",
        "responses_per_prompt: 4.0",
        "recipe.yaml:4: responses_per_prompt: found 4.0; must be an integer, at least 2",
    ),
    "boolean for a float": ("beta: 0.1", "beta: yes", "recipe.yaml:8: optimiser.beta: found true; must be a number, above 0"),
    "nan": ("beta: 0.1", "beta: .nan", "recipe.yaml:8: optimiser.beta: found nan; must be a finite number, above 0"),
    "infinity": ("beta: 0.1", "beta: .inf", "recipe.yaml:8: optimiser.beta: found inf; must be a finite number, above 0"),
    "too few responses": (
        "responses_per_prompt: 4",
        "responses_per_prompt: 1",
        "recipe.yaml:4: responses_per_prompt: found 1; must be an integer, at least 2",
    ),
    "ratio above 1": (
        "responses_per_prompt: 4",
        "evolved_ratio: 1.2",
        "recipe.yaml:4: evolved_ratio: found 1.2; must be a number, at least 0 and at most 1",
    ),
    "ratio below 0": (
        "responses_per_prompt: 4",
        "evolved_ratio: -0.2",
        "recipe.yaml:4: evolved_ratio: found -0.2; must be a number, at least 0 and at most 1",
    ),
    "number for text": (
        "name: lab",
        "name: 7",
        "recipe.yaml:1: name: found 7; must be text, matching ^[A-Za-z0-9][A-Za-z0-9_.-]*$; put quotes around it",
    ),
    "name that cannot be a folder": (
        "name: lab",
        "name: ../lab",
        "recipe.yaml:1: name: found '../lab'; must be text, matching ^[A-Za-z0-9][A-Za-z0-9_.-]*$",
    ),
    "unknown word": (
        "beta: 0.1",
        "precision: fp16",
        "recipe.yaml:8: optimiser.precision: found 'fp16'; must be one of fp32, bf16; did you mean 'bf16'?",
    ),
    "unknown kind": (
        "{kind: lab, count: 64}",
        "{kind: labs, count: 64}",
        "recipe.yaml:3: prompts.kind: found 'labs'; must be one of lab, file, hub; did you mean 'lab'?",
    ),
    "no kind": (
        "{kind: lab, count: 64}",
        "{count: 64}",
        "recipe.yaml:3: prompts.kind: missing; must be one of lab, file, hub",
    ),
    "kind that is a number": (
        "{kind: lab, count: 64}",
        "{kind: 3}",
        "recipe.yaml:3: prompts.kind: found 3; must be one of lab, file, hub",
    ),
    "value for a section with kinds": (
        "{kind: lab, count: 64}",
        "3",
        "recipe.yaml:3: prompts: found 3; must be a section with kind: lab | file | hub; or lab, a .jsonl or .parquet file, "
        "or a data set's hub name org/name",
    ),
    "value for a section": (
        "creator: {evolver: lab}",
        "creator: lab",
        "recipe.yaml:6: creator: found 'lab'; must be a section with the keys",
    ),
    "missing key": (
        "policy: lab\n",
        "",
        "recipe.yaml:1: policy: missing; must be a section with kind: lab | pretrained; "
        "or lab, or a model's folder or hub name",
    ),
    "missing key of a kind": (
        "policy: lab",
        "policy:\n  kind: pretrained",
        "recipe.yaml:2: policy.path: missing; must be text, not empty "
        "(a local folder with config.json and *.safetensors, or a hub name)",
    ),
    "nothing after the colon": (
        "policy: lab",
        "policy:",
        "recipe.yaml:2: policy: found nothing (null); must be a section with kind: lab | pretrained; "
        "or lab, or a model's folder or hub name",
    ),
    "almost a word": (
        "policy: lab",
        "policy: Lab",
        "recipe.yaml:2: policy: found 'Lab'; must be lab, or a model's folder or hub name; did you mean 'lab'?",
    ),
    "prompts that are neither file nor hub name": (
        "{kind: lab, count: 64}",
        "data/prompts.csv.gz/x",
        "recipe.yaml:3: prompts: found 'data/prompts.csv.gz/x'; "
        "must be lab, a .jsonl or .parquet file, or a data set's hub name org/name",
    ),
    "evolver that is no word": (
        "{evolver: lab}",
        "{evolver: polcy}",
        "recipe.yaml:6: creator.evolver: found 'polcy'; must be lab, policy or none; did you mean 'policy'?",
    ),
    "list for a value": ("beta: 0.1", "beta: [0.1]", "recipe.yaml:8: optimiser.beta: found a list; must be a number, above 0"),
    "value for a list": (
        "count: 64",
        "levels: 3",
        "recipe.yaml:3: prompts.levels: found 3; must be a list, each item an integer, at least 1 and at most 9",
    ),
    "empty list": ("count: 64", "levels: []", "recipe.yaml:3: prompts.levels: has no values; give at least one"),
    "bad item of a list": (
        "{kind: lab, count: 64}",
        "\n  kind: lab\n  levels:\n  - 1\n  - 12",
        "recipe.yaml:7: prompts.levels[1]: found 12; must be an integer, at least 1 and at most 9",
    ),
    "no benchmarks": ("{lab: lab}", "{}", "recipe.yaml:9: benchmarks: has no values; give at least one"),
    "benchmark name with a dot": (
        "{lab: lab}",
        "{a.b: lab}",
        "recipe.yaml:9: benchmarks.a.b: found 'a.b'; must be text, matching ^[A-Za-z0-9][A-Za-z0-9_-]*$",
    ),
    "nothing to train": (
        "responses_per_prompt: 4",
        "warmup: null\nrounds: 0",
        "recipe.yaml:5: rounds: found 0 and no warmup; nothing would be trained, set rounds to 1 or more or give a warmup",
    ),
    "no room for a response": (
        "beta: 0.1",
        "max_length: 64\n  max_prompt_length: 64",
        "recipe.yaml:9: optimiser.max_prompt_length: found 64; must be below max_length, 64",
    ),
    "remote code of any revision": (
        "policy: lab",
        "policy:\n  kind: pretrained\n  path: org/model\n  trust_remote_code: true",
        "recipe.yaml:5: policy.trust_remote_code: found true; needs a revision, the exact code that may run",
    ),
    "misspelt quick key": (
        "prompts.count: 8",
        "prompts.cont: 8",
        "recipe.yaml:11: prompts.cont: unknown key; allowed: kind, count, levels, seed; did you mean 'count'?",
    ),
    "quick key below a value": (
        "prompts.count: 8",
        "optimiser.beta.x: 8",
        "recipe.yaml:11: optimiser.beta.x: found 0.1 at optimiser.beta, which must be a section; "
        "or set optimiser.beta as a whole",
    ),
}


@pytest.mark.parametrize("name", RECIPE_MISTAKES)
def test_a_mistake_in_a_recipe(name: str, files: Files) -> None:
    old, new, message = RECIPE_MISTAKES[name]

    [line] = files.recipe_mistakes(changed(RECIPE, old, new))

    assert line == message if "the keys" not in message else line.startswith(message)


SWEEP_MISTAKES = {
    "axis value out of range": (
        "[2, 4]",
        "\n  - 2\n  - 1",
        ["sweep.yaml:6: responses_per_prompt: found 1; must be an integer, at least 2"],
    ),
    "axis value of a wrong type": (
        "[2, 4]",
        "[2, true]",
        ["sweep.yaml:4: responses_per_prompt: found true; must be an integer, at least 2"],
    ),
    "unknown axis": (
        "responses_per_prompt: [2, 4]",
        "responses_per_promt:\n  - 2\n  - 4",
        [f"sweep.yaml:4: responses_per_promt: unknown key; allowed: {RECIPE_KEYS}; did you mean 'responses_per_prompt'?"],
    ),
    "axis below a value": (
        "responses_per_prompt: [2, 4]",
        "responses_per_prompt.x: [2]",
        [
            "sweep.yaml:4: responses_per_prompt.x: found 4 at responses_per_prompt, which must be a section; "
            "or set responses_per_prompt as a whole"
        ],
    ),
    "axis without values": ("[2, 4]", "[]", ["sweep.yaml:4: axes.responses_per_prompt: has no values; give at least one"]),
    "axis with a value twice": (
        "[2, 4]",
        "[2, 4, 2]",
        ["sweep.yaml:4: axes.responses_per_prompt: lists 2 more than once; every value must differ"],
    ),
    "axis that is one value": (
        "[2, 4]",
        "2",
        ["sweep.yaml:4: axes.responses_per_prompt: found 2; must be a list, each item a finite number, text, true or false"],
    ),
    "axis of lists": (
        "[2, 4]",
        "[[2], 4]",
        [
            "sweep.yaml:4: axes.responses_per_prompt[0]: found a list; must be a finite number, text, true or false; "
            "give other values a name: {NAME: {KEY: VALUE}, …}"
        ],
    ),
    "axis with nan": (
        "[2, 4]",
        "[2, .nan]",
        ["sweep.yaml:4: axes.responses_per_prompt[1]: found nan; must be a finite number, text, true or false"],
    ),
    "no axes": ("axes:\n  responses_per_prompt: [2, 4]", "axes: {}", ["sweep.yaml:3: axes: has no values; give at least one"]),
    "seed twice": ("[1, 2, 3]", "[1, 1]", ["sweep.yaml:5: seeds: lists 1 more than once; every value must differ"]),
    "no seeds": ("[1, 2, 3]", "[]", ["sweep.yaml:5: seeds: has no values; give at least one"]),
    "seed that is text": (
        "[1, 2, 3]",
        "[1, x]",
        [f"sweep.yaml:5: seeds[1]: found 'x'; must be an integer, at least 0 and below {2**63}"],
    ),
    "recipe by an unknown scale": (
        "recipe: recipe.yaml",
        "recipe: {labs: recipe.yaml}",
        ["sweep.yaml:2: recipe: found a section; must be a recipe file, or one for each scale: {lab: FILE, full: FILE}"],
    ),
    "no recipe for the scale": (
        "recipe: recipe.yaml",
        "recipe: {full: recipe.yaml}",
        ["sweep.yaml:2: recipe: has no recipe for the scale 'lab' of the site 'here'; it has full"],
    ),
    "recipe file that does not exist": (
        "recipe: recipe.yaml",
        "recipe:\n  lab: recipes.yaml",
        ["sweep.yaml:3: recipe.lab: found 'recipes.yaml', which does not exist; looked in .; did you mean 'recipe.yaml'?"],
    ),
    "axis inside another axis": (
        "responses_per_prompt: [2, 4]",
        "prompts.count: [8, 16]\n  prompts: [lab]",
        ["sweep.yaml:4: axes.prompts.count: the axis prompts sets it too; one of them must go"],
    ),
    "axis that changes nothing": (
        "responses_per_prompt: [2, 4]",
        "quick.rounds: [1]",
        ["sweep.yaml:4: axes.quick.rounds: changes no result"],
    ),
    "variant that the recipe does not have": (
        "responses_per_prompt: [2, 4]",
        "optimiser:\n    DPO: dpo",
        [
            "sweep.yaml:5: axes.optimiser.DPO: found 'dpo'; must be a variant of the recipe lab: none, "
            "or a section of dotted keys"
        ],
    ),
    "named value that is a number": (
        "responses_per_prompt: [2, 4]",
        "by: {a: 2}",
        [
            "sweep.yaml:4: axes.by.a: found 2; must be a variant of the recipe by name, dotted recipe keys with their values, "
            "or a list of such"
        ],
    ),
    "named value that sets nothing": (
        "responses_per_prompt: [2, 4]",
        "by: {a: {}}",
        [
            "sweep.yaml:4: axes.by.a: found a section; must be a variant of the recipe by name, "
            "dotted recipe keys with their values, or a list of such"
        ],
    ),
    "named values with a wrong key": (
        "responses_per_prompt: [2, 4]",
        "by:\n    a: {rounds: 1}\n    b:\n      prompts.cuont: 9",
        ["sweep.yaml:7: prompts.cuont: unknown key; allowed: kind, count, levels, seed; did you mean 'count'?"],
    ),
    "named values with a wrong value": (
        "responses_per_prompt: [2, 4]",
        "by:\n    a: {rounds: 1}\n    b:\n      rounds: one",
        ["sweep.yaml:7: rounds: found 'one'; must be an integer, at least 0"],
    ),
    "named values that another axis sets too": (
        "responses_per_prompt: [2, 4]",
        "rounds: [1, 2]\n  by: {a: {rounds: 3}}",
        [
            "sweep.yaml:5: axes.by: the axis rounds sets it too; one of them must go",
            "sweep.yaml:4: axes.rounds: the axis by sets it too; one of them must go",
        ],
    ),
    "column of an unknown benchmark": (
        "seeds: [1, 2, 3]",
        "seeds: [1]\ntable:\n  columns:\n  - {benchmark: labb, metric: easy, heading: Easy}",
        ["sweep.yaml:8: table.columns[0].benchmark: found 'labb'; must be a benchmark of the recipe: lab; did you mean 'lab'?"],
    ),
    "column without a metric": (
        "seeds: [1, 2, 3]",
        "seeds: [1]\ntable:\n  columns:\n  - {benchmark: lab, heading: Easy}",
        ["sweep.yaml:8: table.columns[0].metric: missing; must be text"],
    ),
}


@pytest.mark.parametrize("name", SWEEP_MISTAKES)
def test_a_mistake_in_a_sweep(name: str, files: Files) -> None:
    old, new, messages = SWEEP_MISTAKES[name]
    files.write("sweep.yaml", changed(SWEEP, old, new))

    assert files.mistakes() == messages


STAGE_NAMES = ", ".join(sorted(STAGES))
SITE_MISTAKES = {
    "unknown executor": (
        "executor: local",
        "executor: slrum",
        "site.yaml:2: executor: found 'slrum'; must be one of local, slurm; did you mean 'slurm'?",
    ),
    "unknown stage": (
        "scale: lab",
        "scale: lab\nstages:\n  trian: {nodes: 1}",
        f"site.yaml:5: stages.trian: unknown stage; allowed: {STAGE_NAMES}; did you mean 'train'?",
    ),
    "no nodes": (
        "scale: lab",
        "scale: lab\nstages:\n  train: {nodes: 0}",
        "site.yaml:5: stages.train.nodes: found 0; must be an integer, at least 1",
    ),
    "number in the environment": (
        "scale: lab",
        "scale: lab\nenvironment: {OMP_NUM_THREADS: 1}",
        "site.yaml:4: environment.OMP_NUM_THREADS: found 1; must be text; put quotes around it",
    ),
    "number that may be null": (
        "scale: lab",
        "scale: lab\nslurm: {mem_gb: lots}",
        "site.yaml:4: slurm.mem_gb: found 'lots'; must be a number or null, above 0",
    ),
    "more processes than slots": (
        "scale: lab",
        "scale: lab\nslots: 2\nstages:\n  train:\n    ranks_per_node: 4",
        "site.yaml:7: stages.train: needs 4 processes at once, but the site has slots: 2",
    ),
    "unset variable in the root": (
        "scale: lab",
        "scale: lab\nroot: $NOT_SET_HERE/eva",
        "site.yaml:4: root: found '$NOT_SET_HERE/eva'; the environment has no $NOT_SET_HERE",
    ),
}


@pytest.mark.parametrize("name", SITE_MISTAKES)
def test_a_mistake_in_a_site(name: str, files: Files) -> None:
    old, new, message = SITE_MISTAKES[name]
    files.write("site.yaml", changed(SITE, old, new))

    assert files.mistakes(load=files.site) == [message]


def test_all_mistakes_of_a_file_are_named_in_the_order_of_its_lines(files: Files) -> None:
    lines = files.recipe_mistakes(RECIPE.replace("responses_per_prompt: 4", "rounds: -1\nbeta: 1").replace("0.1", "high"))

    assert [line.split(": ")[:2] for line in lines] == [
        ["recipe.yaml:4", "rounds"],
        ["recipe.yaml:5", "beta"],
        ["recipe.yaml:9", "optimiser.beta"],
    ]


def test_an_integer_is_a_number_too(files: Files) -> None:
    files.write("recipe.yaml", RECIPE.replace("beta: 0.1", "beta: 1"))

    assert files.load().recipe.optimiser.beta == 1.0
