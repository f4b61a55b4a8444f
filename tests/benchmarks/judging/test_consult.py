"""Consulting a real HTTP judge: no judgment lost or paid twice, whatever the server does and whenever the process dies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eva_hpc.benchmarks.judging.consult import (
    Consultation,
    JudgeServer,
    JudgeUnfit,
    JudgeUnreachable,
    Probe,
    Usage,
    consult,
    probe,
)
from eva_hpc.benchmarks.judging.protocol import JudgedBenchmark, JudgedQuestion, ModelAnswer
from eva_hpc.benchmarks.registry import JUDGED
from eva_hpc.config.errors import ConfigError
from eva_hpc.inference.completion_cache import CompletionCache
from eva_hpc.inference.openai_client import RetryPolicy
from eva_hpc.store.records import read_jsonl, write_jsonl
from eva_hpc.training.interrupt import Interrupted
from tests.benchmarks import judge_server as judge_module
from tests.benchmarks.judge_server import Act, Call, HangsUp, Says, Sends, Stalls, running_judge
from tests.benchmarks.yes_no import SAVED, YesNo, items, judge_at

pytestmark = pytest.mark.slow  # a real server that stalls, and processes that are killed

ROOT = Path(__file__).parents[3]
NO_CHOICE = b'{"choices": []}'


@pytest.fixture
def server() -> Iterator[judge_module.JudgeServer]:
    with running_judge() as judge:
        judge.rule = lambda call: Says(f"So [[A]] for {call.prompt}")
        yield judge


@pytest.fixture
def cache(tmp_path: Path) -> CompletionCache:
    return CompletionCache(tmp_path / "cache")


Consult = Callable[..., Consultation]


@pytest.fixture
def judge(server: judge_module.JudgeServer, cache: CompletionCache) -> Consult:
    def judge(count: int = 6, concurrency: int = 3, **options: object) -> Consultation:
        options.setdefault("judge", "j")
        return consult(YesNo(), items(count), judge_at(server.url, concurrency), cache, **options)

    return judge


def once(odd: Act, when: str) -> Callable[[Call], Act]:
    """Act oddly on the first attempt of the request with this in its prompt."""
    return lambda call: odd if when in call.prompt and call.attempt == 1 else Says(f"So [[A]] for {call.prompt}")


def always(odd: Act, when: str) -> Callable[[Call], Act]:
    return lambda call: odd if when in call.prompt else Says(f"So [[A]] for {call.prompt}")


def test_every_answer_is_judged_in_order_and_paid_once(server, judge):
    result = judge(6)
    assert [row["question_id"] for row in result.rows] == [f"q{i}" for i in range(6) for _ in "12"]
    assert all(row["status"] == "judged" and row["repeat"] == 0 and row["judge"] == "j" for row in result.rows)
    assert all(f"of {row['question_id']}:" in row["judgment"] for row in result.rows)
    assert list(server.paid.values()) == [1] * 12
    assert result.asked.calls == 12
    assert result.asked.prompt_tokens > 0
    assert result.from_cache == Usage()
    assert result.served_models == {"judge-1": 12}
    assert result.fingerprints == {"fp_1": 12}
    assert result.warnings == ()
    assert server.calls[0].body["logprobs"] is True
    assert server.calls[0].body["model"] == "judge-1"


def test_a_rerun_asks_nothing_and_gives_the_same_rows(server, judge):
    first = judge(6)
    again = judge(6)
    assert again.rows == first.rows
    assert (again.asked, again.from_cache) == (Usage(), first.asked)
    assert len(server.calls) == 12


def test_more_questions_pay_for_the_new_ones_only(server, judge):
    judge(4)
    result = judge(6)
    assert (result.asked.calls, result.from_cache.calls) == (4, 8)
    assert set(server.paid.values()) == {1}


def test_no_more_requests_are_open_than_allowed(server, judge):
    judge(20, concurrency=4)
    assert server.most_open <= 4


def test_repeats_are_asked_anew_and_the_first_is_what_one_run_gives(server, judge):
    one = judge(3)
    three = judge(3, repeats=3)
    assert [row["repeat"] for row in three.rows] == [0] * 6 + [1] * 6 + [2] * 6
    assert three.rows[:6] == one.rows
    assert set(server.paid.values()) == {3}
    assert (three.asked.calls, three.from_cache.calls) == (12, 6)


def test_equal_requests_are_asked_once(server, cache):
    same = items(1) * 5
    result = consult(YesNo(), same, judge_at(server.url), cache, judge="j")
    assert len(result.rows) == 10
    assert len(server.calls) == 2


def test_an_answer_without_a_request_has_its_row_in_every_repeat(server, cache):
    question, answer = items(1)[0]
    result = consult(YesNo(), [(question, {**answer, "turns": [None]})], judge_at(server.url), cache, judge="j", repeats=2)
    assert [(row["status"], row["repeat"]) for row in result.rows] == [("no_answer", 0), ("no_answer", 1)]
    assert not server.calls


def test_a_reply_without_a_label_is_followed_by_one_second_request_also_cached(server, judge):
    def rule(call: Call) -> Act:
        return Says("well") if "of q1:" in call.prompt else Says("[[B]]")

    server.rule = rule
    result = judge(3)
    assert [row["judgment"] for row in result.rows] == ["[[B]]"] * 6
    assert len(server.calls) == 8
    again = judge(3)
    assert (again.rows, again.asked.calls, again.from_cache.calls) == (result.rows, 0, 8)


@pytest.mark.parametrize("text", ["", None, "wrong label [[C]]", "日本 \u2028 \x00 \ud83d"])
def test_an_answer_that_is_no_use_was_paid_and_is_kept(server, judge, text):
    server.rule = lambda call: Says(text) if "turn 1 of q1:" in str(call.body) else Says("[[A]]")
    result = judge(2)
    assert [row["status"] for row in result.rows] == ["judged", "judged", "unparsed", "judged"]
    assert result.rows[2]["judgment"] == (text or "").replace("\ud83d", "?")
    json.dumps(result.rows, ensure_ascii=False).encode()
    assert judge(2).asked.calls == 0
    assert set(server.paid.values()) == {1}


@pytest.mark.parametrize(
    "odd",
    [
        Sends(429, b"slow down", (("Retry-After", "0"),)),
        Sends(500, b"oops"),
        Sends(503, b"loading"),
        Sends(200, b'{"choices": [{"mess'),
        Sends(200, b'{"choices": [{"message": {"content": "[[A]]"}}]}', cut=True),
        Sends(200, b'{"error": {"code": 502, "message": "the server behind is gone"}}'),
        Sends(200, b'{"choices": [{"message": {"content": "[[A"}, "finish_reason": "abort"}]}'),
        HangsUp(),
    ],
)
def test_a_passing_trouble_changes_nothing(server, judge, odd):
    server.rule = once(odd, "turn 2 of q1:")
    result = judge(3)
    assert {row["status"] for row in result.rows} == {"judged"}
    assert set(server.paid.values()) == {1}
    assert len(server.calls) == 7


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (Sends(500, b"oops"), "server_error: HTTP 500: oops"),
        (Sends(429, b"slow down"), "rate_limit: HTTP 429"),
        (Sends(200, b'{"cho'), "malformed: the answer is not JSON"),
        (HangsUp(), "connection: "),
        (Stalls(), "timeout: no answer within 0.3 s"),
    ],
)
def test_no_rows_while_an_answer_is_missing_and_the_same_command_asks_only_for_it(server, cache, odd, reason):
    impatient = judge_at(server.url, retry=RetryPolicy(attempts=2, timeout_s=0.3, first_wait_s=0.01, longest_wait_s=0.02))
    server.rule = always(odd, "turn 2 of q1:")
    with pytest.raises(JudgeUnreachable) as error:
        consult(YesNo(), items(4), impatient, cache, judge="j")
    assert f"1 of 8 requests got no answer, the first: {reason}" in str(error.value)
    assert "7 answers are kept" in str(error.value)
    server.rule = lambda call: Says("[[A]]")
    before = len(server.calls)
    result = consult(YesNo(), items(4), impatient, cache, judge="j")
    assert (len(server.calls) - before, len(result.rows)) == (1, 8)
    assert set(server.paid.values()) == {1}


@pytest.mark.parametrize(
    "odd", [Sends(400, b'{"error": {"message": "content filter"}}'), Sends(413, b"too long"), Sends(200, NO_CHOICE)]
)
def test_a_request_refused_for_good_is_a_failed_row_asked_again_next_time(server, judge, odd):
    server.rule = always(odd, "turn 2 of q1:")
    result = judge(3)
    assert [row["status"] for row in result.rows] == ["judged"] * 3 + ["failed"] + ["judged"] * 2
    assert sum(result.failures.values()) == 1
    assert "1 requests were refused, the first: " in result.warnings[0]
    assert result.rows[3]["detail"] in result.warnings[0]
    server.rule = lambda call: Says("[[A]]")
    again = judge(3)
    assert {row["status"] for row in again.rows} == {"judged"}
    assert (again.asked.calls, again.from_cache.calls, again.failures) == (1, 5, {})


def test_several_models_or_fingerprints_behind_one_name_are_told(server, judge):
    server.rule = lambda call: Says("[[A]]", model=f"judge-1-{'ab'[call.number % 2]}", fingerprint=f"fp_{call.number % 2}")
    result = judge(2, concurrency=1)
    assert result.served_models == {"judge-1-a": 2, "judge-1-b": 2}
    assert result.warnings == (
        "several models answered as judge-1: judge-1-a (2), judge-1-b (2)",
        "the judge's server changed in between, by its fingerprint: fp_0 (2), fp_1 (2)",
    )


def test_a_server_that_is_gone_is_given_up_after_some_in_a_row(server, cache):
    server.rule = lambda call: Sends(500) if call.number > 6 else Says("[[A]]")
    to = judge_at(server.url, retry=RetryPolicy(attempts=2, first_wait_s=0.01, longest_wait_s=0.02, give_up_after=5))
    with pytest.raises(
        JudgeUnreachable, match="is gone: 5 requests in a row got no answer, the last: server_error: HTTP 500"
    ) as e:
        consult(YesNo(), items(100), to, cache, judge="j")
    assert "6 answers are kept" in str(e.value)
    assert len(server.calls) <= 6 + 2 * (5 + 2)


def test_a_refused_key_stops_everything_at_once_and_is_shown_nowhere(server, judge, cache):
    server.key = "sk-another"
    with pytest.raises(JudgeUnfit, match=r"refuses: HTTP 401: no such key: Bearer \[key\]; nothing was answered") as error:
        judge(100)
    assert len(server.calls) <= 3
    assert "sk-key-of-the-test" not in str(error.value) + repr(judge_at(server.url))
    server.key = "sk-key-of-the-test"
    judge(2)
    assert "sk-key-of-the-test" not in cache.path.read_text()


def test_a_setting_the_server_does_not_know_is_named_and_can_be_put_right(server, cache):
    text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    refusal = Sends(400, json.dumps({"error": {"message": text, "param": "max_tokens"}}).encode())
    server.rule = lambda call: refusal if "max_tokens" in call.body else Says("[[A]]")
    with pytest.raises(JudgeUnfit, match=r"HTTP 400 for the parameter max_tokens: .* Use 'max_completion_tokens' instead") as e:
        consult(YesNo(), items(100), judge_at(server.url), cache, judge="j")
    assert "judge.parameters" in str(e.value)
    assert len(server.calls) <= 3
    server.calls.clear()
    own = {"max_tokens": None, "max_completion_tokens": 99}
    consult(YesNo(), items(1), JudgeServer("judge-1", server.url, parameters=own), cache, judge="j")
    sent = server.calls[0].body
    assert "max_tokens" not in sent
    assert (sent["max_completion_tokens"], sent["temperature"]) == (99, 0)


def test_what_the_client_sets_itself_is_no_parameter():
    with pytest.raises(ConfigError, match="'stream'"):
        JudgeServer("m", "http://localhost/v1", parameters={"stream": True})


@pytest.mark.parametrize("server_is", [{"base_url": "localhost:8000"}, {"base_url": "http://localhost", "api_key": "a\nb"}])
def test_what_cannot_be_asked_at_all_is_said_before(cache, server_is):
    with pytest.raises(JudgeUnfit, match="the judge m cannot be asked"):
        consult(YesNo(), items(1), JudgeServer("m", **server_is), cache, judge="j")


def test_a_cache_that_cannot_be_written_stops_the_spending(server, judge, cache, monkeypatch):
    def full(record: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "add", full)
    with pytest.raises(OSError, match="No space left"):
        judge(50)
    assert len(server.calls) <= 3


def test_progress_ends_with_all(judge):
    seen: list[tuple[int, int]] = []
    judge(4, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 8)
    assert seen[-1] == (8, 8)
    assert sorted(seen) == seen


def test_one_prompt_that_is_refused_does_not_end_a_resumed_consultation(server, judge):
    server.rule = always(Sends(403, b"moderated"), "turn 2 of q1:")
    first = judge(3, concurrency=1)
    again = judge(3, concurrency=1)
    assert (
        [row["status"] for row in again.rows]
        == [row["status"] for row in first.rows]
        == ["judged"] * 3 + ["failed"] + ["judged"] * 2
    )
    assert server.paid.total() == 5


class Other:
    """Another process that asks the same, through the same folder."""

    def __init__(self, server: judge_module.JudgeServer, folder: Path, count: int) -> None:
        self.server, self.cache, self.count = server, CompletionCache(folder, writer="other"), count
        self.result: Consultation | None = None

    def ask(self) -> None:
        """Returns when all is asked; a thread of its own, because it is called from within the first process's loop."""
        thread = threading.Thread(target=self._ask)
        thread.start()
        thread.join()

    def _ask(self) -> None:
        self.result = consult(YesNo(), items(self.count), judge_at(self.server.url, 1), self.cache, judge="j")


