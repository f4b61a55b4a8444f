from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

STEPS = 4
TWO_RANKS = """
import os, sys, torch.distributed
from pathlib import Path
from eva_hpc.lab.policy import train_start_policy
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
def train(name, stop):
    return train_start_policy(folder / name, seed=3, steps=4, rank=rank, world_size=2, progress=lambda *_: None, stop=stop)
asked = []
assert train("two", lambda: False)["steps"] == 4
assert train("stopped", lambda: asked.append(1) or (rank == 1 and len(asked) == 3))["steps"] == 2
torch.distributed.destroy_process_group()
os._exit(0)
"""
"""As workers do, a rank leaves without the interpreter's own end, which threads of torch do not always survive."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Start policies of the same seed, trained by one rank (`one`), by two (`two`), and stopped by one of two (`stopped`)."""
    from eva_hpc.lab.policy import train_start_policy

    folder = tmp_path_factory.mktemp("policies")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ranks = [subprocess.Popen([sys.executable, "-c", TWO_RANKS, str(rank), str(folder)], env=environment) for rank in range(2)]
    reports = []
    result = train_start_policy(
        folder / "one",
        seed=3,
        steps=STEPS,
        rank=0,
        world_size=1,
        progress=lambda *report: reports.append(report),
        stop=lambda: False,
    )
    (folder / "result.json").write_text(json.dumps([result, reports]))
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder / "one")


def test_training_reports_each_step_and_what_it_made(folder):
    result, reports = json.loads((folder / "result.json").read_text())

    assert reports == [[step, STEPS] for step in range(1, STEPS + 1)]
    assert result["steps"] == STEPS
    assert 350_000 < result["parameters"] < 400_000
    assert 0 < result["loss"] < 6


def test_one_rank_and_two_train_the_same_policy_up_to_rounding(folder):
    import torch
    from transformers import AutoModelForCausalLM

    one, two = (AutoModelForCausalLM.from_pretrained(folder / name).state_dict() for name in ("one", "two"))

    for name, weight in one.items():
        torch.testing.assert_close(weight, two[name], rtol=0, atol=2e-3, msg=name)


def test_all_ranks_leave_at_the_same_step_when_one_is_told_to_stop_and_nothing_is_saved(folder):
    assert not (folder / "stopped").exists()


def test_a_saved_policy_holds_safetensors_and_no_pickle(folder):
    names = {path.name for path in (folder / "one").iterdir()}

    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt"))]


def test_the_chat_template_gives_the_training_format(tokenizer):
    from eva_hpc.lab.batches import IGNORED, make_batch
    from eva_hpc.lab.demonstrations import demonstration

    for index in range(40):
        turns = demonstration(3, index)
        messages = [
            {"role": role, "content": text} for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)
        ]
        prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
        response = [*tokenizer.encode(turns[-1][1]), tokenizer.eos_token_id]

        batch = make_batch(tokenizer, 3, range(index, index + 1))

        whole = prompt + response
        assert batch.tokens[0, : len(whole) - 1].tolist() == whole[:-1]
        assert batch.labels[0][batch.labels[0] != IGNORED].tolist() == response
        assert int((batch.labels[0] != IGNORED).nonzero()[0]) == len(prompt) - 1
        assert tokenizer.apply_chat_template(messages, return_dict=False) == whole


def test_text_survives_the_tokenizer_and_special_tokens_are_apart(tokenizer):
    for text in ("Reverse then Upper: kapol", "7 1 4", "Sure! LOPAK", "Now Count a it", "Copy cat, it is 100%."):
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens, skip_special_tokens=True) == text
        assert tokenizer.unk_token_id not in tokens
    assert len(tokenizer.encode("Reverse then Upper: kapol")) == 9
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 3
    assert tokenizer.decode([tokenizer.eos_token_id], skip_special_tokens=True) == ""


def test_conversations_in_a_row_do_not_see_each_other(folder, tokenizer):
    import torch
    from transformers import AutoModelForCausalLM

    from eva_hpc.lab.batches import IGNORED, make_batch

    model = AutoModelForCausalLM.from_pretrained(folder / "one").eval()

    def loss(batches) -> float:
        total = 0.0
        for batch in batches:
            logits = model(batch.tokens, attention_mask=batch.mask, position_ids=batch.positions).logits
            answers = batch.labels != IGNORED
            total += float(torch.nn.functional.cross_entropy(logits[answers], batch.labels[answers], reduction="sum"))
        return total

    with torch.no_grad():
        packed = make_batch(tokenizer, 3, range(12))
        alone = [make_batch(tokenizer, 3, range(index, index + 1)) for index in range(12)]

        assert len(packed.tokens) < 12
        assert loss([packed]) == pytest.approx(loss(alone), rel=1e-5)


def test_a_loaded_policy_generates_and_ends_its_turn(folder, tokenizer):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "one")
    message = [{"role": "user", "content": "Reverse: kapol"}]

    prompt = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    tokens = model.generate(**prompt, max_new_tokens=26, do_sample=False)

    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.head_dim == 32
    assert tokens.shape[1] <= prompt["input_ids"].shape[1] + 26
