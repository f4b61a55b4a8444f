"""LoRA (arXiv 2106.09685): low-rank adapters trained in place of the weights, and merged into them for the export.

A layer ``y = W x`` becomes ``y = W x + alpha / rank B A x`` with A [rank, inputs] drawn at random and B [outputs, rank] zero,
so the first step sees the start policy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from eva_hpc.config.optimiser import ALL_LINEAR, Lora
from eva_hpc.store.seeds import derive_seed

ADAPTER = "default"
Value = TypeVar("Value")


def inject(policy: PreTrainedModel, lora: Lora, seed: int) -> None:
    """Put adapters into the policy, in place, and freeze all other weights.

    The A of a layer depends on `seed` and the layer's name alone.

    Raises:
        ValueError: a target is no linear layer of the policy.
        ImportError: peft is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise ImportError("LoRA needs the package peft: pip install peft") from error
    config = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=_patterns(policy, _targets(policy, lora)), task_type="CAUSAL_LM"
    )
    peft.inject_adapter_in_model(config, policy, ADAPTER)
    for name, layer in layers(policy):
        a = layer.lora_A[ADAPTER].weight
        generator = torch.Generator().manual_seed(derive_seed(seed, name))
        bound = layer.in_features**-0.5  # as torch.nn.Linear draws its weights, and peft its A
        with torch.no_grad():
            a.copy_(torch.empty(a.shape).uniform_(-bound, bound, generator=generator))
    # Else DeepSpeed collects the gradients of the first layer before they are computed: it waits for those of its inputs.
    policy.enable_input_require_grads()


def layers(policy: PreTrainedModel) -> Iterator[tuple[str, Any]]:
    """The adapted layers by their names in the plain model."""
    for name, module in policy.named_modules():
        if hasattr(module, "lora_A"):
            yield name, module


def sides(layer: Any) -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    """A [rank, inputs] and B [outputs, rank] of a layer."""
    return layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight


def adapters(policy: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """All A and B, as ``LAYER.lora_A.weight`` and ``LAYER.lora_B.weight``; empty for a policy without adapters."""
    return {
        f"{name}.{side}.weight": parameter
        for name, layer in layers(policy)
        for side, parameter in zip(("lora_A", "lora_B"), sides(layer), strict=True)
    }


def without_adapters(named: Iterable[tuple[str, Value]]) -> dict[str, Value]:
    """Parameters or buffers of a policy with adapters under their names in the plain model; those of adapters are left out."""
    return {
        name.replace(".base_layer.", "."): value for name, value in named if ".lora_A." not in name and ".lora_B." not in name
    }


def merged(layer: Any) -> torch.Tensor:
    """W + alpha / rank B A of one layer, whose three parameters must be there as a whole: summed in float32, of W's dtype."""
    weight = layer.base_layer.weight.detach()
    a, b = (side.detach().float() for side in sides(layer))
    return (weight.float() + layer.scaling[ADAPTER] * (b @ a)).to(weight.dtype)


def save_adapter(
    policy: PreTrainedModel, weights: dict[str, torch.Tensor], base: str, revision: str | None, folder: Path
) -> None:
    """Write adapters in peft's format: ``adapter_config.json`` and ``adapter_model.safetensors``.

    Args:
        policy: with the adapters.
        weights: their whole tensors by name, see :func:`adapters`.
        base: the start policy; named there if it is on the hub, since a path need not last.
        revision: of the start policy.
        folder: made if it is not there.
    """
    from safetensors.torch import save_file

    config: Any = dataclasses.replace(policy.peft_config[ADAPTER], inference_mode=True)
    config.target_modules = sorted(config.target_modules)  # it is a set, whose order changes from run to run
    if not Path(base).exists():
        config.base_model_name_or_path, config.revision = base, revision
    config.save_pretrained(str(folder))
    named = {f"base_model.model.{name}": tensor for name, tensor in weights.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _targets(policy: PreTrainedModel, lora: Lora) -> list[str]:
    head = policy.get_output_embeddings()
    linear = [name for name, module in policy.named_modules() if isinstance(module, torch.nn.Linear) and module is not head]
    if ALL_LINEAR in lora.targets:
        return linear
    for target in lora.targets:
        if not any(_is_at(name, target) for name in linear):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise ValueError(
                f"optimiser.lora.targets: found {target!r}; must be {ALL_LINEAR}, or linear layers of the policy other than its"
                f" head: {known}"
            )
    return [name for name in linear if any(_is_at(name, target) for target in lora.targets)]


def _is_at(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _patterns(policy: PreTrainedModel, names: list[str]) -> list[str]:
    """What peft shall adapt: last parts of names, which vLLM understands too, unless that would be more than the names."""
    ends = sorted({name.rpartition(".")[2] for name in names})
    matched = [name for name, _ in policy.named_modules() if any(_is_at(name, end) for end in ends)]
    return ends if set(matched) == set(names) else names
