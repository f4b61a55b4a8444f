"""Reading nested artifacts: the file may hold more responses and more prompts than asked for; these take what was asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from eva_hpc.method.mixing import share
from eva_hpc.method.pairing import of_preferences
from eva_hpc.store.artifacts import write_atomically
from eva_hpc.store.records import Prompt, Responses, Rewards, iter_jsonl, read_jsonl

WHOLE = "whole.json"


def write_whole(folder: Path, count: int) -> None:
    """Say of how many prompts the ratios are shares, where that is not the number of prompts in the folder."""
    write_atomically(folder / WHOLE, orjson.dumps({"whole": count}))


def first_prompts(folder: Path, fraction: float) -> list[Prompt]:
    """The first `fraction` of the whole; all there are if there are fewer."""
    prompts: list[Prompt] = read_jsonl(folder / "prompts.jsonl")
    whole = orjson.loads((folder / WHOLE).read_bytes())["whole"] if (folder / WHOLE).exists() else len(prompts)
    return prompts[: share(whole, fraction)]


def first_responses(
    responses: Path, prompts: Path, fraction: float, count: int, *, keep_tokens: bool = True
) -> list[Responses]:
    """The first `count` responses to the first `fraction` of the prompts.

    Raises:
        ValueError: the artifact has fewer.
    """
    names = [prompt["id"] for prompt in first_prompts(prompts, fraction)]
    return responses_of(responses, names, count, keep_tokens=keep_tokens)


def responses_of(responses: Path, names: Sequence[str], count: int, *, keep_tokens: bool = True) -> list[Responses]:
    """The first `count` responses to the prompts of these ids, in their order.

    Without their tokens, which then are empty lists, they take a tenth of the memory.

    Raises:
        ValueError: a prompt has none, or fewer.
    """
    wanted, by_id = set(names), dict[str, Responses]()
    for record in iter_jsonl(responses / "responses.jsonl"):
        if record["prompt_id"] in wanted:
            first = record["responses"][:count]
            kept = first if keep_tokens else [{**response, "tokens": []} for response in first]
            by_id[record["prompt_id"]] = {**record, "responses": kept}
    for name in names:
        held = len(by_id[name]["responses"]) if name in by_id else 0
        if held < count:
            raise ValueError(f"prompt {name} has {held} responses, not {count}")
    return [by_id[name] for name in names]


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
