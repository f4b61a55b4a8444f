"""Prefetching from a small hub on this machine, then loading with the network gone. Each command is a process of its own:
the hub's libraries read their environment when they are imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands.hub import Files, Hub, folder_files

pytestmark = pytest.mark.slow

RECIPE = """\
name: hubbed
policy: {{kind: pretrained, path: org/policy, dtype: float32, revision: {policy}}}
prompts: {{kind: hub, name: org/prompts, column: text, revision: {prompts}}}
reward: {{kind: sequence_classification, path: org/reward, dtype: float32}}
creator: {{evolver: policy}}
benchmarks: {{heldout: {{kind: reward, path: heldout.jsonl}}}}
"""
PREFETCH = "import typer; from eva_hpc.commands.prefetch import prefetch; typer.run(prefetch)"
MISSING = """
import sys
from pathlib import Path
from eva_hpc.config.hub import missing
from eva_hpc.request import Request, open_request
print(*missing(open_request(Request(Path("sweep.yaml"), "site.yaml")).experiment), sep="\\n")
assert not {"torch", "transformers"} & sys.modules.keys(), "every plan looks: it must be quick"
"""
READ = """
from pathlib import Path
from eva_hpc.request import Request, open_request
from eva_hpc.stages.prompts import read_column
experiment = open_request(Request(Path("sweep.yaml"), "site.yaml")).experiment
print(read_column(experiment.points[0][1].prompts, "hub:org/prompts", Path("cache")))
"""
LOADED = """
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from eva_hpc.config.recipe import HubPrompts
from eva_hpc.request import Request, open_request
from eva_hpc.stages import start_policy
from eva_hpc.stages.policy import read_policy
from eva_hpc.stages.prompts import read_column, token_counter, token_limit
recipe = open_request(Request(Path("sweep.yaml"), "site.yaml")).experiment.points[0][1]
out = Path("start")
out.mkdir()
start_policy.run(start_policy.Spec(policy=recipe.policy, fingerprint="hub:org/policy"), {}, out, None)
source = read_policy(out)
print(AutoModelForCausalLM.from_pretrained(source.path, revision=source.revision).config.model_type)
AutoModelForSequenceClassification.from_pretrained(recipe.reward.path)
AutoTokenizer.from_pretrained(recipe.reward.path)
print(token_counter(out)("Hello") > 0, token_limit(out, 100_000))
print(read_column(recipe.prompts, "hub:org/prompts", Path("cache")))
"""


class Place:
    """A folder with a sweep of the hub's models and prompts, and a cache of its own."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder = folder
        self.hub = hub
        self.write("null", "null")
        (folder / "sweep.yaml").write_text("name: k\nrecipe: recipe.yaml\naxes: {responses_per_prompt: [2, 4]}\nseeds: [1]\n")
        (folder / "site.yaml").write_text("name: here\nexecutor: local\nscale: full\n")
        (folder / "heldout.jsonl").write_text('{"prompt": "Sort these words."}\n')

    def write(self, policy: str, prompts: str) -> None:
        """The recipe with these revisions."""
        (self.folder / "recipe.yaml").write_text(RECIPE.format(policy=policy, prompts=prompts))

    def run(self, code: str, *arguments: str, offline: bool = False) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
        own = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.folder / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        own |= {"HF_UPDATE_DOWNLOAD_COUNTS": "0", "PYTHONPATH": str(Path(__file__).parents[2])}
        if offline:
            own |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=self.folder, env={**inherited, **own}, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def prefetch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(PREFETCH, "sweep.yaml", "--site", "site.yaml", *arguments)

    def missing(self) -> list[str]:
        result = self.run(MISSING, offline=True)
        assert result.returncode == 0, result.stderr
        return result.stdout.split("\n")[:-1] if result.stdout.strip() else []


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.stop()


@pytest.fixture
def place(hub: Hub, tmp_path: Path) -> Place:
    return Place(tmp_path, hub)


def prompts(*texts: str) -> Files:
    return {
        "README.md": b"---\nlicense: mit\n---\n",
        "train.jsonl": "".join(json.dumps({"text": text}) + "\n" for text in texts).encode(),
    }


@pytest.fixture
def filled(hub: Hub, tiny_qwen2: Path, tiny_reward: Path) -> Callable[[], tuple[str, str]]:
    """Puts the models and prompts of the recipe there; returns the commits of policy and prompts."""

    def fill() -> tuple[str, str]:
        others = {"pytorch_model.bin": b"a pickle", "README.md": b"# Policy", "modeling.py": b"raise SystemExit"}
        subfolders = {"original/params.json": b"{}", "onnx/model.safetensors": b"other"}
        hub.add("model", "org/reward", folder_files(tiny_reward))
        policy = hub.add("model", "org/policy", {**folder_files(tiny_qwen2), **others, **subfolders})
        return policy, hub.add("dataset", "org/prompts", prompts("Sort.", "Count."))

    return fill


