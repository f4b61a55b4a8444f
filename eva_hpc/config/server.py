"""A model behind any OpenAI-compatible server: what judges, scorers and evolvers of that kind have in common."""

from __future__ import annotations

from pydantic import Field

from eva_hpc.config.section import Address, EnvironmentName, Section

OPENAI = "https://api.openai.com/v1"


class Server(Section):
    """Which model, where, and how many requests at once. Only `model` decides results."""

    model: str = Field(min_length=1, description="the name the server knows it by; pin a dated version where there is one")
    base_url: Address | None = Field(
        default=None,
        description="of the API, ending in /v1; null takes OPENAI_BASE_URL of the job's environment, else OpenAI's",
    )
    api_key_env: EnvironmentName = Field(default="OPENAI_API_KEY", description="the environment variable that holds the key")
    concurrency: int = Field(default=16, ge=1, description="requests open at once")
