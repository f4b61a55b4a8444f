"""What a sweep will ask of judges, before there is any answer to count: requests, tokens, and the price where one is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eva_hpc.config.benchmark import USUAL_TOKENS
from eva_hpc.plan.plan import Task
from eva_hpc.plan.work import QUESTIONS

STAGE = "ask_judge"
REQUESTS: Mapping[str, int] = {"alpaca_eval": 1, "arena_hard": 2, "mt_bench": 2}
"""About one answer: AlpacaEval has one, Arena-Hard two games, MT-Bench two turns."""


@dataclass(frozen=True)
class JudgeCalls:
    """What one judge is still to be asked; `price` is None where the recipe names none."""

    judge: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    price: float | None

    def __str__(self) -> str:
        text = (
            f"judge {self.judge}: about {self.requests:,} requests, {self.prompt_tokens / 1e6:.1f} million tokens in, "
            f"{self.completion_tokens / 1e6:.1f} million out"
        )
        return text if self.price is None else f"{text}, at a price of about {self.price:,.0f}"


def judge_calls(plan_tasks: Sequence[Task], pending: Sequence[Task]) -> list[JudgeCalls]:
    """One for each judge that is still to be asked. Answers that the judge's cache holds cost less than is told here.

    Args:
        plan_tasks: all tasks of the plan.
        pending: those that are still to do.
    """
    by_identity = {task.identity: task for task in plan_tasks}
    sums: dict[str, list[float]] = {}
    for task in pending:
        if task.stage != STAGE:
            continue
        spec, asked = task.spec, by_identity[task.inputs["questions"]].spec
        judge, kind = spec["judge"], spec["kind"]
        count = QUESTIONS[kind, spec["edition"]]
        requests = min(count, asked["limit"] or count) * REQUESTS[kind] * judge["repeats"] * (2 if spec["both_orders"] else 1)
        tokens = [requests * each for each in USUAL_TOKENS[kind]]
        price = judge["price"]
        cost = (tokens[0] * price["input"] + tokens[1] * price["output"]) / 1e6 if price else float("nan")
        sums[judge["model"]] = [
            a + b for a, b in zip(sums.get(judge["model"], [0.0] * 4), (requests, *tokens, cost), strict=True)
        ]
    return [
        JudgeCalls(judge, round(requests), round(prompt), round(completion), None if price != price else price)
        for judge, (requests, prompt, completion, price) in sums.items()
    ]
