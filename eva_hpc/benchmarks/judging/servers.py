"""A judge of a recipe as a server that can be asked."""

from __future__ import annotations

from eva_hpc.benchmarks.judging.consult import JudgeServer
from eva_hpc.config.benchmark import Judge
from eva_hpc.inference.openai_client import RetryPolicy
from eva_hpc.inference.server_environment import api_key, base_url


def server_of(judge: Judge) -> JudgeServer:
    """The server, with what the environment says of it."""
    return JudgeServer(
        model=judge.model,
        base_url=base_url(judge),
        api_key=api_key(judge),
        concurrency=judge.concurrency,
        retry=RetryPolicy(attempts=judge.attempts, timeout_s=judge.timeout_s),
        parameters=judge.parameters,
    )