def test_what_another_process_asks_meanwhile_is_not_paid_again(server, cache):
    other = Other(server, cache.folder, 100)
    to = judge_at(server.url, 1, retry=RetryPolicy(give_up_after=5))  # slices of ten
    asked = 0

    def progress(done: int, total: int) -> None:
        nonlocal asked
        asked += 1
        if asked == 4:
            other.ask()

    result = consult(YesNo(), items(100), to, cache, judge="j", progress=progress)
    assert other.result is not None
    assert result.rows == other.result.rows
    assert (result.asked.calls, other.result.asked.calls) == (10, 197)
    assert len(server.paid) == 200
    assert server.paid.total() == 207


def test_of_two_answers_to_one_request_all_use_the_first(server, cache):
    """The judge says something else each time: both processes, and every rerun, must have the same rows."""
    server.rule = lambda call: Says(f"[[A]] {call.number}")
    other = Other(server, cache.folder, 5)

    def progress(done: int, total: int) -> None:
        if done == 2 and other.result is None:
            other.ask()

    result = consult(YesNo(), items(5), judge_at(server.url, 1), cache, judge="j", progress=progress)
    assert other.result is not None
    assert result.rows == other.result.rows
    assert result.asked.calls == 10, "what was paid for twice is counted as paid"
    again = consult(YesNo(), items(5), judge_at(server.url), cache, judge="j")
    assert (again.rows, again.asked) == (result.rows, Usage())


