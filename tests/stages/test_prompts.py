"""Base prompts: stable ids, each once, and nothing dropped without being counted and kept."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eva_hpc.config.benchmark import LabBenchmark
from eva_hpc.config.recipe import FilePrompts, HubPrompts, LabPrompts
from eva_hpc.plan.graph import Node
from eva_hpc.stages import prompts, questions
from eva_hpc.stages.contract import StageFailed
from eva_hpc.stages.prompts import first_user_turn, select_prompts
from eva_hpc.store.records import read_jsonl
from eva_hpc.store.seeds import content_id

TEXTS = ["Write a poem.", "Explain rain.", "Add 2 and 3.", "Name a river.", "Sort these: b a."]


def select(values, out, limit=None, max_tokens=None, **more):
    out.mkdir(parents=True, exist_ok=True)
    return select_prompts(values, out, origin="here", length=len, max_tokens=max_tokens, limit=limit, **more)


def kept(out):
    return [prompt["prompt"] for prompt in read_jsonl(out / "prompts.jsonl")]


def test_the_id_of_a_prompt_is_that_of_its_text(tmp_path):
    select(TEXTS, tmp_path)
    assert [prompt["id"] for prompt in read_jsonl(tmp_path / "prompts.jsonl")] == [content_id(text) for text in TEXTS]


def test_empty_and_repeated_and_long_prompts_are_set_aside_kept_and_counted(tmp_path):
    values = ["Write a poem.", "", "  \n", None, 7, "Write a poem.", "x" * 30, "Explain rain."]
    counts = select(values, tmp_path, max_tokens=20)
    assert kept(tmp_path) == ["Write a poem.", "Explain rain."]
    assert (counts.read, counts.written) == (8, 2)
    assert counts.set_aside == {"empty": 4, "duplicate": 1, "too long": 1}
    aside = read_jsonl(tmp_path / "set_aside.jsonl")
    assert len(aside) == 6
    assert [record["row"] for record in aside if record["reason"] == "duplicate"] == [6]
    assert [record["prompt"] for record in aside if record["reason"] == "too long"] == ["x" * 30]


def test_read_is_written_plus_set_aside_also_with_a_limit(tmp_path):
    counts = select([*TEXTS, "", TEXTS[0]], tmp_path, limit=2)
    assert counts.set_aside["beyond the limit"] == 3
    assert counts.read == counts.written + sum(counts.set_aside.values())


def test_a_limited_sample_does_not_depend_on_the_order_in_the_file(tmp_path):
    texts = [f"Prompt number {index}" for index in range(40)]
    select(texts, tmp_path / "a", limit=7)
    random.Random(3).shuffle(texts)
    select(texts, tmp_path / "b", limit=7)
    assert set(kept(tmp_path / "a")) == set(kept(tmp_path / "b"))


def test_a_smaller_limit_is_part_of_a_larger_one(tmp_path):
    texts = [f"Prompt number {index}" for index in range(40)]
    for limit in (5, 9):
        select(texts, tmp_path / str(limit), limit=limit)
    assert set(kept(tmp_path / "5")) < set(kept(tmp_path / "9"))


@given(st.integers(1, 40), st.integers(1, 12), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_splits_share_no_prompt_leave_none_out_and_do_not_depend_on_the_order(tmp_path, count, limit, draw):
    texts = [f"Prompt number {index}" for index in range(count)]
    seen = []
    for split in range(-(-count // limit)):
        draw.shuffle(texts)
        counts = select(texts, tmp_path, limit=limit, split=split)
        assert counts.written == min(limit, count - split * limit)
        assert counts.read == counts.written + sum(counts.set_aside.values())
        seen += kept(tmp_path)
    assert sorted(seen) == sorted(texts)


def test_the_first_split_is_what_there_is_without_further_ones(tmp_path):
    texts = [f"Prompt number {index}" for index in range(20)]
    select(texts, tmp_path / "a", limit=6)
    select(texts, tmp_path / "b", limit=6, split=0)
    assert kept(tmp_path / "a") == kept(tmp_path / "b")


def test_prompts_of_other_splits_are_counted_as_such(tmp_path):
    assert select(TEXTS, tmp_path, limit=2, split=1).set_aside == {"in another sample": 3}


def test_a_source_without_prompts_for_a_round_says_how_many_it_has(tmp_path):
    with pytest.raises(
        StageFailed, match="no prompt is left for this round: the source has 5 that can be used, for 3 samples of 2 before it"
    ):
        select(TEXTS, tmp_path, limit=2, split=3)


def test_what_contains_an_evaluation_question_is_set_aside_before_the_splits_are_cut(tmp_path):
    texts = [f"Prompt number {index}" for index in range(10)]
    leaky = {texts[3]: "Prompt …", texts[8]: "Prompt …"}
    seen = []
    for split in range(2):
        counts = select(texts, tmp_path, limit=4, split=split, contaminated=leaky.get)
        assert counts.set_aside["contains an evaluation question"] == 2
        seen += kept(tmp_path)
    assert sorted(seen) == [text for text in texts if text not in leaky]


def test_a_limit_above_the_number_of_prompts_keeps_all(tmp_path):
    assert select(TEXTS, tmp_path, limit=100).set_aside == {}
    assert kept(tmp_path) == TEXTS


@pytest.mark.parametrize(("values", "message"), [([], "none of the 0"), (["", " "], "none of the 2 .* 2 empty")])
def test_no_usable_prompt_is_a_failure_that_says_why(tmp_path, values, message):
    with pytest.raises(StageFailed, match=message):
        select(values, tmp_path)


def test_the_first_user_turn_of_a_conversation_is_the_prompt():
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Bye."},
    ]
    assert first_user_turn(conversation) == "Hello?"
    assert first_user_turn(conversation[:1]) == ""
    assert first_user_turn([{"role": "user", "content": None}, 3]) == ""
    assert first_user_turn([]) == ""


def test_lab_prompts_are_distinct_tasks_that_the_checker_knows(bench):
    from eva_hpc.lab.checker import answer

    node = Node(prompts.Spec(source=LabPrompts(count=30, levels=(1, 5), seed=3)), "start")
    artifact = bench.make(node)
    records = bench.read(node, "prompts.jsonl")
    assert len({record["id"] for record in records}) == 30
    assert all(answer(record["prompt"]) for record in records)
    assert artifact.manifest["records"] == {"in": 30, "out": 30, "set_aside": {}}


def write(path, values, column="prompt"):
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({column: values}), path)
    else:
        path.write_text("".join(json.dumps({column: value}) + "\n" for value in values))
    return path


@pytest.mark.slow
def test_planted_evaluation_questions_are_found_whatever_stands_around_them(bench, policy_of, tokenizer_only, tmp_path):
    question = "Which three rivers of northern Europe flow into the Baltic Sea and freeze over in a hard winter?"
    half = "Write about towns. Which three rivers of northern Europe flow into the Baltic Sea and why?"
    values = [*TEXTS, question.upper(), f"Hello! {question} Be brief.", half, "Which rivers flow into the sea?"]
    held_out = Node(questions.Spec(benchmark=LabBenchmark()), "start")
    bench.put(held_out, "questions.jsonl", [{"id": "1", "category": "all", "turns": ["Name a colour.", question]}])
    plain = from_file(write(tmp_path / "p.jsonl", values), policy_of(tokenizer_only))
    spec = plain.spec.model_copy(update={"contamination": 0.5})
    node = Node(spec, "start", {**plain.inputs, "questions_0": held_out})

    assert bench.make(node).manifest["records"]["set_aside"] == {"contains an evaluation question": 3}
    assert [record["prompt"] for record in bench.read(node, "prompts.jsonl")] == [*TEXTS, "Which rivers flow into the sea?"]
    assert {record["of"] for record in bench.read(node, "set_aside.jsonl")} == {" ".join(question.split()[:8]) + " …"}


def test_splits_of_the_lab_are_disjoint_and_a_longer_source_has_the_same_ones(bench):
    def texts(count, split):
        node = Node(prompts.Spec(source=LabPrompts(count=count), split=split), "start")
        bench.make(node)
        return [prompt["prompt"] for prompt in bench.read(node, "prompts.jsonl")]

    splits = [texts(8, split) for split in range(3)]
    assert [len(split) for split in splits] == [8, 8, 8]
    assert splits[0] + splits[1] + splits[2] == texts(24, 0)
    assert len(set(texts(24, 0))) == 24


def from_file(path, policy, **source):
    return Node(prompts.Spec(source=FilePrompts(path=str(path), **source), fingerprint=path.name), "start", {"policy": policy})


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_prompts_of_a_file_are_read(bench, policy_of, tokenizer_only, tmp_path, ending):
    values = [*TEXTS, "", TEXTS[0], None, "日本語 🙂\nsecond line", "word " * 600]
    node = from_file(write(tmp_path / f"prompts.{ending}", values), policy_of(tokenizer_only), max_tokens=200)
    artifact = bench.make(node)
    assert [record["prompt"] for record in bench.read(node, "prompts.jsonl")] == [*TEXTS, "日本語 🙂\nsecond line"]
    assert artifact.manifest["records"] == {"in": 10, "out": 6, "set_aside": {"empty": 2, "duplicate": 1, "too long": 1}}
    assert set(artifact.manifest["files"]) == {"prompts.jsonl", "set_aside.jsonl"}


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_column_of_conversations_is_read(bench, policy_of, tokenizer_only, tmp_path, ending):
    values = [[{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}] for text in TEXTS]
    file = write(tmp_path / f"chats.{ending}", values, "messages")
    node = from_file(file, policy_of(tokenizer_only), column="messages", limit=3)
    bench.make(node)
    assert {record["prompt"] for record in bench.read(node, "prompts.jsonl")} < set(TEXTS)


@pytest.mark.slow
def test_prompts_that_leave_the_model_no_room_are_too_long_whatever_the_recipe_says(bench, policy_of, tokenizer_only, tmp_path):
    node = from_file(write(tmp_path / "p.jsonl", ["short", "日" * 400]), policy_of(tokenizer_only), max_tokens=100_000)
    assert bench.make(node).manifest["records"]["set_aside"] == {"too long": 1}


@pytest.mark.slow
def test_a_missing_column_is_a_failure_that_lists_the_columns(bench, policy_of, tokenizer_only, tmp_path):
    node = from_file(write(tmp_path / "p.jsonl", TEXTS, "text"), policy_of(tokenizer_only))
    with pytest.raises(StageFailed, match="no column 'prompt'; they have text"):
        bench.make(node)


def test_a_hub_dataset_is_read_by_name_split_and_column(tmp_path):
    """A folder with data files is to `datasets` what a hub name is."""
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:3]))
    (tmp_path / "org" / "test.jsonl").write_text(json.dumps({"text": TEXTS[4]}) + "\n")
    source = HubPrompts(name=str(tmp_path / "org"), split="train", column="text")

    assert prompts.read_column(source, "hub:org", tmp_path / "cache") == TEXTS[:3]
