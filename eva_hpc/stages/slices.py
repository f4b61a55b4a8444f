"""Reading nested artifacts: the file may hold more responses and more prompts than asked for; these take what was asked."""

from __future__ import annotations

from pathlib import Path

from eva_hpc.method.mixing import share
from eva_hpc.store.records import Responses, Rewards, read_jsonl


def first_responses(responses: Path, prompts: Path, fraction: float, count: int) -> list[Responses]:
    """The first `count` responses to the first `fraction` of the prompts.

    Raises:
        ValueError: the artifact has fewer.
    """
    records: list[Responses] = read_jsonl(responses / "responses.jsonl")
    records = records[: share(len(read_jsonl(prompts / "prompts.jsonl")), fraction)]
    for record in records:
        if len(record["responses"]) < count:
            raise ValueError(f"prompt {record['prompt_id']} has {len(record['responses'])} responses, not {count}")
        record["responses"] = record["responses"][:count]
    return records


def first_rewards(rewards: Path, count: int) -> dict[str, list[float]]:
    """Rewards of the first `count` responses by prompt id.

    Raises:
        ValueError: the artifact has fewer.
    """
    records: list[Rewards] = read_jsonl(rewards / "rewards.jsonl")
    if short := [record["prompt_id"] for record in records if len(record["rewards"]) < count]:
        raise ValueError(f"prompt {short[0]} has fewer than {count} rewards")
    return {record["prompt_id"]: record["rewards"][:count] for record in records}
