"""Asking a judge about answers: nothing is asked that was answered before, and no answer that arrived is lost.

Every request is looked up in the cache first; every answer is in the cache before it is used. So a consultation that was
killed, or told to stop, goes on with what is missing when it is started again. Rows do not depend on luck: as long as the
server gave no answer to a request that may still get one, there are no rows, only what is kept; and where several processes
asked the same at once, all of them, and every rerun, use the answer that arrived first.

A repeat is the same request once more; its number is part of what the cache knows it by. A seed among the parameters is sent
as it is, also in repeats.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

from eva_hpc.benchmarks.files import Row
from eva_hpc.benchmarks.judging.protocol import Ask, JudgedBenchmark, JudgedQuestion, ModelAnswer, Reply
from eva_hpc.config.errors import ConfigError
from eva_hpc.inference.completion_cache import CompletionCache, Record, completion_key, json_sha256
from eva_hpc.inference.openai_client import (
    RESERVED,
    ApiFailure,
    ChatRequest,
    Completion,
    RetryPolicy,
    ServerGone,
    ServerRefuses,
    UnusableServer,
    chat,
    text_of,
)

Item = tuple[JudgedQuestion, ModelAnswer]
PROBES = 5
_EXAMPLES = 3
_LOOK_EVERY = 10
"""Requests per place in the queue between two looks for what others have asked meanwhile."""


class JudgeUnreachable(Exception):
    """The judge's server gave no answer to some requests, but may another time. What it answered is kept."""


class JudgeUnfit(Exception):
    """The judge cannot be used as it is set up: its server refuses, or its replies are not what the benchmark needs."""


@dataclass(frozen=True)
class JudgeServer:
    """Who is asked, and how. Only `model` and `parameters` decide what it answers.

    `parameters` take the place of the benchmark's own; one that is null is left out, e.g. to say `max_completion_tokens` for
    `max_tokens`: ``{"max_tokens": None, "max_completion_tokens": 2048}``.

    Raises:
        ConfigError: a parameter cannot be set.
    """

    model: str
    base_url: str
    api_key: str | None = field(default=None, repr=False)
    concurrency: int = 16
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in RESERVED:
            if name in self.parameters:
                raise ConfigError(f"judge.parameters: found {name!r}; must not be one of {', '.join(RESERVED)}")


@dataclass(frozen=True)
class Usage:
    """Answers of a judge, and the tokens that its server counted for them."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Consultation:
    """What a judge said about all answers.

    Attributes:
        rows: judgments in the official format; those of repeat 0 first, in the order of the items, then those of repeat 1, …
        asked: what was asked and paid for now, the probe included.
        from_cache: what had been paid for before, or by another process meanwhile.
        served_models: answers by the name that the server gave for its model.
        fingerprints: answers by `system_fingerprint`, where the server sends one.
        failures: requests that were refused for good, by reason; who consults again asks them again.
        warnings: one line each.
    """

    rows: list[Row]
    asked: Usage
    from_cache: Usage
    served_models: Mapping[str, int]
    fingerprints: Mapping[str, int]
    failures: Mapping[str, int]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All but the rows, as a JSON object."""
        value = asdict(replace(self, rows=[]))
        del value["rows"]
        return value


@dataclass(frozen=True)
class Probe:
    """What a first try showed, one line each, and the keys of the answers that it paid for."""

    notes: list[str] = field(default_factory=list)
    paid: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Wanted:
    """A request, and which repeat of it; `parameters` are those that are sent."""

    ask: Ask
    parameters: Mapping[str, Any]
    repeat: int
    key: str


def wanted(ask: Ask, repeat: int, server: JudgeServer) -> Wanted:
    """What a server is asked for an :class:`Ask`."""
    parameters = {name: value for name, value in {**ask.parameters, **server.parameters}.items() if value is not None}
    return Wanted(ask, parameters, repeat, completion_key(server.model, ask.messages, parameters, repeat))


def consult(
    benchmark: JudgedBenchmark,
    items: Sequence[Item],
    server: JudgeServer,
    cache: CompletionCache,
    *,
    judge: str,
    repeats: int = 1,
    probed: Probe | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda line: None,
) -> Consultation:
    """Judge all items, each `repeats` times. `judge` is its name in the rows; `say` is told of trouble with the server.

    Raises:
        JudgeUnreachable: some requests got no answer after all attempts; all others were made first, unless the server is gone.
        JudgeUnfit: the server refuses every request.
        Interrupted: `stop()` said so; what was in flight is kept.
    """
    talk = _Talk(benchmark, server, cache, progress, stop, say)
    asks = [benchmark.asks(question, answer) for question, answer in items]
    wants = [[[wanted(ask, repeat, server) for ask in of_item] for of_item in asks] for repeat in range(repeats)]
    talk.ask(want for of_repeat in wants for of_item in of_repeat for want in of_item)
    rows = []
    for repeat, of_repeat in enumerate(wants):
        for (question, answer), of_item in zip(items, of_repeat, strict=True):
            replies = [talk.reply(want) for want in of_item]
            rows += [{**row, "repeat": repeat} for row in benchmark.rows(question, answer, replies, judge)]
    return talk.consultation(rows, probed or Probe())


