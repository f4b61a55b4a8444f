"""Where a server of a recipe is, and with which key: both from the environment of whoever asks."""

from __future__ import annotations

import os
from collections.abc import Mapping

from eva_hpc.config.server import OPENAI, Server


def base_url(server: Server, environment: Mapping[str, str] = os.environ) -> str:
    """The address of its API: its own, else that in OPENAI_BASE_URL, else OpenAI's."""
    return server.base_url or environment.get("OPENAI_BASE_URL") or OPENAI


def api_key(server: Server) -> str | None:
    """Its key, if there is any."""
    return os.environ.get(server.api_key_env) or None


def key_problem(server: Server, environment: Mapping[str, str] = os.environ) -> str | None:
    """What an environment lacks to ask a model at OpenAI; other servers may want no key."""
    if base_url(server, environment) != OPENAI or environment.get(server.api_key_env):
        return None
    return (
        f"model {server.model}: the environment has neither {server.api_key_env} nor OPENAI_BASE_URL; "
        "must have a key of OpenAI's, or the address of another server"
    )


def network_problem(server: Server, environment: Mapping[str, str]) -> str | None:
    """Why a server cannot be asked from where there is no internet; None for one whose address was given."""
    if base_url(server, environment) != OPENAI:
        return None
    return f"model {server.model}: found OpenAI's address, but the site is offline; must be one that its nodes reach (base_url)"
