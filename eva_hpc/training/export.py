"""A trained policy as a transformers folder, gathered from its ZeRO-3 shards and written file by file.

No rank holds more than one file of weights, unless transformers stores the model in another form than it runs in.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import orjson
import torch

from eva_hpc.training import lora
from eva_hpc.training.distributed import Ranks  # must come before deepspeed: it chooses the accelerator

# isort: split
import deepspeed
from safetensors.torch import save_file
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

FILE_BYTES = 5 * 10**9
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)


class Source(Protocol):
    """Where a policy comes from: a local folder or a hub name, and how to load it."""

    @property
    def path(self) -> str: ...  # noqa: D102
    @property
    def revision(self) -> str | None: ...  # noqa: D102
    @property
    def attention(self) -> str: ...  # noqa: D102
    @property
    def trust_remote_code(self) -> bool: ...  # noqa: D102


def export(engine: deepspeed.DeepSpeedEngine, source: Source, folder: Path, ranks: Ranks, file_bytes: int = FILE_BYTES) -> None:
    """Gather the weights and write them, with configuration and tokenizer, so that transformers and vLLM can load them.

    Adapters are merged into the weights, and also written beside `folder`, to ``adapter/``, in peft's format. A folder is there
    afterwards as a whole; one of an earlier attempt is replaced. All ranks must call this.

    Args:
        engine: of :func:`eva_hpc.training.engine.load`.
        source: the start policy, whose tokenizer is copied.
        folder: of the model.
        ranks: the process group; the first writes.
        file_bytes: size of a file of weights, unless a single tensor is larger.
    """
    policy: PreTrainedModel = engine.module.policy
    engine.optimizer.checkpoint_event_prologue()
    if lora.adapters(policy):
        _write_adapter(policy, source, folder.with_name("adapter"), ranks)
    _write_model(policy, source, folder, ranks, file_bytes)
    engine.optimizer.checkpoint_event_epilogue()
    ranks.wait()


def split(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Distribute names over as few files as their order allows, each of at most `limit` bytes or of one name."""
    files: list[list[str]] = [[]]
    room = limit
    for name, size in sizes.items():
        if files[-1] and size > room:
            files.append([])
            room = limit
        files[-1].append(name)
        room -= size
    return files


def _write_model(policy: PreTrainedModel, source: Source, folder: Path, ranks: Ranks, file_bytes: int) -> None:
    parameters = _parameters(policy)
    outlines = {name: torch.empty(one.ds_shape, dtype=one.dtype, device="meta") for name, one in parameters.items()}
    with _replaced(folder, ranks) as partial:
        if set(revert_weight_conversion(policy, outlines)) == set(outlines):
            if ranks.rank == 0:
                policy.save_pretrained(partial, state_dict={})  # the configurations and remote code
                (partial / SAFE_WEIGHTS_NAME).unlink(missing_ok=True)
            _write_files(policy, parameters, partial, ranks, file_bytes)
        else:
            weights = dict(_gathered(policy, parameters, ranks))
            if ranks.rank == 0:
                policy.save_pretrained(partial, state_dict=weights | _buffers(policy))
        for name in _TOKENIZER_FILES if ranks.rank == 0 else ():
            found = cached_file(source.path, name, revision=source.revision, _raise_exceptions_for_missing_entries=False)
            if found:
                shutil.copyfile(found, partial / name)


def _write_files(
    policy: PreTrainedModel, parameters: dict[str, torch.nn.Parameter], folder: Path, ranks: Ranks, file_bytes: int
) -> None:
    sizes = {name: one.ds_numel * one.element_size() for name, one in parameters.items()}
    files = split(sizes, file_bytes)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(files, 1):
        file = SAFE_WEIGHTS_NAME if len(files) == 1 else f"model-{number:05d}-of-{len(files):05d}.safetensors"
        weights = dict(_gathered(policy, {name: parameters[name] for name in names}, ranks))
        if ranks.rank == 0:
            weights |= _buffers(policy) if number == 1 else {}
            save_file(weights, folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(weights, file)
    if ranks.rank == 0 and len(files) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (folder / SAFE_WEIGHTS_INDEX_NAME).write_bytes(orjson.dumps(index, option=orjson.OPT_INDENT_2))


def _write_adapter(policy: PreTrainedModel, source: Source, folder: Path, ranks: Ranks) -> None:
    weights = dict(_gathered(policy, lora.adapters(policy), ranks))
    with _replaced(folder, ranks) as partial:
        if ranks.rank == 0:
            lora.save_adapter(policy, weights, source.path, source.revision, partial)


@contextlib.contextmanager
def _replaced(folder: Path, ranks: Ranks) -> Iterator[Path]:
    """A folder for the first rank to fill, which then takes the place of `folder`."""
    partial = folder.with_name(folder.name + ".partial")
    if ranks.rank == 0:
        for stale in (partial, folder):
            shutil.rmtree(stale, ignore_errors=True)
    yield partial
    if ranks.rank == 0:
        partial.rename(folder)


def _parameters(policy: PreTrainedModel) -> dict[str, torch.nn.Parameter]:
    """The parameters of the plain model by name, without adapters and without second names of tied ones."""
    every = lora.without_adapters(policy.named_parameters(remove_duplicate=False))
    tied = {name for name, kept in policy.all_tied_weights_keys.items() if every.get(name) is every.get(kept)}
    left_out = tied | set(policy._keys_to_ignore_on_save or ())
    return {name: one for name, one in every.items() if name not in left_out}


def _buffers(policy: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The buffers that transformers saves; ZeRO-3 does not cut them up."""
    saved = set(policy.state_dict())
    return lora.without_adapters((name, one.cpu()) for name, one in policy.named_buffers() if name in saved)


def _gathered(
    policy: PreTrainedModel, parameters: Mapping[str, torch.nn.Parameter], ranks: Ranks
) -> Iterator[tuple[str, torch.Tensor]]:
    """The whole tensors by name, one after the other, in the first rank's CPU memory; for the others it is empty.

    Weights with an adapter come merged.
    """
    adapted = {layer.base_layer.weight: layer for _, layer in lora.layers(policy)}
    for name, parameter in parameters.items():
        layer = adapted.get(parameter)
        needed = [parameter] if layer is None else [parameter, *lora.sides(layer)]
        with deepspeed.zero.GatheredParameters(needed):
            if ranks.rank == 0:
                whole = parameter.detach() if layer is None else lora.merged(layer)
                yield name, whole.to("cpu", copy=True).contiguous()
