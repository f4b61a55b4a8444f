"""Rewards of responses: nested preferences, scorers behind a real HTTP server, ensembles, and what has no reward."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from eva_hpc.config.recipe import Generation, LabPrompts
from eva_hpc.config.reward import ArmoRM, Ensemble, LabChecker, OpenAIScorer, PairRM, SequenceClassification
from eva_hpc.lab.checker import answer
from eva_hpc.plan.graph import Node
from eva_hpc.stages import evaluate, generate, judge, prompts, score
from eva_hpc.stages.contract import Interrupted, StageFailed
from eva_hpc.store.records import write_jsonl
from tests.benchmarks.judge_server import Call, JudgeServer, Says, Sends, running_judge

KEY = "sk-secret-of-the-test"
NO_RATING = "no rating from 1 to 10 in the answer that ends with "


class Lab:
    """Sixteen prompts with four responses each, as if a policy had given them."""

    def __init__(self, bench) -> None:
        self.k = 4
        self.prompts = Node(prompts.Spec(source=LabPrompts(count=16)), "start")
        bench.make(self.prompts)
        spec = generate.Spec(generation=Generation(), responses=self.k, fraction=1.0, seed=1, round=1)
        self.responses = Node(spec, "round 1", {"prompts": self.prompts})
        bench.put(self.responses, "responses.jsonl", self.records(bench))

    def records(self, bench) -> list[dict]:
        """What the policy might have answered: four responses to each prompt."""
        records = []
        for prompt in bench.read(self.prompts, "prompts.jsonl"):
            exact = answer(prompt["prompt"])
            texts = (exact, exact[:-1], exact + "!", f"Sure! {exact}")
            responses = [{"text": text, "tokens": [1], "finish": "stop", "logprob": -1.0} for text in texts]
            records.append(
                {"prompt_id": prompt["id"], "prompt": prompt["prompt"], "prompt_tokens": [1], "responses": responses}
            )
        return records


@pytest.fixture
def lab(bench) -> Lab:
    return Lab(bench)


@pytest.fixture
def server(monkeypatch) -> Iterator[JudgeServer]:
    """Rates every answer by its length, from 1 to 10."""
    monkeypatch.setenv("TEST_KEY", KEY)
    with running_judge() as server:
        server.key = KEY
        server.rule = lambda call: Says(f"Fair enough. <rating>{min(10, 1 + len(rated_answer(call)))}</rating>")
        yield server


def rated_answer(call: Call) -> str:
    return call.prompt.rpartition("<assistant>\n")[2].partition("\n</assistant>")[0]


def scorer(server, **settings):
    return OpenAIScorer(model="judge-1", base_url=server.url, api_key_env="TEST_KEY", concurrency=3, **settings)


def scored(lab, reward, k=None, **settings):
    spec = score.Spec(reward=reward, responses=k or lab.k, fraction=1.0, **settings)
    return Node(spec, "round 1", {"responses": lab.responses, "prompts": lab.prompts})


def texts_of(bench, lab):
    return [[response["text"] for response in record["responses"]] for record in bench.read(lab.responses, "responses.jsonl")]


# ---------------------------------------------------------------------------- pairwise


def test_a_pairwise_checker_compares_responses_and_their_reward_is_the_mean_of_the_row(bench, lab):
    pointwise, pairwise = scored(lab, LabChecker()), scored(lab, LabChecker(pairwise=True))
    assert bench.make(pairwise, chunk=5).manifest["records"] == {"in": 16, "out": 16, "set_aside": {}}
    bench.make(pointwise)

    rewards = {record["prompt_id"]: record["rewards"] for record in bench.read(pointwise, "rewards.jsonl")}
    for record in bench.read(pairwise, "rewards.jsonl"):
        own = rewards[record["prompt_id"]]
        for i, row in enumerate(record["preferences"]):
            assert row == pytest.approx([1 / (1 + math.exp(-10 * (own[i] - other))) for other in own])
            assert record["rewards"][i] == pytest.approx(sum(row) / len(row))
            assert row[i] == 0.5


def test_preferences_between_the_first_responses_are_the_corner_of_those_between_more(bench, lab):
    reward = LabChecker(pairwise=True, noise=0.3)
    more, few = scored(lab, reward), scored(lab, reward, k=2)
    attempt = bench.prepare(few)  # before the larger one is there, which would stand for it
    bench.run(attempt)
    bench.commit(attempt)
    bench.make(more)
    corners = [[row[:2] for row in record["preferences"][:2]] for record in bench.read(more, "rewards.jsonl")]
    assert [record["preferences"] for record in bench.read(few, "rewards.jsonl")] == corners


# ---------------------------------------------------------------------------- a server


def test_a_server_rates_every_response_and_repeats_are_averaged(bench, lab, server):
    usual = server.rule
    server.rule = lambda call: usual(call) if call.body["seed"] % 2 else Says("<rating> 5.5 /10 </rating>")
    node = scored(lab, scorer(server, repeats=3, temperature=1.0))
    assert bench.make(node).manifest["records"] == {"in": 16, "out": 16, "set_aside": {}}

    assert len(server.calls) == 16 * 4 * 3
    assert len({call.body["seed"] for call in server.calls if rated_answer(call) == rated_answer(server.calls[0])}) >= 3
    assert {(call.body["temperature"], call.body["max_tokens"], call.body["model"]) for call in server.calls} == {
        (1.0, 512, "judge-1")
    }
    for record, texts in zip(bench.read(node, "rewards.jsonl"), texts_of(bench, lab), strict=True):
        for reward, text in zip(record["rewards"], texts, strict=True):
            assert any(reward == pytest.approx((n * 5.5 + (3 - n) * min(10, 1 + len(text))) / 3) for n in range(4))
    assert not [path for path in bench.root.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (Says("I would rather not rate this."), NO_RATING + "'I would rather not rate this.'"),
        (Says("It is \ud83d <rating>11</rating>"), NO_RATING + r"'It is \ud83d <rating>11</rating>'"),
        (Says(None, finish="length"), "empty: the completion has no text, finish reason length"),
        (Sends(400, b"content filter"), "rejected: HTTP 400: content filter"),
        (Sends(400, rb'{"error": {"message": "half \ud83d"}}'), "rejected: HTTP 400: half ?"),
        (Sends(200, b'{"choices": []}'), 'malformed: the answer is no chat completion: {"choices": []}'),
    ],
)
def test_a_response_that_gets_no_rating_has_none_and_is_counted_with_the_reason(bench, lab, server, bad, why):
    unlucky = texts_of(bench, lab)[2][1]
    usual = server.rule
    server.rule = lambda call: bad if rated_answer(call) == unlucky else usual(call)
    node = scored(lab, scorer(server))
    records = bench.make(node, chunk=5).manifest["records"]

    without = [
        {"reason": "response without reward", "prompt_id": record["prompt_id"], "response": index, "detail": why}
        for record in bench.read(lab.responses, "responses.jsonl")
        for index, response in enumerate(record["responses"])
        if response["text"] == unlucky
    ]
    assert without
    assert records == {"in": 16, "out": 16, "set_aside": {"response without reward": len(without)}}
    assert bench.read(node, "set_aside.jsonl") == without
    empty = [
        (r["prompt_id"], n) for r in bench.read(node, "rewards.jsonl") for n, one in enumerate(r["rewards"]) if one is None
    ]
    assert empty == [(record["prompt_id"], record["response"]) for record in without]
    assert not [record for record in bench.read(node, "rewards.jsonl") if record.keys() != {"prompt_id", "rewards"}]


def test_a_server_that_rates_nothing_fails_the_stage_with_its_words(bench, lab, server):
    server.rule = lambda call: Says("Hm.") if call.number % 4 else Sends(400, b"not so many tokens")
    said = rf"{NO_RATING}'Hm.' \(48 times\), rejected: HTTP 400: not so many tokens \(16 times\)"
    with pytest.raises(StageFailed, match=f"openai has no reward for any response to the 16 prompts: {said}; to ask again"):
        bench.make(scored(lab, scorer(server)))


def test_a_refusal_of_all_requests_fails_the_stage_and_what_was_rated_is_not_asked_again(bench, lab, server):
    usual = server.rule
    server.rule = lambda call: usual(call) if call.number <= 8 * 4 else Sends(401, b"no credit left for " + KEY.encode())
    node = scored(lab, scorer(server))
    with pytest.raises(StageFailed, match=rf"judge-1 at {server.url} refuses all requests: HTTP 401: no credit .* \[key\]"):
        bench.make(node, chunk=4)
    server.rule = usual
    asked = len(server.calls)
    bench.make(node, chunk=4)
    assert len(server.calls) - asked == 8 * 4


def test_what_was_rated_while_others_were_sampled_is_not_asked_again(bench, lab, server):
    bench.again(lab.responses)
    node, making = scored(lab, scorer(server), k=3), bench.store.work(lab.responses.identity)
    making.mkdir(parents=True)
    records = lab.records(bench)
    write_jsonl(making / "chunk-000000-000003.jsonl", records[:3])
    attempt = bench.prepare(node, making={"responses": making.parent})
    read = []

    def stop() -> bool:
        if len(server.calls) == 3 * 3 and not read:
            write_jsonl(making / "chunk-000003-000005.jsonl", records[3:5])
            read.append(True)
        return len(server.calls) == 5 * 3 and server.open == 0

    with pytest.raises(Interrupted):
        score.ahead(attempt.spec(), attempt.inputs, attempt.folder, attempt.context(stop=stop))
    assert {rated_answer(call) for call in server.calls} == {
        response["text"] for record in records[:5] for response in record["responses"][:3]
    }

    bench.put(lab.responses, "responses.jsonl", records)
    bench.make(node)
    assert set(server.paid.values()) == {1}
    assert len(server.calls) == 16 * 3
    assert bench.read(node, "rewards.jsonl") == [
        {"prompt_id": record["prompt_id"], "rewards": [min(10, 1 + len(one["text"])) for one in record["responses"][:3]]}
        for record in records
    ]


def test_only_servers_can_rate_ahead():
    assert score.Spec(reward=LabChecker(), responses=2, fraction=1.0).ahead_of is None
    model = SequenceClassification(path="/models/rm")
    server = OpenAIScorer(model="judge-1", base_url="http://127.0.0.1/v1")
    for reward, ahead in (
        (server, "responses"),
        (model, None),
        (Ensemble(members=(server, server)), "responses"),
        (Ensemble(members=(server, model)), None),
    ):
        assert score.Spec(reward=reward, responses=2, fraction=1.0).ahead_of == ahead


# ---------------------------------------------------------------------------- ensembles


@pytest.mark.parametrize("combine", ["mean", "min"])
def test_an_ensemble_combines_its_members_and_needs_all_of_them(bench, lab, server, combine):
    unlucky = texts_of(bench, lab)[0][0]
    usual = server.rule
    server.rule = lambda call: Says("?") if rated_answer(call) == unlucky else usual(call)
    members = (LabChecker(), scorer(server))
    bench.make(scored(lab, members[0]))
    checked = bench.read(scored(lab, members[0]), "rewards.jsonl")
    node = scored(lab, Ensemble(members=members, weights=(2.0, 0.1), combine=combine))
    bench.make(node)

    for record, plain, texts in zip(bench.read(node, "rewards.jsonl"), checked, texts_of(bench, lab), strict=True):
        for reward, own, text in zip(record["rewards"], plain["rewards"], texts, strict=True):
            parts = (2 * own, 0.1 * min(10, 1 + len(text)))
            if text == unlucky:
                assert reward is None
            else:
                assert reward == pytest.approx(sum(parts) / 2.1 if combine == "mean" else min(parts))


# ---------------------------------------------------------------------------- benchmark answers


QUESTIONS = [
    {"id": "a", "category": "easy", "turns": ["Copy: ab"]},
    {"id": "b", "category": "easy", "turns": ["Copy: abc", "Now Upper it"]},
]


def turn(text):
    return {"text": text, "finish": "stop", "prompt_sha256": ""}


def judged(bench, reward, samples):
    """The node of judgments of these answers, one list of samples for each question."""
    asked = Node(prompts.Spec(source={"kind": "lab", "count": 4}), "evaluation")
    answered = Node(generate.Spec(generation={}, responses=2, fraction=1.0, seed=len(str(samples)), round=0), "evaluation")
    bench.put(asked, "questions.jsonl", QUESTIONS)
    answers = [
        {"question_id": question["id"], "greedy": None, "samples": [[turn(text) for text in sample] for sample in own]}
        for question, own in zip(QUESTIONS, samples, strict=True)
    ]
    bench.put(answered, "answers.jsonl", answers)
    return Node(judge.Spec(reward=reward), "evaluation", {"questions": asked, "answers": answered})


def test_a_question_with_an_answer_that_has_no_reward_is_left_out_and_coverage_falls(bench, server):
    usual = server.rule
    server.rule = lambda call: Says("?") if rated_answer(call) == "BAD" else usual(call)
    ours = judged(bench, scorer(server), [[["ab"], ["abcd"]], [["abc", "ABC"], ["abc", "BAD"]]])
    reference = judged(bench, scorer(server), [[["a"], ["b"]], [["abc", "ABC"], ["abc", "A"]]])
    assert bench.make(ours).manifest["records"] == {
        "in": 2, "out": 1, "set_aside": {"question with an answer without reward": 1}
    }  # fmt: skip
    assert [record["samples"] for record in bench.read(ours, "judgments.jsonl")] == [[[3.0], [5.0]]]
    assert bench.read(ours, "set_aside.jsonl")[0]["samples"] == [[4.0, 4.0], [4.0, None]]
    inputs = {"questions": ours.inputs["questions"], "judgments": ours, "reference": reference}
    numbers = Node(evaluate.Spec(scale=1.0), "evaluation", inputs)
    bench.make(numbers)
    found = {metric["metric"]: metric for metric in bench.read(numbers, "metrics.jsonl")}
    assert (found["reward"]["value"], found["reward"]["coverage"], found["reward"]["n"]) == (4.0, 0.5, 1)


def test_benchmark_answers_without_any_reward_fail_the_stage_and_so_does_a_pairwise_reward(bench, server):
    server.rule = lambda call: Says("?")
    node = judged(bench, scorer(server), [[["ab"]], [["abc", "ABC"]]])
    with pytest.raises(StageFailed, match="openai left answers without a reward in each of the 2 questions"):
        bench.make(node)
    with pytest.raises(StageFailed, match="found the pairwise reward lab"):
        bench.make(judged(bench, LabChecker(pairwise=True), [[["ab"]], [["abc", "ABC"]]]))


# ---------------------------------------------------------------------------- keys, shards, models


def test_keys_hold_what_models_are_and_not_where_they_lie():
    def key(path, fingerprints=("one", "two"), **server):
        members = (ArmoRM(path=path), SequenceClassification(path="x"), OpenAIScorer(model="m", **server))
        spec = score.Spec(reward=Ensemble(members=members), fingerprints=fingerprints, responses=2, fraction=1.0)
        return Node(spec, "round 1").identity.key

    assert key("here") == key("there", base_url="http://elsewhere", concurrency=1)
    assert key("here") != key("here", fingerprints=("one", "other"))
    assert "fingerprints" not in score.Spec(reward=LabChecker(), responses=2, fraction=1.0).parameters()


def test_models_are_sharded_and_rules_and_servers_need_one_process():
    def parallel(reward):
        return score.Spec(reward=reward, responses=2, fraction=1.0).parallel

    server = OpenAIScorer(model="m")
    assert [parallel(reward) for reward in (LabChecker(), server, Ensemble(members=(LabChecker(), server)))] == ["one"] * 3
    assert [parallel(reward) for reward in (ArmoRM(), PairRM(), Ensemble(members=(ArmoRM(), server)))] == ["shards"] * 3


@pytest.mark.slow
def test_models_score_in_shards_and_what_was_too_long_for_them_is_counted(bench, lab, tiny_reward, tmp_path):
    from tests.inference.tiny_reward_models import tiny_armorm, tiny_pairrm

    members = (
        SequenceClassification(path=str(tiny_reward), dtype="float32", max_length=20),
        ArmoRM(path=str(tiny_armorm(tmp_path / "armorm")), dtype="float32"),
    )
    alone = [scored(lab, member) for member in members]
    together = scored(lab, Ensemble(members=members, weights=(1.0, 3.0)))
    counted = [bench.make(node, shards=2, chunk=5).manifest["records"]["set_aside"] for node in (*alone, together)]
    cut = {"text cut to the length of the reward model": 64}
    assert counted == [cut, {}, cut]
    first, second, both = ([r["rewards"] for r in bench.read(node, "rewards.jsonl")] for node in (*alone, together))
    for one, other, mixed in zip(first, second, both, strict=True):
        assert mixed == pytest.approx([(a + 3 * b) / 4 for a, b in zip(one, other, strict=True)], abs=1e-4)

    pairrm = PairRM(path=str(tiny_pairrm(tmp_path / "pairrm")), source_tokens=6, candidate_tokens=40)
    compared = scored(lab, pairrm)
    assert bench.make(compared, shards=2, chunk=5).manifest["records"]["set_aside"] == {
        "text cut to the length of the reward model": 16
    }
    for record in bench.read(compared, "rewards.jsonl"):
        assert "cut" not in record
        assert record["rewards"] == pytest.approx([sum(row) / 4 for row in record["preferences"]])
