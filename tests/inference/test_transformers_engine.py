"""The transformers engine on tiny random models: right log-probabilities, and responses that are each their own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch

from eva_hpc.inference import transformers_engine
from eva_hpc.inference.engine import EngineLimits, ModelSource, Request, Sampling
from eva_hpc.inference.opening import open_engine
from eva_hpc.inference.transformers_engine import TransformersEngine, batches
from eva_hpc.store.records import Response

pytestmark = pytest.mark.slow

TEXTS = [
    "Sort: b a c",
    "How many vowels are in the word window?",
    "Hi",
    "Write a short letter to a friend about the first snow, 日本語.",
]


@pytest.fixture(scope="module", params=["qwen2", "gemma2", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_models import tiny_policy

    if request.param == "llama":
        return tiny_policy(tmp_path_factory.mktemp("models") / "llama", "llama")
    return request.getfixturevalue(f"tiny_{request.param}")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[TransformersEngine]:
    engine = open_engine("transformers", ModelSource(str(folder)), EngineLimits())
    assert isinstance(engine, TransformersEngine)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def requests(engine: TransformersEngine) -> list[Request]:
    return [Request(prompt(engine, text), tuple(range(100 * i, 100 * i + 5))) for i, text in enumerate(TEXTS)]


def prompt(engine: Any, text: str) -> list[int]:
    return engine.render([{"role": "user", "content": text}])


def same(left: list[list[Response]], right: list[list[Response]]) -> bool:
    """Equal tokens, text and finish; log-probabilities up to rounding."""
    pairs = [(a, b) for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True)]
    return all(
        {**a, "logprob": 0} == {**b, "logprob": 0} and a["logprob"] == pytest.approx(b["logprob"], abs=1e-3) for a, b in pairs
    )


def teacher_forced(folder: Path, prompt_tokens: list[int], tokens: list[int]) -> float:
    """Sum of the log-probabilities of `tokens` in one plain forward pass with eager attention, no cache, no batch."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(torch.tensor([prompt_tokens + tokens]), use_cache=False).logits[0, len(prompt_tokens) - 1 : -1]
    return float(torch.log_softmax(logits.double(), -1).gather(1, torch.tensor(tokens)[:, None]).sum())


@pytest.mark.parametrize("sampling", [Sampling(1.0, 1.0, 40), Sampling(0.7, 0.9, 40), Sampling(0, 1.0, 40)])
def test_logprob_is_that_of_a_teacher_forced_pass(
    engine: TransformersEngine, folder: Path, requests: list[Request], sampling: Sampling
) -> None:
    # Prompts and responses are longer than the sliding window of 8 of the tiny Gemma 2.
    answers = engine.generate(requests, sampling)

    for request, responses in zip(requests, answers, strict=True):
        for response in responses[:2]:
            expected = teacher_forced(folder, request.prompt_tokens, response["tokens"])
            assert response["logprob"] == pytest.approx(expected, abs=1e-3)


def test_the_first_two_of_ten_responses_are_the_two_response_experiment(
    engine: TransformersEngine, requests: list[Request]
) -> None:
    ten = [Request(r.prompt_tokens, tuple(range(i, i + 10))) for i, r in enumerate(requests)]
    two = [Request(r.prompt_tokens, r.seeds[:2]) for r in ten]
    sampling = Sampling(1.0, 0.95, 30)

    assert same([row[:2] for row in engine.generate(ten, sampling)], engine.generate(two, sampling))


def test_a_response_does_not_depend_on_batch_or_order(
    engine: TransformersEngine, folder: Path, requests: list[Request]
) -> None:
    sampling = Sampling(1.0, 1.0, 60)
    together = engine.generate(requests, sampling)

    alone = [engine.generate([Request(r.prompt_tokens, (seed,))], sampling)[0][0] for r in requests for seed in r.seeds]
    assert same(together, [alone[5 * i : 5 * i + 5] for i in range(len(requests))])

    assert same(together, engine.generate(requests[::-1], sampling)[::-1])

    small = open_engine("transformers", ModelSource(str(folder)), EngineLimits(batch_tokens=200))
    assert same(together, small.generate(requests, sampling))


def test_more_tokens_only_lengthen_a_response(engine: TransformersEngine, requests: list[Request]) -> None:
    short = engine.generate(requests, Sampling(1.0, 1.0, 10))
    long = engine.generate(requests, Sampling(1.0, 1.0, 25))

    for a, b in zip(chain(*short), chain(*long), strict=True):
        assert b["tokens"][:10] == a["tokens"]


def test_a_response_stops_at_either_stop_token_and_its_text_leaves_it_out(
    engine: TransformersEngine, requests: list[Request]
) -> None:
    end, eos = engine._chat.tokenizer.convert_tokens_to_ids(["<|end|>", "<|eos|>"])
    many = [Request(r.prompt_tokens, tuple(range(200))) for r in requests]

    responses = list(chain(*engine.generate(many, Sampling(1.0, 1.0, 40))))

    stopped = [r for r in responses if r["finish"] == "stop"]
    assert {r["tokens"][-1] for r in stopped} == {end, eos}
    for response in responses:
        body = response["tokens"][:-1] if response["finish"] == "stop" else response["tokens"]
        assert end not in body
        assert eos not in body
        assert response["text"] == engine._chat.tokenizer.decode(body, skip_special_tokens=True)
        assert len(response["tokens"]) == 40 or response["finish"] == "stop"


