"""A judged benchmark from question file to numbers, by a real policy and a real HTTP judge."""

from __future__ import annotations

import pytest

from eva_hpc.benchmarks.judging import consult
from eva_hpc.benchmarks.registry import JUDGED
from eva_hpc.cluster.execution import mark_of_progress
from eva_hpc.config.benchmark import Judge
from eva_hpc.config.recipe import Generation
from eva_hpc.plan.graph import Node
from eva_hpc.stages import answer, ask_judge, judged_questions, judged_score
from eva_hpc.stages.contract import Interrupted, StageFailed, StageUnavailable
from tests.benchmarks import made_up
from tests.benchmarks.judge_server import Says, Sends, running_judge

pytestmark = pytest.mark.slow
EDITION = {"alpaca_eval": "", "arena_hard": "v0.1", "mt_bench": ""}
DECODING = Generation(temperature=0.0, top_p=1.0, max_new_tokens=8)


@pytest.fixture
def judge_server():
    with running_judge() as server:
        server.rule = made_up.judge
        yield server


@pytest.fixture(scope="module")
def policy(tmp_path_factory, policy_of):
    from tests.tiny_models import tiny_policy

    return policy_of(tiny_policy(tmp_path_factory.mktemp("model"), "qwen2"))


class Benchmark:
    """The nodes of a made-up benchmark."""

    def __init__(self, kind, folder, policy, server, **judge):
        files = getattr(made_up, kind)(folder)
        about = {"kind": kind, "edition": EDITION[kind], "files": files, "fingerprints": dict.fromkeys(files, "own")}
        self.asked = Node(judged_questions.Spec(limit=None, **about), "evaluation")
        spec = answer.Spec(
            generation=DECODING, samples=1, greedy=False, seed=1, temperatures={"writing": 0.7}, strip=kind == "mt_bench"
        )
        self.answers = Node(spec, "evaluation", {"policy": policy, "questions": self.asked})
        self.judge = Judge(**{"model": "judge-1", "base_url": server.url, "attempts": 2, "concurrency": 2, **judge})
        spec = ask_judge.Spec(judge=self.judge, both_orders=False, labels="logprobs", **about)
        self.judgments = Node(spec, "evaluation", {"questions": self.asked, "answers": self.answers})
        spec = judged_score.Spec(min_coverage=0.95, difficulty_by="instruction", **about)
        inputs = {"questions": self.asked, "answers": self.answers, "judgments": self.judgments}
        self.score = Node(spec, "evaluation", inputs)


@pytest.mark.parametrize("kind", JUDGED)
def test_questions_are_answered_judged_and_scored(kind, tmp_path, shared_bench, policy, judge_server):
    one = Benchmark(kind, tmp_path / kind, policy, judge_server)
    shared_bench.make(one.score)

    asked, answers = (
        shared_bench.read(node, name) for node, name in ((one.asked, "questions.jsonl"), (one.answers, "answers.jsonl"))
    )
    assert [answer["question_id"] for answer in answers] == [question["id"] for question in asked]
    assert all(len(turn["prompt_sha256"]) == 64 for answer in answers for turn in answer["samples"][0])
    texts = [turn["text"] for answer in answers for turn in answer["samples"][0]]
    assert kind != "mt_bench" or texts == [text.strip() for text in texts], "as FastChat does"
    metrics = {metric["metric"]: metric for metric in shared_bench.read(one.score, "metrics.jsonl")}
    main = metrics["average" if kind == "mt_bench" else "win_rate"]
    assert main["coverage"] == 1.0
    assert main["low"] <= main["value"] <= main["high"]
    assert metrics["truncated"]["n"] == len(asked)
    values = [row for row in shared_bench.read(one.score, "per_question.jsonl") if row["metric"] == main["metric"]]
    mean = sum(row["value"] * row["weight"] for row in values) / sum(row["weight"] for row in values)
    assert mean == pytest.approx(main["value"])
    assert set(judge_server.paid.values()) == {1}


def test_a_stage_that_was_stopped_asks_only_for_the_rest(tmp_path, bench, policy, judge_server):
    one = Benchmark("mt_bench", tmp_path / "files", policy, judge_server, concurrency=1)
    bench.make(one.answers)
    attempt = bench.prepare(one.judgments)
    with pytest.raises(Interrupted):
        bench.run(attempt, stop=lambda: len(judge_server.paid) >= 2)
    paid = judge_server.paid.total()
    assert 2 <= paid < 4

    bench.make(one.judgments)

    assert judge_server.paid.total() == 4
    assert set(judge_server.paid.values()) == {1}
    assert [row["status"] for row in bench.read(one.judgments, "judgments.jsonl")] == ["judged"] * 4


def test_another_judge_answers_nothing_anew(tmp_path, bench, policy, judge_server):
    one, other = (
        Benchmark("mt_bench", tmp_path / "files", policy, judge_server, model=name) for name in ("judge-1", "judge-2")
    )
    assert one.answers.identity == other.answers.identity
    assert one.judgments.identity != other.judgments.identity
    elsewhere = Benchmark("mt_bench", tmp_path / "files", policy, judge_server, concurrency=9, base_url="http://elsewhere/v1")
    assert one.score.identity == elsewhere.score.identity


