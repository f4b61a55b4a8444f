"""What MT-Bench's judge is asked, and the rows that its replies become."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eva_hpc.benchmarks.files import read_rows
from eva_hpc.benchmarks.judging.protocol import Ask, Reply
from eva_hpc.benchmarks.mt_bench.judging import MTBench
from eva_hpc.benchmarks.mt_bench.questions import read_questions, read_references
from eva_hpc.benchmarks.mt_bench.score import score
from eva_hpc.config.errors import ConfigError

TEMPLATES = {
    "single-v1": "Q {question} A {answer}",
    "single-math-v1": "Q {question} R {ref_answer_1} A {answer}",
    "single-v1-multi-turn": "Q1 {question_1} A1 {answer_1} Q2 {question_2} A2 {answer_2}",
    "single-math-v1-multi-turn": "R1 {ref_answer_1} R2 {ref_answer_2} Q1 {question_1} A1 {answer_1} "
    "Q2 {question_2} A2 {answer_2}",
}


def write_prompts(path, templates=TEMPLATES, **more):
    rows = [
        {"name": name, "system_prompt": f"system of {name}", "prompt_template": text, **more}
        for name, text in templates.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return MTBench(write_prompts(tmp_path_factory.mktemp("prompts") / "judge_prompts.jsonl"), reference_model="gpt-4")


def question(turns=("one?", "two?"), category="writing", reference=None, name="81"):
    empty = {"baseline": None, "baseline_model": None}
    return {"id": name, "category": category, "turns": list(turns), "reference": reference, **empty}


def answer(*turns):
    return {"question_id": "81", "model": "m", "turns": list(turns)}


def reply(text="Rating: [[7]]", **more):
    return Reply(text=text, choice={"finish_reason": "stop"}, model="judge-0613", **more)


def test_each_turn_is_asked_for_once(bench):
    first, second = bench.asks(question(), answer("un", "deux"))
    assert (first.name, second.name) == ("turn 1", "turn 2")
    assert first.messages == (
        {"role": "system", "content": "system of single-v1"},
        {"role": "user", "content": "Q one? A un"},
    )
    assert second.messages == (
        {"role": "system", "content": "system of single-v1-multi-turn"},
        {"role": "user", "content": "Q1 one? A1 un Q2 two? A2 deux"},
    )
    assert first.parameters == second.parameters == {"temperature": 0, "max_tokens": 2048}


@pytest.mark.parametrize("category", ["math", "reasoning", "coding"])
def test_some_categories_are_judged_with_a_reference_answer(bench, category):
    asked = question(category=category, reference=["ref 1", "ref 2"])
    first, second = bench.asks(asked, answer("un", "deux"))
    assert first.messages[-1]["content"] == "Q one? R ref 1 A un"
    assert second.messages[-1]["content"] == "R1 ref 1 R2 ref 2 Q1 one? A1 un Q2 two? A2 deux"
    rows = bench.rows(asked, answer("un", "deux"), [reply(), reply()], "judge")
    assert [row["judge"] for row in rows] == [["judge", "single-math-v1"], ["judge", "single-math-v1-multi-turn"]]
    assert [row["reference"] for row in rows] == ["gpt-4", "gpt-4"]
    with pytest.raises(ConfigError, match="no reference answer for question 81"):
        bench.asks(question(category=category, reference=["only one"]), answer("un", "deux"))


def test_extraction_is_judged_without_a_reference_even_if_there_is_one(bench):
    first, _ = bench.asks(question(category="extraction", reference=["r", "r"]), answer("un", "deux"))
    assert first.messages[-1]["content"] == "Q one? A un"


def test_replies_become_rows_in_fastchats_format(bench):
    said = [reply("Good. Rating: [[7]]"), reply("Worse. [[6.5]]", prompt_tokens=9, completion_tokens=4)]
    first, second = bench.rows(question(), answer("un", "deux"), said, "judge")
    assert first == {
        "question_id": 81,
        "model": "m",
        "judge": ["judge", "single-v1"],
        "user_prompt": "Q one? A un",
        "judgment": "Good. Rating: [[7]]",
        "score": 7,
        "turn": 1,
        "status": "judged",
        "detail": None,
        "repeat": 0,
        "replies": [
            {
                "text": "Good. Rating: [[7]]",
                "choice": {"finish_reason": "stop"},
                "model": "judge-0613",
                "system_fingerprint": None,
                "prompt_tokens": 0,
                "completion_tokens": 0,
                "failure": None,
                "earlier": None,
            }
        ],
    }
    assert (second["score"], second["turn"], second["user_prompt"]) == (6.5, 2, "Q1 one? A1 un Q2 two? A2 deux")
    assert second["replies"][0]["prompt_tokens"] == 9


def test_a_failed_call_is_told_from_a_reply_without_rating(bench):
    failed, unparsed = bench.rows(
        question(), answer("un", "deux"), [Reply(failure="429 for 10 minutes"), reply("Nice!")], "judge"
    )
    told = [failed[key] for key in ("judgment", "score", "status", "detail")]
    assert told == ["$ERROR$", -1, "failed", "429 for 10 minutes"]
    assert failed["replies"][0]["failure"] == "429 for 10 minutes"
    told = [unparsed[key] for key in ("judgment", "score", "status", "detail")]
    assert told == ["Nice!", -1, "unparsed", "no rating such as [[5]] in 'Nice!'"]


@pytest.mark.parametrize(
    ("turns", "judged"), [((None, None), 0), (("un", None), 1), (("un",), 1), ((None, "deux"), 0), ((), 0)]
)
def test_a_turn_without_an_answer_is_not_judged(bench, turns, judged):
    asks = bench.asks(question(), answer(*turns))
    assert len(asks) == judged
    rows = bench.rows(question(), answer(*turns), [reply() for _ in asks], "judge")
    assert [row["status"] for row in rows] == (["judged"] * judged + ["no_answer"] * 2)[:2]
    assert rows[1]["detail"] == "the model gave no answer to turn 2"
    assert [rows[1][key] for key in ("score", "judgment", "user_prompt", "replies", "turn")] == [-1, "", "", [], 2]


def test_an_empty_answer_is_an_answer(bench):
    first, _ = bench.asks(question(), answer("", "deux"))
    assert first.messages[-1]["content"] == "Q one? A "


def test_an_answer_is_shown_as_it_stands(bench):
    first, second = bench.asks(question(), answer("\n un ", "deux\n"))
    assert first.messages[-1]["content"] == "Q one? A \n un "
    assert second.messages[-1]["content"] == "Q1 one? A1 \n un  Q2 two? A2 deux\n"


def test_a_question_of_one_turn_is_asked_once(bench):
    asked = question(["one?"], name="own-1")
    assert [ask.name for ask in bench.asks(asked, answer("un", "too much"))] == ["turn 1"]
    (row,) = bench.rows(asked, answer("un"), [reply()], "judge")
    assert row["question_id"] == "own-1"


@given(st.text(), st.text())
@settings(max_examples=60)
def test_braces_are_harmless(bench, asked, said):
    odd = "{answer} {0} {question!r} {{x}} {"
    first, second = bench.asks(question([odd + asked, "two?"]), answer(odd + said, "}"))
    assert first.messages[-1]["content"] == f"Q {odd}{asked} A {odd}{said}"
    assert second.messages[-1]["content"] == f"Q1 {odd}{asked} A1 {odd}{said} Q2 two? A2 }}"


def test_there_is_no_second_request_and_the_length_of_judgments_may_be_changed(tmp_path, bench):
    longer = MTBench(write_prompts(tmp_path / "prompts"), max_tokens=8192)
    (ask, _) = longer.asks(question(), answer("un", "deux"))
    assert ask.parameters == {"temperature": 0, "max_tokens": 8192}
    assert bench.again(ask, reply("no rating")) is None


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (reply(), None),
        (reply("[[0.5]]"), None),
        (reply(""), "no rating such as [[5]] in ''"),
        (reply("x" * 100), f"no rating such as [[5]] in '… {'x' * 80}'"),
        (
            Reply(text="Let me think", choice={"finish_reason": "length"}),
            "no rating within 2048 tokens: the judgment was cut off",
        ),
        (Reply(failure="connection refused"), "connection refused"),
    ],
)
def test_a_probe_finds_what_is_wrong_with_a_judge(bench, said, problem):
    assert bench.problem(said) == problem


def test_an_empty_system_prompt_is_not_sent(tmp_path):
    bench = MTBench(write_prompts(tmp_path / "prompts", system_prompt=""))
    assert [message["role"] for message in bench.asks(question(), answer("un"))[0].messages] == ["user"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"single-v1": None}, "has no prompt single-v1; found single-math-v1, single-v1-multi-turn"),
        (
            {"single-v1": "{question} {reply}"},
            "single-v1: prompt_template: found the fields question, reply; must have answer, question",
        ),
        ({"single-v1": "{question} {answer.__class__}"}, "found the fields answer.__class__, question"),
        ({"single-v1": "{question} {answer} {}"}, "found the fields , answer, question"),
        ({"single-v1": "no fields"}, "found the fields none"),
        ({"single-v1": "{question"}, "single-v1: prompt_template: expected '}'"),
        ({"single-v1": 3}, "single-v1: must have the texts system_prompt and prompt_template"),
    ],
)
def test_prompts_that_cannot_be_filled_in_are_refused(tmp_path, change, message):
    templates = {name: text for name, text in {**TEMPLATES, **change}.items() if text is not None}
    with pytest.raises(ConfigError, match=message.replace("(", r"\(").replace("[", r"\[").replace("}", r"\}")):
        MTBench(write_prompts(tmp_path / "prompts", templates))


def test_rows_are_scored_with_the_reasons_of_what_failed(bench):
    said = [reply("[[9]]"), Reply(failure="timeout")]
    rows = bench.rows(question(), answer("un", "deux"), said, "judge") + bench.rows(
        question(name="82"), answer(None), [], "judge"
    )
    (found,) = score(rows, force=True).values()
    assert (found.numbers["average"], found.failed) == (9, {"API failure": 1, "no answer": 2})


@pytest.mark.parametrize("name", ["Stefanstud", "instructlab"])
def test_real_prompts_are_those_of_the_official_script(shared_data, name):
    """The user prompts of real judgments are found again from question, reference and the answer that stands in them."""
    folder = shared_data / "mt_bench"
    bench = MTBench(folder / "judge_prompts.jsonl")
    questions = {
        q["id"]: q for q in read_questions(folder / "question.jsonl", read_references(folder / "reference_answer_gpt-4.jsonl"))
    }
    prompts = {}
    for row in read_rows(folder / f"judgments/{name}.gpt-4_single.jsonl.gz"):
        prompts[str(row["question_id"]), row["turn"]] = (row["user_prompt"], row["judge"][1])
    for (number, turn), (official, prompt_name) in prompts.items():
        first = between(prompts[number, 1][0], "[The Start of Assistant's Answer]\n", "\n[The End of Assistant's Answer]")
        second = between(
            prompts[number, 2][0],
            f"### User:\n{questions[number]['turns'][1]}\n\n### Assistant A:\n",
            "\n\n<|The End of Assistant A's",
        )
        said = answer(first, second)
        asks = bench.asks(questions[number], said)
        assert asks[turn - 1].messages[-1]["content"] == official
        rows = bench.rows(questions[number], said, [reply(), reply()], "gpt-4")
        assert rows[turn - 1]["judge"] == ["gpt-4", prompt_name]
        assert rows[turn - 1]["user_prompt"] == official


def between(text, start, end):
    return text[text.rindex(start) + len(start) : text.rindex(end)]


def test_an_ask_is_plain_data(bench):
    (ask, _) = bench.asks(question(), answer("un", "deux"))
    assert isinstance(ask, Ask)
    assert json.loads(json.dumps([ask.messages, ask.parameters]))
