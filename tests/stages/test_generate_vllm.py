"""The generate stage over a real vLLM, in a process of its own: streamed, shared or stopped, always the same responses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

SCRIPT = """
import json, sys
from pathlib import Path
from eva_hpc.config.recipe import Generation
from eva_hpc.config.site import Engine, Resources
from eva_hpc.inference.engine import EngineLimits
from eva_hpc.stages import engines, generate
from eva_hpc.stages.contract import Context, Interrupted
from eva_hpc.stages.policy import read_policy, write_policy
from eva_hpc.store.artifacts import Store
from eva_hpc.store.records import read_jsonl, write_jsonl

root, model = Path(sys.argv[1]), sys.argv[2]
inputs = {"policy": root / "policy", "prompts": root / "prompts"}
for folder in inputs.values():
    folder.mkdir()
write_policy(inputs["policy"], model, dtype="float32")
write_jsonl(inputs["prompts"] / "prompts.jsonl", [{"id": str(n), "prompt": "Count" + " on" * (n % 7)} for n in range(70)])
decoding = Generation(engine="vllm", temperature=1.0, top_p=0.9, max_new_tokens=12)
spec = generate.Spec(generation=decoding, responses=3, fraction=1.0, seed=1, round=1)
engine = engines.open_engine("vllm", read_policy(inputs["policy"]), EngineLimits(cache_dir=root / "cache"))
engine._enough = 40  # so that the stream is longer than what the engine holds
close, engine.close = engine.close, lambda: None  # one start serves all
engines.open_engine = lambda *of: engine
found = {}

def stage(name, ranks=1, chunk=10, stop=lambda work: False):
    out, work = root / name, root / name / "work"
    work.mkdir(parents=True, exist_ok=True)
    for rank in range(ranks):
        context = Context(rank, ranks, rank, None, Resources(), Engine(chunk_prompts=chunk), work, Store(root),
                          lambda done, total: found.setdefault("progress", []).append([name, done, total]), lambda: stop(work))
        generate.run(spec, inputs, out, context)
    generate.finish(spec, inputs, out, context)
    found[name] = read_jsonl(out / "responses.jsonl")

stage("one chunk", chunk=1000)
stage("chunks")
stage("shards", ranks=3)
try:
    stage("stopped", stop=lambda work: len(list(work.glob("chunk-*"))) >= 2)
except Interrupted:
    found["kept"] = sorted(path.name for path in (root / "stopped" / "work").iterdir())
stage("stopped")
close()
print("\\n" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tiny_qwen2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path_factory.mktemp("stage")), str(tiny_qwen2)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def essence(records: list[Any]) -> list[Any]:
    return [(record["prompt_id"], [one["tokens"] for one in record["responses"]]) for record in records]


def test_every_prompt_has_its_responses_in_order(found: dict[str, Any]) -> None:
    assert [record["prompt_id"] for record in found["one chunk"]] == [str(n) for n in range(70)]
    assert {len(record["responses"]) for record in found["one chunk"]} == {3}
    assert all(one["logprob"] < 0 for record in found["one chunk"] for one in record["responses"])


@pytest.mark.parametrize("way", ["chunks", "shards", "stopped"])
def test_chunks_shards_and_stops_change_no_response(found: dict[str, Any], way: str) -> None:
    assert essence(found[way]) == essence(found["one chunk"])


def test_a_stopped_stage_keeps_whole_chunks_only_and_leaves_no_claim(found: dict[str, Any]) -> None:
    assert [name for name in found["kept"] if name.startswith("chunk-")] == found["kept"][1:]
    assert len(found["kept"]) >= 3
    assert found["kept"][0] == ".alive-0"


def test_progress_ends_at_all_prompts(found: dict[str, Any]) -> None:
    said = [report[1:] for report in found["progress"] if report[0] == "chunks"]
    assert said[-1] == [70, 70]
    assert all(done <= total == 70 for done, total in said)
