"""vLLM against transformers: the same records, log-probabilities and rewards. The engines start in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

# vLLM holds process-wide state, so that a process of its own keeps it away from the other tests.
SCRIPT = """
import json, sys
from pathlib import Path
from eva_hpc.config.recipe import SequenceClassification
from eva_hpc.inference.engine import EngineLimits, ModelSource, Request, Sampling
from eva_hpc.inference.opening import open_engine
from eva_hpc.inference.reward_models import open_reward_model

policy, reward, cache = sys.argv[1:]
limits = EngineLimits(cache_dir=Path(cache))
CROWD = [Request([5 + (7 * i + j) % 40 for j in range(100)], (i,)) for i in range(64)]  # more tokens than one step takes
found = {}
prompts = None
for name in ("transformers", "vllm"):
    engine = open_engine(name, ModelSource(policy), limits)
    prompts = [engine.render([{"role": "user", "content": c}]) for c in ("How many?", "Sort: b a c", "Write, 日本語.")]
    requests = [Request(p, tuple(range(6))) for p in prompts]
    found[name] = {
        "prompts": prompts,
        "greedy": engine.generate(requests, Sampling(0, 0.9, 80)),
        "sampled": engine.generate(requests, Sampling(0.8, 0.9, 60)),
        "nested": engine.generate([Request(p, (1, 2)) for p in prompts[1:]], Sampling(0.8, 0.9, 60)),
        "crowd": engine.generate(CROWD, Sampling(0.8, 0.9, 4)),
        "of crowd": engine.generate(CROWD[50:], Sampling(0.8, 0.9, 4)),
        "nothing": engine.generate([Request(prompts[0], ())], Sampling(0.8, 0.9, 60)),
    }
    if name == "vllm":
        engine._enough = 20
        engine.submit("none", Request(prompts[0], ()), Sampling(0.8, 0.9, 4))
        fed, parts, most = 0, {}, 0
        while len(parts) < len(CROWD) + 1:
            while engine.hungry and fed < len(CROWD):
                engine.submit(fed, CROWD[fed], Sampling(0.8, 0.9, 4))
                fed += 1
            most = max(most, engine._process.unfinished)
            parts.update(dict(engine.step()))
        found["fed"] = [parts[i] for i in range(len(CROWD))]
        found["fed none"], found["most"] = parts["none"], most
        for i, request in enumerate(CROWD):
            engine.submit(i, request, Sampling(0.8, 0.9, 4))
        engine.step()
        engine.drop()
        found["after drop"] = [len(engine.step()), engine._process.unfinished]
    try:
        engine.generate([Request([5] * 512, (1,))], Sampling(0, 1.0, 5))
    except ValueError as error:
        found[name]["too long"] = str(error)
    engine.close()
conversations = [
    [{"role": "user", "content": "Count" + " on" * n}, {"role": "assistant", "content": "1 2 3"}] for n in (0, 5, 100, 12)
]
for name in ("transformers", "vllm"):
    model = open_reward_model(SequenceClassification(path=reward, engine=name, dtype="float32", max_length=64), limits)
    found[name]["rewards"] = model.score(conversations)
    found[name]["truncated"] = model.truncated
    model.close()
found["left"] = [path.name for path in Path(cache).iterdir()]
print("\\n" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tiny_qwen2: Path, tiny_reward: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    cache = tmp_path_factory.mktemp("cache")
    command = [sys.executable, "-c", SCRIPT, str(tiny_qwen2), str(tiny_reward), str(cache)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_greedy_records_are_identical(found: dict[str, Any]) -> None:
    ours, theirs = found["transformers"]["greedy"], found["vllm"]["greedy"]

    assert found["transformers"]["prompts"] == found["vllm"]["prompts"]
    for left, right in zip(chain(*ours), chain(*theirs), strict=True):
        assert {**left, "logprob": 0} == {**right, "logprob": 0}
        assert left["logprob"] == pytest.approx(right["logprob"], abs=1e-3)
    assert {response["finish"] for response in chain(*ours)} == {"stop", "length"}


def test_the_logprob_of_a_sample_is_that_of_a_teacher_forced_pass(found: dict[str, Any], tiny_qwen2: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_qwen2).eval()
    for prompt, responses in zip(found["vllm"]["prompts"], found["vllm"]["sampled"], strict=True):
        assert len({tuple(response["tokens"]) for response in responses}) == 6
        for response in responses:
            ids = prompt + response["tokens"]
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0, len(prompt) - 1 : -1]
            logprobs = torch.log_softmax(logits.double(), -1).gather(1, torch.tensor(response["tokens"])[:, None])
            assert response["logprob"] == pytest.approx(float(logprobs.sum()), abs=1e-3)


def test_stop_tokens_end_a_sample_in_both_engines_alike(found: dict[str, Any]) -> None:
    for engine in ("transformers", "vllm"):
        finishes = set()
        for response in chain(*found[engine]["sampled"]):
            finishes.add(response["finish"])
            assert (response["tokens"][-1] in (2, 4)) == (response["finish"] == "stop")
            assert not {2, 4} & set(response["tokens"][:-1])
            assert "<|" not in response["text"]
        assert finishes == {"stop", "length"}


def test_responses_are_nested_and_independent_of_the_batch(found: dict[str, Any]) -> None:
    for engine in ("transformers", "vllm"):
        whole = [[r["tokens"] for r in row[1:3]] for row in found[engine]["sampled"][1:]]
        assert [[r["tokens"] for r in row] for row in found[engine]["nested"]] == whole
        assert found[engine]["nothing"] == [[]]


def test_more_prompts_than_fit_into_one_step_get_the_same_responses(found: dict[str, Any]) -> None:
    for engine in ("transformers", "vllm"):
        whole = [[r["tokens"] for r in row] for row in found[engine]["crowd"][50:]]
        assert [[r["tokens"] for r in row] for row in found[engine]["of crowd"]] == whole


def test_prompts_without_room_are_refused_alike(found: dict[str, Any]) -> None:
    assert found["vllm"]["too long"] == found["transformers"]["too long"]


def test_rewards_are_the_raw_logits_of_transformers(found: dict[str, Any]) -> None:
    assert found["vllm"]["rewards"] == pytest.approx(found["transformers"]["rewards"], abs=1e-4)
    assert found["vllm"]["truncated"] == found["transformers"]["truncated"] == 1


def test_the_folder_of_compiled_kernels_is_gone_after_closing(found: dict[str, Any]) -> None:
    assert found["left"] == []


def test_requests_that_are_fed_bit_by_bit_get_the_responses_of_one_call(found: dict[str, Any]) -> None:
    assert [[r["tokens"] for r in row] for row in found["fed"]] == [
        [r["tokens"] for r in row] for row in found["vllm"]["crowd"]
    ]
    assert found["fed none"] == []
    assert found["most"] == 20
    assert found["after drop"] == [0, 0]
