"""Stages run here in one process, through the same preparation and commit as everywhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from eva_hpc.cluster.execution import Attempt, conclude, prepare
from eva_hpc.config.creator import Admission, LabRewriter
from eva_hpc.config.recipe import Generation, LabChecker, LabPrompts
from eva_hpc.config.site import Site
from eva_hpc.plan.graph import Node, in_order
from eva_hpc.plan.plan import Task
from eva_hpc.stages import admit, evolve, generate, mix, pair, prompts, score, select
from eva_hpc.stages.contract import StageSpec
from eva_hpc.stages.registry import STAGES
from eva_hpc.store.artifacts import Artifact, Store
from eva_hpc.store.records import read_jsonl, write_jsonl
from eva_hpc.store.seeds import derive_seed
from tests.stages.chat_server import ChatServer


class Workbench:
    """A store of its own, and stages done in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "store")

    def prepare(self, node: Node, shards: int = 1, chunk: int = 8, making: Mapping[str, Path] = {}) -> Attempt:
        """An attempt at a node whose inputs are committed, but for those in `making`."""
        task = Task(
            identity=node.identity,
            spec=node.spec.model_dump(mode="json"),
            part=node.part,
            parallel=node.spec.parallel,
            inputs={role: source.identity for role, source in node.inputs.items()},
            runs=("run",),
        )
        site = Site.model_validate(
            {"name": "here", "executor": "local", "scale": "lab", "slots": 4, "default": {"ranks_per_node": shards},
             "engine": {"chunk_prompts": chunk}}
        )  # fmt: skip
        return prepare(task, site, self.store, self.root / "results", making)

    def run(self, attempt: Attempt, **hooks: Any) -> list[Any]:
        """What `run` returns on each rank, one after the other."""
        stage = STAGES[attempt.task.stage]
        ranks = range(attempt.world_size)
        counts = [stage.run(attempt.spec(), attempt.inputs, attempt.folder, attempt.context(r, **hooks)) for r in ranks]
        if not hasattr(stage, "finish"):
            counted = {"read": counts[0].read, "written": counts[0].written, "set_aside": dict(counts[0].set_aside)}
            write_jsonl(attempt.work / "counts.json", [counted])
        return counts

    def commit(self, attempt: Attempt) -> Artifact:
        return conclude(attempt, self.store, 0.0)

    def make(self, node: Node, shards: int = 1, chunk: int = 8) -> Artifact:
        """The artifact of a node, with everything it needs that is not there yet."""
        for one in in_order([node]):
            if self.store.find(one.identity) is None:
                attempt = self.prepare(one, shards, chunk)
                self.run(attempt)
                self.commit(attempt)
        found = self.store.find(node.identity)
        assert found is not None
        return found

    def records(self, node: Node) -> dict[str, Any]:
        """Records in, out and set aside of a committed artifact: {"in": 8, "out": 7, "set_aside": {"tie": 1}}."""
        found = self.store.find(node.identity)
        assert found is not None
        counts: dict[str, Any] = found.manifest["records"]
        return counts

    def again(self, *nodes: Node) -> None:
        """Move artifacts away, so that they are made again."""
        for node in nodes:
            found = self.store.find(node.identity)
            assert found is not None
            self.store.set_aside(found)

    def put(self, node: Node, name: str, records: list[Any]) -> Artifact:
        """Commit these records as a node's artifact."""
        folder = self.store.folder(node.identity)
        folder.mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / name, records)
        return self.store.commit(node.identity, {})

    def read(self, node: Node, name: str) -> list[Any]:
        """The records of a committed file."""
        found = self.store.find(node.identity)
        assert found is not None
        return read_jsonl(found.folder / name)


LAB_ADMISSION = Admission(min_chars=1, near_duplicates=None)
"""Lab prompts are short, and alike by nature."""