def probe(
    benchmark: JudgedBenchmark,
    items: Sequence[Item],
    server: JudgeServer,
    cache: CompletionCache,
    *,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda line: None,
) -> Probe:
    """Ask a few of the real requests, from all over the items, and see whether the replies can be used.

    What it asks is in the cache afterwards, so that nothing is paid twice.

    Raises:
        JudgeUnfit: most replies cannot be used; says what was found.
        JudgeUnreachable, Interrupted: as :func:`consult`.
    """
    step = max(1, len(items) // PROBES)
    wants: list[Wanted] = []
    for index in sorted(range(len(items)), key=lambda index: index % step):
        if asks := benchmark.asks(*items[index]):
            wants.append(wanted(asks[len(wants) % len(asks)], 0, server))
        if len(wants) == PROBES:
            break
    talk = _Talk(benchmark, server, cache, lambda done, total: None, stop, say)
    talk.ask(wants)
    replies = [talk.reply(want) for want in wants]
    problems = [problem for reply in replies if (problem := reply.failure or benchmark.problem(reply))]
    kinds = Counter(problems).most_common(_EXAMPLES)
    examples = "; ".join(problem if count == 1 else f"{problem} ({count} times)" for problem, count in kinds)
    found = f"in a first try {len(problems)} of {len(wants)} replies cannot be used: {examples}"
    if len(problems) > len(wants) / 2:
        # Once the server is mended, the same requests may have other replies.
        unusable = [want.key for want, reply in zip(wants, replies, strict=True) if benchmark.problem(reply)]
        cache.forget([*unusable, *(talk.second[key] for key in unusable if key in talk.second)])
        raise JudgeUnfit(f"{_name(server)} cannot judge this benchmark: {found}")
    notes = [found] if problems else []
    named = sorted({reply.model for reply in replies if reply.model not in ("", server.model)})
    notes += [f"asked for the model {server.model}, the server names {name}" for name in named]
    return Probe(notes, frozenset(talk.paid))


class _Talk:
    """The requests of one consultation and what came of them."""

    def __init__(
        self,
        benchmark: JudgedBenchmark,
        server: JudgeServer,
        cache: CompletionCache,
        progress: Callable[[int, int], None],
        stop: Callable[[], bool],
        say: Callable[[str], None],
    ) -> None:
        self.benchmark = benchmark
        self.server = server
        self.cache = cache
        self.progress = progress
        self.stop = stop
        self.say = say
        self.outcomes: dict[str, Record | ApiFailure] = {}
        self.paid: dict[str, Record] = {}
        self.second: dict[str, str] = {}
        self.damaged = 0

    def ask(self, wants: Iterable[Wanted]) -> None:
        """Have an outcome for all of them, and for the second requests that the benchmark makes after a reply."""
        first = {want.key: want for want in wants}
        self._ask(first)
        again: dict[str, Wanted] = {}
        for key, want in first.items():
            reply = self._reply(key)
            ask = None if reply.failure else self.benchmark.again(want.ask, reply)
            if ask is not None:
                second = wanted(ask, want.repeat, self.server)
                self.second[key] = second.key
                again[second.key] = second
        self._ask({key: want for key, want in again.items() if key not in self.outcomes})
        lost = [outcome for outcome in self.outcomes.values() if isinstance(outcome, ApiFailure) and outcome.transient]
        if lost:
            what = f"{len(lost)} of {len(self.outcomes)} requests got no answer"
            raise JudgeUnreachable(f"{_name(self.server)}: {what}, the first: {_why(lost[0])}; {self._kept()}")

    def reply(self, want: Wanted) -> Reply:
        """The final reply to a request."""
        first = self._reply(want.key)
        return replace(self._reply(self.second[want.key]), earlier=first.text) if want.key in self.second else first

    def _ask(self, wants: Mapping[str, Wanted]) -> None:
        """Have an outcome for each. Several processes may want the same at once: before every slice it is looked again."""
        total = len(self.outcomes) + len(wants)
        # Not so few that a server that is gone is not noticed: that takes `give_up_after` in a row.
        size = max(_LOOK_EVERY * self.server.concurrency, 2 * self.server.retry.give_up_after)
        missing, sent = dict(wants), False
        while True:
            self._look(missing)
            missing = {key: want for key, want in missing.items() if key not in self.outcomes}
            self.progress(len(self.outcomes), total)
            if not missing:
                break
            self._ask_slice(list(islice(missing.values(), size)), total)
            sent = True
        if sent:
            self._look(wants)

    def _look(self, keys: Collection[str]) -> None:
        """Take from the cache what is there; of several answers the first, even if another is this process's own."""
        self.outcomes.update(self.cache.find(keys))
        self.damaged = max(self.damaged, self.cache.damaged)

    def _ask_slice(self, wants: Sequence[Wanted], total: int) -> None:
        def received(index: int, outcome: Completion | ApiFailure) -> None:
            want = wants[index]
            if isinstance(outcome, ApiFailure):
                self.outcomes[want.key] = outcome
            else:
                record = self._record(want, outcome)
                self.cache.add(record)
                self.outcomes[want.key] = self.paid[want.key] = record
            self.progress(len(self.outcomes), total)

        self._send([ChatRequest(want.ask.messages, want.parameters) for want in wants], received)

    def _send(self, requests: Sequence[ChatRequest], received: Callable[[int, Completion | ApiFailure], None]) -> None:
        to = self.server
        call = chat(
            to.base_url,
            to.model,
            to.api_key,
            requests,
            received,
            concurrency=to.concurrency,
            retry=to.retry,
            stop=self.stop,
            say=self.say,
            proven=bool(self._records()),
        )
        try:
            asyncio.run(call)
        except ServerRefuses as error:
            setting = (
                "; parameters are set under judge.parameters, or with --parameter"
                if "for the parameter" in error.failure.detail
                else ""
            )
            raise JudgeUnfit(f"{_name(to)} refuses: {error.failure.detail}{setting}; {self._kept()}") from None
        except ServerGone as error:
            what = f"gone: {to.retry.give_up_after} requests in a row got no answer"
            raise JudgeUnreachable(f"{_name(to)} is {what}, the last: {_why(error.failure)}; {self._kept()}") from None
        except UnusableServer as error:
            raise JudgeUnfit(f"the judge {to.model} cannot be asked: {error}") from None

    def _record(self, want: Wanted, completion: Completion) -> Record:
        return Record(
            key=want.key,
            model=self.server.model,
            parameters=want.parameters,
            repeat=want.repeat,
            messages_sha256=json_sha256(want.ask.messages),
            served_model=completion.model,
            system_fingerprint=completion.system_fingerprint,
            usage=completion.usage,
            choice=completion.choice,
            time=time.time(),
        )

    def _reply(self, key: str) -> Reply:
        outcome = self.outcomes[key]
        if isinstance(outcome, ApiFailure):
            return Reply(failure=_why(outcome))
        # Half a surrogate pair can stand in JSON but in no file of rows: it becomes a question mark.
        choice = json.loads(json.dumps(outcome.choice, ensure_ascii=False).encode(errors="replace"))
        return Reply(
            text=text_of(choice),
            choice=choice,
            model=outcome.served_model,
            system_fingerprint=outcome.system_fingerprint,
            prompt_tokens=_tokens(outcome, "prompt_tokens"),
            completion_tokens=_tokens(outcome, "completion_tokens"),
        )

    def _records(self) -> list[Record]:
        return [outcome for outcome in self.outcomes.values() if isinstance(outcome, Record)]

    def _kept(self) -> str:
        if not self._records():
            return "nothing was answered so far"
        return f"{len(self._records())} answers are kept in {self.cache.folder}, and the same command asks only for the rest"

    def consultation(self, rows: list[Row], probed: Probe) -> Consultation:
        """The result, with what there is to know about it."""
        records = self._records()
        paid = {**{record.key: record for record in records if record.key in probed.paid}, **self.paid}
        models = Counter(record.served_model for record in records)
        prints = Counter(record.system_fingerprint for record in records if record.system_fingerprint)
        failures = Counter(outcome.reason for outcome in self.outcomes.values() if isinstance(outcome, ApiFailure))
        warnings = []
        if len(models) > 1:
            warnings.append(f"several models answered as {self.server.model}: {_listed(models)}")
        if len(prints) > 1:
            warnings.append(f"the judge's server changed in between, by its fingerprint: {_listed(prints)}")
        if failures:
            first = next(_why(outcome) for outcome in self.outcomes.values() if isinstance(outcome, ApiFailure))
            warnings.append(f"{failures.total()} requests were refused, the first: {first}")
        if self.damaged:
            warnings.append(f"{self.damaged} damaged lines in {self.cache.folder} are passed over")
        return Consultation(
            rows=rows,
            asked=usage_of(paid.values()),
            from_cache=usage_of(record for record in records if record.key not in paid),
            served_models=dict(sorted(models.items())),
            fingerprints=dict(sorted(prints.items())),
            failures=dict(sorted(failures.items())),
            warnings=tuple(warnings),
        )


def usage_of(records: Iterable[Record]) -> Usage:
    """Answers and tokens of records; a server that counts no tokens gives 0."""
    calls = prompt = completion = 0
    for record in records:
        calls += 1
        prompt += _tokens(record, "prompt_tokens")
        completion += _tokens(record, "completion_tokens")
    return Usage(calls, prompt, completion)


def _tokens(record: Record, name: str) -> int:
    count = record.usage.get(name)
    return count if isinstance(count, int) else 0


def _why(failure: ApiFailure) -> str:
    return f"{failure.reason}: {failure.detail}"


def _name(server: JudgeServer) -> str:
    return f"the judge {server.model} at {server.base_url}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name or '(no name)'} ({count})" for name, count in sorted(counts.items()))
