"""A whole run with real prompts and real architectures on real Slurm: vLLM, a reward model, an evolver behind HTTP, ZeRO-3."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pytest

from eva_hpc.cluster.devcluster import Cluster
from eva_hpc.method.mixing import share
from eva_hpc.store.records import read_jsonl
from tests.benchmarks import made_up
from tests.benchmarks.judge_server import JudgeServer, running_judge
from tests.cluster.sweeps import CHECKOUT, explain, ledger, results_of, sweep

pytestmark = pytest.mark.slow

PROMPTS = Path(os.environ.get("EVA_HPC_SHARED_DATA", CHECKOUT.parent / "shared" / "data")) / "prompts" / "real_prompts.jsonl"
COUNT = 645
KEY = secrets.token_hex(16)


class _Evolver(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that rewrites a prompt by a rule: it asks for one thing more."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = request["messages"][-1]["content"]
        prompt = message.split("<given_prompt>")[-1].split("</given_prompt>")[0].strip()
        answer = f"<new_prompt>{prompt} Also give one example, number {request.get('seed', 0) % 1000}.</new_prompt>"
        body = json.dumps(
            {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}]}
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: object) -> None:
        """Be quiet."""


@pytest.fixture(scope="module")
def evolver() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Evolver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


@pytest.fixture(scope="module")
def judge_server() -> Iterator[JudgeServer]:
    with running_judge() as server:
        server.rule, server.key = made_up.judge, KEY
        yield server


@pytest.fixture(scope="module")
def results(
    devcluster: Cluster,
    evolver: str,
    judge_server: JudgeServer,
    tiny_qwen2: Path,
    tiny_reward: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    if not PROMPTS.is_file():
        pytest.skip(f"no {PROMPTS}: set EVA_HPC_SHARED_DATA to the folder that has prompts/real_prompts.jsonl")
    pytest.importorskip("vllm", reason="vLLM is not installed here")
    root = tmp_path_factory.mktemp("real")
    files = json.dumps(made_up.mt_bench(root / "mt_bench"))
    settings = {
        "recipe.judge": "{model: judge-1, api_key_env: KEY_OF_THE_JUDGE}",
        "recipe.benchmarks.mt_bench": f"{{kind: mt_bench, max_new_tokens: 24, files: {files}}}",
        "site.root": root,
        "site.stages.answer": "{nodes: 2, ranks_per_node: 1}",
        "site.engine.chunk_prompts": 128,
        "sweep.axes.responses_per_prompt": "[2]",
        "sweep.seeds": "[1]",
        "recipe.policy": f"{{kind: pretrained, path: {tiny_qwen2}, dtype: float32}}",
        "recipe.prompts": PROMPTS,
        "recipe.warmup": "null",
        "recipe.generation.max_new_tokens": 24,
        "recipe.reward": f"{{kind: sequence_classification, path: {tiny_reward}, dtype: float32}}",
        "recipe.creator.evolver": f"{{kind: openai, model: rules, base_url: '{evolver}'}}",
        "recipe.optimiser.precision": "fp32",
        "recipe.optimiser.gradient_checkpointing": "false",
        "recipe.benchmarks.heldout.limit": 16,
    }
    overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    recipe = ["--recipe", "sweeps/recipes/qwen2-0.5b-dpo.yaml", "--site", "devcluster"]
    with pytest.MonkeyPatch.context() as patch:  # jobs have the environment of who submits them
        patch.setenv("OPENAI_BASE_URL", judge_server.url)
        patch.setenv("KEY_OF_THE_JUDGE", KEY)
        result = sweep("sweeps/responses_per_prompt.yaml", *recipe, *overrides, timeout=1000)
    assert result.returncode == 0, explain(result, root)
    return results_of(root)


def manifest(results: Path, stage: str) -> list[dict]:
    return [orjson.loads(path.read_bytes()) for path in sorted((results.parent / "store").glob(f"{stage}/*/manifest.json"))]


def test_every_prompt_is_accounted_for(results: Path) -> None:
    (prompts,) = manifest(results, "prompts")
    records = prompts["records"]

    assert records["in"] == COUNT
    assert records["out"] + sum(records["set_aside"].values()) == COUNT
    assert records["out"] > 600


def test_vllm_gave_every_prompt_its_responses_and_the_reward_model_scored_them(results: Path) -> None:
    store = results.parent / "store"
    for path in store.glob("generate/*/responses.jsonl"):
        records = read_jsonl(path)
        assert all(len(record["responses"]) == 2 for record in records)
        different = sum(record["responses"][0] != record["responses"][1] for record in records)
        assert different > 0.9 * len(records), "two seeds, two samples; a random model may end both at once"
    assert {tuple(sorted(m["spec"]["generation"].items())) for m in manifest(results, "generate")} == {
        (("engine", "vllm"), ("max_new_tokens", 24), ("temperature", 0.7), ("top_p", 0.9))
    }
    scores = [
        reward for path in store.glob("score/*/rewards.jsonl") for record in read_jsonl(path) for reward in record["rewards"]
    ]
    assert len(set(scores)) > len(scores) / 2


def test_the_evolved_prompts_have_a_lineage_and_make_the_ratio(results: Path) -> None:
    store = results.parent / "store"
    (base,) = [{p["id"] for p in read_jsonl(path)} for path in store.glob("prompts/*/prompts.jsonl")]
    (evolved,) = [read_jsonl(path) for path in store.glob("admit/*/prompts.jsonl")]
    (chains,) = [read_jsonl(path) for path in store.glob("evolve/*/rewrites.jsonl")]
    known = base | {child["id"] for chain in chains for child in chain["children"]}  # a parent may have been set aside

    (made,), (admitted,) = ([one["records"] for one in manifest(results, stage)] for stage in ("evolve", "admit"))
    assert made["in"] == 4 * (len(base) // 4)
    assert admitted["in"] == made["out"] == made["in"] - sum(made["set_aside"].values())
    assert admitted["out"] == len(evolved) == admitted["in"] - sum(admitted["set_aside"].values())
    assert all(prompt["parent"] in known and prompt["operator"] and 1 <= prompt["depth"] <= 4 for prompt in evolved)
    (mixture,) = [orjson.loads(path.read_bytes()) for path in store.glob("pair/*/mixture.json")]
    wanted = share(len(base), 0.8)
    assert (mixture["evolved"], mixture["shortage"]) == (min(wanted, len(evolved)), max(0, wanted - len(evolved)))


def test_training_ran_with_zero3_on_two_nodes_of_two_ranks_and_its_model_answers_in_vllm(results: Path) -> None:
    (train,) = manifest(results, "train")
    (log,) = [read_jsonl(path) for path in (results.parent / "store").glob("train/*/train_log.jsonl")]

    assert train["processes"] == 4
    assert "model/model.safetensors" in train["files"]
    assert log[0]["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert len(manifest(results, "answer")) == 3, "the start policy's answers, and the trained one's to both benchmarks"


def test_a_judge_behind_a_server_was_asked_once_for_each_turn_by_a_job(results: Path, judge_server: JudgeServer) -> None:
    (judged,) = manifest(results, "ask_judge")
    assert judged["records"]["in"] == 2
    assert sorted(judge_server.paid.values()) == [1] * 4
    written = [path for path in results.parent.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


def test_the_table_shows_the_run_and_names_the_judge(results: Path) -> None:
    rows = read_jsonl(results / "metrics.jsonl")

    assert {row["metric"] for row in rows} >= {"win_rate", "reward", "gain"}
    assert {(row["benchmark"], row["judge"]) for row in rows} == {
        ("heldout", "reward model reward"),
        ("mt_bench", "judge-1 in place of gpt-4"),
    }
    assert all(row["coverage"] == 1.0 for row in rows)
    assert [event["event"] for event in ledger(results)].count("submitted") == 1
