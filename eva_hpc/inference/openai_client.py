"""Chat completions from any OpenAI-compatible server: many at once, patient, and one bad item spoils no other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from eva_hpc.inference.engine import Message

Reason = Literal["timeout", "connection", "rate_limit", "server_error", "rejected", "malformed", "empty"]


@dataclass(frozen=True)
class ApiFailure:
    """Why a conversation has no completion.

    Attributes:
        reason: "rejected" is a 4xx other than 429; "malformed" an answer that is no chat completion; "empty" one without text.
        detail: one line for people; it never holds the API key.
    """

    reason: Reason
    detail: str


@dataclass(frozen=True)
class RetryPolicy:
    """How long to insist. A server's Retry-After outranks the back-off, up to `longest_wait_s`. All times are in seconds."""

    attempts: int = 6
    timeout_s: float = 300.0
    first_wait_s: float = 1.0
    longest_wait_s: float = 120.0


async def complete(
    base_url: str,
    model: str,
    api_key: str | None,
    conversations: Sequence[Sequence[Message]],
    *,
    temperature: float,
    max_tokens: int,
    concurrency: int,
    seeds: Sequence[int] | None = None,
    retry: RetryPolicy = RetryPolicy(),
) -> list[str | ApiFailure]:
    """The assistant's next turn of every conversation, in their order; an item that failed for good is an :class:`ApiFailure`.

    Timeouts, lost connections, 429, 5xx and answers that are not JSON are tried again with a randomised exponential back-off.
    At most `concurrency` requests are open at once. `seeds`, one per conversation, are passed on to the server.

    Raises:
        ValueError: the number of seeds differs from that of the conversations, or the key cannot be sent in a header.
    """
    if seeds is not None and len(seeds) != len(conversations):
        raise ValueError(f"{len(seeds)} seeds for {len(conversations)} conversations: give one each")
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise ValueError("the API key holds characters that no key has, e.g. a line break: check its environment variable")
    client = httpx.AsyncClient(
        base_url=base_url.rstrip("/") + "/",
        headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
        timeout=retry.timeout_s,
        limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
    )
    slots = asyncio.Semaphore(concurrency)

    async def one(index: int) -> str | ApiFailure:
        body: dict[str, Any] = {
            "model": model,
            "messages": list(conversations[index]),
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        if seeds is not None:
            body["seed"] = seeds[index]
        async with slots:
            try:
                return await _insist(client, body, retry)
            except _FailedError as error:
                detail = " ".join(error.detail.split())
                return ApiFailure(error.reason, (detail.replace(api_key, "[key]") if api_key else detail)[:300])

    async with client:
        return list(await asyncio.gather(*(one(index) for index in range(len(conversations)))))


class _FailedError(Exception):
    """One attempt that gave no completion; `transient` ones are tried again, not before `retry_after` seconds."""

    def __init__(self, reason: Reason, detail: str, transient: bool, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.transient = transient
        self.retry_after = retry_after


async def _insist(client: httpx.AsyncClient, body: dict[str, Any], retry: RetryPolicy) -> str:
    """Attempts until one gives a completion; raises the last :class:`_FailedError` when they run out."""
    back_off = wait_random_exponential(multiplier=retry.first_wait_s, max=retry.longest_wait_s)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _FailedError) and error.retry_after is not None:
            return min(error.retry_after, retry.longest_wait_s)
        return back_off(state)

    attempts = AsyncRetrying(
        stop=stop_after_attempt(retry.attempts),
        wait=wait,
        retry=retry_if_exception(lambda error: isinstance(error, _FailedError) and error.transient),
        reraise=True,
    )
    return await attempts(_attempt, client, body, retry.timeout_s)


async def _attempt(client: httpx.AsyncClient, body: dict[str, Any], timeout_s: float) -> str:
    """One request.

    The time limit holds for the whole answer: httpx's own restarts with every byte, so that a trickle would never time out.
    """
    try:
        response = await asyncio.wait_for(client.post("chat/completions", json=body), timeout_s)
    except (httpx.TimeoutException, TimeoutError, asyncio.TimeoutError) as error:
        raise _FailedError("timeout", f"no answer within {timeout_s:g} s", transient=True) from error
    except httpx.HTTPError as error:
        raise _FailedError("connection", f"{type(error).__name__}: {error}", transient=True) from error
    if response.status_code != 200:
        raise _refusal(response)
    return _content(response)


def _refusal(response: httpx.Response) -> _FailedError:
    """The failure that an HTTP status means."""
    detail = f"HTTP {response.status_code}: {response.text}"
    if response.status_code == 429:
        return _FailedError("rate_limit", detail, transient=True, retry_after=_retry_after(response))
    if response.status_code >= 500:
        return _FailedError("server_error", detail, transient=True, retry_after=_retry_after(response))
    return _FailedError("rejected", detail, transient=False)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that a Retry-After header asks for, itself seconds or a date (RFC 9110, section 10.2.3); None if unreadable."""
    value = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value)
        now = parsedate_to_datetime(response.headers["date"])
        return max(0.0, (at - now).total_seconds())
    except (ValueError, TypeError, KeyError):
        return None


def _content(response: httpx.Response) -> str:
    """The text of a chat completion, e.g. ``{"choices": [{"message": {"content": "Hi"}}]}``."""
    try:
        choice = json.loads(response.content)["choices"][0]
        content = choice["message"]["content"]
    except ValueError as error:
        raise _FailedError("malformed", f"the answer is not JSON: {response.text}", transient=True) from error
    except (KeyError, IndexError, TypeError) as error:
        raise _FailedError("malformed", f"the answer is no chat completion: {response.text}", transient=False) from error
    if not isinstance(content, str) or not content.strip():
        raise _FailedError("empty", f"the completion has no text, finish reason {choice.get('finish_reason')}", transient=False)
    return content
