"""Policies under DeepSpeed ZeRO-3: loaded in shards, trained by torch's optimisers, exported as a transformers folder."""

from __future__ import annotations

import contextlib
import gc
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from eva_hpc.config.optimiser import Optimiser
from eva_hpc.config.site import Engine
from eva_hpc.training.distributed import Ranks  # must come before deepspeed: it chooses the accelerator
from eva_hpc.training.export import Source
from eva_hpc.training.logprobs import SequenceLogProbs
from eva_hpc.training.lora import inject

# isort: split
import deepspeed
import transformers
from deepspeed.ops.adam import DeepSpeedCPUAdam
from deepspeed.ops.op_builder import CPUAdamBuilder
from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK
from deepspeed.utils import groups, logger, set_z3_leaf_modules
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config
from transformers.modeling_layers import GradientCheckpointingLayer

with contextlib.suppress(ImportError):
    # ZeRO-3 imports it at first use, for a second: better now, where a server that forks its jobs pays only once.
    import deepspeed.runtime.zero.muon.muon_optimizer

_log = logging.getLogger(__name__)
logger.setLevel(logging.ERROR)
# DeepSpeed calls collectives by their old names, thousands of times.
warnings.filterwarnings("ignore", message="`torch.distributed.* is deprecated", category=FutureWarning)
transformers.utils.logging.disable_progress_bar()
# DeepSpeed compiles a shared-memory all-reduce for CPUs, half a minute of g++, unless the op is incompatible. Gloo will do.
deepspeed.ops.__compatible_ops__ = {}


def zero3(settings: Optimiser, limits: Engine, ranks: Ranks, *, trained: bool = True) -> dict[str, Any]:
    """The DeepSpeed configuration. Accumulation is the caller's: each optimiser step has as many micro-batches as it needs.

    Args:
        settings: precision and clipping.
        limits: offloading, and how many ranks share a second copy of the weights.
        ranks: the process group.
        trained: whether there are optimiser states and a backward pass, which offloading and the second copy are for.

    Raises:
        ValueError: the ranks cannot be divided into groups of `hpz_ranks`.
    """
    if ranks.world_size % limits.hpz_ranks:
        divisors = [str(size) for size in range(1, ranks.world_size + 1) if not ranks.world_size % size]
        raise ValueError(
            f"engine.hpz_ranks: found {limits.hpz_ranks}; must divide the {ranks.world_size} ranks: {', '.join(divisors)}"
        )
    on_gpu = ranks.device.type == "cuda"
    in_cpu_memory = {"device": "cpu", "pin_memory": on_gpu}
    optional: dict[str, Any] = {}
    if trained and limits.offload != "none":
        optional["offload_optimizer"] = in_cpu_memory
    if limits.offload == "all":
        optional["offload_param"] = in_cpu_memory
    if trained and limits.hpz_ranks > 1:
        optional["zero_hpz_partition_size"] = limits.hpz_ranks
    return {
        "train_micro_batch_size_per_gpu": 1,  # bookkeeping only
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.max_grad_norm,
        "bf16": {"enabled": settings.precision == "bf16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": on_gpu,
            "contiguous_gradients": True,
            "reduce_bucket_size": 50_000_000,
            "stage3_prefetch_bucket_size": 50_000_000,
            "stage3_param_persistence_threshold": 0,
            # It keeps gathered weights out of the autograd graph: memory that CPUs have, time that they have not.
            "memory_efficient_linear": on_gpu,
            "stage3_gather_16bit_weights_on_model_save": True,
            **optional,
        },
    }


def load(settings: Optimiser, source: Source, ranks: Ranks, limits: Engine, *, seed: int = 0) -> deepspeed.DeepSpeedEngine:
    """A ZeRO-3 engine that trains :class:`SequenceLogProbs` around the policy; no rank ever holds all weights on its device.

    With `settings.lora` it trains adapters, drawn with `seed`, around the policy's frozen weights.

    Raises:
        OSError: there is no such model.
        ValueError: the model is not supported, see :class:`SequenceLogProbs` and :func:`eva_hpc.training.lora.inject`, or the
            limits do not fit the ranks, see :func:`zero3`.
    """
    configuration = zero3(settings, limits, ranks)
    # What an earlier engine of this process left: DeepSpeed makes the groups once, and not again.
    groups._ZERO_PARAM_INTRA_PARALLEL_GROUP = None
    model = _sharded(settings, source, configuration)
    if settings.gradient_checkpointing:
        model.policy.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.lora is not None:
        inject(model.policy, settings.lora, seed)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = _optimiser(settings, _parameter_groups(trained, settings.weight_decay), limits, ranks)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimiser, config=configuration, dist_init_required=False)
    return engine


def _optimiser(settings: Optimiser, parameters: list[dict[str, Any]], limits: Engine, ranks: Ranks) -> torch.optim.Optimizer:
    if settings.rule == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=settings.learning_rate)
    on_gpu = ranks.device.type == "cuda"
    if on_gpu and limits.offload != "none" and _cpu_adam_is_built(ranks):
        return DeepSpeedCPUAdam(parameters, lr=settings.learning_rate, adamw_mode=True)
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, fused=on_gpu and limits.offload == "none")


def _cpu_adam_is_built(ranks: Ranks) -> bool:
    """Compile DeepSpeed's Adam for CPUs, once per machine; whether all ranks could."""
    try:
        CPUAdamBuilder().load(verbose=False)
        failed = 0
    except Exception as error:
        failed = 1
        _log.warning("DeepSpeed's Adam for CPUs cannot be compiled (%s): PyTorch's, which is slower, takes its place", error)
    return not ranks.sum(torch.tensor(float(failed))).item()


@contextlib.contextmanager
def frozen(settings: Optimiser, source: Source, ranks: Ranks, limits: Engine) -> Iterator[Callable[..., torch.Tensor]]:
    """The log-probs of a policy that is not trained, called like :class:`SequenceLogProbs`.

    Loaded in shards, without optimiser states, at the first call; its memory is free again afterwards. All ranks must call it
    equally often.

    Raises:
        OSError, ValueError: see :func:`load`.
    """
    engines: list[deepspeed.DeepSpeedEngine] = []

    def log_probs(*inputs: torch.Tensor) -> torch.Tensor:
        if not engines:
            configuration = zero3(settings, limits, ranks, trained=False)
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


def _turn_off_dropout(policy: PreTrainedModel) -> None:
    """A log-ratio to the reference must not contain the noise of dropout."""
    for module in policy.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


def _parameter_groups(parameters: Iterable[torch.nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay, norms and biases do not. Where ZeRO-3 has cut a parameter up, its shape is its `ds_shape`."""
    parameters = list(parameters)
    if not weight_decay:
        return [{"params": parameters, "weight_decay": 0.0}]
    matrices = [p for p in parameters if len(getattr(p, "ds_shape", p.shape)) > 1]
    others = [p for p in parameters if len(getattr(p, "ds_shape", p.shape)) <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
