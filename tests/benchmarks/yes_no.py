"""A made-up judged benchmark, and a process that judges it and may be killed.

    python -m tests.benchmarks.yes_no URL CACHE-FOLDER NUMBER-OF-QUESTIONS

The judge is asked about each of two turns; it says [[A]] or [[B]], and is asked a second time if it says neither.
"""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from eva_hpc.benchmarks.files import Row
from eva_hpc.benchmarks.judging.consult import JudgeServer, consult
from eva_hpc.benchmarks.judging.protocol import Ask, JudgedQuestion, ModelAnswer, Reply
from eva_hpc.inference.completion_cache import CompletionCache
from eva_hpc.inference.openai_client import RetryPolicy
from eva_hpc.training.interrupt import Interrupted

SAVED = 75
PARAMETERS = {"temperature": 0, "max_tokens": 16, "logprobs": True, "top_logprobs": 2}
QUICK = RetryPolicy(attempts=2, timeout_s=20.0, first_wait_s=0.01, longest_wait_s=0.02)


class YesNo:
    """Two requests per answer, none where the model gave no answer."""

    def asks(self, question: JudgedQuestion, answer: ModelAnswer) -> list[Ask]:
        if answer["turns"][0] is None:
            return []
        return [
            Ask(f"turn {turn}", ({"role": "user", "content": f"turn {turn} of {question['id']}: {text}"},), PARAMETERS)
            for turn, text in enumerate(answer["turns"], start=1)
        ]

    def again(self, ask: Ask, reply: Reply) -> Ask | None:
        if self.problem(reply) is None:
            return None
        return Ask(ask.name, (*ask.messages, {"role": "user", "content": "Say [[A]] or [[B]]."}), ask.parameters)

    def rows(self, question: JudgedQuestion, answer: ModelAnswer, replies: Sequence[Reply], judge: str) -> list[Row]:
        if not replies:
            return [{"question_id": question["id"], "status": "no_answer", "judge": judge}]
        return [
            {
                "question_id": question["id"],
                "judge": judge,
                "judgment": reply.text,
                "status": "failed" if reply.failure else "unparsed" if self.problem(reply) else "judged",
                "detail": reply.failure,
            }
            for reply in replies
        ]

    def problem(self, reply: Reply) -> str | None:
        return None if re.search(r"\[\[[AB]\]\]", reply.text) else "no label"


def items(count: int) -> list[tuple[JudgedQuestion, ModelAnswer]]:
    """Questions with answers of two turns."""
    return [
        (
            JudgedQuestion(id=f"q{i}", category="c", turns=["t", "t"], baseline=None, baseline_model=None, reference=None),
            ModelAnswer(question_id=f"q{i}", model="m", turns=[f"answer {i}", f"more {i} \u2028 日本"]),
        )
        for i in range(count)
    ]


def judge_at(url: str, concurrency: int = 3, retry: RetryPolicy = QUICK) -> JudgeServer:
    return JudgeServer("judge-1", url, "sk-key-of-the-test", concurrency, retry)


def main(url: str, folder: str, count: int) -> None:
    told = threading.Event()

    def tell(*_: object) -> None:
        told.set()
        print("told", flush=True)

    signal.signal(signal.SIGTERM, tell)
    cache = CompletionCache(Path(folder), writer="one")
    try:
        consult(YesNo(), items(count), judge_at(url), cache, judge="j", stop=told.is_set)
    except Interrupted:
        sys.exit(SAVED)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
