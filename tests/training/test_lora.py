from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from eva_hpc.config.optimiser import Lora
from eva_hpc.store.records import read_jsonl
from tests.training.engine_scenarios import FEW_PAIRS, LORA
from tests.training.scenarios import SEED
from tests.training.test_engine import losses, weights

slow = [pytest.mark.slow, pytest.mark.timeout(300)]


def tiny(layers: int = 2) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "llama", vocab_size=30, hidden_size=16, intermediate_size=24, num_hidden_layers=layers, num_attention_heads=2
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def injected(model: Any, seed: int = 1, **lora: Any) -> Any:
    from eva_hpc.training.lora import inject

    inject(model, Lora(rank=4, alpha=8, **lora), seed)
    return model


def first_layer(model: Any) -> Any:
    from eva_hpc.training.lora import adapters

    return adapters(model)["model.layers.0.self_attn.q_proj.lora_A.weight"]


def test_an_adapter_depends_on_the_seed_and_its_layer_alone() -> None:
    import torch

    a = first_layer(injected(tiny()))
    torch.rand(3)

    assert torch.equal(a, first_layer(injected(tiny(layers=3), targets=("q_proj",))))
    assert not torch.equal(a, first_layer(injected(tiny(), seed=2)))
    assert a.abs().max() <= 16**-0.5 < 1.2 * a.abs().max()


def test_only_adapters_are_trained_and_all_linear_is_all_but_the_head() -> None:
    from eva_hpc.training.lora import adapters

    model = injected(tiny())
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]

    assert len(trained) == len(adapters(model)) == 2 * 2 * 7
    assert all(".lora_" in name for name in trained)
    assert not any("head" in name or "embed" in name for name in trained)


@pytest.mark.parametrize("targets", [("q_proj", "up_proj"), ("model.layers.1.mlp.up_proj",), ("self_attn.v_proj",)])
def test_targets_are_names_or_ends_of_names(targets: tuple[str, ...]) -> None:
    from eva_hpc.training.lora import layers

    found = [name for name, _ in layers(injected(tiny(), targets=targets))]

    assert len(found) == {3: 2 * 2, 1: 1}[3 if len(targets) == 2 else 1] or targets == ("self_attn.v_proj",)
    assert all(name.endswith(targets) for name in found)
    assert found


