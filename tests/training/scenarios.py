"""Real trainings on real ranks, for test_trainer.py: ``python -m tests.training.scenarios FOLDER``.

torch, transformers and DeepSpeed are imported once; every rank of every training is then forked off. Each scenario leaves what
training wrote in FOLDER/NAME/, and what it reported or raised in FOLDER/NAME/rank-R.json.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import random
import shutil
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from eva_hpc.config.recipe import Optimiser
from eva_hpc.store.records import Pair

SETTINGS = Optimiser(
    beta=0.5,
    learning_rate=1e-3,
    epochs=2,
    batch_size=6,
    warmup_ratio=0.2,
    weight_decay=0.1,
    max_grad_norm=0.5,
    max_length=40,
    max_prompt_length=24,
    precision="fp32",
    gradient_checkpointing=True,
)
SEED = 5


def random_pairs(count: int, vocabulary: int = 300) -> list[Pair]:
    """Pairs of random tokens, none too long for SETTINGS."""
    draw = random.Random(3)

    def tokens(shortest: int, longest: int) -> list[int]:
        return [draw.randrange(vocabulary) for _ in range(draw.randint(shortest, longest))]

    return [
        {
            "prompt_id": f"p{index}",
            "prompt": "",
            "prompt_tokens": tokens(1, 20),
            "chosen": {"text": "", "tokens": tokens(1, 15), "reward": 1.0},
            "rejected": {"text": "", "tokens": tokens(1, 15), "reward": 0.0},
        }
        for index in range(count)
    ]


PAIRS = random_pairs(20)
TOO_LONG: Pair = {**random_pairs(1)[0], "prompt_id": "long", "prompt_tokens": [1] * 25}


def _in_ranks(world_size: int, work: Callable[[int, int], None]) -> None:
    """Fork `world_size` processes and wait for them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(world_size):
        child = os.fork()
        if child == 0:
            try:
                work(rank, port)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    if any(os.waitpid(child, 0)[1] for child in children):
        sys.exit("a rank failed")


def training(
    folder: Path,
    model: Path,
    *,
    world_size: int,
    micro_batch: int,
    pairs: list[Pair] = PAIRS,
    settings: Optimiser = SETTINGS,
    cache: Path | None = None,
    stop: Callable[[int, int], bool] = lambda rank, calls: False,
) -> None:
    """One call of `train` on every rank. `stop` gets the rank and how often it was asked before."""
    from eva_hpc.training.distributed import distributed
    from eva_hpc.training.trainer import train

    def work(rank: int, port: int) -> None:
        asked = 0

        def asked_to_stop() -> bool:
            nonlocal asked
            asked += 1
            return stop(rank, asked - 1)

        outcome: dict[str, Any]
        with distributed(rank, world_size, rank, ("127.0.0.1", port), 1) as ranks:
            try:
                report = train(
                    settings,
                    SimpleNamespace(path=str(model), revision=None, attention="sdpa", trust_remote_code=False),
                    pairs,
                    seed=SEED,
                    out=folder,
                    work=folder / "work",
                    ranks=ranks,
                    micro_batch=micro_batch,
                    checkpoint_minutes=60,
                    reference_cache=cache,
                    progress=lambda done, total: None,
                    stop=asked_to_stop,
                )
                outcome = dataclasses.asdict(report)
            except Exception as error:
                traceback.print_exc()
                outcome = {"raised": type(error).__name__, "message": str(error)}
        (folder / f"rank-{rank}.json").write_text(json.dumps(outcome))

    folder.mkdir(parents=True, exist_ok=True)
    _in_ranks(world_size, work)


def main(folder: Path) -> None:
    """All scenarios."""
    from eva_hpc.training import trainer  # noqa: F401  imported here, it need not be imported in every rank
    from tests.tiny_models import tiny_policy

    gc.collect()
    gc.freeze()
    llama, gemma = folder / "llama", folder / "gemma2"
    _in_ranks(1, lambda rank, port: (tiny_policy(llama, "llama"), tiny_policy(gemma, "gemma2"))[0] and None)

    training(folder / "two_ranks", llama, world_size=2, micro_batch=2, pairs=[*PAIRS, TOO_LONG], cache=folder / "cache")
    training(
        folder / "one_rank",
        llama,
        world_size=1,
        micro_batch=4,
        settings=SETTINGS.model_copy(update={"gradient_checkpointing": False}),
    )

    # Stopped by rank 1 alone, while the reference is computed and after the third step; then a torn log.
    resumed = folder / "resumed"
    training(resumed, llama, world_size=2, micro_batch=2, stop=lambda rank, calls: rank == 1 and calls == 1)
    shutil.copytree(resumed, folder / "stopped_in_reference")
    training(resumed, llama, world_size=2, micro_batch=2, stop=lambda rank, calls: rank == 1 and calls == 3)
    shutil.copytree(resumed, folder / "stopped")
    with (resumed / "train_log.jsonl").open("a") as log:
        log.write('{"step":4,"loss":9.9}\n{"step":5,"lo')
    training(resumed, llama, world_size=2, micro_batch=2)

    # Its checkpoint is of two ranks.
    shutil.copytree(folder / "stopped", folder / "fewer_ranks")
    training(folder / "fewer_ranks", llama, world_size=1, micro_batch=4)

    few = SETTINGS.model_copy(update={"epochs": 1, "batch_size": 4})
    training(folder / "gemma2_trained", gemma, world_size=2, micro_batch=1, pairs=PAIRS[:7], settings=few)
    training(folder / "stale_reference", gemma, world_size=2, micro_batch=1, settings=few, cache=folder / "cache")
    half = few.model_copy(update={"precision": "bf16"})
    training(folder / "bf16", llama, world_size=2, micro_batch=1, pairs=PAIRS[:7], settings=half)
    training(folder / "no_pairs", llama, world_size=1, micro_batch=1, pairs=[TOO_LONG])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
