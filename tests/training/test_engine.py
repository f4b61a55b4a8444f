from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eva_hpc.store.records import read_jsonl
from tests.training.engine_scenarios import FILE_BYTES, FULL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_jsonl(folder / "train_log.jsonl")]


def weights(folder: Path) -> dict[str, Any]:
    """Of a model in one file or in several."""
    from safetensors.torch import load_file

    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize(
    ("switched", "plain"),
    [
        ("adamw_optimiser", "adamw"),
        ("adamw_all", "adamw"),
        ("adamw_hpz", "adamw"),
        ("rmsprop_all", "rmsprop"),
        ("lora_all", "lora"),
        ("lora_hpz", "lora"),
    ],
)
def test_where_states_and_weights_are_kept_changes_no_result(engine_runs: Path, switched: str, plain: str) -> None:
    expected = losses(engine_runs / plain)

    assert expected[-1] != pytest.approx(expected[0], rel=1e-2)
    assert losses(engine_runs / switched) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    trained = weights(engine_runs / plain / "model")
    for name, tensor in weights(engine_runs / switched / "model").items():
        assert (tensor - trained[name]).abs().max() < 1e-4 * (1 + trained[name].abs().max()), name


def test_switches_reach_deepspeed() -> None:
    from types import SimpleNamespace

    import torch

    from eva_hpc.config.site import Engine
    from eva_hpc.training.engine import zero3

    ranks: Any = SimpleNamespace(rank=0, world_size=8, device=torch.device("cpu"))

    def zero(trained: bool = True, **switches: Any) -> dict[str, Any]:
        return zero3(FULL, Engine(**switches), ranks, trained=trained)["zero_optimization"]

    keys = {"offload_optimizer", "offload_param", "zero_hpz_partition_size"}
    assert not keys & zero().keys()
    assert keys & zero(offload="optimiser").keys() == {"offload_optimizer"}
    assert keys & zero(offload="all").keys() == {"offload_optimizer", "offload_param"}
    assert zero(hpz_ranks=4)["zero_hpz_partition_size"] == 4
    assert keys & zero(trained=False, offload="all", hpz_ranks=4).keys() == {"offload_param"}
    with pytest.raises(ValueError, match=r"^engine.hpz_ranks: found 3; must divide the 8 ranks: 1, 2, 4, 8$"):
        zero(hpz_ranks=3)


def test_settings_that_do_not_fit_the_ranks_or_the_policy_are_refused(engine_runs: Path) -> None:
    layers = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
    allowed = f"must be all-linear, or linear layers of the policy other than its head: {layers}"

    assert json.loads((engine_runs / "refused.json").read_text()) == [
        "engine.hpz_ranks: found 2; must divide the 1 ranks: 1",
        *(f"optimiser.lora.targets: found '{name}'; {allowed}" for name in ("w_proj", "lm_head", "embed_tokens")),
    ]


@pytest.mark.parametrize("model", ["export_llama", "export_gemma2"])
def test_the_export_in_one_file_or_several_has_the_engines_weights_bit_by_bit(engine_runs: Path, model: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    whole = {name.removeprefix("policy."): value for name, value in torch.load(engine_runs / model / "whole.pt").items()}
    lora = "base_layer" in " ".join(whole)
    # A new adapter's B is zero: merged, it leaves the weights as they are.
    plain = {name.replace(".base_layer.", "."): value for name, value in whole.items() if ".lora_" not in name}
    expected = {name: value for name, value in plain.items() if name not in ("lm_head.weight", "head.weight")}
    one, several = engine_runs / model / "one" / "model", engine_runs / model / "several" / "model"

    assert lora == (model == "export_gemma2")
    for folder in (one, several):
        found = weights(folder)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        loaded, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        assert torch.equal(loaded.lm_head.weight, expected["model.embed_tokens.weight"])
    assert [file.name for file in one.glob("*.safetensors*")] == ["model.safetensors"]
    files = list(several.glob("*.safetensors"))
    assert len(files) > 2
    assert all(file.stat().st_size < FILE_BYTES + 4096 for file in files)


def test_no_rank_ever_holds_all_weights_while_it_loads_or_exports(engine_runs: Path) -> None:
    size = (engine_runs / "wide" / "model.safetensors").stat().st_size
    files = [file.stat().st_size for file in (engine_runs / "memory" / "model").glob("*.safetensors")]
    grown = [json.loads((engine_runs / "memory" / f"rank-{rank}.json").read_text()) for rank in range(4)]

    for rank in grown:
        # A quarter each of the weights, of the optimiser's own copy and of gradients, and some whole layers.
        assert rank["loading"] < 1.1 * size
    assert sum(files) == pytest.approx(size, rel=0.01)
    assert grown[0]["exporting"] < 3 * max(files) < 0.5 * size
    assert max(rank["exporting"] for rank in grown[1:]) < max(files)