def test_rows_that_finish_leave_the_batch(engine: TransformersEngine, requests: list[Request]) -> None:
    # Every eighth id ends a response here, so that rows finish at nearly every step.
    sampling = Sampling(1.0, 1.0, 30)
    many = [Request(r.prompt_tokens, tuple(range(40))) for r in requests]
    rows: list[int] = []
    hook = engine._model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    stop = engine._stop
    full = engine.generate(many, sampling)
    engine._stop = stop | frozenset(range(0, 400, 8))
    rows.clear()
    try:
        answers = engine.generate(many, sampling)
    finally:
        engine._stop = stop
        hook.remove()

    assert rows[:2] == [len(many), 160]
    assert rows[1:] == sorted(rows[1:], reverse=True)
    assert rows[-1] < 20
    for cut, whole in zip(chain(*answers), chain(*full), strict=True):
        assert whole["tokens"][: len(cut["tokens"])] == cut["tokens"]


def test_the_length_limit_of_the_model_ends_a_response(folder: Path, requests: list[Request]) -> None:
    engine = open_engine("transformers", ModelSource(str(folder)), EngineLimits(max_model_len=70))

    free = [Request(r.prompt_tokens, (1, 2)) for r in requests]
    for request, responses in zip(free, engine.generate(free, Sampling(1.0, 1.0, 60)), strict=True):
        for response in responses:
            assert len(response["tokens"]) == min(60, 70 - len(request.prompt_tokens)) or response["finish"] == "stop"
    with pytest.raises(ValueError, match="the prompt has 70 tokens, the model takes 70 with the response"):
        engine.generate([Request([5] * 70, (1,))], Sampling(1.0, 1.0, 5))


def test_nothing_asked_gives_nothing(engine: TransformersEngine, requests: list[Request]) -> None:
    sampling = Sampling(1.0, 1.0, 5)
    assert engine.generate([], sampling) == []
    assert engine.generate([Request(requests[0].prompt_tokens, ())], sampling) == [[]]
    with pytest.raises(ValueError, match="request 1: the prompt has no tokens"):
        engine.generate([requests[0], Request([], (1,))], sampling)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_diverged_policy_is_an_error_and_not_text(tiny_qwen2: Path, temperature: float) -> None:
    engine = open_engine("transformers", ModelSource(str(tiny_qwen2)), EngineLimits())
    assert isinstance(engine, TransformersEngine)
    engine._model.model.norm.weight.data.fill_(float("nan"))

    with pytest.raises(FloatingPointError, match="not finite"):
        engine.generate([Request([5, 6, 7], (1, 2))], Sampling(temperature, 0.9, 5))


def test_render_uses_the_chat_template_and_opens_the_assistants_turn(engine: TransformersEngine) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    tokens = engine.render(messages)

    assert engine._chat.tokenizer.decode(tokens) == "<|bos|><|turn|>user\nHi<|end|>\n<|turn|>assistant\n"


def test_a_tokenizer_without_a_chat_template_is_refused_when_rendering(tiny_qwen2: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(tiny_qwen2, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    engine = open_engine("transformers", ModelSource(str(bare)), EngineLimits())

    with pytest.raises(ValueError, match="has no chat template"):
        engine.render([{"role": "user", "content": "Hi"}])


def test_batches_hold_every_row_once_within_the_budget_and_keep_prompts_together() -> None:
    requests = [Request([5] * length, tuple(range(seeds))) for length, seeds in [(10, 3), (50, 2), (10, 40), (30, 6), (90, 1)]]

    found = list(batches(requests, max_new_tokens=10, batch_tokens=400))

    rows = [row for batch in found for row in batch]
    assert sorted((row.request, row.index) for row in rows) == [
        (i, j) for i, r in enumerate(requests) for j in range(len(r.seeds))
    ]
    assert sorted((row.request, row.seed) for row in rows) == [(i, seed) for i, r in enumerate(requests) for seed in r.seeds]
    for batch in found:
        widest = max(len(requests[row.request].prompt_tokens) for row in batch) + 10
        assert len(batch) * widest <= 400
    assert len({i for i, batch in enumerate(found) for row in batch if row.request == 3}) == 1


def test_requests_that_are_fed_bit_by_bit_get_the_responses_of_one_call(
    folder: Path, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling, greedy = Sampling(1.0, 0.9, 40), Sampling(0, 1.0, 25)
    engine = open_engine("transformers", ModelSource(str(folder)), EngineLimits(batch_tokens=400))
    monkeypatch.setattr(transformers_engine, "_ROUND", 8)
    many = [Request(r.prompt_tokens, tuple(range(40 * i, 40 * i + n))) for i, r in enumerate(requests * 3) for n in (1, 6)]
    expected = engine.generate(many, sampling)
    expected_greedy = engine.generate(many[:3], greedy)

    fed, found, longest_queue = 0, {}, 0
    engine.submit("none", Request(many[0].prompt_tokens, ()), sampling)
    for index in range(3):
        engine.submit(("greedy", index), many[index], greedy)
    while len(found) < len(many) + 4:
        while engine.hungry and fed < len(many):
            engine.submit(fed, many[fed], sampling)
            fed += 1
        longest_queue = max(longest_queue, fed - len(found))
        found.update(dict(engine.step()))

    assert same([found[index] for index in range(len(many))], expected)
    assert same([found["greedy", index] for index in range(3)], expected_greedy)
    assert found["none"] == []
    assert longest_queue < len(many)
    assert engine.step() == []


def test_what_was_dropped_does_not_come_back(engine: TransformersEngine, requests: list[Request]) -> None:
    sampling = Sampling(1.0, 1.0, 40)
    expected = engine.generate(requests[2:], sampling)
    for index, request in enumerate(requests):
        engine.submit(index, request, sampling)
    assert engine.step() == []  # 15 of 40 tokens
    engine.drop()
    assert engine.step() == []
    assert same(engine.generate(requests[2:], sampling), expected)
