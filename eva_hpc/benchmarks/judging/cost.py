"""What judging will cost, before the first request, and what it did cost.

A rerun is free: only requests that the cache does not hold are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eva_hpc.benchmarks.judging.consult import Item, JudgeServer, Usage, Wanted, usage_of, wanted
from eva_hpc.benchmarks.judging.protocol import JudgedBenchmark
from eva_hpc.inference.completion_cache import CompletionCache

CHARACTERS_PER_TOKEN = 4.0
"""Of English text, a rule of thumb; of Chinese or Japanese it is nearer 1, so that the estimate is too low there."""
MESSAGE_TOKENS = 4
"""What a chat template adds to each message, about."""
_LIMITS = ("max_tokens", "max_completion_tokens")


@dataclass(frozen=True)
class Price:
    """What a judge charges per million tokens, in any currency."""

    input: float
    output: float

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """The price of so many tokens."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


@dataclass(frozen=True)
class Estimate:
    """What is still to be asked, without second requests.

    Attributes:
        calls: requests to make.
        cached: requests that the cache answers.
        prompt_tokens: of all calls.
        completion_tokens: of all calls, as long as they usually are; None where nobody knows.
        most_completion_tokens: if every answer were as long as allowed; None where a request has no limit.
        basis: what the token counts rest on.
        price: of the usual completions; None without prices, or where their length is not known.
        most_price: of the longest ones.
    """

    calls: int
    cached: int
    prompt_tokens: int
    completion_tokens: int | None
    most_completion_tokens: int | None
    basis: str
    price: float | None
    most_price: float | None

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return dict(vars(self))

    def describe(self) -> str:
        """One line for people."""
        if not self.calls:
            return f"judging: nothing to ask, all {self.cached:,} answers are in the cache"
        usual = "" if self.completion_tokens is None else f"about {self.completion_tokens:,}"
        most = "any number of" if self.most_completion_tokens is None else f"at most {self.most_completion_tokens:,}"
        out = ", ".join(part for part in (usual, most) if part)
        line = (
            f"judging: {self.calls:,} requests ({self.cached:,} more are in the cache), about {self.prompt_tokens:,} tokens in"
        )
        return f"{line} and {out} out ({self.basis}){self._prices()}"

    def _prices(self) -> str:
        if self.price is None:
            return "" if self.most_price is None else f": at most {self.most_price:,.2f}"
        most = "" if self.most_price is None else f", at most {self.most_price:,.2f}"
        return f": about {self.price:,.2f}{most}"


def estimate(
    benchmark: JudgedBenchmark,
    items: Sequence[Item],
    server: JudgeServer,
    cache: CompletionCache,
    *,
    repeats: int = 1,
    usual_completion_tokens: int | None = None,
    price: Price | None = None,
) -> Estimate:
    """What :func:`~eva_hpc.benchmarks.judging.consult.consult` would ask. Sends nothing.

    Prompt tokens are estimated from the characters; once the cache answers some of the requests, with their tokens per
    character. Completion tokens are `usual_completion_tokens` each; or as many as those in the cache have on average.
    """
    asks = [ask for question, answer in items for ask in benchmark.asks(question, answer)]
    wants = {want.key: want for repeat in range(repeats) for want in (wanted(ask, repeat, server) for ask in asks)}
    found = cache.find(wants)
    missing = [want for key, want in wants.items() if key not in found]
    measured = usage_of(found.values())
    per_guess, basis = 1.0, f"{CHARACTERS_PER_TOKEN:g} characters to a token"
    if measured.prompt_tokens:
        per_guess = measured.prompt_tokens / sum(_prompt_tokens(wants[key]) for key in found)
        basis = f"tokens as in {len(found):,} answers in the cache"
    prompt_tokens = round(per_guess * sum(_prompt_tokens(want) for want in missing))
    each = measured.completion_tokens / measured.calls if measured.completion_tokens else usual_completion_tokens
    limits = [_limit(want) for want in missing]
    most = None if None in limits else sum(limit for limit in limits if limit is not None)
    usual = None if each is None else round(each * len(missing))
    if usual is not None and most is not None:
        usual = min(usual, most)
    return Estimate(
        calls=len(missing),
        cached=len(found),
        prompt_tokens=prompt_tokens,
        completion_tokens=usual,
        most_completion_tokens=most,
        basis=basis,
        price=None if price is None or usual is None else price.of(prompt_tokens, usual),
        most_price=None if price is None or most is None else price.of(prompt_tokens, most),
    )


def describe_usage(asked: Usage, from_cache: Usage, price: Price | None = None) -> str:
    """One line on what a consultation asked for and what that cost."""
    tokens = f"{asked.prompt_tokens:,} tokens in, {asked.completion_tokens:,} out"
    if asked.calls and not asked.prompt_tokens:
        tokens = "tokens not counted by its server"
    elif price is not None:
        tokens += f": {price.of(asked.prompt_tokens, asked.completion_tokens):,.2f}"
    return f"the judge answered {asked.calls:,} requests ({tokens}); {from_cache.calls:,} answers were in the cache"


def _prompt_tokens(want: Wanted) -> float:
    return sum(MESSAGE_TOKENS + len(message["content"]) / CHARACTERS_PER_TOKEN for message in want.ask.messages)


def _limit(want: Wanted) -> int | None:
    """The longest completion that a request allows."""
    limits = [want.parameters[name] for name in _LIMITS if isinstance(want.parameters.get(name), int)]
    return min(limits) if limits else None
