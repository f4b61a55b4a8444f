"""The rows of bench/dpo.py, each trained on the pairs that all share, by one process of several."""

from __future__ import annotations

import json
import math
import os
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

os.environ.update(TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1", HF_HUB_OFFLINE="1", HF_DATASETS_DISABLE_PROGRESS_BARS="1")
os.environ.setdefault("PYTHONWARNINGS", "ignore")

from eva_hpc.training import trainer  # must come before TRL: it chooses DeepSpeed's accelerator and its operators

# isort: split
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from eva_hpc.config.optimiser import DPO
from eva_hpc.config.site import Engine
from eva_hpc.store.records import Pair
from eva_hpc.training import logprobs, reading
from eva_hpc.training.batches import epoch_order
from eva_hpc.training.distributed import Ranks, distributed

LENGTHS = {
    "shares": (0.0, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 1.0),
    "prompt": (2, 9, 13, 20, 38, 83, 234, 450, 1734, 6896),
    "response": (1, 53, 103, 232, 380, 618, 834, 960, 1261, 2989),
}
"""Quantiles in tokens, a token being 4 characters. Prompts: the 2,700 of AlpacaEval, Arena-Hard v0.1 and v2.0, self-instruct
and WizardLM's test set together. Responses: the 3,415 of gpt-4-0314 and gpt-3.5-turbo-0125 to Arena-Hard v0.1, and of GPT-4
Turbo, Claude 2.1 and FuseChat-Llama-3.2-1B to AlpacaEval."""
LIKENESS = 0.77
"""Correlation behind the lengths of two answers to a prompt: rank correlations of pairs of these models are 0.73 to 0.84."""
MAX_LENGTH = 1024
"""TRL's default. Prompts are cut to half of it, responses to what is left."""
PAIRS_PER_RANK = 8
SEED = 11
BETA = 0.1
LEARNING_RATE = 1e-5

QWEN2: dict[str, Any] = {"model_type": "qwen2", "tie_word_embeddings": True}
GEMMA2: dict[str, Any] = {"model_type": "gemma2", "tie_word_embeddings": True}
_SHAPES: list[Any] = [
    ("tiny-qwen2", QWEN2, (96, 288, 3), (3, 3, 32, 512), {}),
    ("small-qwen2", QWEN2, (256, 768, 4), (4, 2, 64, 8192), {}),
    ("small-gemma2", GEMMA2, (256, 768, 4), (4, 2, 64, 8192), {"query_pre_attn_scalar": 64, "sliding_window": 64}),
    ("medium-qwen2", QWEN2, (512, 1408, 8), (8, 4, 64, 32768), {}),
    ("medium-gemma2", GEMMA2, (512, 1408, 8), (8, 4, 64, 32768), {"query_pre_attn_scalar": 64, "sliding_window": 64}),
    ("qwen2-1.5b", QWEN2, (1536, 8960, 28), (12, 2, 128, 151936), {"rope_theta": 1e6}),
    (
        "gemma-2-2b",
        GEMMA2,
        (2304, 9216, 26),
        (8, 4, 256, 256000),
        {"query_pre_attn_scalar": 256, "sliding_window": 4096},
    ),
]
MODELS: dict[str, dict[str, Any]] = {
    name: {
        **family,
        **dict(zip(("hidden_size", "intermediate_size", "num_hidden_layers"), sizes, strict=True)),
        **dict(zip(("num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size"), heads, strict=True)),
        **more,
    }
    for name, family, sizes, heads, more in _SHAPES
}


@dataclass(frozen=True)
class Row:
    """A way to train. TRL's has the last two switches only; its reference is made known by computing it beforehand."""

    name: str
    ours: bool = True
    chunked_head: bool = True
    packing: bool = True
    shared_prompt: bool = True
    reference_known: bool = False
    checkpointing: bool = True


ROWS = (
    Row("TRL, its defaults", ours=False),
    Row("TRL, reference precomputed", ours=False, reference_known=True),
    Row("TRL, and no gradient checkpointing", ours=False, reference_known=True, checkpointing=False),
    Row("ours: padded, separate, whole logits", chunked_head=False, packing=False, shared_prompt=False),
    Row("+ chunked head", packing=False, shared_prompt=False),
    Row("+ packing", shared_prompt=False),
    Row("+ shared prompt"),
    Row("+ reference known (cache, sampler)", reference_known=True),
    Row("+ no gradient checkpointing", reference_known=True, checkpointing=False),
)


@dataclass(frozen=True)
class Plan:
    """What all rows have in common."""

    folder: Path
    model: Path
    world_size: int
    threads: int
    steps: int
    warmup: int
    precision: Literal["bf16", "fp32"]
    scale: float
    profile: bool
    pairs: list[Pair] = field(default_factory=list, repr=False)

    @property
    def max_length(self) -> int:
        """Tokens of a prompt with a response."""
        return int(MAX_LENGTH * self.scale)


class Marks:
    """When this rank had done how many steps, and what it had used by then."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self._device = device
        self._last = plan.steps
        self._profiled_from = plan.warmup if plan.profile else None
        self._profiler = torch.profiler.profile()
        self.held_at_start = anonymous_bytes(os.getpid())
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.reference_seconds = 0.0
        self.losses: list[float] = []
        self.peak = 0

    def step(self) -> None:
        """A step is done, or before the first is begun."""
        self.seconds.append(self._now())
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.cpu_seconds.append(used.ru_utime + used.ru_stime)
        if self._device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated()
        done = len(self.seconds) - 1
        if done == self._profiled_from:
            self._profiler.start()
        elif done == self._last and self._profiled_from is not None:
            self._profiler.stop()
            by = "self_cuda_time_total" if self._device.type == "cuda" else "self_cpu_time_total"
            print(self._profiler.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=60))

    def reference(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function; its time without gradients counts as that of the reference pass."""

        def timed(*arguments: Any, **more: Any) -> Any:
            begun = self._now()
            result = work(*arguments, **more)
            if not torch.is_grad_enabled():
                self.reference_seconds += self._now() - begun
            return result

        return timed

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()


def draw_pairs(count: int, scale: float, vocabulary: int) -> list[Pair]:
    """Pairs of random tokens with lengths like real ones, times `scale`."""
    draw = random.Random(SEED)
    longest = int(MAX_LENGTH * scale)

    def tokens(share: float, of: str, limit: int) -> list[int]:
        marks, values = LENGTHS["shares"], LENGTHS[of]
        above = next(i for i, mark in enumerate(marks) if share <= mark and i)
        part = (share - marks[above - 1]) / (marks[above] - marks[above - 1])
        length = values[above - 1] + part * (values[above] - values[above - 1])
        return [draw.randrange(2, vocabulary) for _ in range(min(limit, max(1, round(length * scale))))]

    pairs: list[Pair] = []
    for index in range(count):
        prompt = tokens(draw.random(), "prompt", longest // 2)
        common = draw.gauss(0, math.sqrt(LIKENESS))
        answers = [
            tokens(
                statistics.NormalDist().cdf(common + draw.gauss(0, math.sqrt(1 - LIKENESS))), "response", longest - len(prompt)
            )
            for _ in range(2)
        ]
        chosen, rejected = ({"text": "", "tokens": answer, "reward": 0.0} for answer in answers)
        pairs.append({"prompt_id": f"p{index}", "prompt": "", "prompt_tokens": prompt, "chosen": chosen, "rejected": rejected})  # type: ignore[typeddict-item]
    return pairs


def save_model(folder: Path, name: str, precision: str) -> None:
    """Random weights and a tokenizer of two tokens, which TRL wants to know the padding from."""
    from tokenizers import Tokenizer, models

    shape = dict(MODELS[name])
    config = AutoConfig.for_model(shape.pop("model_type"), **shape, bos_token_id=1, eos_token_id=1, pad_token_id=0)
    torch.manual_seed(SEED)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    from_config(config).to(dtype).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<eos>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(folder)


def from_config(config: Any) -> Any:
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]


def ours(row: Row, plan: Plan, ranks: Ranks, out: Path, marks: Marks) -> None:
    """Our trainer."""
    if not row.chunked_head:
        logprobs.CHUNK_ELEMENTS = sys.maxsize
    reading.PairReader.__call__ = marks.reference(reading.PairReader.__call__)  # type: ignore[method-assign]
    settings = DPO(
        beta=BETA,
        learning_rate=LEARNING_RATE,
        schedule="constant",
        warmup_ratio=0.0,
        epochs=1,
        batch_size=PAIRS_PER_RANK * plan.world_size,
        max_length=plan.max_length,
        max_prompt_length=plan.max_length // 2,
        precision=plan.precision,
        gradient_checkpointing=row.checkpointing,
    )
    trainer.train(
        settings,
        SimpleNamespace(path=str(plan.model), revision=None, attention="sdpa", trust_remote_code=False),
        plan.pairs,
        seed=SEED,
        out=out,
        work=out / "work",
        ranks=ranks,
        limits=Engine(
            micro_batch_tokens=max(64, int(Engine().micro_batch_tokens * plan.scale)),
            packing=row.packing,
            shared_prompt=row.shared_prompt,
            reference_logps="computed",
            checkpoint_minutes=1e6,
        ),
        reference_cache=plan.folder / "reference.safetensors" if row.reference_known else None,
        progress=lambda done, total: marks.step(),
        stop=lambda: False,
    )
    marks.losses = [json.loads(line)["loss"] for line in (out / "train_log.jsonl").read_text().splitlines()]


def trl(row: Row, plan: Plan, ranks: Ranks, out: Path, marks: Marks) -> None:
    """TRL's trainer: its defaults, but for the row's switches, the order of the pairs, and that nothing is saved on the way."""
    import datasets
    import deepspeed
    from torch.utils.data import SequentialSampler
    from transformers import AutoTokenizer, TrainerCallback
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class Timer(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            marks.step()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.step()

    class SameOrder(DPOTrainer):
        """Reads tokens in the order given."""

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return SequentialSampler(cast(Any, self.train_dataset))

        def compute_ref_log_probs(self, *arguments: Any) -> Any:
            with torch.no_grad():
                return marks.reference(super().compute_ref_log_probs)(*arguments)

        def compute_loss(self, *arguments: Any, **more: Any) -> Any:
            loss = super().compute_loss(*arguments, **more)  # type: ignore[no-untyped-call]
            marks.losses.append(self.accelerator.gather(loss.detach()).mean().item())
            return loss

    deepspeed.init_distributed()  # takes the process group that is there
    rows = out / "pairs.jsonl"  # from a file, since TRL cannot share log-probs of pairs in memory between ranks
    if ranks.rank == 0:
        with rows.open("w") as file:
            for index in epoch_order(len(plan.pairs), SEED, 0):
                pair = plan.pairs[index]
                sides = {f"{side}_ids": pair[side]["tokens"] for side in ("chosen", "rejected")}
                file.write(json.dumps({"prompt_ids": pair["prompt_tokens"], **sides}) + "\n")
        datasets.load_dataset("json", data_files=str(rows), split="train", cache_dir=str(out / "cache"))
    ranks.wait()
    auto = dict.fromkeys(("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"), "auto")
    zero = ("reduce_bucket_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold")
    on_gpu = ranks.device.type == "cuda"
    bf16 = plan.precision == "bf16"
    trained = SameOrder(
        str(plan.model),
        args=DPOConfig(
            output_dir=str(out),
            per_device_train_batch_size=PAIRS_PER_RANK,
            max_length=plan.max_length,
            beta=BETA,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            max_steps=plan.steps,
            bf16=bf16,
            precompute_ref_log_probs=row.reference_known,
            gradient_checkpointing=row.checkpointing,
            use_cpu=not on_gpu,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            deepspeed={
                **auto,
                "gradient_clipping": "auto",
                "bf16": {"enabled": bf16},
                "zero_allow_untested_optimizer": True,
                "zero_optimization": {
                    "stage": 3,
                    "overlap_comm": on_gpu,
                    "contiguous_gradients": True,
                    "stage3_gather_16bit_weights_on_model_save": True,
                    **dict.fromkeys(zero, "auto"),
                },
            },
        ),
        train_dataset=datasets.load_dataset("json", data_files=str(rows), split="train", cache_dir=str(out / "cache")),
        processing_class=AutoTokenizer.from_pretrained(plan.model),
        callbacks=[Timer()],
    )
    trained.train()
    trained.save_model(str(out / "model"))


def on_rank(rank: int, port: int, row: Row, plan: Plan, out: Path) -> None:
    """One process of a row."""
    if rank or not plan.profile:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    with distributed(rank, plan.world_size, rank, ("127.0.0.1", port), plan.threads) as ranks:
        marks = Marks(plan, ranks.device)
        (ours if row.ours else trl)(row, plan, ranks, out, marks)
        kept = {name: value for name, value in vars(marks).items() if not name.startswith("_")}
        (out / f"rank-{rank}.json").write_text(json.dumps(kept))
        ranks.wait()
    sys.stderr.flush()
    os._exit(0)  # the interpreter's own end is not always a clean one with DeepSpeed


def anonymous_bytes(process: int | None) -> int:
    """Memory of a process that is not of files, as Linux tells; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)