# ---------------------------------------------------------------------------- the probe


def test_the_probe_asks_five_real_requests_from_all_over_and_they_are_not_paid_again(server, judge, cache):
    assert probe(YesNo(), items(50), judge_at(server.url), cache).notes == []
    assert sorted(call.prompt.split(":")[0] for call in server.calls) == [
        "turn 1 of q0",
        "turn 1 of q20",
        "turn 1 of q40",
        "turn 2 of q10",
        "turn 2 of q30",
    ]
    judge(50)
    assert set(server.paid.values()) == {1}


def test_what_the_probe_paid_for_counts_as_asked_now_and_only_once(server, cache):
    to = judge_at(server.url)
    probed = probe(YesNo(), items(10), to, cache)
    assert len(probed.paid) == 5
    result = consult(YesNo(), items(10), to, cache, judge="j", probed=probed)
    assert (result.asked.calls, result.from_cache.calls) == (20, 0)
    assert probe(YesNo(), items(10), to, cache) == Probe()
    again = consult(YesNo(), items(10), to, cache, judge="j", probed=Probe())
    assert (again.asked, again.from_cache) == (Usage(), result.asked)


def test_a_judge_without_labels_is_unfit_before_the_rest_is_spent(server, cache):
    server.rule = lambda call: Says("I would rather not")
    found = "judge-1 at .* cannot judge this benchmark: in a first try 5 of 5 replies cannot be used: no label (5 times)"
    with pytest.raises(JudgeUnfit, match=found.replace("(", r"\(").replace(")", r"\)")):
        probe(YesNo(), items(50), judge_at(server.url), cache)
    assert len(server.calls) == 10  # five, and a second time