def test_an_adapted_model_computes_what_peft_computes_with_the_adapter_written_out(tmp_path: Path) -> None:
    import peft
    import torch

    from eva_hpc.training import lora

    base = tiny()
    base.save_pretrained(tmp_path / "base")
    model = injected(base)
    with torch.no_grad():
        for parameter in lora.adapters(model).values():
            parameter.add_(torch.randn(parameter.shape) / 10)
    lora.save_adapter(model, {n: p.detach() for n, p in lora.adapters(model).items()}, "org/name", "main", tmp_path / "adapter")

    tokens = torch.tensor([[1, 2, 3, 4]])
    plain = type(base).from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter")
    assert torch.equal(model(tokens).logits, theirs(tokens).logits)
    ours = {name: lora.merged(layer) for name, layer in lora.layers(model)}
    merged = dict(theirs.merge_and_unload().named_parameters())
    assert all((tensor - merged[f"{name}.weight"]).abs().max() < 1e-6 for name, tensor in ours.items())
    written = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == "org/name"
    assert written["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


class TestTraining:
    pytestmark = slow

    @pytest.mark.parametrize("name", ["lora", "lora_gemma2", "lora_bf16", "lora_some"])
    def test_the_first_loss_is_log_2_and_the_last_is_lower(self, engine_runs: Path, name: str) -> None:
        found = losses(engine_runs / name)

        assert found[0] == pytest.approx(math.log(2), abs=2e-2 if name == "lora_bf16" else 1e-6)
        assert found[-1] < 0.1

    @pytest.mark.parametrize(("name", "start"), [("lora", "llama"), ("lora_gemma2", "gemma2")])
    def test_training_adapters_on_two_ranks_is_plain_dpo_of_them(self, engine_runs: Path, name: str, start: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from eva_hpc.training import lora
        from eva_hpc.training.batches import optimiser_steps
        from eva_hpc.training.schedule import learning_rate
        from tests.training.test_trainer import log_prob

        def load() -> Any:
            return AutoModelForCausalLM.from_pretrained(engine_runs / start, dtype=torch.float32, attn_implementation="eager")

        policy, reference = load(), load()
        assert LORA.lora is not None
        lora.inject(policy, LORA.lora, SEED)
        trained = lora.adapters(policy)
        rule = (torch.optim.RMSprop if start == "gemma2" else torch.optim.AdamW)(trained.values(), lr=1.0)
        for group in rule.param_groups:
            group["weight_decay"] = 0.0
        expected = []
        assert LORA.steps is not None
        for step, indices in enumerate(optimiser_steps(len(FEW_PAIRS), LORA.batch_size, 1, SEED, LORA.steps)):
            mean: Any = torch.zeros((), dtype=torch.float64)
            for pair in (FEW_PAIRS[index] for index in indices):
                chosen, rejected = (
                    log_prob(policy, *side) - log_prob(reference, *side).detach()
                    for side in ((pair["prompt_tokens"], pair[key]["tokens"]) for key in ("chosen", "rejected"))
                )
                mean = mean - torch.nn.functional.logsigmoid(LORA.beta * (chosen - rejected)) / len(indices)
            rule.zero_grad()
            mean.backward()
            torch.nn.utils.clip_grad_norm_(trained.values(), LORA.max_grad_norm)
            rule.param_groups[0]["lr"] = learning_rate(
                step, LORA.steps, peak=LORA.learning_rate, warmup_ratio=LORA.warmup_ratio, schedule=LORA.schedule
            )
            rule.step()
            expected.append(float(mean))

        assert losses(engine_runs / name) == pytest.approx(expected, rel=2e-3, abs=1e-4)
        found = weights(engine_runs / name / "adapter")
        assert found.keys() == {f"base_model.model.{key}" for key in trained}
        for key, parameter in trained.items():
            assert (found[f"base_model.model.{key}"] - parameter).abs().max() < 2e-3, key

    @pytest.mark.parametrize(("name", "start"), [("lora", "llama"), ("lora_gemma2", "gemma2"), ("lora_some", "llama")])
    def test_the_exported_model_is_pefts_own_merge(self, engine_runs: Path, name: str, start: str) -> None:
        import peft
        import torch
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(engine_runs / start, dtype=torch.float32)
        before = {key: value.clone() for key, value in base.named_parameters()}
        merged = dict(
            peft.PeftModel.from_pretrained(base, engine_runs / name / "adapter").merge_and_unload().named_parameters()
        )
        found = weights(engine_runs / name / "model")

        assert found.keys() == merged.keys()
        assert all((value - merged[key]).abs().max() < 1e-6 for key, value in found.items())
        changed = {key.split(".")[-2] for key, value in found.items() if not torch.equal(value, before[key])}
        every = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
        assert changed == ({"q_proj", "up_proj"} if name == "lora_some" else every)

    def test_in_bf16_the_merge_is_summed_in_float32(self, engine_runs: Path) -> None:
        import torch

        start, found = weights(engine_runs / "llama"), weights(engine_runs / "lora_bf16" / "model")
        adapter = weights(engine_runs / "lora_bf16" / "adapter")
        name = "model.layers.1.mlp.down_proj"
        a, b = (adapter[f"base_model.model.{name}.{side}.weight"].float() for side in ("lora_A", "lora_B"))

        assert {value.dtype for value in (*found.values(), *adapter.values())} == {torch.bfloat16}
        expected = start[f"{name}.weight"].bfloat16().float() + 8 / 4 * b @ a
        assert torch.equal(found[f"{name}.weight"], expected.bfloat16())

    def test_resumed_it_is_the_same_to_the_last_bit_as_never_stopped(self, engine_runs: Path) -> None:
        resumed, whole = engine_runs / "lora_resumed", engine_runs / "lora"

        assert json.loads((resumed / "rank-0.json").read_text())["resumed_from"] == 4
        assert len(read_jsonl(resumed / "train_log.jsonl")) == LORA.steps
        for file in (
            "train_log.jsonl",
            "model/model.safetensors",
            "adapter/adapter_model.safetensors",
            "adapter/adapter_config.json",
        ):
            assert (resumed / file).read_bytes() == (whole / file).read_bytes(), file

    def test_without_adapters_there_is_no_adapter_folder(self, engine_runs: Path) -> None:
        assert not (engine_runs / "adamw" / "adapter").exists()
        assert (engine_runs / "lora" / "adapter").is_dir()
