"""The records that stages hand to each other: one JSON object per line, readable by ``datasets.load_dataset("json", ...)``.

A prompt, its responses, their rewards and the pair made of them::

    {"id": "9f1c…", "prompt": "Reverse: kapol", "source": "lab", "parent": null, "operator": null, "depth": 0, "round": 0}
    {"prompt_id": "9f1c…", "prompt": "Reverse: kapol", "prompt_tokens": [1, 7, …],
     "responses": [{"text": "lopak", "tokens": [31, …], "finish": "stop", "logprob": -1.7}, …], "policy": "61de7a…"}
    {"prompt_id": "9f1c…", "rewards": [1.0, 0.42, …]}
    {"prompt_id": "9f1c…", "prompt": "Reverse: kapol", "prompt_tokens": [1, 7, …],
     "chosen": {"text": "lopak", "tokens": […], "reward": 1.0, "logprob": -1.7},
     "rejected": {"text": "kapol", "tokens": […], "reward": 0.42, "logprob": -2.9}, "policy": "61de7a…"}
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import jsonlines
import orjson
from typing_extensions import NotRequired, TypedDict


class Prompt(TypedDict):
    """A prompt with its lineage. `parent` is the id of the prompt it was evolved from, `depth` the number of evolutions."""

    id: str
    prompt: str
    source: str
    parent: str | None
    operator: str | None
    depth: int
    round: int


class Response(TypedDict):
    """One sampled response. `tokens` end with the end-of-turn token if `finish` is "stop"; `logprob` is the sum of their
    log-probabilities under the policy at temperature 1, before top-p; None of a text that no policy sampled."""

    text: str
    tokens: list[int]
    finish: Literal["stop", "length"]
    logprob: float | None


class Responses(TypedDict):
    """All responses of one prompt, in the order of their index j: the first k are the k-response experiment.

    `policy` is the key of the policy that sampled them.
    """

    prompt_id: str
    prompt: str
    prompt_tokens: list[int]
    responses: list[Response]
    policy: NotRequired[str]


class Rewards(TypedDict):
    """Rewards of one prompt's responses, in their order; None where the reward model gave none.

    A pairwise reward model compares: `preferences[i][j]` is its probability that response i is better than j, 1/2 on the
    diagonal. The reward of a response is then the mean of its row, over as many columns as there are responses in use.
    """

    prompt_id: str
    rewards: list[float | None]
    preferences: NotRequired[list[list[float | None]]]


class Side(TypedDict):
    """One response of a pair. `logprob` as in :class:`Response`, where a policy sampled it; `win_probability` is the mean
    probability with which it beats the prompt's responses; `rewritten` says that no policy sampled it."""

    text: str
    tokens: list[int]
    reward: float
    logprob: NotRequired[float]
    win_probability: NotRequired[float]
    rewritten: NotRequired[bool]


class Pair(TypedDict):
    """A preference pair. `policy` is the key of the policy that sampled its responses."""

    prompt_id: str
    prompt: str
    prompt_tokens: list[int]
    chosen: Side
    rejected: Side
    policy: NotRequired[str]


def read_jsonl(path: Path) -> list[Any]:
    """All records of a file.

    Raises:
        jsonlines.InvalidLineError: a line is not JSON; the error names the line.
    """
    with path.open("rb") as file, jsonlines.Reader(file, loads=orjson.loads) as reader:
        return list(reader)


def iter_jsonl(path: Path) -> Iterator[Any]:
    """The records of a file, one at a time. Raises as :func:`read_jsonl`."""
    with path.open("rb") as file, jsonlines.Reader(file, loads=orjson.loads) as reader:
        yield from reader


def write_jsonl(path: Path, records: Iterable[Any]) -> int:
    """Write records so that `path` either has all of them or does not change; returns how many there are."""
    partial = path.with_name(path.name + ".partial")
    count = 0
    with partial.open("wb") as file:
        for record in records:
            file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY))
            count += 1
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    return count