def test_a_judge_that_was_mended_is_asked_again_and_what_it_said_before_counts_no_more(server, cache):
    server.rule = lambda call: Says("I would rather not")
    with pytest.raises(JudgeUnfit):
        probe(YesNo(), items(10), judge_at(server.url), cache)
    server.rule = lambda call: Says("[[A]]")
    probed = probe(YesNo(), items(10), judge_at(server.url), cache)
    result = consult(YesNo(), items(10), judge_at(server.url), cache, judge="j", probed=probed)
    assert {row["status"] for row in result.rows} == {"judged"}
    assert (result.asked.calls, result.from_cache.calls) == (20, 0)
    assert consult(YesNo(), items(10), judge_at(server.url), cache, judge="j").from_cache.calls == 20


def test_a_judge_that_refuses_most_is_unfit_and_says_why(server, cache):
    server.rule = lambda call: Sends(400, b"the model judge-1 does not exist")
    with pytest.raises(JudgeUnfit, match="5 of 5 replies cannot be used: rejected: HTTP 400: the model judge-1 does not exist"):
        probe(YesNo(), items(50), judge_at(server.url), cache)


def test_one_bad_reply_in_a_probe_and_another_name_are_worth_a_line(server, cache):
    server.rule = lambda call: Says("hm" if "of q20:" in str(call.body) else "[[A]]", model="judge-1-0613")
    assert probe(YesNo(), items(50), judge_at(server.url), cache).notes == [
        "in a first try 1 of 5 replies cannot be used: no label",
        "asked for the model judge-1, the server names judge-1-0613",
    ]


