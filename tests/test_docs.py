"""What docs/benchmarks.md shows is what happens: its commands run, print what stands there, and its tables name every key.

Fenced blocks are read as follows. ``sh``: commands, run in order in one folder. ``text`` right after it: what they print, "..."
for any lines. A name after the language, as in ``json questions.json``: a file of that name. ``yaml`` without a name: part of
a recipe.
"""

from __future__ import annotations

import doctest
import json
import math
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from typer.testing import CliRunner

from eva_hpc.benchmarks.files import read_rows
from eva_hpc.cli import app
from eva_hpc.config.load import load_experiment, load_site
from eva_hpc.stages.registry import STAGES
from tests.benchmarks.judge_server import Call, Says, running_judge

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
OWN = "## Own questions"
JUDGE = "gpt-4.1-2025-04-14"
_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: `name` is that of a file."""

    language: str
    name: str
    body: str


def blocks(text: str) -> list[Block]:
    return [Block(language, name, body) for language, name, body in _BLOCK.findall(text)]


def says(call: Call) -> Says:
    """A judge of all three, by what is asked for."""
    size = len(call.prompt) % 10
    if call.body.get("logprobs"):
        p = (size + 1) / 12
        return Says("m", top={"m": math.log(p), "M": math.log(1 - p)})
    if "[[A>B]]" in call.body["messages"][0]["content"]:
        return Says(("[[A>>B]]", "[[A>B]]", "[[A=B]]", "[[B>A]]", "[[B>>A]]")[size // 2])
    return Says(f"Rating: [[{1 + size}]]")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with a judge and a data folder in the environment."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("EVA_HPC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-for-this-test")
    with running_judge() as server:
        server.rule, server.model = says, JUDGE
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        yield tmp_path / "work"


@pytest.fixture
def files(folder: Path, shared_data: Path) -> Path:
    """The same with official files, under the names that the page gives them."""
    run("eva-hpc data fetch --from", str(shared_data))
    model = shared_data / "alpaca_eval" / "models" / "alpaca-7b"
    for name, path in {
        "annotations.json": model / "annotations.json.gz",
        "model_outputs.json": model / "model_outputs.json.gz",
        "arena_hard_battles.jsonl": shared_data / "arena_hard" / "battles_gpt-3.5-turbo-0125.jsonl",
        "raw_judgments.jsonl": shared_data / "arena_hard" / "raw_judgments_sample.jsonl.gz",
        "gpt-4-0314.jsonl": shared_data / "arena_hard" / "answers" / "gpt-4-0314.jsonl.gz",
        "gpt-3.5-turbo-0125.jsonl": shared_data / "arena_hard" / "answers" / "gpt-3.5-turbo-0125.jsonl.gz",
        "gpt-4_single.jsonl": shared_data / "mt_bench" / "judgments" / "muhan421.gpt-4_single.jsonl.gz",
    }.items():
        (folder / name).symlink_to(path)
    turns = [{"index": 0, "turns": ["One thing.", "Another."]}]
    answers = [
        {"question_id": row["question_id"], "model_id": "mine", "choices": turns}
        for row in read_rows(shared_data / "mt_bench" / "question.jsonl")
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    return folder


def run(*words: str) -> str:
    """What a command line prints on stdout; it must succeed."""
    line = shlex.split(os.path.expandvars(words[0])) + list(words[1:])
    assert line[0] == "eva-hpc", line
    result = CliRunner().invoke(app, line[1:], catch_exceptions=False)
    assert result.exit_code == 0, f"{shlex.join(line)}\n{result.output}"
    return result.stdout


def follow(text: str) -> None:
    """Write the files and run the commands of a text in order, and compare what they print with what is shown."""
    found = blocks(text)
    for number, block in enumerate(found):
        if block.name:
            Path(block.name).write_text(block.body, encoding="utf-8")
        if block.language != "sh":
            continue
        printed = "".join(run(line) for line in block.body.replace("\\\n", " ").splitlines() if line)
        after = found[number + 1] if number + 1 < len(found) else None
        if after and after.language == "text" and not after.name:
            same = doctest.OutputChecker().check_output(
                after.body, printed, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.DONT_ACCEPT_BLANKLINE
            )
            assert same, f"{block.body}prints\n{printed}but the page shows\n{after.body}"


def keys(heading: str) -> set[str]:
    """The keys in the table below a line that begins so."""
    table = PAGE[PAGE.index(f"\n{heading}") :].split("| key |")[1].split("\n\n")[0]
    return {key for row in table.splitlines()[2:] for key in re.findall(r"`(\w+)`", row.split("|")[1])}


@pytest.mark.slow
def test_examples_with_official_files(files: Path) -> None:
    follow(PAGE)


def test_examples_with_own_files_need_nothing_official(folder: Path) -> None:
    follow(PAGE[PAGE.index(OWN) : PAGE.index("\nMT-Bench: one or two turns")])


@pytest.mark.slow
def test_every_key_stands_in_a_table(files: Path) -> None:
    gamed = "--difficulty $EVA_HPC_DATA/alpaca_eval/instruction_difficulty.csv --gamed $EVA_HPC_DATA/alpaca_eval/df_gamed.csv"
    alpaca: dict[str, Any] = json.loads(
        run(f"eva-hpc score alpaca_eval --annotations annotations.json --recompute --json {gamed}")
    )
    style = "--style-control --answers gpt-4-0314.jsonl --answers gpt-3.5-turbo-0125.jsonl"
    arena = json.loads(run(f"eva-hpc score arena_hard --battles arena_hard_battles.jsonl --json {style}"))
    mt = json.loads(run("eva-hpc score mt_bench --judgments gpt-4_single.jsonl --json"))

    assert keys("`eva-hpc score alpaca_eval --json`") == set(alpaca)
    assert keys("`eva-hpc score arena_hard --json`") == set(arena) | {"reason", "warnings", "categories"}
    assert keys("`eva-hpc score mt_bench --json`") == set(next(iter(mt.values())))


@pytest.mark.parametrize(
    "part", [block.body for block in blocks(PAGE) if block.language == "yaml" and not block.name], ids=["official", "own"]
)
def test_recipes_load(part: str, folder: Path) -> None:
    for block in blocks(PAGE):
        if block.name:
            (folder / block.name).write_text(block.body, encoding="utf-8")
    recipe = yaml.safe_load((ROOT / "sweeps" / "recipes" / "gemma-2-9b-it-dpo.yaml").read_text()) | yaml.safe_load(part)
    del recipe["quick"]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    sweep = {"name": "shown", "recipe": "recipe.yaml", "axes": {"optimiser.beta": [0.05, 0.1]}, "seeds": [1]}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))

    experiment = load_experiment(folder / "sweep.yaml", site=load_site("laptop", known_stages=STAGES))

    assert set(experiment.recipe.benchmarks) == set(yaml.safe_load(part)["benchmarks"])


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md", "docs/slurm.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in re.findall(r"^#+ .*", text, re.M)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), target
