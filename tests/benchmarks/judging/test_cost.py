"""The estimate before judging, and the bill after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eva_hpc.benchmarks.judging.consult import JudgeServer, Usage, consult
from eva_hpc.benchmarks.judging.cost import Price, describe_usage, estimate
from eva_hpc.inference.completion_cache import CompletionCache
from tests.benchmarks import judge_server
from tests.benchmarks.judge_server import Says, running_judge
from tests.benchmarks.yes_no import YesNo, items, judge_at

NOBODY = JudgeServer("judge-1", "http://127.0.0.1:9/v1")
PRICE = Price(input=1000.0, output=3000.0)


@pytest.fixture
def server() -> Iterator[judge_server.JudgeServer]:
    with running_judge() as judge:
        judge.rule = lambda call: Says("I say [[A]]")
        yield judge


@pytest.fixture
def cache(tmp_path: Path) -> CompletionCache:
    return CompletionCache(tmp_path)


def test_before_anything_is_known_tokens_follow_from_characters_and_limits(cache):
    found = estimate(YesNo(), items(10), NOBODY, cache, repeats=2, usual_completion_tokens=5, price=PRICE)
    characters = sum(len(ask.messages[0]["content"]) for item in items(10) for ask in YesNo().asks(*item))
    assert (found.calls, found.cached) == (40, 0)
    assert found.prompt_tokens == pytest.approx(2 * (characters / 4 + 20 * 4), abs=1)
    assert (found.completion_tokens, found.most_completion_tokens) == (200, 40 * 16)
    assert found.price == pytest.approx((found.prompt_tokens * 1000 + 200 * 3000) / 1e6)
    assert found.most_price == pytest.approx((found.prompt_tokens * 1000 + 640 * 3000) / 1e6)
    assert found.describe() == (
        f"judging: 40 requests (0 more are in the cache), about {found.prompt_tokens} tokens in and about 200, at most 640 out "
        f"(4 characters to a token): about {found.price:.2f}, at most {found.most_price:.2f}"
    )
    assert found.to_json()["calls"] == 40


def test_without_a_usual_length_only_the_upper_bound_is_told(cache):
    found = estimate(YesNo(), items(1), NOBODY, cache, price=PRICE)
    assert found.price is None
    assert found.describe().endswith(f"at most 32 out (4 characters to a token): at most {found.most_price:.2f}")


def test_a_parameter_without_limit_has_no_upper_bound(cache):
    server = JudgeServer("judge-1", NOBODY.base_url, parameters={"max_tokens": None})
    found = estimate(YesNo(), items(1), server, cache, price=PRICE)
    assert (found.most_completion_tokens, found.price, found.most_price) == (None, None, None)
    assert "any number of out" in found.describe()
    other = JudgeServer("judge-1", NOBODY.base_url, parameters={"max_tokens": None, "max_completion_tokens": 50})
    assert estimate(YesNo(), items(1), other, cache).most_completion_tokens == 100


def test_what_is_in_the_cache_is_free_and_its_tokens_sharpen_the_estimate(server, cache):
    to = judge_at(server.url)
    consult(YesNo(), items(10), to, cache, judge="j")
    found = estimate(YesNo(), items(20), to, cache, price=PRICE)
    assert (found.calls, found.cached) == (20, 20)
    assert found.completion_tokens == 20 * 3
    assert found.basis == "tokens as in 20 answers in the cache"
    result = consult(YesNo(), items(20), to, cache, judge="j")
    assert found.prompt_tokens == pytest.approx(result.asked.prompt_tokens, rel=0.1)
    assert found.completion_tokens == result.asked.completion_tokens
    assert estimate(YesNo(), items(20), to, cache).describe() == "judging: nothing to ask, all 40 answers are in the cache"


def test_the_bill_says_what_was_asked_now_and_what_was_there():
    assert describe_usage(Usage(1000, 2_000_000, 100_000), Usage(5, 1, 1), PRICE) == (
        "the judge answered 1,000 requests (2,000,000 tokens in, 100,000 out: 2,300.00); 5 answers were in the cache"
    )
    assert "tokens not counted by its server" in describe_usage(Usage(3, 0, 0), Usage())
