"""Real trainings with the engine's switches, for test_engine.py: ``python -m tests.training.engine_scenarios FOLDER``."""

from __future__ import annotations

import dataclasses
import gc
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eva_hpc.config.optimiser import DPO, SPPO, Lora
from eva_hpc.config.site import Engine
from tests.training.scenarios import FEW, LOSSES, PAIRS, Training, _in_ranks, limits, source, trainings

FULL = DPO(**FEW | {"weight_decay": 0.1}, beta=0.5)
LORA = DPO(**FEW | {"learning_rate": 2e-3, "steps": 6}, beta=0.5, lora=Lora(rank=4, alpha=8))
FEW_PAIRS = PAIRS[:7]
FILE_BYTES = 100_000
"""Of the export in several files: more than any tensor of the tiny models."""


def exports(folder: Path, model: Path, lora: Lora | None) -> None:
    """On two ranks, what :func:`export` writes and what DeepSpeed gathers, in FOLDER: one file or several, and whole.pt."""
    import torch

    from eva_hpc.training.distributed import distributed
    from eva_hpc.training.engine import load
    from eva_hpc.training.export import export

    folder.mkdir(parents=True)

    def work(rank: int, port: int) -> None:
        with distributed(rank, 2, rank, ("127.0.0.1", port), 1) as ranks:
            settings = FULL.model_copy(update={"lora": lora})
            engine = load(settings, source(model), ranks, Engine())
            export(engine, source(model), folder / "one" / "model", ranks)
            export(engine, source(model), folder / "several" / "model", ranks, FILE_BYTES)
            whole = engine._zero3_consolidated_16bit_state_dict()
            if rank == 0:
                torch.save(whole, folder / "whole.pt")

    (folder / "one").mkdir()
    (folder / "several").mkdir()
    _in_ranks(2, work)


def memory(folder: Path) -> None:
    """Leaves in memory/ a model, and by how much each of four ranks grew to load and export it.

    Counted is memory of the process itself, not pages of mapped files, which the system can drop.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from eva_hpc.training.distributed import distributed
    from eva_hpc.training.engine import load
    from eva_hpc.training.export import export

    model = folder / "wide"
    shape = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 12, "num_attention_heads": 8}

    def make(rank: int, port: int) -> None:
        AutoModelForCausalLM.from_config(
            AutoConfig.for_model("llama", vocab_size=400, **shape), dtype=torch.float32
        ).save_pretrained(model)

    def measure(rank: int, port: int) -> None:
        with distributed(rank, 4, rank, ("127.0.0.1", port), 1) as ranks:
            held: list[Any] = []
            loading = most_used(lambda: held.append(load(FULL, source(model), ranks, Engine())))
            exporting = most_used(lambda: export(held[0], source(model), folder / "memory" / "model", ranks, 20_000_000))
        (folder / "memory" / f"rank-{rank}.json").write_text(json.dumps({"loading": loading, "exporting": exporting}))

    (folder / "memory").mkdir()
    _in_ranks(1, make)
    _in_ranks(4, measure)


def most_used(work: Callable[[], object]) -> int:
    """By how many bytes the memory of this process grew at most during `work`."""

    def used() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))

    seen = [before := used()]
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.append(used())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return max(seen) - before


def speeds(folder: Path) -> None:
    """Two ranks that log two steps, fall over, and do the second again."""
    from eva_hpc.training.distributed import distributed
    from eva_hpc.training.speed_log import SpeedLog

    def work(rank: int, port: int) -> None:
        with distributed(rank, 2, rank, ("127.0.0.1", port), 1) as ranks:
            log = SpeedLog(folder / "speed.jsonl", ranks)
            log.step(step=1, pairs=2 + rank, tokens=50, computed_tokens=60, flops=1e9)
            log.step(step=2, pairs=9, tokens=9, computed_tokens=9, flops=None)
            time.sleep(0.05 * rank)  # the other waits
            log = SpeedLog(folder / "speed.jsonl", ranks, done=1)
            log.step(step=2, pairs=1, tokens=30 * rank, computed_tokens=30, flops=None if rank else 1.0)

    _in_ranks(2, work)


def refused(folder: Path, model: Path) -> None:
    """Leaves in refused.json what :func:`load` says to settings that do not go with the ranks or the policy."""
    from eva_hpc.training.distributed import distributed
    from eva_hpc.training.engine import load

    messages = []
    with distributed(0, 1, 0, None, 1) as ranks:
        for settings, engine in (
            (FULL, Engine(hpz_ranks=2)),
            (FULL.model_copy(update={"lora": Lora(targets=("q_proj", "w_proj"))}), Engine()),
            (FULL.model_copy(update={"lora": Lora(targets=("lm_head",))}), Engine()),
            (FULL.model_copy(update={"lora": Lora(targets=("embed_tokens",))}), Engine()),
        ):
            try:
                load(settings, source(model), ranks, engine)
            except ValueError as error:
                messages.append(str(error))
    (folder / "refused.json").write_text(json.dumps(messages))


def main(folder: Path) -> None:
    """All scenarios."""
    from eva_hpc.training import trainer  # noqa: F401  imported here, it need not be imported in every rank
    from tests.tiny_models import tiny_policy

    gc.collect()
    gc.freeze()
    llama, gemma = folder / "llama", folder / "gemma2"
    _in_ranks(1, lambda rank, port: (tiny_policy(llama, "llama"), tiny_policy(gemma, "gemma2"))[0] and None)

    def one(name: str, model: Path, settings: Any, **arguments: Any) -> Training:
        switches = arguments.pop("switches", {})
        return Training(folder / name, model, limits(64, **switches), FEW_PAIRS, settings, **arguments)

    sppo = LOSSES["sppo"]
    assert isinstance(sppo, SPPO)
    stopped = one("lora_resumed", llama, LORA, stop=lambda rank, calls: rank == 1 and calls == 4)
    trainings(
        2,
        one("adamw", llama, FULL),
        one("adamw_optimiser", llama, FULL, switches={"offload": "optimiser"}),
        one("adamw_all", llama, FULL, switches={"offload": "all"}, reference=llama),
        one("lora_hpz", llama, LORA, switches={"hpz_ranks": 2}),
        one("lora_all", llama, LORA, switches={"offload": "all"}),
        one("rmsprop", llama, sppo),
        one("rmsprop_all", llama, sppo, switches={"offload": "all"}),
        one("lora", llama, LORA),
        one("lora_gemma2", gemma, LORA.model_copy(update={"gradient_checkpointing": True, "rule": "rmsprop"})),
        one("lora_bf16", llama, LORA.model_copy(update={"precision": "bf16"})),
        one("lora_some", llama, LORA.model_copy(update={"lora": Lora(targets=("q_proj", "mlp.up_proj"))})),
        stopped,
    )
    # The reference is an engine of its own before the one that is trained.
    trainings(4, one("adamw_hpz", llama, FULL, switches={"hpz_ranks": 2}, reference=llama))
    trainings(2, dataclasses.replace(stopped, stop=lambda rank, calls: False))
    exports(folder / "export_llama", llama, None)
    exports(folder / "export_gemma2", gemma, Lora())
    _in_ranks(1, lambda rank, port: refused(folder, llama))
    memory(folder)
    speeds(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