@pytest.mark.slow
def test_what_was_fetched_loads_when_the_hub_is_gone(place, hub, filled):
    place.write(*filled())
    before = place.missing()
    assert [line.split(":")[0] for line in before] == ["policy", "prompts", "reward"]
    assert all("not in the local cache" in line for line in before)

    fetched = place.prefetch()
    assert fetched.returncode == 0, fetched.stderr
    hub.stop()

    assert place.missing() == []
    loaded = place.run(LOADED, offline=True)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split("\n")[:3] == ["qwen2", "True 511", "['Sort.', 'Count.']"]


@pytest.mark.slow
def test_only_needed_files_are_fetched_and_none_of_them_twice(place, hub, filled):
    place.write(*filled())
    assert place.prefetch().returncode == 0
    served = [path.rpartition("/")[2] for path in hub.served if path.startswith("org/policy/")]
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= set(served)
    assert not {"pytorch_model.bin", "README.md", "modeling.py", "params.json"} & set(served)
    assert served.count("model.safetensors") == 1

    hub.served.clear()
    again = place.prefetch()
    assert again.returncode == 0
    assert hub.served == []


@pytest.mark.slow
def test_without_a_revision_the_commit_is_named_and_found_without_network(place, hub, filled):
    policy, dataset = filled()
    fetched = place.prefetch()

    said = fetched.stdout.splitlines()
    assert f"  no revision is given; to name exactly this one: policy.revision: {policy}" in said
    assert f"  no revision is given; to name exactly this one: prompts.revision: {dataset}" in said
    assert any(line.startswith(f"policy: model org/policy, commit {policy}: ") and line.endswith("kB") for line in said)
    hub.stop()
    assert place.missing() == []
    read = place.run(READ, offline=True)
    assert read.stdout.strip() == "['Sort.', 'Count.']", read.stderr


@pytest.mark.slow
def test_the_wrong_revision_of_a_data_set_is_not_read(place, hub, filled):
    policy, first = filled()
    second = hub.add("dataset", "org/prompts", prompts("Other."))
    place.write(policy, second)
    assert place.prefetch().returncode == 0

    place.write(policy, first)
    assert place.missing() == [f"prompts: dataset org/prompts at {first}: the local cache has another revision of it"]
    read = place.run(READ, offline=True)
    assert f"the local cache has another revision of org/prompts than {first}" in read.stderr

    for prompts_commit, texts in ((first, "['Sort.', 'Count.']"), (second, "['Other.']")):
        place.write(policy, prompts_commit)
        assert place.prefetch().returncode == 0
        read = place.run(READ, offline=True)
        assert read.stdout.strip() == texts, "both are there; the one that was asked for last is read"


@pytest.mark.slow
def test_a_part_of_the_weights_is_not_enough(place, hub, filled):
    filled()
    assert place.prefetch().returncode == 0
    snapshot = next((place.folder / "home" / "hub" / "models--org--policy" / "snapshots").iterdir())
    (snapshot / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}})
    )
    (snapshot / "1.safetensors").write_bytes(b"")
    assert place.missing() == ["policy: model org/policy: 1 of 2 files of weights are not in the local cache"]


# ---------------------------------------------------------------------------- what can go wrong


def test_what_the_hub_does_not_have_is_the_users_mistake(place, hub):
    result = place.prefetch()
    assert result.returncode == 2
    assert result.stderr == (
        "policy: found 'org/policy'; the hub has no such model, or hides it: a private one needs HF_TOKEN or hf auth login\n"
    )


def test_an_unknown_revision_is_named(place, hub):
    hub.add("model", "org/policy", {"config.json": b"{}", "model.safetensors": b""})
    place.write("v2", "null")
    result = place.prefetch()
    assert (result.returncode, result.stderr) == (2, "policy.revision: found 'v2', which org/policy does not have\n")


def test_a_gated_model_says_where_to_ask(place, hub):
    hub.add("model", "org/policy", {"config.json": b"{}", "model.safetensors": b""})
    hub.gated.add("org/policy")
    result = place.prefetch()
    assert result.returncode == 2
    assert f"access is granted to single users: ask for it at {hub.url}/org/policy" in result.stderr


def test_pickled_weights_are_refused(place, hub):
    hub.add("model", "org/policy", {"config.json": b"{}", "pytorch_model.bin": b""})
    result = place.prefetch()
    assert (result.returncode, result.stderr) == (
        2,
        "policy: found org/policy, which has no *.safetensors; pickles are not loaded\n",
    )


def test_a_hub_that_does_not_answer_is_no_mistake_of_the_user(place, hub):
    hub.stop()
    result = place.prefetch()
    assert result.returncode == 1
    assert result.stderr.startswith("policy: org/policy: ConnectError: ")
    assert "Traceback" not in result.stderr


def test_offline_in_the_environment_is_said(place):
    result = place.run(PREFETCH, "sweep.yaml", "--site", "site.yaml", offline=True)
    assert result.returncode == 2
    assert "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set" in result.stderr


def test_a_sweep_without_the_hub_needs_nothing(place):
    (place.folder / "recipe.yaml").write_text(
        "name: lab\npolicy: lab\nprompts: lab\nreward: lab\ncreator: {evolver: lab}\nbenchmarks: {lab: lab}\n"
    )
    result = place.prefetch()
    assert (result.returncode, result.stdout) == (0, "nothing of this sweep is on the hub\n")
    assert place.missing() == []
