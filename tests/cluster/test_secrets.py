"""Tokens and keys reach the jobs through their environment and are in no file that a sweep writes, also when it fails."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from eva_hpc.cluster.devcluster import Cluster
from tests.cluster.sweeps import explain, ledger, results_of, sweep

pytestmark = pytest.mark.slow

SECRETS = {
    "HF_TOKEN": "hf_planted0token0of0the0hub",
    "OPENAI_API_KEY": "sk-planted-key-of-openai",
    "MY_EVOLVER_KEY": "planted-key-of-the-recipe",
}


class Server(ThreadingHTTPServer):
    """An evolver that wants the recipe's key. While it is strict it takes no key, and says which one it was shown."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.strict = True
        self.keys: set[str | None] = set()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        shown = self.headers["Authorization"]
        self.server.keys.add(shown)
        text = f"<new_prompt>Evolved task {len(self.server.keys)} {id(self)}</new_prompt>"
        answer = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
        body = f"no such key: {shown}" if self.server.strict else json.dumps(answer)
        self.send_response(401 if self.server.strict else 200)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def files_with_a_secret(root: Path) -> list[str]:
    """What was found where, below a root."""
    found = []
    for path in root.rglob("*"):
        content = str(path).encode() + (path.read_bytes() if path.is_file() else b"")
        found += [f"{name} in {path}" for name, value in SECRETS.items() if value.encode() in content]
    return found


def test_jobs_see_the_secrets_and_no_file_has_them(
    devcluster: Cluster,
    server: Server,
    tiny_qwen2: Path,
    tiny_reward: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    root, proof = tmp_path / "root", tmp_path / "proof"
    proof.mkdir()
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Count to {number}."}) + "\n" for number in range(8)))
    shows = [f"printenv {name} | tr -d '\\n' | sha256sum | cut -c 1-64 > {proof}/{name}" for name in SECRETS]
    one = "{nodes: 1, ranks_per_node: 1}"
    settings = {
        "site.root": root,
        "site.slurm.setup": json.dumps(shows),
        "site.stages.generate": one,
        "site.stages.train": one,
        "sweep.axes.responses_per_prompt": "[2]",
        "sweep.seeds": "[1]",
        "recipe.policy": f"{{kind: pretrained, path: {tiny_qwen2}, dtype: float32}}",
        "recipe.prompts": prompts,
        "recipe.warmup": "null",
        "recipe.generation": "{engine: transformers, max_new_tokens: 4}",
        "recipe.reward": f"{{kind: sequence_classification, path: {tiny_reward}, dtype: float32}}",
        "recipe.creator.evolver": (
            f"{{kind: openai, model: m, base_url: 'http://127.0.0.1:{server.server_port}/v1', api_key_env: MY_EVOLVER_KEY}}"
        ),
        "recipe.optimiser.precision": "fp32",
        "recipe.optimiser.gradient_checkpointing": "false",
        "recipe.benchmarks.heldout.path": prompts,
    }
    command = ["sweeps/responses_per_prompt.yaml", "--recipe", "sweeps/recipes/qwen2-0.5b-dpo.yaml", "--site", "devcluster"]
    command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]

    refused = sweep(*command, timeout=400)
    assert refused.returncode == 1, explain(refused, root)
    (reason,) = {event["reason"] for event in ledger(results_of(root)) if event["event"] == "failed"}
    assert "HTTP 401: no such key: Bearer [key]" in reason
    assert files_with_a_secret(root) == []

    server.strict = False
    done = sweep(*command, timeout=400)
    assert done.returncode == 0, explain(done, root)
    assert files_with_a_secret(root) == []

    assert server.keys == {f"Bearer {SECRETS['MY_EVOLVER_KEY']}"}
    hashes = {name: hashlib.sha256(value.encode()).hexdigest() for name, value in SECRETS.items()}
    assert {path.name: path.read_text().strip() for path in proof.iterdir()} == hashes
    said = "".join([refused.stdout, refused.stderr, done.stdout, done.stderr])
    assert [name for name, value in SECRETS.items() if value in said] == []
