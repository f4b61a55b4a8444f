"""Rewritten responses: as the policy's chat template would show them, one for every pair or a reason why there is none."""

from __future__ import annotations

import shutil

import pytest

from eva_hpc.config.creator import LabRewriter, OpenAIEvolver, PolicyEvolver
from eva_hpc.config.recipe import LabChecker
from eva_hpc.plan.graph import Node
from eva_hpc.stages import adopt, pair, rewrite, score
from eva_hpc.stages.contract import StageFailed
from tests.stages.chat_server import completion

pytestmark = pytest.mark.slow

PROMPTS = {"a": "Name a river.", "b": "Name a cloud.", "c": "Name a stone."}
OLD = "The answer is a lantern."


class Rewriting:
    """Pairs of a policy, and the node of their chosen responses rewritten."""

    def __init__(self, bench, policy, model) -> None:
        from transformers import AutoTokenizer

        self.bench, self.policy = bench, policy
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.pairs = Node(pair.Spec(responses=2, ratio=0.0, seed=1, round=1), "round 1", {"base": policy})
        bench.make(policy)

    def render(self, *turns, ask=False):
        roles = ("user", "assistant")
        messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
        return self.tokenizer.apply_chat_template(messages, add_generation_prompt=ask, return_dict=False)

    def put_pairs(self, prompts, old=OLD, finished=True):
        records = []
        for name, prompt in prompts.items():
            asked = self.render(prompt, ask=True)
            tokens = self.render(prompt, old)[len(asked) :]
            while tokens[-1] not in self.stop:
                tokens.pop()
            side = {"text": old, "tokens": tokens if finished else tokens[:-1], "reward": 0.5}
            rejected = {"text": "x", "tokens": [1], "reward": 0.0}
            records.append({"prompt_id": name, "prompt": prompt, "prompt_tokens": asked, "chosen": side, "rejected": rejected})
        self.bench.put(self.pairs, "mixture.json", [{}])
        self.bench.put(self.pairs, "pairs.jsonl", records)

    @property
    def stop(self):
        ends = {self.tokenizer.convert_tokens_to_ids(token) for token in ("<|end|>", "<end>")}
        return (ends - {self.tokenizer.unk_token_id, None}) | {self.tokenizer.eos_token_id}

    def node(self, writer):
        spec = rewrite.Spec(writer=writer, seed=1, round=1)
        return Node(spec, "round 1", {"pairs": self.pairs, "policy": self.policy})


@pytest.fixture
def rewriting(bench, policy_of, tiny_qwen2):
    made = Rewriting(bench, policy_of(tiny_qwen2), tiny_qwen2)
    made.put_pairs(PROMPTS)
    return made


@pytest.fixture
def asked(server, monkeypatch):
    """The writer that is the server, whose answer is a better response to each prompt unless a test says otherwise."""
    monkeypatch.setenv("TEST_KEY", "sk-secret")
    server.answer = lambda number, body: (200, better(f"Better answer: {name_in(body)}"))
    return OpenAIEvolver(model="m", base_url=server.url, api_key_env="TEST_KEY", concurrency=2, max_new_tokens=40)


def better(text):
    return completion(f"Let me think.<better_response>{text}</better_response>")


def name_in(body):
    return next(name for name, prompt in PROMPTS.items() if prompt in body["messages"][0]["content"])


def check_tokens(made, node, prompts):
    """Prompt and response together are what the chat template makes of the conversation, up to the end of the turn."""
    for record in made.bench.read(node, "responses.jsonl"):
        written, chosen = record["responses"]
        whole = made.render(prompts[record["prompt_id"]], written["text"])
        assert record["prompt_tokens"] + written["tokens"] == whole[: len(record["prompt_tokens"]) + len(written["tokens"])]
        assert [token in made.stop for token in written["tokens"]] == [False] * (len(written["tokens"]) - 1) + [True]
        assert not set(whole[len(record["prompt_tokens"]) + len(written["tokens"]) :]) & made.stop
        assert (written["finish"], written["logprob"]) == ("stop", None)
        assert chosen["logprob"] is None


def test_a_server_is_shown_prompt_and_response_and_its_answer_becomes_a_response_of_the_policy(bench, server, asked, rewriting):
    node = rewriting.node(asked)
    assert bench.make(node).manifest["records"] == {"in": 3, "out": 3, "set_aside": {}}
    records = bench.read(node, "responses.jsonl")
    assert [record["prompt_id"] for record in records] == list(PROMPTS), "in the order of the pairs"
    assert [[one["text"] for one in record["responses"]] for record in records] == [
        [f"Better answer: {name}", OLD] for name in PROMPTS
    ]
    check_tokens(rewriting, node, PROMPTS)
    assert all(OLD in server.asked(number) for number in range(3))
    assert {prompt["id"]: prompt["prompt"] for prompt in bench.read(node, "prompts.jsonl")} == PROMPTS
    assert server.keys == {"Bearer sk-secret"}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((200, completion("It is fine as it is.")), "no new response in the answer"),
        ((200, completion("<better_response>cut")), "cut off"),
        ((200, better("")), "empty"),
        ((200, completion(None)), "empty"),
        ((400, b"content filter"), "rejected"),
        ((200, b'{"choices": []}'), "malformed"),
        ((200, better("half \ud83d")), "not valid Unicode"),
        ((200, better("It ends<|end|> here.")), "the chat template changes the text"),
        ((200, better("Two <|turn|> turns.")), "the chat template changes the text"),
    ],
)
def test_an_answer_that_is_no_use_is_counted_and_its_pair_keeps_what_it_had(bench, server, asked, rewriting, answer, problem):
    usual = server.answer
    server.answer = lambda number, body: answer if name_in(body) == "b" else usual(number, body)
    node = rewriting.node(asked)
    assert bench.make(node).manifest["records"] == {"in": 3, "out": 2, "set_aside": {f"rewrite failed: {problem}": 1}}
    assert [record["prompt_id"] for record in bench.read(node, "set_aside.jsonl")] == ["b"]
    assert [prompt["id"] for prompt in bench.read(node, "prompts.jsonl")] == ["a", "c"]
    check_tokens(rewriting, node, PROMPTS)


