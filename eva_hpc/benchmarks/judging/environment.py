"""Where a judge of a recipe is, and with which key: both from the environment of whoever asks."""

from __future__ import annotations

import os
from collections.abc import Mapping

from eva_hpc.config.benchmark import OPENAI, Judge


def base_url(judge: Judge, environment: Mapping[str, str] = os.environ) -> str:
    """The address of its API: its own, else that in OPENAI_BASE_URL, else OpenAI's."""
    return judge.base_url or environment.get("OPENAI_BASE_URL") or OPENAI


def api_key(judge: Judge) -> str | None:
    """Its key, if there is any."""
    return os.environ.get(judge.api_key_env) or None


def key_problem(judge: Judge, environment: Mapping[str, str] = os.environ) -> str | None:
    """What an environment lacks to ask a judge at OpenAI; other servers may want no key."""
    if base_url(judge, environment) != OPENAI or environment.get(judge.api_key_env):
        return None
    return (
        f"judge {judge.model}: the environment has neither {judge.api_key_env} nor OPENAI_BASE_URL; "
        "must have a key of OpenAI's, or the address of another server"
    )


def network_problem(judge: Judge, environment: Mapping[str, str]) -> str | None:
    """Why a judge cannot be asked from where there is no internet; None for one whose address was given."""
    if base_url(judge, environment) != OPENAI:
        return None
    return f"judge {judge.model}: found OpenAI's address, but the site is offline; must be one that its nodes reach (base_url)"