def test_a_probe_of_a_few_items_or_of_none_works(server, cache):
    assert probe(YesNo(), items(2), judge_at(server.url), cache).notes == []
    assert len(server.calls) == 2
    assert probe(YesNo(), [], judge_at(server.url), cache) == Probe()


def test_a_probe_of_a_server_that_is_down_is_no_verdict_on_the_judge(server, cache):
    server.rule = lambda call: Sends(503)
    with pytest.raises(JudgeUnreachable, match="HTTP 503"):
        probe(YesNo(), items(50), judge_at(server.url), cache)


# ---------------------------------------------------------------------------- the real benchmarks


def real(kind: str, shared_data: Path) -> tuple[JudgedBenchmark, list[tuple[JudgedQuestion, ModelAnswer]]]:
    """A benchmark with its official prompts, and twenty official questions with answers."""
    home = shared_data / kind
    edition, names = {
        "alpaca_eval": (
            "",
            {"questions": "models/gpt4_1106_preview/model_outputs.json.gz", "prompt": "judge/alpaca_eval_clf.txt"},
        ),
        "arena_hard": (
            "v0.1",
            {
                "questions": "question_v0.1.jsonl.gz",
                "baseline": "answers/gpt-4-0314.jsonl.gz",
                "prompt": "judge/judge_config_v0.1.yaml",
            },
        ),
        "mt_bench": (
            "",
            {"questions": "question.jsonl", "prompt": "judge_prompts.jsonl", "reference": "reference_answer_gpt-4.jsonl"},
        ),
    }[kind]
    files = {role: home / name for role, name in names.items()}
    questions = JUDGED[kind].questions(edition, files)
    questions = questions[:: len(questions) // 20][:20]
    answers = [
        ModelAnswer(question_id=q["id"], model="m", turns=[f"My {i}. answer"] * len(q["turns"]))
        for i, q in enumerate(questions)
    ]
    return JUDGED[kind].judging(edition, files, False), list(zip(questions, answers, strict=True))


def official_judge(call: Call) -> Act:
    """Says what each benchmark's judge says; in Arena-Hard at first without a label, in every third game."""
    if call.body.get("logprobs"):
        return Says("m", top={"m": -0.2, "M": -1.8, " m": -6.0})
    if "[[A>B]]" in str(call.body):
        return Says("I compare." if call.number % 3 == 0 and len(call.body["messages"]) < 3 else "So: [[A>>B]]")
    return Says("Not bad. Rating: [[7]]")


@pytest.mark.parametrize("kind", ["alpaca_eval", "arena_hard", "mt_bench"])
def test_the_real_benchmarks_are_judged_and_a_rerun_is_free(server, cache, shared_data, tmp_path, kind):
    benchmark, pairs = real(kind, shared_data)
    server.rule = official_judge
    to = judge_at(server.url)
    assert probe(benchmark, pairs, to, cache).notes == []
    first = consult(benchmark, pairs, to, cache, judge="judge-1")
    assert {row["status"] for row in first.rows} == {"judged"}
    assert len(first.rows) == (40 if kind == "mt_bench" else 20)
    assert set(server.paid.values()) == {1}
    asked = len(server.calls)
    again = consult(benchmark, pairs, to, cache, judge="judge-1")
    assert again.rows == first.rows
    assert len(server.calls) == asked
    write_jsonl(tmp_path / "rows.jsonl", first.rows)
    assert read_jsonl(tmp_path / "rows.jsonl") == first.rows


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("alpaca_eval", "no log-probabilities of the first token"),
        ("arena_hard", r"no label such as \[\[A>B\]\]"),
        ("mt_bench", r"no rating such as \[\[5\]\]"),
    ],
)
def test_a_judge_that_thinks_aloud_and_never_ends_is_found_out_by_each_benchmark(server, cache, shared_data, kind, found):
    benchmark, pairs = real(kind, shared_data)
    server.rule = lambda call: Says("<think> Well, let me see")
    with pytest.raises(JudgeUnfit, match=found):
        probe(benchmark, pairs, judge_at(server.url), cache)