def test_a_writer_of_whom_nothing_can_be_used_fails_the_stage(bench, server, asked, rewriting):
    server.answer = lambda number, body: (200, completion("No."))
    with pytest.raises(StageFailed, match="none of the 3 responses could be rewritten: 3 rewrite failed: no new response"):
        bench.make(rewriting.node(asked))


def with_template(folder, model, old, new):
    """A copy of a model with another chat template."""
    shutil.copytree(model, folder)
    file = folder / "chat_template.jinja"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    return folder


def test_a_template_that_trims_is_followed_and_the_text_is_what_the_tokens_say(
    bench, server, asked, policy_of, tiny_qwen2, tmp_path
):
    model = with_template(tmp_path / "trims", tiny_qwen2, "message.content", "message.content | trim")
    made = Rewriting(bench, policy_of(model), model)
    made.put_pairs(PROMPTS)
    node = made.node(asked)
    assert bench.make(node).manifest["records"]["out"] == 3
    check_tokens(made, node, PROMPTS)


CHANGES = {
    "upper case": ("message.content", "(message.content | upper if message.role == 'assistant' else message.content)"),
    "drops the beginning": ("message.content", "message.content.split(':')[-1]"),
    "no end of the turn": ("<|end|>", ""),
    "another beginning": ("assistant\n{% endif %}", "assistant\n<|end|>{% endif %}"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_template_that_shows_another_text_leaves_nothing_to_train_on(
    bench, server, asked, policy_of, tiny_qwen2, tmp_path, change
):
    model = with_template(tmp_path / "changed", tiny_qwen2, *CHANGES[change])
    made = Rewriting(bench, policy_of(model), model)
    sides = {"text": OLD, "tokens": [5, 6], "reward": 0.5}
    pairs = [
        {"prompt_id": name, "prompt": text, "prompt_tokens": [1], "chosen": sides, "rejected": sides}
        for name, text in PROMPTS.items()
    ]
    bench.put(made.pairs, "pairs.jsonl", pairs)
    with pytest.raises(StageFailed, match="3 rewrite failed: the chat template changes the text"):
        bench.make(made.node(asked))


def test_a_policy_rewrites_on_any_number_of_shards(bench, policy_of, tiny_qwen2):
    made = Rewriting(bench, policy_of(tiny_qwen2), tiny_qwen2)
    prompts = {str(number): f"Name river number {number}." for number in range(6)}
    made.put_pairs(prompts)
    node = made.node(PolicyEvolver(max_new_tokens=12))
    found = []
    for shards in (1, 2):
        attempt = bench.prepare(node, shards=shards, chunk=2)
        bench.run(attempt)
        with pytest.raises(StageFailed, match="none of the 6 responses could be rewritten"):  # a random policy obeys no one
            bench.commit(attempt)
        found.append((attempt.folder / "set_aside.jsonl").read_bytes())
        shutil.rmtree(attempt.folder)
    assert found[0] == found[1]


def test_the_lab_mends_answers_and_a_mended_one_is_rewarded_more(bench, policy_of, random_lab_policy):
    from eva_hpc.lab.checker import answer, edit_distance

    made = Rewriting(bench, policy_of(random_lab_policy), random_lab_policy)
    prompts = {"a": "Reverse: kapol", "b": "Upper: tugas", "c": "Flip: 4 1 7"}
    made.put_pairs(prompts, old="zzzz")
    node = made.node(LabRewriter())
    bench.make(node)
    check_tokens(made, node, prompts)
    reward = score.Spec(reward=LabChecker(), responses=2, fraction=1.0)
    rewards = Node(reward, "round 1", {"responses": node, "prompts": node})
    inputs = {"pairs": made.pairs, "rewritten": node, "rewards": rewards}
    chosen = Node(adopt.Spec(only_if_better=True), "round 1", inputs)
    bench.make(chosen)
    sides = {pair["prompt"]: pair["chosen"] for pair in bench.read(chosen, "pairs.jsonl")}
    mended = {prompt: side["text"] for prompt, side in sides.items() if side.get("rewritten")}
    assert mended
    assert {side["text"] for prompt, side in sides.items() if prompt not in mended} <= {"zzzz"}
    assert all(edit_distance(text, answer(prompt)) < edit_distance("zzzz", answer(prompt)) for prompt, text in mended.items())


def test_a_response_that_was_cut_off_is_compared_as_such(bench, server, asked, rewriting):
    rewriting.put_pairs(PROMPTS, finished=False)
    node = rewriting.node(asked)
    bench.make(node)
    assert {record["responses"][1]["finish"] for record in bench.read(node, "responses.jsonl")} == {"length"}


def test_no_file_of_the_artifact_has_the_key(bench, server, asked, rewriting):
    bench.make(rewriting.node(asked))
    assert not [path for path in bench.root.rglob("*") if path.is_file() and b"sk-secret" in path.read_bytes()]
    assert {body["max_tokens"] for body in server.requests} == {40}
