"""`eva-hpc judge` with a real HTTP judge: files in, judgments out, nothing paid twice, and what it says when it cannot."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from eva_hpc.benchmarks.files import read_rows
from eva_hpc.benchmarks.judging import servers
from eva_hpc.commands.judge import judge as command
from eva_hpc.commands.score import app as score_app
from eva_hpc.inference.openai_client import RetryPolicy
from tests.benchmarks import made_up
from tests.benchmarks.arena_hard import made_up as arena_files
from tests.benchmarks.judge_server import JudgeServer, Says, Sends, running_judge

pytestmark = pytest.mark.slow  # real servers, real processes

ROOT = Path(__file__).parents[2]
APP = typer.Typer()
APP.command()(command)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.setenv("EVA_HPC_DATA", str(tmp_path / "home" / "data"))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(servers, "RetryPolicy", lambda **_: RetryPolicy(attempts=1, timeout_s=20.0, give_up_after=3))
    with running_judge() as judge:
        monkeypatch.setenv("OPENAI_BASE_URL", judge.url)
        judge.rule = made_up.judge
        yield judge


def run(*words: object, code: int = 0) -> Any:
    result = CliRunner().invoke(APP, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def mt_answers(path: Path, model: str = "policy", questions: tuple[int, ...] = (1, 2)) -> Path:
    rows = [
        {"question_id": number, "model_id": model, "choices": [{"index": 0, "turns": [f"{model} {number}", "more"]}]}
        for number in questions
    ]
    return made_up.write_rows(path, rows)


def alpaca_answers(path: Path, count: int = 4) -> Path:
    rows = [
        {"instruction": f"Name fruit number {i}.", "output": "pear " * (i + 2), "generator": "policy"} for i in range(count)
    ]
    path.write_text(json.dumps(rows))
    return path


def arena_answers(path: Path, count: int = 4) -> Path:
    said = [{"role": "assistant", "content": {"answer": "three"}}]
    return made_up.write_rows(path, [{"uid": f"q{i}", "model": "policy", "messages": said} for i in range(count)])


def options(files: dict[str, str]) -> list[str]:
    return [word for role, path in files.items() for word in (f"--{role}", path)]


def mt_words(folder: Path, *more: object) -> list[object]:
    files = options(made_up.mt_bench(folder / "mt"))
    out = folder / "out.jsonl"
    return ["mt_bench", "--answers", mt_answers(folder / "answers.jsonl"), "--judge", "judge-1", "--out", out, *files, *more]


def test_mt_bench_is_judged_and_the_printed_command_scores_it(server, tmp_path):
    said = run(*mt_words(tmp_path)).output
    rows = read_rows(tmp_path / "out.jsonl")
    assert [(row["question_id"], row["turn"], row["model"], row["judge"][0]) for row in rows] == [
        (1, 1, "policy", "judge-1"), (1, 2, "policy", "judge-1"), (2, 1, "policy", "judge-1"), (2, 2, "policy", "judge-1")
    ]  # fmt: skip
    assert "judged by judge-1 in place of gpt-4" in said
    assert "judging: 4 requests" in said
    assert "the judge answered 4 requests" in said
    assert "model that the server names: judge-1 (4)" in said
    assert "fingerprint that the server names: fp_1 (4)" in said
    line = said.splitlines()[-1].strip()
    scored = CliRunner().invoke(score_app, [*shlex.split(line)[2:], "--json"])
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["policy"]["n"] == 4


def test_alpaca_eval_is_written_as_one_list_and_scored(server, tmp_path):
    files, out = options(made_up.alpaca_eval(tmp_path / "ae")), tmp_path / "annotations.json"
    said = run("alpaca_eval", "--answers", alpaca_answers(tmp_path / "m.json"), "--judge", "judge-1", "--out", out, *files)
    rows = json.loads(out.read_text())
    assert [row["generator_2"] for row in rows] == ["policy"] * 4
    assert all(1 <= row["preference"] <= 2 for row in rows)
    scored = CliRunner().invoke(score_app, [*shlex.split(said.output.splitlines()[-1])[2:], "--json"])
    assert json.loads(scored.stdout)["n"] == 4, scored.output


def test_arena_hard_is_judged_in_two_games_and_scored(server, tmp_path):
    files, out = options(made_up.arena_hard(tmp_path / "ah")), tmp_path / "judgments.jsonl.gz"
    answers = arena_answers(tmp_path / "m.jsonl")
    said = run("arena_hard", "--answers", answers, "--judge", "judge-1", "--out", out, *files).output
    rows = [json.loads(line) for line in gzip.decompress(out.read_bytes()).splitlines()]
    assert [len(row["games"]) for row in rows] == [2] * 4
    scored = CliRunner().invoke(score_app, [*shlex.split(said.splitlines()[-1])[2:], "--json"])
    assert scored.exit_code == 0, scored.output


def test_both_orders_and_repeats_are_asked(server, tmp_path):
    files = options(made_up.alpaca_eval(tmp_path / "ae"))
    words = ["alpaca_eval", "--answers", alpaca_answers(tmp_path / "m.json"), "--judge", "judge-1", *files]
    run(*words, "--out", tmp_path / "a.json", "--both-orders", "--repeats", 2)
    assert sum(server.paid.values()) == 4 * 2 * 2
    assert [row["repeat"] for row in json.loads((tmp_path / "a.json").read_text())] == [0] * 4 + [1] * 4


def test_a_rerun_pays_nothing_and_writes_the_same(server, tmp_path):
    words = mt_words(tmp_path, "--price", "1000000,1000000")
    first = json.loads(run(*words, "--json").stdout)
    content = (tmp_path / "out.jsonl").read_bytes()
    again = json.loads(run(*words, "--json", "--overwrite").stdout)
    assert sum(server.paid.values()) == 4
    assert (tmp_path / "out.jsonl").read_bytes() == content
    assert (first["asked"]["calls"], again["asked"]["calls"], again["from_cache"]["calls"]) == (4, 0, 4)
    assert first["price"] == first["asked"]["prompt_tokens"] + first["asked"]["completion_tokens"]
    assert again["price"] == 0
    assert again["estimate"]["calls"] == 0
    assert list((tmp_path / "home" / "judge_cache").glob("*.jsonl"))


def test_a_dry_run_asks_nothing_and_writes_nothing(server, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL")
    words = [word for word in mt_words(tmp_path) if word not in ("--out", tmp_path / "out.jsonl")]
    told = json.loads(run(*words, "--dry-run", "--json", "--price", "2,8").stdout)
    assert told["estimate"]["calls"] == 4
    assert told["estimate"]["price"] > 0
    assert "judging: 4 requests" in run(*words, "--dry-run").output
    assert not server.calls
    assert not (tmp_path / "out.jsonl").exists()


def test_nothing_is_dropped_silently(server, tmp_path):
    words = mt_words(tmp_path)
    answers = [
        {"question_id": number, "model_id": "policy", "choices": [{"index": 0, "turns": ["a", "b"]}]} for number in (1, 7)
    ]
    made_up.write_rows(tmp_path / "answers.jsonl", answers)
    told = json.loads(run(*words, "--json").stdout)
    assert told["set_aside"] == {"to none of the questions": 1}
    assert told["unanswered"] == 1
    status = [row["status"] for row in read_rows(tmp_path / "out.jsonl")]
    assert status == ["judged", "judged", "no_answer", "no_answer"]
    said = run(*words, "--overwrite").output
    assert "answers to none of the questions: 1 set aside" in said
    assert "1 of 2 questions have no answer" in said
    assert "without a verdict: 2 no_answer of 4 rows" in said


def test_a_limit_judges_the_first_questions_only(server, tmp_path):
    told = json.loads(run(*mt_words(tmp_path, "--limit", 1, "--json")).stdout)
    assert (told["questions"], told["rows"]) == (1, 2)
    assert told["set_aside"] == {"to questions beyond the limit": 1}


def test_of_several_models_one_is_named(server, tmp_path):
    words = mt_words(tmp_path)
    both = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    both += [{**row, "model_id": "other"} for row in both]
    made_up.write_rows(tmp_path / "answers.jsonl", both)
    assert "policy, other" in run(*words, code=2).output
    assert "did you mean 'other'?" in run(*words, "--model", "othr", code=2).output
    told = json.loads(run(*words, "--model", "other", "--json").stdout)
    assert (told["model"], told["set_aside"]) == ("other", {"of policy": 2})


def test_parameters_are_sent_and_null_leaves_one_out(server, tmp_path):
    run(*mt_words(tmp_path, "--parameter", "max_tokens=null", "--parameter", "max_completion_tokens=99"))
    body = server.calls[0].body
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == 99


def test_the_answers_are_never_written_over(server, tmp_path):
    words = mt_words(tmp_path)
    answers = words[words.index("--answers") + 1]
    words[words.index("--out") + 1] = answers
    before = Path(answers).read_bytes()
    assert "has the answers to be judged" in run(*words, "--overwrite", code=2).output
    assert Path(answers).read_bytes() == before


def test_an_existing_file_is_not_written_over(server, tmp_path):
    words = mt_words(tmp_path)
    (tmp_path / "out.jsonl").write_text("mine\n")
    assert "--overwrite writes over it" in run(*words, code=2).output
    assert (tmp_path / "out.jsonl").read_text() == "mine\n"
    assert not server.calls


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--out", "nowhere/out.jsonl"), "--out: there is no folder nowhere"),
        (("--parameter", "tokens"), "--parameter tokens: must be KEY=VALUE"),
        (("--parameter", "model=x"), "--parameter model=x: must not be one of model"),
        (("--parameter", "stop=[a, b]"), "--parameter: found a list; must be a number, text"),
        (("--price", "3"), "--price: found 3; must be two numbers"),
        (("--price", "3,-1"), "--price: found 3,-1; must be two numbers"),
        (("--version", "v2.0"), "--version: is for arena_hard only"),
        (("--both-orders",), "--both-orders: is for alpaca_eval only"),
        (("--baseline", "base.jsonl"), "--baseline: mt_bench has no such file"),
        (("--judge", ""), "--judge: found ''"),
        (("--reference", "gone.jsonl"), "gone.jsonl: there is no such file"),
    ],
)
def test_mistakes_are_told_before_anything_is_asked(server, tmp_path, more, told):
    assert told in run(*mt_words(tmp_path, *more), code=2).output
    assert not server.calls


def test_official_files_that_are_missing_are_named_with_the_way_to_get_them(server, tmp_path):
    words = ["mt_bench", "--answers", mt_answers(tmp_path / "a.jsonl"), "--judge", "judge-1", "--out", tmp_path / "o.jsonl"]
    said = run(*words, code=2).output
    assert said.count("eva-hpc data fetch mt_bench") == 3


def test_own_arena_questions_need_a_baseline(server, tmp_path):
    files = made_up.arena_hard(tmp_path / "ah")
    del files["baseline"]
    words = ["--answers", arena_answers(tmp_path / "m.jsonl"), "--judge", "j", "--out", tmp_path / "o.jsonl"]
    assert "--baseline: missing" in run("arena_hard", *words, *options(files), code=2).output


def test_answers_to_other_questions_only_are_a_mistake(server, tmp_path):
    words = mt_words(tmp_path)
    mt_answers(tmp_path / "answers.jsonl", questions=(8, 9))
    assert "answers none of the 2 questions" in run(*words, code=2).output


def test_without_key_and_address_nothing_is_asked(server, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert "neither OPENAI_API_KEY nor OPENAI_BASE_URL" in run(*mt_words(tmp_path), code=2).output


def test_an_unfit_judge_is_told_after_a_few_requests(server, tmp_path):
    server.rule = lambda call: Says("I like it.")
    result = run(*mt_words(tmp_path), code=1)
    assert "cannot judge this benchmark" in result.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_what_was_answered_before_the_server_went_is_kept(server, tmp_path):
    server.rule = lambda call: Sends(503) if "shorter" in call.prompt else made_up.judge(call)
    result = run(*mt_words(tmp_path), code=1)
    assert "answers are kept" in result.stderr
    assert not (tmp_path / "out.jsonl").exists()
    paid = sum(server.paid.values())
    assert paid > 0
    server.rule = made_up.judge
    run(*mt_words(tmp_path))
    assert sum(server.paid.values()) == 4


def start(server: JudgeServer, folder: Path) -> subprocess.Popen[str]:
    """The command in a process of its own, once its probe is done and the rest is under way."""
    server.rule = lambda call: Says("Rating: [[5]]", held=server.paid.total() > 0)
    program = "import typer; from eva_hpc.commands.judge import judge; typer.run(judge)"
    words = [str(word) for word in mt_words(folder, "--base-url", server.url, "--concurrency", 1)]
    return subprocess.Popen(
        [sys.executable, "-c", program, *words], cwd=ROOT, env={**os.environ}, stderr=subprocess.PIPE, text=True
    )


def press(process: subprocess.Popen[str]) -> str:
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    return process.stderr.readline()


def test_ctrl_c_waits_for_what_is_under_way_and_the_rest_is_asked_later(server, tmp_path):
    process = start(server, tmp_path)
    server.wait_for_calls(2)
    assert "Ctrl-C again ends at once" in press(process)
    server.release.set()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted. Every answer that arrived is in" in said
    assert not (tmp_path / "out.jsonl").exists()
    told = json.loads(run(*mt_words(tmp_path, "--json")).stdout)
    assert (told["from_cache"]["calls"], told["asked"]["calls"]) == (2, 2)
    assert set(server.paid.values()) == {1}


def test_a_second_ctrl_c_ends_at_once(server, tmp_path):
    process = start(server, tmp_path)
    server.wait_for_calls(2)
    press(process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)  # the answer under way is still held
    assert process.returncode == 130


def test_arena_hard_v2_takes_its_configuration_too(server, tmp_path):
    server.rule = lambda call: Says("Better is [[A>B]]")
    (tmp_path / "v2.yaml").write_text(arena_files.V2_CONFIG)
    (tmp_path / "judge_utils.py").write_text(arena_files.V2_SETTINGS)
    base = {"uid": "q0", "model": "o3-mini-2025-01-31", "messages": [{"role": "assistant", "content": {"answer": "one"}}]}
    files = {
        "questions": made_up.write_rows(tmp_path / "q.jsonl", [{"uid": "q0", "category": "hard_prompt", "prompt": "Sort."}]),
        "baseline": made_up.write_rows(tmp_path / "base.jsonl", [base]),
        "config": tmp_path / "v2.yaml",
        "prompt": tmp_path / "judge_utils.py",
    }
    words = ["arena_hard", "--answers", arena_answers(tmp_path / "m.jsonl", 1), "--judge", "j", "--out", tmp_path / "o.jsonl"]
    given = [word for role, path in files.items() for word in (f"--{role}", path)]
    assert "judged by j in place of gemini-2.5" in run(*words, *given, "--version", "v2.0").output
    (row,) = read_rows(tmp_path / "o.jsonl")
    assert (row["uid"], [game["score"] for game in row["games"]]) == ("q0", ["A>B", "A>B"])
    assert "--config: arena_hard has no such file" in run(*words, *given, "--overwrite", code=2).output
