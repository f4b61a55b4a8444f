"""Small question sets, judge prompts and reference answers in the official formats, all made up; and a judge for them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.judge_server import Call, Says

ALPACA_PROMPT = """<|im_start|>system
Which of two outputs is better?
<|im_end|>
<|im_start|>user
Asked: {instruction}
m said: {output_1}
M said: {output_2}
Answer m or M.
<|im_end|>
"""
ARENA_CONFIG = {
    "judge_model": "judge-1",
    "baseline_model": "base",
    "temperature": 0,
    "max_tokens": 64,
    "number_of_judgment_attempts": 2,
    "regex_pattern": r"\[\[([AB<>=]+)\]\]",
    "system_prompt": "Compare two answers and end with a label such as [[A>B]].",
    "prompt_template": ["Arena question: {question_1}\nA: {answer_1}\nB: {answer_2}"],
}
MT_PROMPTS = {
    "single-v1": "Rate {answer} as an answer to {question}.",
    "single-math-v1": "Rate {answer} as an answer to {question}; right is {ref_answer_1}.",
    "single-v1-multi-turn": "Rate the second: {question_1} {answer_1} {question_2} {answer_2}",
    "single-math-v1-multi-turn": "Rate: {question_1} {ref_answer_1} {question_2} {ref_answer_2} {answer_1} {answer_2}",
}


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def alpaca_eval(folder: Path, count: int = 4) -> dict[str, str]:
    """Files of a made-up AlpacaEval, by role."""
    rows = [
        {"instruction": f"Name fruit number {i}.", "output": "apple " * (i + 1), "generator": "base", "dataset": "own"}
        for i in range(count)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "outputs.json").write_text(json.dumps(rows))
    (folder / "prompt.txt").write_text(ALPACA_PROMPT)
    return {"questions": str(folder / "outputs.json"), "prompt": str(folder / "prompt.txt")}


def arena_hard(folder: Path, count: int = 4) -> dict[str, str]:
    """Files of a made-up Arena-Hard v0.1, by role."""
    questions = [{"uid": f"q{i}", "category": "own", "cluster": "none", "prompt": f"Sort list {i}."} for i in range(count)]
    answers = [
        {"uid": row["uid"], "model": "base",
         "messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": {"answer": "one two"}}]}
        for row in questions
    ]  # fmt: skip
    (folder / "config.yaml").parent.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(ARENA_CONFIG))
    return {
        "questions": str(write_rows(folder / "question.jsonl", questions)),
        "baseline": str(write_rows(folder / "base.jsonl", answers)),
        "prompt": str(folder / "config.yaml"),
    }


def mt_bench(folder: Path) -> dict[str, str]:
    """Files of a made-up MT-Bench, by role: one question without and one with a reference answer."""
    questions = [
        {"question_id": 1, "category": "writing", "turns": ["Write a line.", "Now shorter."]},
        {"question_id": 2, "category": "math", "turns": ["What is 2 + 3?", "And 2 * 3?"]},
    ]
    references = [{"question_id": 2, "model_id": "base", "choices": [{"index": 0, "turns": ["5", "6"]}]}]
    prompts = [
        {"name": name, "type": "single", "system_prompt": "You rate.", "prompt_template": text, "output_format": "[[rating]]"}
        for name, text in MT_PROMPTS.items()
    ]
    return {
        "questions": str(write_rows(folder / "question.jsonl", questions)),
        "prompt": str(write_rows(folder / "judge_prompts.jsonl", prompts)),
        "reference": str(write_rows(folder / "reference.jsonl", references)),
    }


def judge(call: Call) -> Says:
    """A judge of all three: by the length of the prompt, so that it differs by question and never between runs."""
    size = len(call.prompt) % 10
    if "m said" in call.prompt:
        p = (size + 1) / 12
        return Says("m", top={"m": math.log(p), "M": math.log(1 - p)})
    if "Arena question" in call.prompt:
        return Says(("Well: [[A>>B]]", "Well: [[A>B]]", "Well: [[A=B]]", "Well: [[B>A]]", "Well: [[B>>A]]")[size // 2])
    return Says(f"Fine. Rating: [[{1 + size}]]")
