"""Chat completions from any OpenAI-compatible server: many at once, patient, and one bad item spoils no other.

A request that the client gave up on (a stall) may have been paid for all the same: no client can know. Everything else that a
server answered is handed over as soon as it has arrived, before its place is used for another request.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from eva_hpc.inference.engine import Message
from eva_hpc.training.interrupt import Interrupted

Reason = Literal["timeout", "connection", "rate_limit", "server_error", "rejected", "malformed", "empty"]

RESERVED = ("model", "messages", "stream", "n")
"""What no parameter may be called: the client fills these in, or could not read the answer."""

_ONE_REQUEST = (400, 413, 422)  # refusals of the one request they answer; others (no access, no such model) are about all
_PASSING = (408, 409, 425)
_UNSUPPORTED = re.compile(
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|(?:not|n't) (?:be )?(?:support|permit|allow)|greater than max", re.I
)
_SECRET = 8
"""Characters from which on a key is one: servers that want none are given words such as EMPTY."""
_POLL_S = 0.1
_TELL_AGAIN_S = 60.0
_TOLD = "told to stop; every answer that arrived is kept"


@dataclass(frozen=True)
class ApiFailure:
    """Why a conversation has no completion.

    Attributes:
        reason: "rejected" is a refusal that another attempt would meet again; "malformed" an answer that is no chat
            completion; "empty" one without text.
        detail: one line for people; it never holds the API key.
        transient: it may work another time, and did not within the attempts that were allowed.
    """

    reason: Reason
    detail: str
    transient: bool = False


@dataclass(frozen=True)
class RetryPolicy:
    """How long to insist. A server's Retry-After outranks the back-off, up to `longest_wait_s`. All times are in seconds.

    Attributes:
        attempts: of one request, the first included.
        timeout_s: for a whole answer.
        give_up_after: so many requests in a row without any answer after all attempts, and the server counts as gone.
        drain_s: how long requests in flight are waited for when told to stop.
    """

    attempts: int = 6
    timeout_s: float = 300.0
    first_wait_s: float = 1.0
    longest_wait_s: float = 120.0
    give_up_after: int = 20
    drain_s: float = 20.0


@dataclass(frozen=True)
class ChatRequest:
    """A conversation to go on with. `parameters` are sent as they are: temperature, max_completion_tokens, logprobs, …"""

    messages: Sequence[Message]
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Completion:
    """What a server answered: the first choice as it was sent, and the model, fingerprint and token counts with it."""

    choice: Mapping[str, Any]
    model: str
    system_fingerprint: str | None
    usage: Mapping[str, Any]


class UnusableServer(ValueError):
    """The key or the URL of a server cannot be used; nothing was sent."""


class ServerRefuses(Exception):
    """The server refuses every request like these, e.g. for the key or the name of the model; `failure` says why."""

    def __init__(self, failure: ApiFailure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


class ServerGone(Exception):
    """So many requests in a row got no answer that asking on makes no sense; `failure` is the last one's."""

    def __init__(self, failure: ApiFailure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


def text_of(choice: Mapping[str, Any]) -> str:
    """The text of a choice, e.g. ``{"message": {"content": "Hi"}}``; empty if it has none."""
    content = choice["message"].get("content")
    if isinstance(content, list):  # some servers send parts: [{"type": "text", "text": "Hi"}]
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


async def chat(
    base_url: str,
    model: str,
    api_key: str | None,
    requests: Sequence[ChatRequest],
    received: Callable[[int, Completion | ApiFailure], None],
    *,
    concurrency: int,
    retry: RetryPolicy = RetryPolicy(),
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda line: None,
    proven: bool = False,
) -> None:
    """Hand the outcome of every request to `received(index, outcome)`, one at a time, as they arrive.

    Timeouts, lost connections, 429, 5xx and answers that are not JSON are tried again with a randomised exponential back-off.
    At most `concurrency` requests are open at once; each keeps its place until `received` has returned. So a process that is
    killed loses at most `concurrency` answers. A completion may have no text. As soon as `stop()` says so, or the server turns
    out to be no use, or `received` raises, no more requests are sent; those in flight are awaited, after `stop()` for
    `retry.drain_s` at most. `say` is told of attempts that failed, once a minute at most. `proven` says that the server has
    answered requests like these before: then 403, which may mean the key or a single prompt, is about one request.

    Raises:
        Interrupted: `stop()` said so before all was received.
        ServerRefuses: an answer that all requests would get: 401, 402, 404, a parameter that the server does not know, …
        ServerGone: the last `retry.give_up_after` requests got no answer.
        UnusableServer: the key cannot be sent in a header, or the URL is none.
        ValueError: a parameter has a reserved name.
    """
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
        raise UnusableServer("the API key holds characters that no key has, e.g. a line break: check its environment variable")
    if not re.match(r"https?://[^/]", base_url):
        raise UnusableServer(f"found {base_url!r}; the base URL of a server must be like http://host:8000/v1")
    if reserved := {name for request in requests for name in request.parameters if name in RESERVED}:
        raise ValueError(f"found the parameter {', '.join(sorted(reserved))}; must not be one of {', '.join(RESERVED)}")
    client = httpx.AsyncClient(
        base_url=base_url.rstrip("/") + "/",
        headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
        timeout=retry.timeout_s,
        limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
    )
    async with client:
        await _Batch(client, model, api_key, requests, received, retry, stop, say, proven).run(concurrency)


class _FailedError(Exception):
    """One attempt that gave no completion; `transient` ones are tried again, not before `retry_after` seconds.

    One that is `about_all` would be the answer to every request.
    """

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        transient: bool = False,
        retry_after: float | None = None,
        about_all: bool = False,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.transient = transient
        self.retry_after = retry_after
        self.about_all = about_all


class _Ended(Exception):
    """No request is sent any more."""


class _Batch:
    """The requests of one call, the workers that send them, and why they stop."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        model: str,
        api_key: str | None,
        requests: Sequence[ChatRequest],
        received: Callable[[int, Completion | ApiFailure], None],
        retry: RetryPolicy,
        stop: Callable[[], bool],
        say: Callable[[str], None],
        proven: bool,
    ) -> None:
        self.client = client
        self.model = model
        self.api_key = api_key
        self.waiting = enumerate(requests)
        self.open = len(requests)
        self.received = received
        self.retry = retry
        self.stop = stop
        self.say = say
        self.proven = proven
        self.told = -_TELL_AGAIN_S
        self.ended = asyncio.Event()
        self.why: Exception | None = None
        self.lost_in_a_row = 0

    async def run(self, concurrency: int) -> None:
        workers = [asyncio.create_task(self.work()) for _ in range(min(concurrency, self.open))]
        watcher = asyncio.create_task(self.watch(workers))
        try:
            ends = await asyncio.gather(*workers, return_exceptions=True)
        finally:
            watcher.cancel()
        for end in ends:
            if isinstance(end, Exception):
                raise end
        if self.why is not None and self.open:
            raise self.why

    async def watch(self, workers: Sequence[asyncio.Task[None]]) -> None:
        """Poll `stop`, also while the last answers are awaited; once it says so, they have little time left."""
        while not self.stop():
            await asyncio.sleep(_POLL_S)
        self.end(Interrupted(_TOLD))
        await asyncio.sleep(self.retry.drain_s)
        for worker in workers:
            worker.cancel()

    def end(self, why: Exception) -> None:
        self.why = self.why or why
        self.ended.set()

    def has_ended(self) -> bool:
        if not self.ended.is_set() and self.stop():
            self.end(Interrupted(_TOLD))
        return self.ended.is_set()

    async def nap(self, seconds: float) -> None:
        """Sleep, but not on after the end."""
        with suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(self.ended.wait(), seconds)

    async def work(self) -> None:
        """Take requests until there are none; an answer is handed over before the next is taken."""
        while not self.has_ended():
            index, request = next(self.waiting, (-1, None))
            if request is None:
                return
            try:
                outcome = await self.outcome(request)
            except (ServerRefuses, _Ended) as error:
                self.end(error)
                return
            try:
                self.received(index, outcome)
            except Exception as error:
                self.why = error  # outranks an earlier reason: what was answered could not be kept
                self.ended.set()
                return
            self.open -= 1
            self.count(outcome)

    def count(self, outcome: Completion | ApiFailure) -> None:
        if not isinstance(outcome, ApiFailure):
            self.proven = True
        if not (isinstance(outcome, ApiFailure) and outcome.transient):
            self.lost_in_a_row = 0
            return
        self.lost_in_a_row += 1
        if self.lost_in_a_row >= self.retry.give_up_after:
            self.end(ServerGone(outcome))

    async def outcome(self, request: ChatRequest) -> Completion | ApiFailure:
        """Attempts until one gives a completion, or they run out.

        Raises:
            ServerRefuses: the answer is about all requests.
            _Ended: no attempt is made any more.
        """
        back_off = wait_random_exponential(multiplier=self.retry.first_wait_s, max=self.retry.longest_wait_s)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            if isinstance(error, _FailedError) and error.retry_after is not None:
                return min(error.retry_after, self.retry.longest_wait_s)
            return back_off(state)

        attempts = AsyncRetrying(
            stop=stop_after_attempt(self.retry.attempts),
            wait=wait,
            retry=retry_if_exception(lambda error: isinstance(error, _FailedError) and error.transient),
            sleep=self.nap,
            before_sleep=self.tell,
            reraise=True,
        )
        try:
            return await attempts(self.attempt, request)
        except _FailedError as error:
            failure = self.failure(error)
            if error.about_all:
                raise ServerRefuses(failure) from None
            return failure

    def tell(self, state: RetryCallState) -> None:
        """A line on an attempt that failed, so that whoever watches sees that it is waited for, and for what."""
        error = state.outcome.exception() if state.outcome else None
        now = time.monotonic()
        if isinstance(error, _FailedError) and now - self.told >= _TELL_AGAIN_S:
            self.told = now
            failure = self.failure(error)
            attempt = f"attempt {state.attempt_number} of {self.retry.attempts} at a request failed"
            self.say(f"{attempt}, trying again: {failure.reason}: {failure.detail}")

    def failure(self, error: _FailedError) -> ApiFailure:
        """For people: on one line, not too long, without the key."""
        detail = " ".join(error.detail.split())
        secret = self.api_key if self.api_key and len(self.api_key) >= _SECRET else None
        detail = (detail.replace(secret, "[key]") if secret else detail)[:300]
        return ApiFailure(error.reason, detail, error.transient)

    async def attempt(self, request: ChatRequest) -> Completion:
        """One request.

        The time limit holds for the whole answer: httpx's own restarts with every byte, so that a trickle would never time out.
        """
        if self.has_ended():
            raise _Ended
        # Escaped to ASCII, so that even half a surrogate pair, which UTF-8 cannot hold, is the server's to judge.
        body = json.dumps({"model": self.model, "messages": list(request.messages), **request.parameters}).encode()
        post = self.client.post("chat/completions", content=body, headers={"Content-Type": "application/json"})
        try:
            response = await asyncio.wait_for(post, self.retry.timeout_s)
        except (httpx.TimeoutException, TimeoutError, asyncio.TimeoutError) as error:
            raise _FailedError("timeout", f"no answer within {self.retry.timeout_s:g} s", transient=True) from error
        except httpx.HTTPError as error:
            raise _FailedError("connection", f"{type(error).__name__}: {error}", transient=True) from error
        if response.status_code != 200:
            raise _refusal(response.status_code, response, request, proven=self.proven)
        return _completion(response, request, proven=self.proven)


def _refusal(status: int, response: httpx.Response, request: ChatRequest, *, proven: bool) -> _FailedError:
    """The failure that an HTTP status means; `proven`: the server has answered requests like this one."""
    text = response.text
    detail = f"HTTP {status}: {_message(text)}"
    if status == 429 and "insufficient_quota" not in text:
        return _FailedError("rate_limit", detail, transient=True, retry_after=_retry_after(response))
    if status >= 500 or status in _PASSING:
        return _FailedError("server_error", detail, transient=True, retry_after=_retry_after(response))
    if 300 <= status < 400:
        detail = f"HTTP {status}: the server has moved to {response.headers.get('location')}; change the base URL"
    if status in _ONE_REQUEST and not proven and (name := _refused_parameter(text, request.parameters)):
        detail = f"HTTP {status} for the parameter {name}: change it or leave it out. The server says: {_message(text)}"
        return _FailedError("rejected", detail, about_all=True)
    # 403 is the answer to a wrong key, but of some servers also to a single prompt that their moderation refuses.
    about_one = status in _ONE_REQUEST or (status == 403 and proven)
    return _FailedError("rejected", detail, about_all=not about_one)


def _refused_parameter(text: str, parameters: Mapping[str, Any]) -> str | None:
    """The parameter that a refusal is about, e.g. "Unsupported parameter: 'max_tokens' is not supported with this model.

    Use 'max_completion_tokens' instead."
    """
    if not _UNSUPPORTED.search(text):
        return None
    return next((name for name in parameters if re.search(rf"\b{re.escape(name)}\b", text)), None)


def _message(text: str) -> str:
    """What the body of a refusal says, e.g. ``{"error": {"message": "no such model"}}``; all of it if it has no such form."""
    with suppress(ValueError, KeyError, TypeError):
        message = json.loads(text)["error"]["message"]
        if isinstance(message, str) and message:
            return message
    return text


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


def _completion(response: httpx.Response, request: ChatRequest, *, proven: bool) -> Completion:
    """A chat completion, e.g. ``{"model": "m", "choices": [{"message": {"content": "Hi"}}], "usage": {…}}``."""
    try:
        body = json.loads(response.content)
    except ValueError as error:
        raise _FailedError("malformed", f"the answer is not JSON: {response.text}", transient=True) from error
    try:
        # Some gateways send the refusal of the server behind them with status 200.
        status = None if body.get("choices") else body["error"]["code"]
    except (AttributeError, KeyError, TypeError):
        status = None
    if isinstance(status, int) and 400 <= status < 600:
        raise _refusal(status, response, request, proven=proven)
    try:
        choice = body["choices"][0]
        choice["message"].get("content")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise _FailedError("malformed", f"the answer is no chat completion: {response.text}") from error
    if choice.get("finish_reason") in ("error", "abort"):
        raise _FailedError("server_error", f"the completion broke off: {response.text}", transient=True)
    model, fingerprint, usage = body.get("model"), body.get("system_fingerprint"), body.get("usage")
    return Completion(
        choice=choice,
        model=model if isinstance(model, str) else "",
        system_fingerprint=fingerprint if isinstance(fingerprint, str) else None,
        usage=usage if isinstance(usage, dict) else {},
    )
