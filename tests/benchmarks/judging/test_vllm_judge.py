"""A judge of one's own: the script that serves it with vLLM, asked by the same code as any other judge."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eva_hpc.benchmarks.judging.consult import JudgeServer, JudgeUnfit, consult, probe
from eva_hpc.benchmarks.judging.protocol import ModelAnswer
from eva_hpc.benchmarks.registry import JUDGED, Options
from eva_hpc.inference.completion_cache import CompletionCache
from tests.benchmarks import made_up

pytest.importorskip("vllm")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]
ROOT = Path(__file__).parents[3]
KEY = "a-key-for-this-test"
ALL_TOKENS = 400  # the tiny tokenizer's: a random model's first tokens are rarely m and M


@pytest.fixture(scope="module")
def judge(tiny_qwen2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The model and the address of a vLLM server on the loopback, started as on a cluster."""
    folder = tmp_path_factory.mktemp("judge")
    file = folder / "url"
    words = ["--dtype", "float32", "--max-model-len", "512", "--enforce-eager", "--max-logprobs", str(ALL_TOKENS)]
    environment = {
        **os.environ,
        "OPENAI_API_KEY": KEY,
        "EVA_HPC_PYTHON": sys.executable,
        "EVA_HPC_JUDGE_HOST": "127.0.0.1",
        "EVA_HPC_JUDGE_URL_FILE": str(file),
        "SLURM_SUBMIT_DIR": str(ROOT),
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    with (folder / "log").open("wb") as log:
        script = subprocess.Popen(
            ["bash", str(ROOT / "sbatch" / "judge-server.sbatch"), str(tiny_qwen2), *words],
            env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        until = time.monotonic() + 300
        while not file.is_file():
            ready_in_time = script.poll() is None and time.monotonic() < until
            assert ready_in_time, (folder / "log").read_text()[-3000:]
            time.sleep(0.2)
        yield str(tiny_qwen2), file.read_text().strip()
    finally:
        script.send_signal(signal.SIGTERM)
        script.wait(60)
    assert not file.exists(), "the address stays although nobody serves there"


def items(folder: Path) -> tuple[dict[str, Path], list]:
    files = {role: Path(path) for role, path in made_up.alpaca_eval(folder).items()}
    questions = JUDGED["alpaca_eval"].questions("", files)
    answers = [ModelAnswer(question_id=one["id"], model="policy", turns=["Plum, and pears."]) for one in questions]
    return files, list(zip(questions, answers, strict=True))


def test_a_vllm_server_judges_and_is_not_asked_twice(judge: tuple[str, str], tmp_path: Path) -> None:
    model, url = judge
    files, asked = items(tmp_path / "files")
    alpaca = JUDGED["alpaca_eval"]
    benchmark = alpaca.judging("", files, both_orders=True)
    server = JudgeServer(model, url, KEY, parameters={"top_logprobs": ALL_TOKENS})
    cache = CompletionCache(tmp_path / "cache")

    assert probe(benchmark, asked, server, cache).notes == []
    first = consult(benchmark, asked, server, cache, judge="tiny")
    again = consult(benchmark, asked, server, cache, judge="tiny")

    assert (first.asked.calls + first.from_cache.calls, again.asked.calls) == (8, 0)
    assert first.rows == again.rows
    assert [row["status"] for row in first.rows] == ["judged"] * 4
    assert all(1 < row["preference"] < 2 for row in first.rows)
    scored = alpaca.score("", first.rows, [question for question, _ in asked], files, Options(min_coverage=1.0))
    win_rate = next(metric for metric in scored.metrics if metric["metric"] == "win_rate")
    assert win_rate["value"] == pytest.approx(25 * sum(row["preference"] - 1 for row in first.rows))
    assert first.asked.prompt_tokens > 100


def test_a_vllm_server_refuses_another_key_and_too_many_logprobs(judge: tuple[str, str], tmp_path: Path) -> None:
    model, url = judge
    files, asked = items(tmp_path / "files")
    benchmark = JUDGED["alpaca_eval"].judging("", files, both_orders=False)
    with pytest.raises(JudgeUnfit, match="401"):
        probe(benchmark, asked, JudgeServer(model, url, "another"), CompletionCache(tmp_path / "cache"))
    many = JudgeServer(model, url, KEY, parameters={"top_logprobs": ALL_TOKENS + 1})
    with pytest.raises(JudgeUnfit, match="logprobs"):
        probe(benchmark, asked, many, CompletionCache(tmp_path / "cache"))
