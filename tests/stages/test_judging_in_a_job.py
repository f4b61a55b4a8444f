"""Two judged benchmarks in one job: the driver and the processes of its stages are real, the judge is a real HTTP server."""

from __future__ import annotations

import signal

import pytest

from eva_hpc.cluster import driver as drivers
from eva_hpc.cluster import recovery
from eva_hpc.cluster.driver import Driver, Submission
from eva_hpc.cluster.ledger import Ledger
from eva_hpc.config.benchmark import Judge
from eva_hpc.config.recipe import Generation
from eva_hpc.config.site import Site
from eva_hpc.plan.graph import Node
from eva_hpc.plan.plan import Task
from eva_hpc.stages import answer, ask_judge, judged_questions, judged_score
from tests.benchmarks import made_up
from tests.benchmarks.judge_server import Sends, running_judge

pytestmark = pytest.mark.slow
TURN = {"text": "Plum.", "finish": "stop", "prompt_sha256": ""}
SITE = Site.model_validate({"name": "cluster", "executor": "slurm", "scale": "lab"})


@pytest.fixture
def judge_server():
    with running_judge() as server:
        server.rule = made_up.judge
        yield server


class OneJob:
    """A job that asks two judges about the same answers; the first is called "one", the second "other"."""

    def __init__(self, bench, policy, server):
        files = made_up.mt_bench(bench.root / "files")
        about = {"kind": "mt_bench", "edition": "", "files": files, "fingerprints": dict.fromkeys(files, "own")}
        asked = Node(judged_questions.Spec(limit=None, **about), "evaluation")
        bench.make(asked)
        spec = answer.Spec(generation=Generation(), samples=1, greedy=False, seed=1)
        answers = Node(spec, "evaluation", {"policy": policy, "questions": asked})
        known = bench.read(asked, "questions.jsonl")
        rows = [{"question_id": one["id"], "greedy": None, "samples": [[TURN] * len(one["turns"])]} for one in known]
        bench.put(answers, "answers.jsonl", rows)
        self.bench, self.store = bench, bench.store
        self.nodes = []
        for name in ("one", "other"):
            judge = Judge(model=name, base_url=server.url, attempts=1, concurrency=2)
            spec = ask_judge.Spec(judge=judge, both_orders=False, labels="logprobs", **about)
            judged = Node(spec, "evaluation", {"questions": asked, "answers": answers})
            spec = judged_score.Spec(min_coverage=0.95, difficulty_by="instruction", **about)
            inputs = {"questions": asked, "answers": answers, "judgments": judged}
            self.nodes += [judged, Node(spec, "evaluation", inputs)]

    def run(self):
        """The word of the driver, in this process; its stages have processes of their own."""
        told = Submission(
            site=SITE, store=self.store.root, results=self.bench.root / "results", token="t", time_minutes=60
        )  # fmt: skip
        path = self.bench.root / "submission.json"
        path.write_text(told.model_dump_json())
        tasks = [
            Task(
                identity=node.identity,
                spec=node.spec.model_dump(mode="json"),
                part=node.part,
                parallel="one",
                inputs={role: source.identity for role, source in node.inputs.items()},
                runs=("run",),
            )
            for node in self.nodes
        ]
        return Driver(path, "run", tuple(task.model_dump_json().encode() for task in tasks))()

    def events(self, *kinds):
        return [event for event in Ledger(self.bench.root / "results").events() if event["event"] in kinds]

    def done(self):
        """Which of the four tasks are committed."""
        return [self.store.find(node.identity) is not None for node in self.nodes]


@pytest.fixture
def job(bench, placeholder, judge_server, tmp_path, monkeypatch):
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_JOB_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR2, signal.SIGTERM)}
    yield OneJob(bench, placeholder, judge_server)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_judge_that_cannot_be_used_takes_no_other_benchmark_with_it(job, judge_server, monkeypatch):
    judge_server.rule = lambda call: Sends(401, b"no such key") if call.body["model"] == "one" else made_up.judge(call)
    with pytest.raises(SystemExit) as end:
        job.run()

    assert end.value.code == 1, "whoever waits for the job to end well must not start"
    assert job.done() == [False, False, True, True]
    asked = f"ask_judge/{job.nodes[0].identity.name}"
    assert {(event["task"], event["cause"]) for event in job.events("failed")} == {(asked, "code_or_data")}
    assert job.events("begun", "started", "failed", "done")[-1]["event"] == "failed", "the last word tells how the job ended"
    assert job.store.claim(job.nodes[0].identity, "slurm 8") is None, "another job need not wait for this one's end"

    # The job goes back into the queue, for another reason: what failed in it is not tried once more.
    job.store.release(job.nodes[0].identity, "slurm 8")
    calls, failures = len(judge_server.calls), len(job.events("failed"))
    Ledger(job.bench.root / "results", "job-7").record("requeued", task="", job="7", cause="timeout")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(SystemExit):
        job.run()
    assert (len(judge_server.calls), len(job.events("failed"))) == (calls, failures + 1)


def test_a_server_that_is_away_for_a_while_is_asked_again_by_the_same_job(job, judge_server, monkeypatch):
    monkeypatch.setattr(recovery, "WAITS_MINUTES", (0.001, 0.001))
    judge_server.rule = lambda call: Sends(503, b"loading") if call.number <= 2 else made_up.judge(call)

    assert job.run() == "done"

    assert all(job.done())
    assert {event["cause"] for event in job.events("retried")} == {"unavailable"}
    assert "HTTP 503: loading" in job.events("retried")[0]["evidence"]
    assert set(judge_server.paid.values()) == {1}


def test_a_job_that_waits_for_a_server_leaves_at_once_when_it_is_told_to(job, judge_server, monkeypatch):
    judge_server.rule = lambda call: Sends(503, b"loading")

    def an_hour(*_):
        signal.raise_signal(signal.SIGUSR2)
        return 3600.0

    def killed(self):
        raise SystemExit(0)

    monkeypatch.setattr(recovery, "wait_s", an_hour)
    monkeypatch.setattr(drivers.queue, "requeue", lambda job: None)
    monkeypatch.setattr(drivers._Job, "_await_the_end", killed)
    with pytest.raises(SystemExit) as end:
        job.run()
    assert end.value.code == 0
    assert [event["event"] for event in job.events("retried", "requeued", "failed")] == ["retried", "requeued"]
