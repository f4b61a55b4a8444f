"""Reading nested artifacts: the file may hold more responses and more prompts than asked for; these take what was asked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import orjson

from eva_hpc.method.mixing import share
from eva_hpc.method.pairing import of_preferences
from eva_hpc.store.artifacts import write_atomically
from eva_hpc.store.records import Prompt, Responses, Rewards, read_jsonl

WHOLE = "whole.json"


def write_whole(folder: Path, count: int) -> None:
    """Say of how many prompts the ratios are shares, where that is not the number of prompts in the folder."""
    write_atomically(folder / WHOLE, orjson.dumps({"whole": count}))


def first_prompts(folder: Path, fraction: float) -> list[Prompt]:
    """The first `fraction` of the whole; all there are if there are fewer."""
    prompts: list[Prompt] = read_jsonl(folder / "prompts.jsonl")
    whole = orjson.loads((folder / WHOLE).read_bytes())["whole"] if (folder / WHOLE).exists() else len(prompts)
    return prompts[: share(whole, fraction)]


def first_responses(responses: Path, prompts: Path, fraction: float, count: int) -> list[Responses]:
    """The first `count` responses to the first `fraction` of the prompts.

    Raises:
        ValueError: the artifact has fewer.
    """
    return responses_of(responses, (prompt["id"] for prompt in first_prompts(prompts, fraction)), count)


def responses_of(responses: Path, names: Iterable[str], count: int) -> list[Responses]:
    """The first `count` responses to the prompts of these ids, in their order.

    Raises:
        ValueError: a prompt has none, or fewer.
    """
    by_id: dict[str, Responses] = {record["prompt_id"]: record for record in read_jsonl(responses / "responses.jsonl")}
    found = []
    for name in names:
        if name not in by_id or len(by_id[name]["responses"]) < count:
            held = len(by_id[name]["responses"]) if name in by_id else 0
            raise ValueError(f"prompt {name} has {held} responses, not {count}")
        found.append({**by_id[name], "responses": by_id[name]["responses"][:count]})
    return found


def first_rewards(rewards: Path, count: int) -> dict[str, list[float | None]]:
    """Rewards of the first `count` responses by prompt id; of a pairwise model, the mean probability to beat one of them.

    Raises:
        ValueError: the artifact has fewer.
    """
    records: list[Rewards] = read_jsonl(rewards / "rewards.jsonl")
    if short := [record["prompt_id"] for record in records if len(record["rewards"]) < count]:
        raise ValueError(f"prompt {short[0]} has fewer than {count} rewards")
    return {
        record["prompt_id"]: of_preferences(record["preferences"], count)
        if "preferences" in record
        else record["rewards"][:count]
        for record in records
    }


def are_preferences(rewards: Path) -> bool:
    """Whether rewards come from a pairwise model, and so are win probabilities."""
    records = read_jsonl(rewards / "rewards.jsonl")
    return bool(records) and "preferences" in records[0]
