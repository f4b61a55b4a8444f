"""A judge of a recipe as a server that can be asked: its address and key come from the environment of whoever asks."""

from __future__ import annotations

import os

from eva_hpc.benchmarks.consult import JudgeServer
from eva_hpc.config.benchmark import OPENAI, Judge
from eva_hpc.inference.openai_client import RetryPolicy


def server_of(judge: Judge) -> JudgeServer:
    """The server. Without a `base_url` it is OPENAI_BASE_URL's, else OpenAI's."""
    return JudgeServer(
        model=judge.model,
        base_url=judge.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI,
        api_key=os.environ.get(judge.api_key_env) or None,
        concurrency=judge.concurrency,
        retry=RetryPolicy(attempts=judge.attempts, timeout_s=judge.timeout_s),
        parameters=judge.parameters,
    )


def key_problem(judge: Judge) -> str | None:
    """What the environment lacks to ask this judge; None if nothing is known to be wrong."""
    if judge.base_url or os.environ.get("OPENAI_BASE_URL") or os.environ.get(judge.api_key_env):
        return None
    return (
        f"judge {judge.model}: the environment has neither {judge.api_key_env} nor OPENAI_BASE_URL; "
        "must have a key of OpenAI's, or the address of another server"
    )