# ---------------------------------------------------------------------------- killed and told to stop


def test_told_to_stop_it_sends_no_more_keeps_what_is_in_flight_and_goes_on_later(server, judge):
    told = False

    def rule(call: Call) -> Act:
        nonlocal told
        told = told or call.number == 5
        return Says("[[A]]")

    server.rule = rule
    with pytest.raises(Interrupted):
        judge(20, stop=lambda: told)
    assert len(server.calls) < 5 + 3
    judge(20)
    assert list(server.paid.values()) == [1] * 40


def test_told_to_stop_while_it_waits_to_try_again_it_does_not_wait_on(server, cache):
    server.rule = lambda call: Sends(429, b"", (("Retry-After", "1000"),))
    patient = judge_at(server.url, retry=RetryPolicy(longest_wait_s=1000))
    with pytest.raises(Interrupted):
        consult(YesNo(), items(20), patient, cache, judge="j", stop=lambda: len(server.calls) >= 3)


def test_told_to_stop_it_does_not_wait_for_ever_for_what_is_in_flight(server, cache):
    server.rule = lambda call: Stalls()
    brief = judge_at(server.url, retry=RetryPolicy(drain_s=0.05))
    with pytest.raises(Interrupted):
        consult(YesNo(), items(20), brief, cache, judge="j", stop=lambda: len(server.calls) >= 3)


CONCURRENCY = 3
BEFORE = 7


@pytest.fixture
def judging(server: judge_module.JudgeServer, cache: CompletionCache) -> Iterator[subprocess.Popen[str]]:
    """A process that has judged seven requests of forty, and waits for the next three.

    A place is used again only when its answer is on disk: as three more requests have arrived, seven answers are.
    """
    server.rule = lambda call: Says(f"So [[A]] for {call.prompt}", held=call.number > BEFORE)
    command = [sys.executable, "-m", "tests.benchmarks.yes_no", server.url, str(cache.folder), "20"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            server.wait_for_calls(BEFORE + CONCURRENCY)
            yield process
        finally:
            process.kill()


def undisturbed(server: judge_module.JudgeServer, folder: Path) -> Consultation:
    with running_judge() as other:
        other.rule = lambda call: Says(f"So [[A]] for {call.prompt}")
        return consult(YesNo(), items(20), judge_at(other.url), CompletionCache(folder), judge="j")


def test_killed_in_the_middle_nothing_that_was_answered_is_lost_or_paid_twice(server, judge, judging, tmp_path):
    judging.send_signal(signal.SIGKILL)
    judging.wait()
    received = {call.digest for call in server.calls[:BEFORE]}
    server.release.set()
    result = judge(20)
    assert result.from_cache.calls == BEFORE
    assert all(server.paid[digest] == 1 for digest in received)
    assert len(server.paid) == 40
    assert server.paid.total() == 40 + CONCURRENCY
    assert max(server.paid.values()) == 2
    assert result.rows == undisturbed(server, tmp_path / "other").rows


def test_terminated_in_the_middle_nothing_at_all_is_paid_twice(server, judge, judging, tmp_path):
    judging.send_signal(signal.SIGTERM)
    assert judging.stdout is not None
    assert judging.stdout.readline() == "told\n"
    server.release.set()
    assert judging.wait() == SAVED
    assert len(server.calls) == BEFORE + CONCURRENCY
    result = judge(20)
    assert result.from_cache.calls == BEFORE + CONCURRENCY
    assert list(server.paid.values()) == [1] * 40
    assert result.rows == undisturbed(server, tmp_path / "other").rows
