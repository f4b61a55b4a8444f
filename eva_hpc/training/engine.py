"""Policies under DeepSpeed ZeRO-3: loaded in shards, trained by torch's optimisers, exported as a transformers folder."""

from __future__ import annotations

import contextlib
import gc
import logging
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from eva_hpc.config.optimiser import Optimiser
from eva_hpc.training.distributed import Ranks  # must come before deepspeed: it chooses the accelerator
from eva_hpc.training.logprobs import SequenceLogProbs

# isort: split
import deepspeed
import transformers
from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK
from deepspeed.utils import logger, set_z3_leaf_modules
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import cached_file

with contextlib.suppress(ImportError):
    # ZeRO-3 imports it at first use, for a second: better now, where a server that forks its jobs pays only once.
    import deepspeed.runtime.zero.muon.muon_optimizer

logger.setLevel(logging.ERROR)
# DeepSpeed calls collectives by their old names, thousands of times.
warnings.filterwarnings("ignore", message="`torch.distributed.* is deprecated", category=FutureWarning)
transformers.utils.logging.disable_progress_bar()
# DeepSpeed compiles a shared-memory all-reduce for CPUs, half a minute of g++, unless the op is incompatible. Gloo will do.
deepspeed.ops.__compatible_ops__ = {}

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


def zero3(settings: Optimiser, micro_batch: int, ranks: Ranks) -> dict[str, Any]:
    """The DeepSpeed configuration. Accumulation is the caller's: each optimiser step has as many micro-batches as it needs."""
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.max_grad_norm,
        "bf16": {"enabled": settings.precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": ranks.device.type == "cuda",
            "contiguous_gradients": True,
            "reduce_bucket_size": 50_000_000,
            "stage3_prefetch_bucket_size": 50_000_000,
            "stage3_param_persistence_threshold": 0,
            # It keeps gathered weights out of the autograd graph: memory that CPUs have, time that they have not.
            "memory_efficient_linear": ranks.device.type == "cuda",
            "stage3_gather_16bit_weights_on_model_save": True,
        },
    }


def load(settings: Optimiser, source: Source, ranks: Ranks, micro_batch: int) -> deepspeed.DeepSpeedEngine:
    """A ZeRO-3 engine that trains :class:`SequenceLogProbs` around the policy; no rank ever holds all weights on its device.

    Raises:
        OSError: there is no such model.
        ValueError: the model is not supported, see :class:`SequenceLogProbs`.
    """
    configuration = zero3(settings, micro_batch, ranks)
    model = _sharded(settings, source, configuration)
    if settings.gradient_checkpointing:
        model.policy.gradient_checkpointing_enable({"use_reentrant": False})
    groups = _parameter_groups(model.parameters(), settings.weight_decay)
    optimiser: torch.optim.Optimizer
    if settings.rule == "rmsprop":
        optimiser = torch.optim.RMSprop(groups, lr=settings.learning_rate)
    else:
        optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=ranks.device.type == "cuda")
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimiser, config=configuration, dist_init_required=False)
    return engine


@contextlib.contextmanager
def frozen(settings: Optimiser, source: Source, ranks: Ranks, micro_batch: int) -> Iterator[Callable[..., torch.Tensor]]:
    """The log-probs of a policy that is not trained, called like :class:`SequenceLogProbs`.

    Loaded in shards, without optimiser states, at the first call; its memory is free again afterwards. All ranks must call it
    equally often.

    Raises:
        OSError, ValueError: see :func:`load`.
    """
    engines: list[deepspeed.DeepSpeedEngine] = []

    def log_probs(*inputs: torch.Tensor) -> torch.Tensor:
        if not engines:
            configuration = zero3(settings, micro_batch, ranks)
            model = _sharded(settings, source, configuration)
            engine, *_ = deepspeed.initialize(model=model, config=configuration, dist_init_required=False)
            engine.eval()
            engines.append(engine)
        result: torch.Tensor = engines[0](*inputs)
        return result

    try:
        yield log_probs
    finally:
        if engines:
            engines.pop().destroy()
            FWD_MODULE_STACK.clear()  # DeepSpeed would keep the last model it ran alive
            gc.collect()  # hooks and modules refer to each other
            if ranks.device.type == "cuda":
                torch.cuda.empty_cache()


def _sharded(settings: Optimiser, source: Source, configuration: dict[str, Any]) -> SequenceLogProbs:
    config = AutoConfig.from_pretrained(source.path, revision=source.revision, trust_remote_code=source.trust_remote_code)
    # Fused attention silently leaves out soft-capping.
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    sharded = HfDeepSpeedConfig(configuration)  # while it lives, from_pretrained loads in shards
    policy = AutoModelForCausalLM.from_pretrained(
        source.path,
        revision=source.revision,
        dtype=torch.bfloat16 if settings.precision == "bf16" else torch.float32,
        attn_implementation="eager" if capped else source.attention,
        trust_remote_code=source.trust_remote_code,
    )
    del sharded
    unset_hf_deepspeed_config()
    _turn_off_dropout(policy)
    # Gather a decoder layer at once: one collective and one set of hooks instead of ten.
    set_z3_leaf_modules(policy, [GradientCheckpointingLayer], raise_if_not_found=False)
    return SequenceLogProbs(policy)


def export(engine: deepspeed.DeepSpeedEngine, source: Source, folder: Path, ranks: Ranks) -> None:
    """Gather the weights and write them, with configuration and tokenizer, so that transformers and vLLM can load them.

    `folder` is there afterwards as a whole; a folder of an earlier attempt is replaced.
    """
    weights = engine._zero3_consolidated_16bit_state_dict()
    if ranks.rank == 0:
        partial = folder.with_name(folder.name + ".partial")
        for stale in (partial, folder):
            shutil.rmtree(stale, ignore_errors=True)
        prefix = "policy."
        own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        engine.module.policy.save_pretrained(partial, state_dict=own)
        for name in _TOKENIZER_FILES:
            found = cached_file(source.path, name, revision=source.revision, _raise_exceptions_for_missing_entries=False)
            if found:
                shutil.copyfile(found, partial / name)
        partial.rename(folder)
    ranks.wait()


def _turn_off_dropout(policy: PreTrainedModel) -> None:
    """A log-ratio to the reference must not contain the noise of dropout."""
    for module in policy.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def _parameter_groups(parameters: Iterable[torch.nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay, norms and biases do not. Under ZeRO-3 the shape of a whole parameter is its `ds_shape`."""
    parameters = list(parameters)
    if not weight_decay:
        return [{"params": parameters, "weight_decay": 0.0}]
    matrices = [p for p in parameters if len(p.ds_shape) > 1]
    others = [p for p in parameters if len(p.ds_shape) <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
