"""Questions, answers, judgments and numbers of a policy in the lab."""

from __future__ import annotations

import pytest

from eva_hpc.config.benchmark import LabBenchmark, RewardBenchmark
from eva_hpc.config.recipe import FilePrompts, Generation, LabChecker, SequenceClassification
from eva_hpc.lab.checker import dialogue_rewards
from eva_hpc.lab.tasks import split_of
from eva_hpc.plan.graph import Node
from eva_hpc.stages import answer, evaluate, judge, questions
from eva_hpc.stages.contract import StageFailed
from eva_hpc.stages.questions import lab_questions

BENCHMARK = LabBenchmark(prompts=3, samples=2)
DECODING = Generation(temperature=1.0, top_p=1.0, max_new_tokens=12)


@pytest.mark.parametrize("split", ["test", "tune"])
@pytest.mark.parametrize("count", [1, 40, 300])
def test_every_question_is_asked_once_and_every_category_has_its_count(split, count):
    asked = lab_questions(LabBenchmark(prompts=count, split=split))
    assert len({question["id"] for question in asked}) == len(asked) == 4 * count
    for category in ("easy", "medium", "hard", "dialogue"):
        of_category = [question for question in asked if question["category"] == category]
        assert len(of_category) == count
        assert {len(question["turns"]) for question in of_category} == {2 if category == "dialogue" else 1}
    assert {split_of(question["turns"][0]) for question in asked} == {split}


def test_fewer_questions_are_the_first_of_more():
    few, many = (lab_questions(LabBenchmark(prompts=count)) for count in (5, 30))
    for category in ("easy", "dialogue"):
        first = [question for question in few if question["category"] == category]
        assert first == [question for question in many if question["category"] == category][:5]


# ---------------------------------------------------------------------------- with a real policy


@pytest.fixture(scope="module")
def start(policy_of, random_lab_policy):
    return policy_of(random_lab_policy)


ASKED = Node(questions.Spec(benchmark=BENCHMARK), "evaluation")


def answers(policy, seed=0, samples=2, greedy=True, asked=ASKED):
    spec = answer.Spec(generation=DECODING, samples=samples, greedy=greedy, seed=seed)
    return Node(spec, "evaluation", {"policy": policy, "questions": asked})


def judgments(answered, asked=ASKED, reward=LabChecker()):
    return Node(judge.Spec(reward=reward), "evaluation", {"questions": asked, "answers": answered})


@pytest.mark.slow
def test_every_question_is_answered_turn_by_turn(shared_bench, start):
    node = answers(start)
    shared_bench.make(node, chunk=5)
    asked = shared_bench.read(ASKED, "questions.jsonl")
    given = shared_bench.read(node, "answers.jsonl")
    assert [record["question_id"] for record in given] == [question["id"] for question in asked]
    for question, record in zip(asked, given, strict=True):
        assert len(record["samples"]) == 2
        assert {len(turns) for turns in [*record["samples"], record["greedy"]]} == {len(question["turns"])}


@pytest.mark.slow
def test_answers_do_not_depend_on_shards_or_chunks_and_greedy_ones_not_on_the_seed(shared_bench, bench, start):
    node = answers(start)
    shared_bench.make(node, chunk=5)
    expected = shared_bench.read(node, "answers.jsonl")
    bench.make(node, shards=2, chunk=4)
    assert bench.read(node, "answers.jsonl") == expected
    other = answers(start, seed=5)
    bench.make(other)
    found = bench.read(other, "answers.jsonl")
    assert [record["greedy"] for record in found] == [record["greedy"] for record in expected]
    assert [record["samples"] for record in found] != [record["samples"] for record in expected]


@pytest.mark.slow
def test_judgments_are_the_checkers_for_every_turn_of_every_answer(shared_bench, start):
    node = judgments(answers(start))
    shared_bench.make(node, chunk=5)
    asked = shared_bench.read(ASKED, "questions.jsonl")
    given = shared_bench.read(answers(start), "answers.jsonl")
    for question, record, judged in zip(asked, given, shared_bench.read(node, "judgments.jsonl"), strict=True):
        assert (judged["question_id"], judged["category"]) == (question["id"], question["category"])
        for turns, rewards in zip([*record["samples"], record["greedy"]], [*judged["samples"], judged["greedy"]], strict=True):
            for last, value in enumerate(rewards):
                texts = [turn["text"] for turn in turns[: last + 1]]
                finished = turns[last]["finish"] == "stop"
                assert value == dialogue_rewards(question["turns"][: last + 1], texts, finished)[-1]


@pytest.mark.slow
def test_the_start_policy_against_its_own_answers_gains_nothing(shared_bench, start):
    own = judgments(answers(start))
    node = Node(evaluate.Spec(scale=100.0), "evaluation", {"questions": ASKED, "judgments": own, "reference": own})
    shared_bench.make(node, chunk=5)
    metrics = {metric["metric"]: metric for metric in shared_bench.read(node, "metrics.jsonl")}
    assert metrics["win_rate"]["value"] == 50
    assert metrics["gain"]["value"] == 0
    assert metrics["reward"]["n"] == 12
    assert 0 <= metrics["reward"]["value"] <= 100
    assert {metric["coverage"] for metric in metrics.values()} == {1.0}


@pytest.fixture(scope="module")
def broken_reward(tiny_reward, tmp_path_factory):
    """A reward model whose logit is not a number, as half precision gives when it overflows."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = tmp_path_factory.mktemp("models") / "broken"
    AutoTokenizer.from_pretrained(tiny_reward).save_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_reward)
    with torch.no_grad():
        model.score.weight.fill_(float("nan"))
    model.save_pretrained(path)
    return path


@pytest.mark.slow
def test_rewards_that_are_no_numbers_fail_the_stage(shared_bench, start, broken_reward):
    node = judgments(answers(start), reward=SequenceClassification(path=str(broken_reward), dtype="float32"))
    with pytest.raises(StageFailed, match="gave 45 of 45 rewards that are no finite numbers"):
        shared_bench.make(node, chunk=100)


@pytest.mark.slow
def test_questions_of_a_file_are_answered_and_judged_by_a_reward_model(shared_bench, start, tiny_reward, tmp_path):
    path = tmp_path / "heldout.jsonl"
    path.write_text('{"prompt": "Reverse: kapol"}\n{"prompt": ""}\n{"prompt": "Upper: lima"}\n')
    benchmark = RewardBenchmark(path=str(path), samples=2)
    asked = Node(questions.Spec(benchmark=benchmark, fingerprint="x"), "evaluation", {"policy": start})
    answered = answers(start, greedy=False, asked=asked)
    reward = SequenceClassification(path=str(tiny_reward), dtype="float32")
    final, reference = (judgments(answers(start, seed, greedy=False, asked=asked), asked, reward) for seed in (1, 0))
    node = Node(evaluate.Spec(scale=1.0), "evaluation", {"questions": asked, "judgments": final, "reference": reference})
    shared_bench.make(node)
    assert shared_bench.store.find(asked.identity).manifest["records"] == {"in": 3, "out": 2, "set_aside": {"empty": 1}}
    assert [record["greedy"] for record in shared_bench.read(answered, "answers.jsonl")] == [None, None]
    assert [metric["metric"] for metric in shared_bench.read(node, "metrics.jsonl")] == ["win_rate", "reward", "gain"]


def test_the_reader_of_questions_takes_what_the_reader_of_prompts_takes():
    """A field added to one would otherwise be forgotten in the other."""
    shared = set(FilePrompts.model_fields) - {"kind"}
    assert shared <= set(RewardBenchmark.model_fields)
