"""What judges were asked for a sweep: requests, tokens, and the price where the recipe names one."""

from __future__ import annotations

from eva_hpc.plan.plan import Plan
from eva_hpc.store.artifacts import Store
from eva_hpc.store.records import read_jsonl

STAGE = "ask_judge"


def judge_usage(plan: Plan, store: Store) -> list[str]:
    """One line for each judge. What came from the cache was paid for earlier, and once."""
    sums: dict[str, list[float]] = {}
    for task in plan.tasks:
        artifact = store.find(task.identity) if task.stage == STAGE else None
        if artifact is None:
            continue
        (usage,) = read_jsonl(artifact.folder / "usage.jsonl")
        judge, asked = task.spec["judge"], usage["asked"]
        tokens = asked["prompt_tokens"], asked["completion_tokens"]
        price = judge["price"] or {"input": float("nan"), "output": float("nan")}
        cost = (tokens[0] * price["input"] + tokens[1] * price["output"]) / 1e6
        row = [asked["calls"], usage["from_cache"]["calls"], *tokens, cost]
        sums[judge["model"]] = [a + b for a, b in zip(sums.get(judge["model"], [0.0] * 5), row, strict=True)]
    return [
        f"judge {judge}: {calls:,.0f} requests, {prompt:,.0f} tokens in, {completion:,.0f} out"
        + ("" if cost != cost else f", a price of {cost:,.2f}")
        + (f"; {cached:,.0f} answers were in the cache" if cached else "")
        for judge, (calls, cached, prompt, completion, cost) in sums.items()
    ]