def test_a_judge_that_cannot_be_used_stops_before_the_rest_is_paid(tmp_path, bench, policy, judge_server):
    one = Benchmark("alpaca_eval", tmp_path / "files", policy, judge_server)
    bench.make(one.answers)
    judge_server.rule = lambda call: Says("m")  # no log-probabilities
    with pytest.raises(StageFailed, match="log-prob"):
        bench.make(one.judgments)
    judge_server.rule = lambda call: Sends(401, b"{}")
    with pytest.raises(StageFailed, match="401"):
        bench.make(Benchmark("alpaca_eval", tmp_path / "files", policy, judge_server, model="other").judgments)


def test_too_few_judgments_give_no_number_but_the_reason(tmp_path, bench, policy, judge_server):
    one = Benchmark("mt_bench", tmp_path / "files", policy, judge_server)
    rule = judge_server.rule
    judge_server.rule = lambda call: Says("I would rather not.") if call.number == 3 else rule(call)
    bench.make(one.score)
    metrics = {metric["metric"]: metric for metric in bench.read(one.score, "metrics.jsonl")}
    assert metrics["average"]["value"] is None
    assert metrics["average"]["coverage"] == 0.75
    assert "3 of 4" in metrics["average"]["reason"]


def test_a_judge_without_a_verdict_is_asked_once_more_and_both_texts_are_kept(tmp_path, bench, policy, judge_server):
    one = Benchmark("arena_hard", tmp_path / "files", policy, judge_server)
    judge_server.rule = lambda call: Says("So: [[B>A]]" if len(call.body["messages"]) > 2 else "Let me think about it.")
    bench.make(one.score)
    games = [game for row in bench.read(one.judgments, "judgments.jsonl") for game in row["games"]]
    assert {game["judgment"].strip() for game in games} == {"Let me think about it.\nSo: [[B>A]]"}
    assert {game["score"] for game in games} == {"B>A"}


def test_a_server_that_does_not_answer_is_worth_another_try_and_says_what_is_kept(tmp_path, bench, policy, judge_server):
    one = Benchmark("mt_bench", tmp_path / "files", policy, judge_server, attempts=1, concurrency=1)
    bench.make(one.answers)
    rule = judge_server.rule
    judge_server.rule = lambda call: Sends(503, b"CUDA out of memory") if call.number == 3 else rule(call)
    with pytest.raises(StageUnavailable, match=r"1 of .* requests got no answer, .*CUDA out of memory; . answers are kept"):
        bench.make(one.judgments)
    bench.make(one.judgments)
    assert set(judge_server.paid.values()) == {1}


def test_every_answer_is_progress_to_whoever_runs_the_stage(tmp_path, bench, policy, judge_server):
    one = Benchmark("mt_bench", tmp_path / "files", policy, judge_server, concurrency=1)
    bench.make(one.answers)
    attempt = bench.prepare(one.judgments)
    marks = [mark_of_progress(attempt.work)]
    for number in (1, 2):
        with pytest.raises(Interrupted):
            bench.run(attempt, stop=lambda number=number: len(judge_server.paid) >= number)
        marks.append(mark_of_progress(attempt.work))
    assert len(set(marks)) == 3


def test_what_is_in_flight_is_awaited_as_long_as_the_site_gives_time(tmp_path, bench, policy, judge_server):
    one = Benchmark("mt_bench", tmp_path / "files", policy, judge_server, concurrency=4)
    bench.make(one.answers)
    attempt = bench.prepare(one.judgments)
    drains = []
    asked = consult.chat

    async def chat(*arguments, retry, **options):
        drains.append(retry.drain_s)
        await asked(*arguments, retry=retry, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consult, "chat", chat)
        bench.run(attempt.model_copy(update={"grace_s": 105.0}))
    assert set(drains) == {100.0}


def test_refusals_that_leave_too_little_for_a_number_are_no_result(tmp_path, bench, policy, judge_server, capsys):
    one = Benchmark("mt_bench", tmp_path / "files", policy, judge_server, concurrency=1)
    bench.make(one.answers)
    rule = judge_server.rule
    judge_server.rule = lambda call: Sends(400, b"content filter") if call.number > 3 else rule(call)
    with pytest.raises(StageFailed, match=r"only 3 of 4 requests to judge-1 have an answer; below 95% .*content filter"):
        bench.make(one.judgments)

    enough = Node(one.judgments.spec.model_copy(update={"least_answered": 0.5}), "evaluation", one.judgments.inputs)
    assert enough.identity == one.judgments.identity, "how much may be missing changes no judgment"
    made = bench.make(enough)
    assert [row["status"] for row in bench.read(enough, "judgments.jsonl")].count("failed") == 1
    assert f"to ask it again, remove {made.folder}" in capsys.readouterr().out