class LabRound:
    """The nodes of one round in the lab, whose responses are demonstrations: some right, some flawed.

    `base` is the node of its prompts, by default `count` of the lab's; `rewrites` are the chains of evolved prompts, `evolved`
    those that are admitted.
    """

    def __init__(
        self,
        bench: Workbench,
        start: Node,
        count: int = 24,
        k: int = 4,
        seed: int = 1,
        number: int = 1,
        base: Node | None = None,
        reward: LabChecker | None = None,
    ) -> None:
        self.bench, self.start, self.k, self.seed, self.number = bench, start, k, seed, number
        self.reward = reward or LabChecker()
        self.prompts = base or Node(prompts.Spec(source=LabPrompts(count=count)), "start")
        self.responses, self.rewards = self.respond(self.prompts, 1.0)
        self.selected = self.select(sampling="weighted", fraction=0.25)
        evolving = evolve.Spec(evolver=LabRewriter(), evolutions=4, seed=seed, round=number)
        self.rewrites = self.node(evolving, selected=self.selected)
        self.evolved = self.admitted(self.rewrites)

    def node(self, spec: StageSpec, **inputs: Node) -> Node:
        """A node of this round."""
        return Node(spec, f"round {self.number}", inputs)

    def select(self, informativeness: str = "A_min", **settings: Any) -> Node:
        """The node of the prompts to evolve."""
        own = {"informativeness": informativeness, "responses": self.k, "seed": self.seed, "round": self.number}
        return self.node(select.Spec.model_validate(own | settings), prompts=self.prompts, rewards=self.rewards)

    def admitted(
        self, rewrites: Node, admission: Admission = LAB_ADMISSION, max_tokens: int | None = None, **compared: Node
    ) -> Node:
        """The node of the evolved prompts that enter; `compared` are further inputs."""
        spec = admit.Spec(admission=admission, max_tokens=max_tokens, seed=self.seed, round=self.number)
        return self.node(spec, rewrites=rewrites, base=self.prompts, **compared)

    def respond(self, source: Node, fraction: float, same: bool = False) -> tuple[Node, Node]:
        """Responses to the first share of the prompts, committed as if a policy gave them; and the node of their rewards."""
        import random

        from eva_hpc.lab.checker import answer
        from eva_hpc.lab.demonstrations import imperfect
        from eva_hpc.stages.slices import first_prompts

        spec = generate.Spec(generation=Generation(), responses=self.k, fraction=fraction, seed=self.seed, round=self.number)
        node = self.node(spec, policy=self.start, prompts=source)
        asked = first_prompts(self.bench.make(source).folder, fraction)

        def response(prompt: Mapping[str, Any], j: int) -> dict[str, Any]:
            rng = random.Random(derive_seed(self.seed, prompt["id"], j))
            text = answer(prompt["prompt"]) if same else imperfect(answer(prompt["prompt"]), "abcdef", rng)
            return {"text": text, "tokens": [j], "finish": "stop", "logprob": -1.0}

        records = [
            {"prompt_id": prompt["id"], "prompt": prompt["prompt"], "prompt_tokens": [1],
             "responses": [response(prompt, j) for j in range(self.k)]}
            for prompt in asked
        ]  # fmt: skip
        self.bench.put(node, "responses.jsonl", records)
        rewards = score.Spec(reward=self.reward, responses=self.k, fraction=fraction)
        return node, self.node(rewards, responses=node, prompts=source)

    def inputs(self, ratio: float, generated: float | None = None) -> dict[str, Node]:
        """The inputs of `pair`; the evolved prompts' responses are there for the share `generated`, by default the ratio."""
        base = {"base": self.prompts, "base_responses": self.responses, "base_rewards": self.rewards}
        if ratio == 0:
            return base
        responses, rewards = self.respond(self.evolved, generated or ratio)
        return {**base, "evolved": self.evolved, "evolved_responses": responses, "evolved_rewards": rewards}

    def pair(self, ratio: float, generated: float | None = None) -> Node:
        """The node of the round's pairs."""
        spec = pair.Spec(responses=self.k, ratio=ratio, seed=self.seed, round=self.number)
        return self.node(spec, **self.inputs(ratio, generated))

    def mix(self, ratio: float) -> Node:
        """The node of the round's prompts."""
        spec = mix.Spec(ratio=ratio, seed=self.seed, round=self.number)
        return self.node(spec, base=self.prompts, evolved=self.evolved)


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(tmp_path)


@pytest.fixture(scope="module")
def shared_bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """One for all tests of a file, which only read what is made in it."""
    return Workbench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def server() -> Iterator[ChatServer]:
    """Somebody to write to."""
    server = ChatServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def lab_round(bench: Workbench, placeholder: Node):
    """Makes rounds of the lab in this test's store."""
    return lambda **settings: LabRound(bench, placeholder, **settings)


@pytest.fixture
def placeholder(bench: Workbench) -> Node:
    """A start policy that nobody loads."""
    from eva_hpc.config.recipe import LabPolicy
    from eva_hpc.stages import start_policy

    node = Node(start_policy.Spec(policy=LabPolicy()), "start")
    bench.put(node, "nothing.jsonl", [])
    return node


@pytest.fixture(scope="session")
def random_lab_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's policy with its tokenizer, untrained: it answers fast and badly, which is all these tests need."""
    from eva_hpc.lab.policy import new_policy
    from eva_hpc.lab.tokenizer import build_tokenizer

    path = tmp_path_factory.mktemp("models") / "lab"
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(path)
    new_policy(tokenizer, seed=0).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def tokenizer_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy without weights, of 512 positions: enough to count tokens."""
    from transformers import AutoConfig

    from tests.tiny_models import tiny_tokenizer

    path = tmp_path_factory.mktemp("models") / "tokenizer"
    tiny_tokenizer(path)
    AutoConfig.for_model("qwen2", max_position_embeddings=512).save_pretrained(path)
    return path


def policy_node(path: Path) -> Node:
    """The start policy that points to this folder."""
    from eva_hpc.config.recipe import PretrainedPolicy
    from eva_hpc.stages import start_policy

    return Node(start_policy.Spec(policy=PretrainedPolicy(path=str(path), dtype="float32"), fingerprint=str(path)), "start")


@pytest.fixture(scope="session")
def policy_of():
    return policy_node
